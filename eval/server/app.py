"""The reward server's routes: live sessions, whole runs, OpenAI's API, and what watches it."""

from time import time
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Json
from starlette.exceptions import HTTPException
from starlette.types import Scope

from core.web import Access, Guard, Refusal
from eval.reward.scorer import Scorer
from eval.reward.stream import LAST_PICTURE
from eval.server import chat
from eval.server import protocol as wire
from eval.server.limits import CHAT_PATH, MODELS_PATH, Refused, ServerLimits, first_problem
from eval.server.service import Service, frame_metadata
from eval.server.sessions import RequestMetrics
from eval.server.videos import uploaded_files

# They need no token
OPEN_PATHS = (
    "/healthz",
    "/readyz",
    "/docs",
    "/openapi.json",
    "/static-offline-docs",
)
DESCRIPTION = """\
Progress rewards for robots. A **session** is a run scored frame by frame, for reinforcement learning; **frames** and
**videos** score a whole run. `progress` is 0..1; where there is no number it is null and `failure` says why. Numbers
are those of `proccorpus reward` for the same pictures.
"""
Frames = Annotated[
    list[UploadFile],
    File(
        description="JPEG, PNG or WebP: for each moment in order one picture per camera, in the cameras' order."
    ),
]
Robots = Annotated[
    list[Json[wire.RobotRow]] | None,
    Form(
        description='By shown runs: per moment {"state": [...], "action": [...]} as JSON, or one of both.'
    ),
]
PICTURE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/png", "image/jpeg", "image/webp")
        },
    }
}


