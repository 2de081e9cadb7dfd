"""Live runs on the server: each has a stream, whose kept pictures are bounded by the model's window. And the one thread
that scores: what several sessions ask at one time is scored as one batch; with what Prometheus reads of all this."""

import asyncio
import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eval.reward.scorer import Reward, Scorer
from eval.reward.stream import Moment, Stream
from eval.reward.video import reward_row
from eval.runners.prompt import answers_by_halves
from eval.server.limits import Refused, ServerLimits
from eval.server.protocol import RewardRow, SessionInfo

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Of one application; `endpoint` is a route's pattern, so that there are few."""

    def __init__(self, sessions: Callable[[], int], waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        common = {"registry": self.registry, "namespace": "proccorpus_reward"}
        self.requests = Counter(
            "requests", "Requests answered.", ["endpoint", "method", "status"], **common
        )
        self.seconds = Histogram(
            "request_seconds",
            "From a request's head to the end of its answer.",
            ["endpoint"],
            buckets=SECONDS,
            **common,
        )
        self.frames = Counter("frames", "Moments scored.", **common)
        self.failures = Counter("failures", "Moments for which there was no number.", **common)
        self.batch = Histogram(
            "batch_size", "Moments scored at once.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), **common
        )
        self.scoring = Histogram(
            "scoring_seconds", "Seconds that a batch took.", buckets=SECONDS, **common
        )
        self.expired = Counter(
            "sessions_expired", "Sessions forgotten because nobody used them.", **common
        )
        Gauge("sessions", "Sessions open now.", **common).set_function(sessions)
        Gauge(
            "waiting", "Moments that wait to be scored or are scored now.", **common
        ).set_function(waiting)

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
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

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
        self.scorer = scorer
        self.limits = limits
        self.metrics = metrics
        self.taken = 0  # moments that wait or are scored
        self.pixels = 0  # of their pictures
        self._waiting: deque[tuple[Moment, asyncio.Future[Reward]]] = deque()
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "scoring")

    @contextmanager
    def places(self, moments: int, pixels: int) -> Iterator[None]:
        """Hold places of the bounded queue, before pictures are decoded. Raises Refused (503) if there are not enough;
        a request that is alone always gets its own."""
        limits = self.limits
        full = (
            self.taken + moments > limits.max_waiting
            or self.pixels + pixels > limits.max_pixels_waiting
        )
        if self.taken and full:
            raise Refused(
                503, "busy", f"{self.taken} frames are waiting to be scored; try again", 1
            )
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
            batch = [
                self._waiting.popleft()
                for _ in range(min(len(self._waiting), self.limits.max_batch))
            ]
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
        start_s = time.perf_counter()
        rewards = answers_by_halves(
            moments, self.scorer.score, lambda _, why: Reward(self.scorer.source, None, failure=why)
        )
        self.metrics.scoring.observe(time.perf_counter() - start_s)
        self.metrics.batch.observe(len(moments))
        self.metrics.frames.inc(len(moments))
        self.metrics.failures.inc(sum(r.progress is None for r in rewards))
        return rewards


@dataclass(eq=False)
class Append:
    """One request's frames. Equal `first` and `digest` are the same request, sent again."""

    first: int
    digest: bytes
    rows: asyncio.Task[list[RewardRow]]


