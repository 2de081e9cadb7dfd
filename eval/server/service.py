"""What the endpoints of the reward server do: frames are decoded in some threads, scored in one, never twice.

While a part of a whole run is scored, the next is made ready.
"""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import batched, chain, pairwise, product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from fastapi import FastAPI

from core.cores import cores
from core.wall import Walled
from eval.reward.scorer import Reward, Scorer
from eval.reward.stream import Moment, RewardError, Stream, StreamPicture
from eval.reward.video import clip_moments, clip_stream
from eval.server.chat import RunOptions
from eval.server.limits import DECODERS, Refused, ServerLimits, decode_picture, size_of
from eval.server.protocol import RewardRow, RobotRow
from eval.server.sessions import (
    Append,
    Batcher,
    Metrics,
    ServerSession,
    Sessions,
    digest_of,
    reward_rows,
)
from eval.server.videos import WalledVideos, check_videos
from ingest.reasons import Limits as DecodingLimits

NOT_READ = 499  # of answers whose client has gone, in the metrics
MOST_WORKERS = 16  # threads that decode pictures and cut them into patches
WATCH_S = 0.25  # between two looks at whether a client is still there
MAX_KEPT = 600  # frames that a session may have to keep for its windows
VIDEO_S = 60.0  # CPU that a video may take, and as much again for each MB of it
EXPIRY_S = 5.0  # at most between two looks for idle sessions
FrameMetadata = Mapping[str, Any]  # of a moment, as Stream.append has it
Gone = Callable[[], Awaitable[bool]]  # has the client closed the connection?


@contextmanager
def refusing() -> Iterator[None]:
    """What the reward core cannot do is the request's fault."""
    try:
        yield
    except RewardError as e:
        raise Refused(422, "not_scorable", str(e)) from e


async def _watch(has_gone: Gone, given_up: threading.Event) -> None:
    """Tell the threads that work for a client when it has gone."""
    while not await has_gone():
        await asyncio.sleep(WATCH_S)
    given_up.set()


async def _next_part(parts: AsyncIterator[Sequence[Moment]]) -> Sequence[Moment]:
    """Empty where there is no further one."""
    async for part in parts:
        return part
    return ()