def make_app(
    scorer: Scorer,
    names: list[str],
    access: Access | None = None,
    limits: ServerLimits | None = None,
) -> FastAPI:
    """The application; `names`: the model's own, then its aliases. Its lifespan runs the scoring thread."""
    access = access or Access()
    limits = limits or ServerLimits()
    service = Service(scorer, names, limits)
    app = FastAPIOffline(
        redoc_url=None,
        title="proccorpus rewards",
        version="1",
        description=DESCRIPTION,
        lifespan=service.running,
        dependencies=[Depends(HTTPBearer(auto_error=False))]
        if access.token
        else [],  # for /docs: the guard checks it
    )
    app.state.service = service
    _session_routes(app, service)
    _run_routes(app, service)
    _chat_routes(app, service)
    _watching_routes(app, service)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, e: HTTPException) -> JSONResponse:
        refusal = e if isinstance(e, Refused) else Refused(e.status_code, "http", e.detail)
        refusal.headers = e.headers
        return refusal.answer(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> JSONResponse:
        _, message = first_problem(e.errors(), 1)
        return Refused(422, "invalid", message).answer(request.url.path)

    @app.exception_handler(Exception)
    async def broken(request: Request, e: Exception) -> JSONResponse:
        return Refused(500, "internal", "the server failed; its log has the details").answer(
            request.url.path
        )

    def turned_away(scope: Scope, refusal: Refusal) -> JSONResponse:
        return Refused(refusal.status, refusal.code, refusal.reason).answer(scope["path"])

    # The last one added stands outermost: refused requests are counted, too
    app.add_middleware(
        Guard,
        access=access,
        max_body_bytes=limits.max_body_bytes,
        open_paths=OPEN_PATHS,
        refuse=turned_away,
    )
    app.add_middleware(RequestMetrics, metrics=service.metrics)
    return app


def _session_routes(app: FastAPI, service: Service) -> None:
    limits = service.limits
    sessions = service.sessions

    @app.post("/v1/sessions", status_code=201, responses=wire.REFUSALS, tags=["sessions"])
    async def open_session(request: wire.NewSession) -> wire.SessionInfo:
        """Begin a run that is to be scored frame by frame."""
        if request.goal and service.scorer.source != "visual":
            raise Refused(422, "goal", "only the baseline `visual` looks at a goal")
        options = {
            "duration_s": request.duration_s,
            "goal": await service.goal(request.goal),
            "rule": request.views,
        }
        return sessions.open(
            service.stream(request.task, request.fps, request.steps, request.cameras, **options)
        ).info(limits)

    @app.get("/v1/sessions/{session}", responses=wire.SESSION_REFUSALS, tags=["sessions"])
    async def session_info(session: str) -> wire.SessionInfo:
        """How many frames it has; this counts as use."""
        return sessions.get(session).info(limits)

    @app.post("/v1/sessions/{session}/frames", responses=wire.SESSION_REFUSALS, tags=["sessions"])
    async def append_frames(
        session: str,
        frames: Frames,
        first_frame: Annotated[
            int | None,
            Form(
                ge=0,
                description="Number that the first of these gets: a request sent again is known by it.",
            ),
        ] = None,
        timestamps_s: Annotated[
            list[float] | None, Form(description="A second per moment; default: number over fps.")
        ] = None,
        robots: Robots = None,
    ) -> wire.Scored:
        """Take in the next moments and score each. Give `first_frame`, and the request may be repeated safely."""
        open_session = sessions.get(session)
        data = [await f.read() for f in frames]
        return wire.Scored(
            rows=await service.appended(open_session, data, first_frame, timestamps_s, robots)
        )

    @app.post(
        "/v1/sessions/{session}/picture",
        response_model=wire.Scored,
        responses=wire.SESSION_REFUSALS,
        tags=["sessions"],
        openapi_extra=PICTURE_BODY,
    )
    async def append_picture(
        request: Request,
        session: str,
        first_frame: Annotated[
            int | None, Query(ge=0, description="The number that it gets.")
        ] = None,
        timestamp_s: Annotated[
            float | None, Query(description="Its second; default: number over fps.")
        ] = None,
    ) -> Response:
        """The next moment of a session of one camera: its picture is the body, which costs less than a form."""
        open_session = sessions.get(session)
        times = None if timestamp_s is None else [timestamp_s]
        rows = await service.appended(open_session, [await request.body()], first_frame, times)
        return Response(wire.Scored(rows=rows).model_dump_json(), media_type="application/json")

    @app.delete(
        "/v1/sessions/{session}",
        status_code=204,
        responses=wire.SESSION_REFUSALS,
        tags=["sessions"],
    )
    async def close_session(session: str) -> None:
        """Forget a run, and free its place."""
        sessions.close(session)


def _run_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/frames", responses=wire.REFUSALS, tags=["whole runs"])
    async def score_frames(
        request: Request,
        task: Annotated[wire.Task, Form()],
        fps: Annotated[wire.Fps, Form()],
        frames: Frames,
        cameras: Annotated[wire.Cameras, Form()] = ["camera"],  # noqa: B006
        steps: Annotated[wire.Steps, Form()] = (),
        robots: Robots = None,
    ) -> wire.Scored:
        """Score every moment of a run whose frames are given."""
        metadata = frame_metadata(
            len(frames),
            len(cameras),
            service.limits,
            None,
            robots,
        )
        data = [await f.read() for f in frames]
        count = len(data) // len(cameras)
        is_visual = service.scorer.source == "visual"
        # The baseline `visual` is shown how the run ended: its last moment, a picture of each camera.
        goal = await service.goal(
            dict(zip(cameras, data[-len(cameras) :], strict=True)) if is_visual else {}
        )
        options = {"num_frames": count, "duration_s": (count - 1) / fps, "goal": goal}
        stream = service.stream(task, fps, steps, cameras, **options)
        return wire.Scored(
            rows=await service.score_frames(stream, data, request.is_disconnected, metadata)
        )

    @app.post("/v1/videos", responses=wire.REFUSALS, tags=["whole runs"])
    async def score_video(
        request: Request,
        task: Annotated[wire.Task, Form()],
        videos: Annotated[
            list[UploadFile], File(description="MP4, MOV, MKV, WebM or AVI: one per camera.")
        ],
        fps: Annotated[
            float | None,
            Form(gt=0, le=1000, description="Moments to score per second; default: 4."),
        ] = None,
        cameras: Annotated[wire.Cameras, Form()] = ["camera"],  # noqa: B006
        steps: Annotated[wire.Steps, Form()] = (),
    ) -> wire.Scored:
        """Score a video, as `proccorpus reward` does."""
        if len(videos) != len(cameras):
            raise Refused(422, "videos", f"{len(videos)} videos for {len(cameras)} cameras")
        async with uploaded_files(videos, cameras) as paths:
            return wire.Scored(
                rows=await service.score_video(task, fps, steps, paths, request.is_disconnected)
            )


def _chat_routes(app: FastAPI, service: Service) -> None:
    start_s = int(time())

    async def chat_completion(request: Request) -> Response:
        """The reward of a run up to its last picture, as a chat completion: pictures as data: URLs in order of time,
        the task as text. The content is JSON with `progress`, `success`, `confidence` and `model`; `reply` asks for
        more or less."""
        chat_request = await service.in_thread(chat.read_request, await request.body())
        chat.check_model(chat_request.model, service.names)
        if chat_request.n not in (None, 1):
            raise Refused(400, "invalid_value", "a reward is one number: n is 1", param="n")
        run = chat_request.proccorpus
        task = chat.task_of(chat_request)
        data = await service.in_thread(chat.pictures_of, chat_request)
        # A session knows its run: the pictures are those that come next
        if run.session is not None:
            reward = (
                await service.appended(service.sessions.get(run.session), data, robots=run.robots)
            )[-1]
            first = [reward] if run.reply == "trend" else []
        else:
            reward, *first = await service.score_run(task, data, run, request.is_disconnected)
        whole = chat.completion(reward, service.name, run, *first)
        if chat_request.stream:
            # One number is there at once or not at all: nothing is gained by sending its parts apart
            return Response("".join(chat.chunks(whole)), media_type="text/event-stream")
        return JSONResponse(whole)

    app.post(CHAT_PATH, tags=["OpenAI's API"], openapi_extra=chat.BODY)(chat_completion)

    @app.get(MODELS_PATH, tags=["OpenAI's API"])
    async def models() -> dict[str, Any]:
        """The model that is served, by each of its names, as OpenAI's clients ask for it."""
        return chat.model_list(service.names, start_s)

    @app.get(MODELS_PATH + "/{model:path}", tags=["OpenAI's API"])
    async def model(model: str) -> dict[str, Any]:
        """The same of one model by its name."""
        chat.check_model(model, service.names)
        return chat.model_list([model], start_s)["data"][0]


def _watching_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/model", tags=["server"])
    async def model() -> wire.ModelInfo:
        """What scores here."""
        scorer = service.scorer
        return wire.ModelInfo(
            model=service.name,
            source=scorer.source,
            window=str(scorer.window or LAST_PICTURE),
            has_done=scorer.success is not None,
        )

    @app.get("/healthz", tags=["server"])
    async def alive() -> dict[str, str]:
        """Does the process answer?"""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"model": wire.Error}}, tags=["server"])
    async def ready() -> dict[str, str]:
        """Does it score?"""
        if not service.is_ready:
            raise Refused(503, "not_ready", "the scoring thread does not run", 1)
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse, tags=["server"])
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)
