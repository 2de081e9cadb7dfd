"""One thread that scores, the queue before it (what several sessions ask at one time is scored as one batch), and what
Prometheus reads of both and of requests."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eval.reward.scorer import Reward, Scorer
from eval.reward.stream import Moment
from eval.runners.prompt import apart
from eval.server.limits import Refused, ServerLimits

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Of one application; `endpoint` is a route's pattern, so that there are few."""

    def __init__(self, sessions: Callable[[], int], waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        seen = {"registry": self.registry, "namespace": "proccorpus_reward"}
        self.requests = Counter("requests", "Requests answered.", ["endpoint", "method", "status"], **seen)
        self.seconds = Histogram(
            "request_seconds", "From a request's head to the end of its answer.", ["endpoint"], buckets=SECONDS, **seen
        )
        self.frames = Counter("frames", "Moments scored.", **seen)
        self.failures = Counter("failures", "Moments for which there was no number.", **seen)
        self.batch = Histogram("batch_size", "Moments scored at once.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), **seen)
        self.scoring = Histogram("scoring_seconds", "Seconds that a batch took.", buckets=SECONDS, **seen)
        self.expired = Counter("sessions_expired", "Sessions forgotten because nobody used them.", **seen)
        Gauge("sessions", "Sessions open now.", **seen).set_function(sessions)
        Gauge("waiting", "Moments that wait to be scored or are scored now.", **seen).set_function(waiting)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        endpoint = getattr(route, "path", "other")
        self.requests.labels(endpoint, scope["method"] if route else "other", str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)

    def page(self) -> bytes:
        return generate_latest(self.registry)


class RequestMetrics:
    """ASGI middleware that counts and times each request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            self.metrics.observe(scope, status, time.perf_counter() - started)


class Batcher:
    """Scores moments in order of arrival, at most `max_batch` at once, on one thread of its own.

    A batch is begun when it is full or `collect_s` after its first moment came; while one is scored, the next gathers.
    Where the scorer fails as a whole, the batch is halved until what fails stands alone; that becomes a failed reward.
    """

    def __init__(self, scorer: Scorer, limits: ServerLimits, metrics: Metrics) -> None:
        self.scorer, self.limits, self.metrics = scorer, limits, metrics
        self.taken, self.pixels = 0, 0  # moments that wait or are scored, and pixels of their pictures
        self._waiting: deque[tuple[Moment, asyncio.Future[Reward]]] = deque()
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "scoring")

    @contextmanager
    def places(self, moments: int, pixels: int) -> Iterator[None]:
        """Hold places of the bounded queue, before pictures are decoded. Raises Refused (503) if there are not enough;
        a request that is alone always gets its own."""
        limits = self.limits
        full = self.taken + moments > limits.max_waiting or self.pixels + pixels > limits.max_pixels_waiting
        if self.taken and full:
            raise Refused(503, "busy", f"{self.taken} frames are waiting to be scored; try again", 1)
        self.taken += moments
        self.pixels += pixels
        try:
            yield
        finally:
            self.taken -= moments
            self.pixels -= pixels

    async def submit(self, moments: Sequence[Moment]) -> list[Reward]:
        """Results in the order of the moments."""
        futures = [asyncio.get_running_loop().create_future() for _ in moments]
        self._waiting.extend(zip(moments, futures, strict=True))
        self._more.set()
        return list(await asyncio.gather(*futures))

    async def run(self) -> None:
        """Scores until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._more.wait()
            # A batch that is not full waits a little for moments of other sessions.
            if len(self._waiting) < self.limits.max_batch:
                await asyncio.sleep(self.limits.collect_s)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self.limits.max_batch))]
            if not self._waiting:
                self._more.clear()
            # On the scoring thread, so that the event loop takes the requests of the next batch meanwhile.
            results = await loop.run_in_executor(self._thread, self._scored, [w for w, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():  # whoever waited for it was cancelled
                    future.set_result(result)

    def close(self) -> None:
        self._thread.shutdown()

    def _scored(self, moments: Sequence[Moment]) -> list[Reward]:
        begun = time.perf_counter()
        rewards = apart(moments, self.scorer.score, lambda _, why: Reward(self.scorer.source, None, failure=why))
        self.metrics.scoring.observe(time.perf_counter() - begun)
        self.metrics.batch.observe(len(moments))
        self.metrics.frames.inc(len(moments))
        self.metrics.failures.inc(sum(r.progress is None for r in rewards))
        return rewards