class Service:
    """What the endpoints share: the scorer, the queue before it, the sessions."""

    def __init__(self, scorer: Scorer, names: list[str], limits: ServerLimits) -> None:
        self.scorer = scorer
        self.name = names[0]
        self.names = names
        self.limits = limits
        self.sessions = Sessions(limits)
        self.metrics = Metrics(lambda: len(self.sessions), lambda: self.batcher.taken)
        self.batcher = Batcher(scorer, limits, self.metrics)
        self.workers = min(MOST_WORKERS, max(4, cores()))
        self.decoders = ThreadPoolExecutor(self.workers, "decoding")
        self.work: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        self.work = [asyncio.create_task(self.batcher.run()), asyncio.create_task(self._expire())]
        with DECODERS.one():
            pass  # so that the first picture does not wait for it
        try:
            yield
        finally:
            for task in self.work:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*self.work)
            self.batcher.close()
            self.decoders.shutdown()
            DECODERS.close()

    @property
    def is_ready(self) -> bool:
        return bool(self.work) and not any(t.done() for t in self.work)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(min(EXPIRY_S, self.limits.session_idle_s / 2))
            self.metrics.expired.inc(self.sessions.expire())

    async def in_thread[T](self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.decoders, work, *args)

    def stream(
        self, task: str, fps: float, steps: Sequence[str], cameras: Sequence[str], **options: Any
    ) -> Stream:
        """Raises Refused (422)."""
        with refusing():
            stream = self.scorer.stream(task, fps, steps, cameras=tuple(cameras), **options)
        if (num_kept := stream.window.reach(fps)) > MAX_KEPT:
            raise Refused(
                422,
                "not_scorable",
                f"at {fps:g} fps a window reaches back {num_kept} frames: send fewer",
            )
        return stream

    async def goal(self, pictures: Mapping[str, bytes]) -> dict[str, np.ndarray]:
        """Raises Refused."""
        return {
            c: await self.in_thread(decode_picture, d, self.limits.max_pixels, f"goal of {c}")
            for c, d in pictures.items()
        }

    async def appended(
        self,
        session: ServerSession,
        data: Sequence[bytes],
        first_frame: int | None = None,
        timestamps_s: Sequence[float] | None = None,
        robots: Sequence[RobotRow] | None = None,
    ) -> list[RewardRow]:
        """Rows of a session's next frames, or of the request that this one repeats. Raises Refused."""
        metadata = frame_metadata(
            len(data), len(session.stream.cameras), self.limits, timestamps_s, robots
        )
        first = session.stream.appended if first_frame is None else first_frame
        digest = digest_of(data, metadata)
        request = session.repeated(first, digest)
        if request is None:
            rows = asyncio.create_task(self._append(session, data, metadata))
            request = session.last = Append(first, digest, rows)
        # Shielded: if the client goes, scoring goes on, and the same request may ask for its rows again
        return await asyncio.shield(request.rows)

    async def _append(
        self, session: ServerSession, data: Sequence[bytes], metadata: Sequence[FrameMetadata]
    ) -> list[RewardRow]:
        """Rows of a session's next frames. Raises Refused; the session is then as it was."""
        stream = session.stream
        # With its first frames a session begins to keep pictures: then there has to be room for them
        if not stream.appended:
            self.sessions.check_memory()
        # Places come before decoding, since it is decoded pictures that fill the memory
        sizes = await self.in_thread(self._sizes, data)
        with self.batcher.places(len(data) // len(stream.cameras), sum(sizes)):
            moments = await self._taken(stream, data, metadata, 0)
            start_s = perf_counter()
            rewards = await self.batcher.submit(moments)
            return session.rows(moments, rewards, perf_counter() - start_s)

    async def score_frames(
        self,
        stream: Stream,
        data: Sequence[bytes],
        has_gone: Gone,
        metadata: Sequence[FrameMetadata],
    ) -> list[RewardRow]:
        """Rows of a whole run, for a client that may be gone meanwhile. Raises Refused."""
        step = self.limits.max_batch * len(stream.cameras)
        sizes = await self.in_thread(self._sizes, data)
        chunks = [range(start, min(start + step, len(data))) for start in range(0, len(data), step)]
        # One part is scored while the next is made ready
        pixels = [sum(sizes[i] for i in chunk) for chunk in chunks]
        max_pixels = max(map(sum, pairwise([*pixels, 0])))

        async def parts() -> AsyncIterator[Sequence[Moment]]:
            for chunk in chunks:
                chunk_data = data[chunk.start : chunk.stop]
                first_frame = chunk.start // len(stream.cameras)
                yield await self._taken(stream, chunk_data, metadata[first_frame:], chunk.start)

        with self.batcher.places(min(2, len(chunks)) * self.limits.max_batch, max_pixels):
            return await self._in_turn(parts(), has_gone)

    async def score_run(
        self, task: str, data: Sequence[bytes], run: RunOptions, has_gone: Gone
    ) -> Sequence[Reward | RewardRow]:
        """The reward of a run's last moment and, for a trend, of its first. Raises Refused."""
        metadata = frame_metadata(len(data), len(run.cameras), self.limits, None, run.robots)
        window = self.scorer.window
        is_trend = run.reply == "trend"
        # Pictures whose rate is not told lie as far apart as those that the model was trained on
        fps = run.fps or (
            self.scorer.usual_fps if window is None or window.step_s is None else 1 / window.step_s
        )
        if self.scorer.follows:
            stream = self.stream(task, fps, run.steps, run.cameras)
            rows = await self.score_frames(stream, data, has_gone, metadata)
            return [rows[-1], *rows[: int(is_trend)]]
        # A trend is told from the first moment, which is a run of its own
        runs = [data, data[: len(run.cameras)]] if is_trend else [data]
        streams = [self.stream(task, fps, run.steps, run.cameras, rule=run.views) for _ in runs]
        return await asyncio.gather(
            *(self.score_last(s, d, has_gone) for s, d in zip(streams, runs, strict=True))
        )

    async def score_last(self, stream: Stream, data: Sequence[bytes], has_gone: Gone) -> Reward:
        """The reward of a run's last moment: the number of `/v1/frames`, with only those pictures decoded that it is
        read from. Raises Refused."""
        cameras = len(stream.cameras)
        count = len(data) // cameras
        needed = product(stream.frames_for_last(count), range(cameras))
        places = [frame * cameras + camera for frame, camera in needed]
        sizes = await self.in_thread(self._sizes, data)
        with self.batcher.places(1, sum(sizes[i] for i in places)):
            decoded = await self._in_parts(
                lambda i: self._picture(stream, data[places[i]], places[i]), len(places)
            )
            pictures = dict(zip(places, map(StreamPicture, decoded), strict=True))
            moment = stream.last_moment(
                count, lambda f, c: pictures[f * cameras + stream.cameras.index(c)]
            )
            await self._make_ready([moment])
            if await has_gone():
                raise Refused(NOT_READ, "gone", "the client has closed the connection")
            (reward,) = await self.batcher.submit([moment])
            return reward

    async def score_video(
        self,
        task: str,
        fps: float | None,
        steps: Sequence[str],
        paths: Mapping[str, Path],
        has_gone: Gone,
    ) -> list[RewardRow]:
        """Rows of a video per camera, for a client that may be gone meanwhile. Raises Refused."""
        given_up = threading.Event()
        watching = asyncio.create_task(_watch(has_gone, given_up))
        server_limits = {
            "max_pixels": self.limits.max_pixels,
            "max_frames": self.limits.max_video_frames,
        }
        bounds = DecodingLimits(**server_limits, max_cpu_s=VIDEO_S, max_cpu_s_per_mb=VIDEO_S)
        try:
            with refusing(), Walled(bounds.max_memory_bytes, WalledVideos.__module__) as process:
                videos = WalledVideos(process, paths, bounds, given_up.is_set)
                clip = await self.in_thread(videos.clip)
                pixels = await self.in_thread(check_videos, videos, clip, self.limits)
                fps = min(self.scorer.usual_fps, clip.fps) if fps is None else fps
                with self.batcher.places(
                    2 * self.limits.max_batch, 2 * self.limits.max_batch * pixels
                ):
                    stream = await self.in_thread(clip_stream, self.scorer, clip, task, fps, steps)
                    chunks = batched(clip_moments(stream, clip), self.limits.max_batch)

                    async def parts() -> AsyncIterator[Sequence[Moment]]:
                        while moments := await self.in_thread(lambda: next(chunks, ())):
                            await self._make_ready(moments)
                            yield moments

                    return await self._in_turn(parts(), has_gone, given_up)
        # Also where the server ends and cancels this: a thread may be decoding
        finally:
            given_up.set()
            watching.cancel()

    async def _in_turn(
        self,
        parts: AsyncIterator[Sequence[Moment]],
        has_gone: Gone,
        given_up: threading.Event | None = None,
    ) -> list[RewardRow]:
        """Score the parts of a run in turn. Each is made ready while the one before it is scored, so memory does not
        grow with the run; none is scored for a client that has gone."""
        rows: list[RewardRow] = []
        next_part = asyncio.create_task(_next_part(parts))
        try:
            while part := await asyncio.shield(next_part):
                next_part = asyncio.create_task(_next_part(parts))
                start_s = perf_counter()
                former_progress = next(
                    (r.progress for r in reversed(rows) if r.progress is not None), None
                )
                if await has_gone():
                    raise Refused(NOT_READ, "gone", "the client has closed the connection")
                rewards = await self.batcher.submit(part)
                rows += reward_rows(part, rewards, perf_counter() - start_s, former_progress)
        finally:
            # A decoder ends at its next frame; the file that it reads is removed after this
            if given_up is not None:
                given_up.set()
            await asyncio.wait([next_part])
            if not next_part.cancelled():
                next_part.exception()
        return rows

    def _sizes(self, data: Sequence[bytes]) -> list[int]:
        """Pixels of each picture by its header. Raises Refused."""
        return [size_of(d, self.limits.max_pixels, f"picture {i}") for i, d in enumerate(data)]

    async def _taken(
        self,
        stream: Stream,
        data: Sequence[bytes],
        metadata: Sequence[FrameMetadata],
        first: int,
    ) -> list[Moment]:
        """Frames taken in by a stream, and made ready to be scored. All are decoded before the first one is taken in: a
        refused request leaves no trace."""
        decoded = await self._in_parts(
            lambda i: self._picture(stream, data[i], first + i), len(data)
        )
        moments = _appended(stream, decoded, metadata)
        await self._make_ready(moments)
        return moments

    async def _make_ready(self, moments: Sequence[Moment]) -> None:
        if (make_ready := self.scorer.make_ready) is None:
            return
        views = chain.from_iterable(moment.views.values() for moment in moments)
        pictures = list({id(picture): picture for picture in chain.from_iterable(views)}.values())

        # What a picture cannot be made ready for, its scoring will say: nothing is lost here
        def ready(i: int) -> None:
            with suppress(Exception):
                make_ready(pictures[i])

        await self._in_parts(ready, len(pictures))

    async def _in_parts[T](self, work: Callable[[int], T], count: int) -> list[T]:
        """work(0), work(1), ... in order, in parts side by side; half of the threads are left to
        other requests."""
        num_parts = max(1, self.workers // 2)
        size = max(1, math.ceil(count / num_parts))
        parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
        running = (self.in_thread(lambda part=part: [work(i) for i in part]) for part in parts)
        results = await asyncio.gather(*running, return_exceptions=True)
        # Raised when all have ended: none works on for a request that was refused
        items: list[T] = []
        for part in results:
            if isinstance(part, BaseException):
                raise part
            items += part
        return items

    def _picture(self, stream: Stream, data: bytes, number: int) -> np.ndarray:
        """As the model is shown it. Raises Refused."""
        return stream.fit(decode_picture(data, self.limits.max_pixels, f"picture {number}"))


def _appended(
    stream: Stream, pictures: Sequence[np.ndarray], metadata: Sequence[FrameMetadata]
) -> list[Moment]:
    """Raises Refused (422)."""
    appended = []
    moments = list(batched(pictures, len(stream.cameras)))
    with refusing():
        for row in metadata[: len(moments)]:  # all before the first one is taken in
            stream.read(row["robot"])
    for views, row in zip(moments, metadata, strict=False):
        moment = stream.append(dict(zip(stream.cameras, views, strict=True)), score=True, **row)
        assert moment is not None  # as `score` says
        appended.append(moment)
    return appended


def frame_metadata(
    count: int,
    cameras: int,
    limits: ServerLimits,
    timestamps_s: Sequence[float] | None = None,
    robots: Sequence[RobotRow] | None = None,
) -> list[FrameMetadata]:
    """What a request of so many pictures says of each moment beside them. Raises Refused (413, 422)."""
    if count > limits.max_frames:
        raise Refused(
            413, "too_many_frames", f"{count} pictures in one request: at most {limits.max_frames}"
        )
    if not count or count % cameras:
        raise Refused(
            422, "frames", f"{count} pictures are no whole number of moments of {cameras} cameras"
        )
    moments = count // cameras
    for name, values in (("timestamps", timestamps_s), ("robots", robots)):
        if values is not None and len(values) != moments:
            raise Refused(422, name, f"{len(values)} {name} for {moments} moments")
    if timestamps_s is not None and not all(map(math.isfinite, timestamps_s)):
        raise Refused(422, "timestamps", "timestamps are finite numbers of seconds")
    rows = [robot.model_dump(exclude_none=True) for robot in robots or ()] or [{}] * moments
    return [
        {"timestamp_s": t, "robot": r}
        for t, r in zip(timestamps_s or [None] * moments, rows, strict=True)
    ]