@dataclass(eq=False)
class ServerSession:
    id: str
    stream: Stream
    used: float = field(default_factory=time.monotonic)
    last: Append | None = None
    progress: float | None = None  # of the last frame that had one

    @property
    def kept_bytes(self) -> int:
        """Of the pictures that it keeps, with what the model made of each, when it has as many as its window reaches
        back."""
        moment = sum(p.nbytes for p in self.stream.first.values())
        return moment * (2 + self.stream.window.reach(self.stream.fps)) + sum(
            g.nbytes for g in self.stream.goal.values()
        )

    @property
    def is_busy(self) -> bool:
        return self.last is not None and not self.last.rows.done()

    def repeated(self, first: int, digest: bytes) -> Append | None:
        """The request that this one repeats, if it succeeded or is under way; where it failed, it may be made anew.

        Raises Refused (409) for frames out of turn.
        """
        last = self.last
        # A client whose answer was lost asks again: it gets the first request's rows, and no frame is taken twice.
        if last is not None and (last.first, last.digest) == (first, digest):
            failed = last.rows.done() and (
                last.rows.cancelled() or last.rows.exception() is not None
            )
            if not failed:
                return last
        if self.is_busy:
            raise Refused(
                409,
                "session_busy",
                "the frames before these are being scored: wait for their answer",
            )
        if first != self.stream.appended:
            raise Refused(
                409, "out_of_turn", f"the next frame is number {self.stream.appended}, not {first}"
            )
        return None

    def rows(
        self, moments: Sequence[Moment], rewards: Sequence[Reward], latency_s: float
    ) -> list[RewardRow]:
        """What was scored, in order; keeps the last progress."""
        new_rows = reward_rows(moments, rewards, latency_s, self.progress)
        self.progress = next(
            (r.progress for r in reversed(new_rows) if r.progress is not None), self.progress
        )
        return new_rows

    def info(self, limits: ServerLimits) -> SessionInfo:
        stream = self.stream
        return SessionInfo(
            session=self.id,
            task=stream.task,
            cameras=list(stream.cameras),
            fps=stream.fps,
            frames=stream.appended,
            expires_after_s=limits.session_idle_s,
        )


def reward_rows(
    moments: Sequence[Moment],
    rewards: Sequence[Reward],
    latency_s: float,
    former_progress: float | None = None,
) -> list[RewardRow]:
    """Rows with their deltas; `former_progress`: the last progress before these."""
    rows = []
    for m, r in zip(moments, rewards, strict=True):
        if r.progress is None or former_progress is None:
            delta = None
        else:
            delta = r.progress - former_progress
        former_progress = former_progress if r.progress is None else r.progress
        fields = reward_row(m.frame_index, m.timestamp_s, r, latency_s, reasoning=True)
        rows.append(RewardRow(delta=delta, **fields))
    return rows


class Sessions:
    """All of them; those that nobody uses for `session_idle_s` are forgotten."""

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self._all: dict[str, ServerSession] = {}

    def __len__(self) -> int:
        return len(self._all)

    def open(self, stream: Stream) -> ServerSession:
        """Raises Refused (503)."""
        if len(self._all) >= self.limits.max_sessions:
            idle_s = time.monotonic() - min(s.used for s in self._all.values())
            wait = max(1, round(self.limits.session_idle_s - idle_s))
            raise Refused(
                503,
                "sessions_full",
                f"all {self.limits.max_sessions} sessions are taken; try again",
                wait,
            )
        session = ServerSession(secrets.token_urlsafe(16), stream)
        self._all[session.id] = session
        return session

    def check_memory(self) -> None:
        """Raises Refused (503) where there is no room for the pictures of one more session."""
        if sum(s.kept_bytes for s in self._all.values()) > self.limits.max_kept_bytes:
            raise Refused(
                503,
                "memory",
                "the sessions keep too many pictures: send smaller ones, or fewer a second",
                60,
            )

    def get(self, name: str) -> ServerSession:
        """Raises Refused (404). The session counts as used now."""
        session = self._all.get(name)
        if session is None:
            raise Refused(
                404,
                "no_session",
                f"no such session: it was closed, or not used for {self.limits.session_idle_s:g} s",
            )
        session.used = time.monotonic()
        return session

    def close(self, name: str) -> None:
        self.get(name)
        del self._all[name]

    def expire(self) -> int:
        """Forget the idle ones; how many."""
        latest = time.monotonic() - self.limits.session_idle_s
        idle = [s for s in self._all.values() if s.used < latest and not s.is_busy]
        for session in idle:
            del self._all[session.id]
        return len(idle)


def digest_of(pictures: Sequence[bytes], metadata: object) -> bytes:
    """Of a request's content."""
    h = hashlib.sha256(repr(metadata).encode())
    for data in pictures:
        h.update(len(data).to_bytes(8) + data)
    return h.digest()
