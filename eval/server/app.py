"""The reward server: a FastAPI application round one scorer, with live sessions and whole runs.

A request's frames are decoded and made ready in some threads, scored in one (`batching`), and never twice for a
repeated request. While a part of a whole run is scored, the next is made ready.
"""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from itertools import batched
from pathlib import Path
from time import perf_counter, time
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import Scope

from core.cores import cores
from core.web import Access, Guard, Refusal
from eval.reward.scorer import Scorer
from eval.reward.stream import Moment, Stream, StreamPicture
from eval.reward.video import SCORE_FPS, GivenUpError, clip_stream, open_clip
from eval.reward.views import Reward
from eval.reward.window import LAST_PICTURE, RewardError
from eval.server import chat
from eval.server.batching import Batcher
from eval.server.limits import CHAT_PATH, MODELS_PATH, Limits, Refused, error_content
from eval.server.metrics import Metrics, Observed
from eval.server.pictures import decode_picture, size_of
from eval.server.protocol import (
    MAX_CAMERAS,
    CameraName,
    Error,
    Fps,
    ModelInfo,
    NewSession,
    RewardRow,
    Scored,
    SessionInfo,
    Steps,
    Task,
)
from eval.server.sessions import Append, ServerSession, Sessions, digest_of, reward_rows
from eval.server.videos import check_videos, checked_moments, received
from ingest.limits import Limits as DecodingLimits

OPEN_PATHS = ("/healthz", "/readyz", "/docs", "/openapi.json", "/static-offline-docs")  # need no token
NOT_READ = 499  # of answers whose client has gone, in the metrics
MOST_WORKERS = 16  # threads that decode pictures and cut them into patches
PICTURE_TYPES = ("image/png", "image/jpeg", "image/webp")
WATCH_S = 0.25  # between two looks at whether a client is still there
MAX_KEPT = 600  # frames that a session may have to keep for its windows
AT_ONCE_PIXELS = 512 * 512  # a single picture up to so large is decoded before it has a place in the queue
EXPIRY_S = 5.0  # at most between two looks for idle sessions
DESCRIPTION = """\
Progress rewards for robots. A **session** is a run scored frame by frame, for reinforcement learning; **frames** and
**videos** score a whole run. `progress` is 0..1; where there is no number it is null and `failure` says why. Numbers
are those of `proccorpus reward` for the same pictures.
"""
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "A picture, video or body that cannot be read."},
    401: {"model": Error, "description": "The bearer token is missing or wrong."},
    408: {"model": Error, "description": "The body came too slowly."},
    413: {"model": Error, "description": "Too many bytes, pixels or frames."},
    415: {"model": Error, "description": "Not JPEG, PNG or WebP; not MP4, MOV, MKV, WebM or AVI."},
    422: {"model": Error, "description": "A field that is missing or wrong."},
    503: {"model": Error, "description": "Busy; Retry-After says when to ask again."},
}
SESSION_REFUSALS = REFUSALS | {
    404: {"model": Error, "description": "No such session, or it has expired."},
    409: {"model": Error, "description": "Frames out of turn."},
}
Frames = Annotated[
    list[UploadFile],
    File(description="JPEG, PNG or WebP: for each moment in order one picture per camera, in the cameras' order."),
]
PICTURE_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURE_TYPES},
    }
}
Gone = Callable[[], Awaitable[bool]]  # has the client closed the connection?
Cameras = Annotated[list[CameraName], Form(min_length=1, max_length=MAX_CAMERAS)]


@contextmanager
def refusing() -> Iterator[None]:
    """What the reward core cannot do is the request's fault."""
    try:
        yield
    except GivenUpError as e:
        raise Refused(NOT_READ, "gone", "the client has closed the connection") from e
    except RewardError as e:
        raise Refused(422, "not_scorable", str(e)) from e


async def _watch(gone: Gone, given_up: threading.Event) -> None:
    """Tell the threads that work for a client when it has gone."""
    while not await gone():
        await asyncio.sleep(WATCH_S)
    given_up.set()


