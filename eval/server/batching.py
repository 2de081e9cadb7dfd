"""One thread that scores, and the queue before it: what several sessions ask at one time is scored as one batch."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from eval.reward.scorer import Reward, Scorer
from eval.reward.stream import Moment
from eval.runners.prompt import apart
from eval.server.limits import Refused, ServerLimits
from eval.server.metrics import Metrics


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
