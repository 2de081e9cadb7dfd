"""What goes over the wire between reward server and client. A frame's number counts from 0 in its session or video."""

from typing import Annotated, Any

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from eval.reward.stream import ViewRule

MAX_CAMERAS = 8
MAX_TASK = 2000  # characters, also of a step
MAX_STEPS = 64
MAX_NUMBERS = 1000  # of a robot's state

Task = Annotated[
    str, Field(min_length=1, max_length=MAX_TASK, description="What the robot is to do, in words.")
]
CameraName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.\-/]+$")]
Cameras = Annotated[
    list[CameraName],
    Field(min_length=1, max_length=MAX_CAMERAS, description="In the order of their pictures."),
]
Fps = Annotated[
    float, Field(gt=0, le=1000, description="Frames per second of the pictures that are sent.")
]

Steps = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=MAX_TASK)], ...],
    Field(
        max_length=MAX_STEPS,
        description="The task's steps in order, for models that compare with a demonstration.",
    ),
]


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RobotRow(Wire):
    """The robot at one moment: its state and its last action, as the dataset of what is shown has them."""

    state: Annotated[list[float], Field(max_length=MAX_NUMBERS)] | None = None
    action: Annotated[list[float], Field(max_length=MAX_NUMBERS)] | None = None


class Error(Wire):
    """Why a request was refused: `error` for programs, `reason` for people."""

    error: str = Field(examples=["picture_too_large"])
    reason: str = Field(examples=["picture 1 is 30000x30000: more than 8847360 pixels"])


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


class ModelInfo(Wire):
    """What scores here."""

    model: str = Field(examples=["models/tiny-1a2b3c4d"])
    source: str = Field(
        description="Where numbers come from.",
        examples=["head", "text", "shown", "clock", "visual"],
    )
    window: str = Field(
        description="The pictures that a number is read from.", examples=["8 pictures, 0.5 s apart"]
    )
    has_done: bool = Field(description="Is there a probability that the task is done?")


class NewSession(Wire):
    """A run of a robot that is to be scored frame by frame."""

    task: Task
    cameras: Cameras = ["camera"]
    fps: Fps = 4.0
    steps: Steps = ()
    views: Annotated[ViewRule, Field(description="How several cameras are judged together.")] = (
        "all"
    )
    duration_s: float | None = Field(
        None, gt=0, le=1e6, description="Of the whole run; for the baseline `clock`."
    )
    goal: dict[CameraName, Base64Bytes] = Field(
        default_factory=dict,
        max_length=MAX_CAMERAS,
        description="How it is to end; for the baseline `visual`.",
    )

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"task": "Open the green drawer.", "cameras": ["exo"], "fps": 4}]
        },
    )


class SessionInfo(Wire):
    """`frames`: moments so far, and so the number of the next one. A session without a request expires."""

    session: str
    task: str
    cameras: list[str]
    fps: float
    frames: int
    expires_after_s: float


class RewardRow(Wire):
    """The model's answer for one moment."""

    frame_index: int
    timestamp_s: float
    progress: float | None = Field(
        None, description="0..1; null where there is no number, and `failure` says why."
    )
    delta: float | None = Field(
        None,
        description="Progress less that of the last frame before that had one; null for the first such frame.",
    )
    done: float | None = Field(
        None, description="Probability that the task is done; null where the model has none."
    )
    success: bool | None = Field(
        None, description="Is `done` at or above the model's calibrated threshold?"
    )
    source: str = Field(description="What made the number.", examples=["head", "change"])
    reasoning: str | None = Field(None, description="The model's words, where it answers in words.")
    failure: str | None = Field(
        None, description="Why there is no number.", examples=["OutOfMemoryError: ..."]
    )
    cameras: dict[str, float | None] | None = Field(
        None, description="Progress by camera, where there are several."
    )
    about_s: float | None = Field(
        None, description="By shown runs: the second that is spoken of, see --lag."
    )
    step: int | None = Field(
        None, description="By shown runs: the planned step that is done then, from 0."
    )
    step_name: str | None = Field(None, description="Its name.")
    spread: float | None = Field(
        None, description="By shown runs: the standard deviation of progress."
    )
    unsure: str | None = Field(
        None,
        description="Why the numbers are not to be relied on, as of a robot that the model never saw.",
    )
    latency_s: float = Field(description="Scoring, with the wait for it.")


class Scored(Wire):
    """Rows in the order of the frames."""

    rows: list[RewardRow]