class Service:
    """What the endpoints share: the scorer, the queue before it, the sessions."""

    def __init__(self, scorer: Scorer, name: str, limits: Limits) -> None:
        self.scorer, self.name, self.limits = scorer, name, limits
        self.sessions = Sessions(limits)
        self.metrics = Metrics(lambda: len(self.sessions), lambda: self.batcher.taken)
        self.batcher = Batcher(scorer, limits, self._batch_scored)
        self.workers = min(MOST_WORKERS, max(4, cores()))
        self.decoders = ThreadPoolExecutor(self.workers, "decoding")
        self.work: list[asyncio.Task[None]] = []

    def _batch_scored(self, moments: int, failed: int, seconds: float) -> None:
        self.metrics.batch.observe(moments)
        self.metrics.scoring.observe(seconds)
        self.metrics.frames.inc(moments)
        self.metrics.failures.inc(failed)

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        self.work = [asyncio.create_task(self.batcher.run()), asyncio.create_task(self._expire())]
        try:
            yield
        finally:
            for task in self.work:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*self.work)
            self.batcher.close()
            self.decoders.shutdown()

    @property
    def is_ready(self) -> bool:
        return bool(self.work) and not any(t.done() for t in self.work)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(min(EXPIRY_S, self.limits.session_idle_s / 2))
            self.metrics.expired.inc(self.sessions.expire())

    @property
    def usual_fps(self) -> float:
        """Of pictures whose rate a request does not tell: they lie as far apart as those that the model was trained
        on."""
        window = self.scorer.window
        return SCORE_FPS if window is None or window.step_s is None else 1 / window.step_s

    async def in_thread[T](self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.decoders, work, *args)

    def stream(self, task: str, fps: float, steps: Sequence[str], cameras: Sequence[str], **more: Any) -> Stream:
        """Raises Refused (422)."""
        with refusing():
            stream = self.scorer.stream(task, fps, steps, cameras=tuple(cameras), **more)
        if (kept := stream.window.reach(fps)) > MAX_KEPT:
            raise Refused(422, "not_scorable", f"at {fps:g} fps a window reaches back {kept} frames: send fewer")
        return stream

    async def goal(self, pictures: Mapping[str, bytes]) -> dict[str, np.ndarray]:
        """Raises Refused."""
        limit = self.limits.max_pixels
        return {c: await self.in_thread(decode_picture, d, limit, f"goal of {c}") for c, d in pictures.items()}

    async def append(
        self,
        session: ServerSession,
        data: Sequence[bytes],
        timestamps_s: Sequence[float] | None,
    ) -> list[RewardRow]:
        """Rows of a session's next frames. Raises Refused; the session is then as it was."""
        count = len(data) // len(session.stream.cameras)
        # With its first frames a session begins to keep pictures: then there has to be room for them.
        if not session.stream.appended:
            self.sessions.check_memory()
        # Places come before decoding, since it is decoded pictures that fill the memory.
        with self.batcher.places(count, sum(await self.sizes(data))):
            moments = await self._taken(session.stream, data, 0, timestamps_s)
            began = perf_counter()
            rewards = await self.batcher.submit(moments)
            return session.rows(moments, rewards, perf_counter() - began)

    async def append_picture(
        self, session: ServerSession, data: bytes, times_s: Sequence[float] | None
    ) -> list[RewardRow]:
        """The row of a session's next frame, of one camera; `append` in as few turns of threads as can be.
        Raises Refused; the session is then as it was."""
        stream = session.stream
        if not stream.appended:
            self.sessions.check_memory()
        pixels, picture = await self.in_thread(self._looked_at, stream, data)
        with self.batcher.places(1, pixels):
            if picture is None:
                picture = await self.in_thread(self._picture, stream, data, 0)
            moments = _appended(stream, [picture], times_s)
            await self._make_ready(moments)
            began = perf_counter()
            rewards = await self.batcher.submit(moments)
            return session.rows(moments, rewards, perf_counter() - began)

    def _looked_at(self, stream: Stream, data: bytes) -> tuple[int, np.ndarray | None]:
        """Pixels of a picture by its header, and the picture where it is small: what threads decode at one time is
        little memory. Raises Refused."""
        pixels = size_of(data, self.limits.max_pixels, "picture 0")
        return pixels, self._picture(stream, data, 0) if pixels <= AT_ONCE_PIXELS else None

    async def score_frames(self, stream: Stream, data: Sequence[bytes], gone: Gone) -> list[RewardRow]:
        """Rows of a whole run, for a client that may be gone meanwhile. Raises Refused."""
        step = self.limits.max_batch * len(stream.cameras)
        sizes = await self.sizes(data)
        chunks = [range(at, min(at + step, len(data))) for at in range(0, len(data), step)]
        # One part is scored while the next is made ready
        pixels = [sum(sizes[i] for i in chunk) for chunk in chunks]
        most = max(map(sum, zip(pixels, [*pixels[1:], 0], strict=True)))
        waiting = iter(chunks)

        async def following() -> Sequence[Moment]:
            chunk = next(waiting, range(0))
            return await self._taken(stream, data[chunk.start : chunk.stop], chunk.start) if chunk else ()

        with self.batcher.places(min(2, len(chunks)) * self.limits.max_batch, most):
            return await self._in_turn(following, gone)

    async def score_last(self, stream: Stream, data: Sequence[bytes], gone: Gone) -> Reward:
        """The reward of a run's last moment: the number of `/v1/frames`, with only those pictures decoded that it is
        read from. Raises Refused."""
        cameras = len(stream.cameras)
        count = len(data) // cameras
        shown = [f * cameras + k for f in stream.frames_for_last(count) for k in range(cameras)]
        sizes = await self.sizes(data)
        with self.batcher.places(1, sum(sizes[i] for i in shown)):
            parts = await self._in_parts(lambda i: self._picture(stream, data[shown[i]], shown[i]), len(shown))
            decoded = dict(zip(shown, (p for part in parts for p in _raised(part)), strict=True))
            pictures = {i: StreamPicture(rgb) for i, rgb in decoded.items()}
            moment = stream.last_moment(count, lambda f, c: pictures[f * cameras + stream.cameras.index(c)])
            await self._make_ready([moment])
            if await gone():
                raise Refused(NOT_READ, "gone", "the client has closed the connection")
            (reward,) = await self.batcher.submit([moment])
            return reward

    async def score_video(
        self, task: str, fps: float, steps: Sequence[str], paths: Mapping[str, Path], gone: Gone
    ) -> list[RewardRow]:
        """Rows of a video per camera, for a client that may be gone meanwhile. Raises Refused."""
        given_up = threading.Event()
        watching = asyncio.create_task(_watch(gone, given_up))
        bounds = DecodingLimits(max_pixels=self.limits.max_pixels, max_frames=self.limits.max_video_frames)
        try:
            with refusing():
                clip = await self.in_thread(open_clip, paths)
                pixels = await self.in_thread(check_videos, clip, self.limits)
                clip = replace(clip, limits=bounds, given_up=given_up.is_set)
                with self.batcher.places(2 * self.limits.max_batch, 2 * self.limits.max_batch * pixels):
                    stream = await self.in_thread(clip_stream, self.scorer, clip, task, fps, steps)
                    chunks = batched(checked_moments(stream, clip, self.limits), self.limits.max_batch)

                    async def following() -> Sequence[Moment]:
                        moments = await self.in_thread(lambda: next(chunks, ()))
                        await self._make_ready(moments)
                        return moments

                    return await self._in_turn(following, gone, given_up)
        # Also where the server ends and cancels this: a thread may be decoding
        finally:
            given_up.set()
            watching.cancel()

    async def _in_turn(
        self, following: Callable[[], Awaitable[Sequence[Moment]]], gone: Gone, given_up: threading.Event | None = None
    ) -> list[RewardRow]:
        """Scores part after part until there is none. Each is made ready while the one before it is scored, so memory
        does not grow with the run; none is scored for a client that has gone."""
        rows: list[RewardRow] = []
        coming = asyncio.ensure_future(following())
        try:
            while chunk := await asyncio.shield(coming):
                coming = asyncio.ensure_future(following())
                began = perf_counter()
                before = next((r.progress for r in reversed(rows) if r.progress is not None), None)
                if await gone():
                    raise Refused(NOT_READ, "gone", "the client has closed the connection")
                rewards = await self.batcher.submit(chunk)
                rows += reward_rows(chunk, rewards, perf_counter() - began, before)
        finally:
            # A decoder ends at its next frame; the file that it reads is removed after this
            if given_up is not None:
                given_up.set()
            await asyncio.wait([coming])
            if not coming.cancelled():
                coming.exception()
        return rows

    async def sizes(self, data: Sequence[bytes]) -> list[int]:
        """Pixels of each picture. Raises Refused."""
        return await self.in_thread(
            lambda: [size_of(d, self.limits.max_pixels, f"picture {i}") for i, d in enumerate(data)]
        )

    async def _taken(
        self,
        stream: Stream,
        data: Sequence[bytes],
        first: int = 0,
        timestamps_s: Sequence[float] | None = None,
    ) -> list[Moment]:
        """Frames taken in by a stream, and made ready to be scored. All are decoded before the first one is taken in: a
        refused request leaves no trace."""
        parts = await self._in_parts(lambda i: self._picture(stream, data[i], first + i), len(data))
        pictures = [picture for part in parts for picture in _raised(part)]
        moments = await self.in_thread(_appended, stream, pictures, timestamps_s)
        await self._make_ready(moments)
        return moments

    async def _make_ready(self, moments: Sequence[Moment]) -> None:
        if type(self.scorer).make_ready is Scorer.make_ready:
            return  # there is no such work
        pictures = list({id(p): p for m in moments for view in m.views.values() for p in view}.values())
        # What a picture cannot be made ready for, its scoring will say: nothing is lost here
        await self._in_parts(lambda i: self.scorer.make_ready(pictures[i]), len(pictures))

    async def _in_parts[T](self, work: Callable[[int], T], count: int) -> list[list[T] | BaseException]:
        """work(0), work(1), ... in order, in parts side by side; half of the threads are left to other requests. A part
        that fails is what it raised."""
        size = max(1, -(-count // max(1, self.workers // 2)))
        parts = [range(at, min(at + size, count)) for at in range(0, count, size)]
        done = (self.in_thread(lambda part=part: [work(i) for i in part]) for part in parts)
        return await asyncio.gather(*done, return_exceptions=True)

    def _picture(self, stream: Stream, data: bytes, number: int) -> np.ndarray:
        """As the model is shown it. Raises Refused."""
        return stream.fit(decode_picture(data, self.limits.max_pixels, f"picture {number}"))


def _raised[T](part: T | BaseException) -> T:
    if isinstance(part, BaseException):
        raise part
    return part


def _appended(stream: Stream, pictures: Sequence[np.ndarray], timestamps_s: Sequence[float] | None) -> list[Moment]:
    found = []
    for i, views in enumerate(batched(pictures, len(stream.cameras))):
        time_s = None if timestamps_s is None else timestamps_s[i]
        moment = stream.append(dict(zip(stream.cameras, views, strict=True)), time_s, score=True)
        assert moment is not None  # as `score` says
        found.append(moment)
    return found


def check_frames(count: int, cameras: int, timestamps_s: Sequence[float] | None, limits: Limits) -> None:
    """Raises Refused (413, 422)."""
    if count > limits.max_frames:
        raise Refused(413, "too_many_frames", f"{count} pictures in one request: at most {limits.max_frames}")
    if not count or count % cameras:
        raise Refused(422, "frames", f"{count} pictures are no whole number of moments of {cameras} cameras")
    if timestamps_s is not None and len(timestamps_s) != count // cameras:
        raise Refused(422, "timestamps", f"{len(timestamps_s)} timestamps for {count // cameras} moments")
    if timestamps_s is not None and not all(map(math.isfinite, timestamps_s)):
        raise Refused(422, "timestamps", "timestamps are finite numbers of seconds")


def make_app(scorer: Scorer, name: str, access: Access | None = None, limits: Limits | None = None) -> FastAPI:
    """The application; `name` is the model's. Its lifespan runs the scoring thread."""
    access, limits = access or Access(), limits or Limits()
    service = Service(scorer, name, limits)
    app = FastAPIOffline(
        redoc_url=None,
        title="proccorpus rewards",
        version="1",
        description=DESCRIPTION,
        lifespan=service.running,
        dependencies=[Depends(HTTPBearer(auto_error=False))] if access.token else [],  # for /docs: the guard checks it
    )
    app.state.service = service
    _session_routes(app, service)
    _run_routes(app, service)
    _chat_routes(app, service)
    _watching_routes(app, service)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, e: HTTPException) -> JSONResponse:
        if isinstance(e, Refused):
            return e.answer(request.url.path)
        return JSONResponse(error_content(request.url.path, e.status_code, "http", e.detail), e.status_code, e.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        told = f"{where}: {first['msg']}".removeprefix(": ")
        return JSONResponse(error_content(request.url.path, 422, "invalid", told), 422)

    @app.exception_handler(Exception)
    async def broken(request: Request, e: Exception) -> JSONResponse:
        told = "the server failed; its log has the details"
        return JSONResponse(error_content(request.url.path, 500, "internal", told), 500)

    def turned_away(scope: Scope, refusal: Refusal) -> JSONResponse:
        return Refused(refusal.status, refusal.code, refusal.reason).answer(scope["path"])

    # The last one added stands outermost: refused requests are counted, too
    app.add_middleware(
        Guard, access=access, max_body_bytes=limits.max_body_bytes, open_paths=OPEN_PATHS, refuse=turned_away
    )
    app.add_middleware(Observed, metrics=service.metrics)
    return app


def _session_routes(app: FastAPI, service: Service) -> None:
    limits, sessions = service.limits, service.sessions

    async def taken(
        found: ServerSession,
        first_frame: int | None,
        digest: bytes,
        work: Callable[[], Coroutine[Any, Any, list[RewardRow]]],
    ) -> Scored:
        """The rows of a request: of `work`, or of the request that this one repeats."""
        first = found.stream.appended if first_frame is None else first_frame
        request = found.repeated(first, digest)
        if request is None:
            request = found.last = Append(first, digest, asyncio.create_task(work()))
        # Shielded: if the client goes, scoring goes on, and the same request may ask for its rows again.
        return Scored(rows=await asyncio.shield(request.rows))

    @app.post("/v1/sessions", status_code=201, response_model=SessionInfo, responses=REFUSALS, tags=["sessions"])
    async def open_session(asked: NewSession) -> SessionInfo:
        """Begin a run that is to be scored frame by frame."""
        if asked.goal and service.scorer.source != "visual":
            raise Refused(422, "goal", "only the baseline `visual` looks at a goal")
        more = {"duration_s": asked.duration_s, "goal": await service.goal(asked.goal), "rule": asked.views}
        return sessions.open(service.stream(asked.task, asked.fps, asked.steps, asked.cameras, **more)).info(limits)

    @app.get("/v1/sessions/{session}", response_model=SessionInfo, responses=SESSION_REFUSALS, tags=["sessions"])
    async def session_info(session: str) -> SessionInfo:
        """How many frames it has; this counts as use."""
        return sessions.get(session).info(limits)

    @app.post("/v1/sessions/{session}/frames", response_model=Scored, responses=SESSION_REFUSALS, tags=["sessions"])
    async def append_frames(
        session: str,
        frames: Frames,
        first_frame: Annotated[
            int | None,
            Form(ge=0, description="Number that the first of these gets: a request sent again is known by it."),
        ] = None,
        timestamps_s: Annotated[
            list[float] | None, Form(description="A second per moment; default: number over fps.")
        ] = None,
    ) -> Scored:
        """Take in the next moments and score each. Give `first_frame`, and the request may be repeated safely."""
        found = sessions.get(session)
        check_frames(len(frames), len(found.stream.cameras), timestamps_s, limits)
        data = [await f.read() for f in frames]
        digest = digest_of(data, timestamps_s)
        return await taken(found, first_frame, digest, lambda: service.append(found, data, timestamps_s))

    @app.post(
        "/v1/sessions/{session}/picture",
        response_model=Scored,
        responses=SESSION_REFUSALS,
        tags=["sessions"],
        openapi_extra=PICTURE_BODY,
    )
    async def append_picture(
        request: Request,
        session: str,
        first_frame: Annotated[int | None, Query(ge=0, description="The number that it gets.")] = None,
        timestamp_s: Annotated[float | None, Query(description="Its second; default: number over fps.")] = None,
    ) -> Response:
        """The next moment of a session of one camera: its picture is the body, which costs less than a form."""
        found = sessions.get(session)
        times = None if timestamp_s is None else [timestamp_s]
        check_frames(1, len(found.stream.cameras), times, limits)
        data = await request.body()
        digest = digest_of([data], times)
        scored = await taken(found, first_frame, digest, lambda: service.append_picture(found, data, times))
        return Response(scored.model_dump_json(), media_type="application/json")

    @app.delete("/v1/sessions/{session}", status_code=204, responses=SESSION_REFUSALS, tags=["sessions"])
    async def close_session(session: str) -> None:
        """Forget a run, and free its place."""
        sessions.close(session)


def _run_routes(app: FastAPI, service: Service) -> None:
    limits = service.limits

    @app.post("/v1/frames", response_model=Scored, responses=REFUSALS, tags=["whole runs"])
    async def score_frames(
        request: Request,
        task: Annotated[Task, Form()],
        fps: Annotated[Fps, Form()],
        frames: Frames,
        cameras: Cameras = ["camera"],  # noqa: B006
        steps: Annotated[Steps, Form()] = (),
    ) -> Scored:
        """Score every moment of a run whose frames are given."""
        check_frames(len(frames), len(cameras), None, limits)
        data = [await f.read() for f in frames]
        count, is_visual = len(data) // len(cameras), service.scorer.source == "visual"
        # The baseline `visual` is shown how the run ended: its last moment, a picture of each camera.
        goal = await service.goal(dict(zip(cameras, data[-len(cameras) :], strict=True)) if is_visual else {})
        more = {"num_frames": count, "duration_s": (count - 1) / fps, "goal": goal}
        stream = service.stream(task, fps, steps, cameras, **more)
        return Scored(rows=await service.score_frames(stream, data, request.is_disconnected))

    @app.post("/v1/videos", response_model=Scored, responses=REFUSALS, tags=["whole runs"])
    async def score_video(
        request: Request,
        task: Annotated[Task, Form()],
        videos: Annotated[list[UploadFile], File(description="MP4, MOV, MKV, WebM or AVI: one per camera.")],
        fps: Annotated[float, Form(gt=0, le=1000, description="Moments to score per second.")] = SCORE_FPS,
        cameras: Cameras = ["camera"],  # noqa: B006
        steps: Annotated[Steps, Form()] = (),
    ) -> Scored:
        """Score a video, as `proccorpus reward` does."""
        if len(videos) != len(cameras):
            raise Refused(422, "videos", f"{len(videos)} videos for {len(cameras)} cameras")
        async with received(videos, cameras) as paths:
            return Scored(rows=await service.score_video(task, fps, steps, paths, request.is_disconnected))


def _chat_routes(app: FastAPI, service: Service) -> None:
    began = int(time())

    async def chat_completion(request: Request) -> Response:
        """The reward of a run up to its last picture, as a chat completion: pictures as data: URLs in order of time,
        the task as text. The content is JSON with `progress`, `success`, `confidence` and `model`; `reply` asks for
        more or less."""
        asked = await service.in_thread(chat.read_request, await request.body())
        chat.check_model(asked.model, service.name)
        if asked.n not in (None, 1):
            raise Refused(400, "invalid_value", "a reward is one number: n is 1", param="n")
        run, task = asked.proccorpus, chat.task_of(asked)
        data = await service.in_thread(chat.pictures_of, asked)
        check_frames(len(data), len(run.cameras), None, service.limits)
        fps = run.fps or service.usual_fps
        # A trend is told from the first moment, which is a run of its own
        runs = [data, data[: len(run.cameras)]] if run.reply == "trend" else [data]
        streams = [service.stream(task, fps, run.steps, run.cameras, rule=run.views) for _ in runs]
        scored = [service.score_last(s, d, request.is_disconnected) for s, d in zip(streams, runs, strict=True)]
        reward, *first = await asyncio.gather(*scored)
        whole = chat.completion(reward, service.name, run, *first)
        if asked.stream:
            # One number is there at once or not at all: nothing is gained by sending its parts apart
            return Response("".join(chat.chunks(whole)), media_type="text/event-stream")
        return JSONResponse(whole)

    app.post(CHAT_PATH, tags=["OpenAI's API"], openapi_extra=chat.BODY)(chat_completion)

    @app.get(MODELS_PATH, tags=["OpenAI's API"])
    async def models() -> dict[str, Any]:
        """The model that is served, as OpenAI's clients ask for it."""
        return chat.model_list(service.name, began)

    @app.get(MODELS_PATH + "/{model:path}", tags=["OpenAI's API"])
    async def model(model: str) -> dict[str, Any]:
        """The same of one model by its name."""
        chat.check_model(model, service.name)
        return chat.model_list(service.name, began)["data"][0]


def _watching_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/model", response_model=ModelInfo, tags=["server"])
    async def model() -> ModelInfo:
        """What scores here."""
        scorer = service.scorer
        return ModelInfo(
            model=service.name,
            source=scorer.source,
            window=str(scorer.window or LAST_PICTURE),
            has_done=scorer.success is not None,
        )

    @app.get("/healthz", tags=["server"])
    async def alive() -> dict[str, str]:
        """Does the process answer?"""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"model": Error}}, tags=["server"])
    async def ready() -> dict[str, str]:
        """Does it score?"""
        if not service.is_ready:
            raise Refused(503, "not_ready", "the scoring thread does not run", 1)
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse, tags=["server"])
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)
