"""Settings of annotators, embeddings and samples, with every default. Those of an annotator are
part of the identity of its label runs."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from core.domain.label_run import MIN_CONFIDENCE, MIN_NAME_CONFIDENCE, FormerVersion, LabelGate
from core.errors import checked_address

MOST_OF_ATTEMPT = 0.95  # of its budget that one can earn that was not completed


class Settings(BaseModel):
    """`former`: fields of earlier versions, which stored configurations may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    former: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _without_former(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {k: v for k, v in values.items() if k not in cls.former}
        return values


class FramesConfig(Settings):
    keyframe_interval_s: float = Field(default=1.0, gt=0, description="time between keyframes")
    keyframe_max_px: int = Field(default=480, ge=32, description="longer side of a keyframe")
    published_phash: bool = Field(
        default=False, description="compute the perceptual hash exactly as published; slow"
    )
    min_frames: int = Field(
        default=5, ge=2, description="fewest frames of an episode; shorter ones are quarantined"
    )


class ProgressConfig(Settings):
    noise_floor_per_s: float = Field(
        default=0.015, ge=0, description="visual change per second of a still picture"
    )
    incomplete_share: float = Field(
        default=0.5,
        ge=0,
        le=MOST_OF_ATTEMPT,
        description="largest share of its budget that an uncompleted attempt can earn",
    )


class ShardsConfig(Settings):
    picture_max_px: int = Field(default=256, ge=32, description="longer side of a stored picture")
    jpeg_quality: int = Field(default=90, ge=50, le=100, description="of pictures in shards")
    target_bytes: int = Field(
        default=256 << 20, ge=1, description="a tar is closed once it has so many"
    )
    store: str | None = Field(
        default=None,
        description="bucket or folder for shards, such as s3://bucket/corpus; default: the workspace",
    )

    @field_validator("store")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        return value and checked_address(value)


class MotionConfig(Settings):
    """What each is worth on robots that it was not chosen on: docs/truth.md."""

    former: ClassVar = ("slow_speed", "turn_s", "turn")

    smooth_s: float = Field(default=0.15, gt=0, description="window of the moving averages")
    pause_speed: float = Field(
        default=0.06, gt=0, description="the arm pauses below this share of its fast speed"
    )
    end_speed: float = Field(
        default=0.15,
        gt=0,
        description="an episode counts as ended below this share of its fast speed",
    )
    idle_min_s: float = Field(default=0.7, gt=0, description="a shorter pause is part of a step")
    start_min_s: float = Field(
        default=0.5, gt=0, description="an arm that rests this long before it starts is waiting"
    )
    end_min_s: float = Field(
        default=0.25, gt=0, description="a rest of this length at the end is its own segment"
    )
    gripper_swing: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="a gripper event covers at least this share of the gripper's range",
    )
    step_min_s: float = Field(
        default=0.8, gt=0, description="a grasp that usually takes less time is no step of its own"
    )


class TransferConfig(Settings):
    former: ClassVar = ("hz", "failure_at")

    max_references: int = Field(
        default=5,
        ge=1,
        description="most references per episode: those that begin with the most similar scene",
    )


KINDS = "mobilenet_v2, grey, torchvision:NAME or hf:FOLDER-or-NAME"


class EmbeddingsConfig(Settings):
    when: Literal["never", "references", "always"] = Field(
        default="references",
        description="references: for tasks with several runs, one of which a person, the source or an import labelled, "
        "if the encoder is installed",
    )
    encoder: str = Field(default="mobilenet_v2", description=f"encoder of the pictures: {KINDS}")
    hz: float = Field(default=5.0, gt=0, description="most pictures per second")
    cameras: Literal["preferred", "all"] | tuple[str, ...] = Field(
        default="preferred",
        description="preferred: the dataset's `cameras.views`, else the first usable camera; all: all usable "
        "cameras; or names",
    )
    grid: int = Field(default=4, ge=1, le=16, description="cells along each side of a picture")
    size_px: int | None = Field(
        default=None,
        ge=32,
        le=1024,
        description="side of the square that pictures are scaled to; null: the encoder's own",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU if there is one"
    )

    @field_validator("encoder")
    @classmethod
    def _of_known_kind(cls, encoder: str) -> str:
        kind, _, name = encoder.partition(":")
        if encoder in ("mobilenet_v2", "grey") or (kind in ("torchvision", "hf") and name):
            return encoder
        raise ValueError(f"{encoder} is no encoder; known are {KINDS}")


class SamplesConfig(Settings):
    profile: Literal["balanced", "procvlm"] = Field(
        default="balanced",
        description="quotas of the ProcVQA families: balanced: per episode; procvlm: as in the published recipe",
    )
    segmentation_per_episode: int = Field(
        default=2, ge=0, le=3, description="balanced quota of family a"
    )
    segmentation_frames: int = Field(
        default=16, ge=2, description="balanced: most pictures of a family a sample"
    )
    actions_per_episode: int = Field(default=6, ge=0, description="balanced quota of family b")
    progress_per_episode: int = Field(default=12, ge=0, description="balanced quota of family c")
    window_frames: int = Field(
        default=4, ge=1, description="balanced: pictures of a sample of families b and c"
    )
    window_step_s: float = Field(default=0.4, gt=0, description="time between these pictures")
    rare_share: float = Field(
        default=0.125,
        ge=0,
        le=0.25,
        description="share of a balanced quota that each rare state of a run gets",
    )
    text_demo_per_episode: int = Field(default=3, ge=0, description="quota of progresslm_text")
    visual_demo_per_episode: int = Field(default=3, ge=0, description="quota of progresslm_visual")
    cross_view_per_episode: int = Field(
        default=3, ge=0, description="quota of progresslm_cross_view"
    )
    unanswerable_per_episode: int = Field(
        default=2, ge=0, description="quota of progresslm_unanswerable"
    )
    think_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of ProgressLM samples with reasons in the answer",
    )
    min_confidence: float = Field(
        default=MIN_CONFIDENCE,
        ge=0,
        le=1,
        description="labels of lower confidence make no samples; 0: every label makes samples",
    )
    min_name_confidence: float = Field(
        default=MIN_NAME_CONFIDENCE,
        ge=0,
        le=1,
        description="labels of lower confidence make samples of progress, but none with names of steps",
    )
    image_editor: str | None = Field(
        default=None,
        description="name of an entry point in proccorpus.image_editors that edits unanswerable pictures",
    )
    seed: int = Field(default=0, description="another seed draws other moments")

    @property
    def gate(self) -> LabelGate:
        """Which labels make samples, and of what."""
        return LabelGate(self.min_confidence, self.min_name_confidence)

    @property
    def most_pictures(self) -> int:
        """Pictures of an episode's preferred camera that its own samples of a balanced profile show, at most."""
        windows = self.actions_per_episode + self.progress_per_episode
        return (
            self.segmentation_per_episode * self.segmentation_frames + windows * self.window_frames
        )

    @property
    def shows_every_frame(self) -> bool:
        """Do samples show nearly every frame of an episode's preferred camera?"""
        return self.profile == "procvlm"


# Code versions: what a stage or an annotator makes is another one from the next on. Those that only a stage has are in
# pipeline/stages
FRAMES_VERSION = "frames-10"
EMBEDDINGS_VERSION = "embeddings-2"
MOTION_VERSION = "motion-11"
NATIVE_VERSION = "native-2"
TRANSFER_VERSION = "transfer-4"
PROGRESS_VERSION = "progress-6"
VLM_VERSION = "vlm-3"  # of what is made of the model's replies
# The newest first. What changes with VLM_VERSION, or with a prompt, is added here: else all labels are paid for again
FORMER_VLM = (
    FormerVersion(
        code_version="vlm-2",
        prompt_versions={
            "2bd28916e0f60493": "2bd28916e0f60493",
            "7672dfb6e118e962": "7672dfb6e118e962",
        },
        defaults={},
        added=(),
    ),
    FormerVersion(
        code_version="vlm-1",
        # Of one view, and of several
        prompt_versions={
            "2bd28916e0f60493": "89a935f153daad48",
            "7672dfb6e118e962": "3d833a6915b2324a",
        },
        defaults={"max_steps": 8, "max_images": 24, "contact_sheet": False, "refine": True},
        added=("extra_body", "pictures_per_s"),
    ),
)
# Verbs a step begins with; a dataset may bring its own
VERBS = (
    "Reach for", "Grasp", "Lift", "Move", "Place", "Insert", "Push", "Pull", "Slide", "Press", "Turn", "Tilt", "Pour",
    "Open", "Close", "Fold", "Hang", "Wipe", "Release", "Retract",
)  # fmt: skip


class Price(Settings):
    """Price of a call: by tokens, or by the time of the GPUs that serve it."""

    usd_per_million_prompt_tokens: float = Field(
        default=0.0, ge=0, description="price of a service that bills tokens"
    )
    usd_per_million_completion_tokens: float = Field(
        default=0.0, ge=0, description="price of a service that bills tokens"
    )
    usd_per_gpu_hour: float = Field(
        default=0.0, ge=0, description="price of the GPUs of your own server"
    )
    gpus: int = Field(default=1, ge=1, description="number of GPUs behind each endpoint")
    prompt_tokens_per_s: float = Field(
        default=8000.0, gt=0, description="speed of one endpoint, for estimates of cost"
    )
    completion_tokens_per_s: float = Field(
        default=800.0, gt=0, description="speed of one endpoint, for estimates of cost"
    )

    def usd(self, prompt_tokens: float, completion_tokens: float, busy_s: float) -> float:
        """`busy_s`: the endpoint's time that the calls took, shared out among the calls under way together.

        Example: half a million prompt tokens at 2 USD a million and 90 s of 4 GPUs at 3 USD an hour
        are 1 + 0.3 USD.
        """
        prompt_usd = prompt_tokens * self.usd_per_million_prompt_tokens / 1e6
        completion_usd = completion_tokens * self.usd_per_million_completion_tokens / 1e6
        return prompt_usd + completion_usd + busy_s / 3600 * self.gpus * self.usd_per_gpu_hour

    def busy_s(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Seconds that an endpoint takes for so many tokens, by the stated speeds."""
        return (
            prompt_tokens / self.prompt_tokens_per_s
            + completion_tokens / self.completion_tokens_per_s
        )


class VlmConfig(Settings):
    model: str = Field(
        default="Qwen/Qwen3-VL-32B-Instruct",
        min_length=1,
        description="name of the model at the server",
    )
    revision: str | None = Field(
        default=None, description="revision of the model's files, if you know it"
    )
    endpoints: tuple[str, ...] = Field(
        default=("http://127.0.0.1:8000/v1",),
        min_length=1,
        description="addresses of servers with that model; requests go to all of them",
    )
    api_key_env: str | None = Field(
        default=None, description="environment variable that holds the key"
    )
    server: Literal["auto", "vllm", "openai", "gemini", "json_mode"] = Field(
        default="auto",
        description="which fields the servers take; auto: by their address and by what they refuse",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="further fields of each request, as chat_template_kwargs or reasoning_effort",
    )
    max_concurrency: int = Field(default=16, ge=1, description="simultaneous requests per process")
    timeout_s: float = Field(default=180.0, gt=0, description="longest wait for a whole answer")
    max_attempts: int = Field(
        default=5, ge=1, description="attempts at one request, the first included"
    )
    temperature: float = Field(default=0.0, ge=0, description="0: the likeliest answer")
    seed: int = Field(default=0, description="seed that is sent to the server with temperature 0")
    vocabulary: tuple[str, ...] = Field(
        default=VERBS, min_length=1, description="verbs that a step's name may begin with"
    )
    max_steps: int = Field(default=16, ge=2, le=32, description="most planned steps of a task")
    pictures_per_s: float = Field(
        default=2.0,
        gt=0,
        le=10,
        description="pictures a second that segment is shown; a shorter step may be missed",
    )
    max_images: int = Field(default=48, ge=4, description="most pictures in one request")
    overlap_images: int = Field(
        default=6, ge=1, description="pictures that neighbouring windows of a long episode share"
    )
    contact_sheet: bool = Field(
        default=True,
        description="send nine pictures as one image: a quarter of the tokens, less detail",
    )
    refine: bool | Literal["doubtful"] = Field(
        default="doubtful",
        description="look again, closely, at boundaries: at all, none, or those that two passes put apart",
    )
    refine_images: int = Field(default=8, ge=3, description="pictures in one request of refine")
    verify: bool = Field(default=True, description="ask for each attempt whether it was completed")
    reason: bool = Field(
        default=True,
        description="ask the model to explain the progress, for samples with reasoning",
    )
    reason_interval_s: float = Field(
        default=2.0, gt=0, description="time between the moments that reason asks about"
    )
    passes: int = Field(
        default=1,
        ge=1,
        le=2,
        description="2: segment twice with shifted pictures, to measure confidence",
    )
    gate_tolerance_s: float | None = Field(
        default=None, gt=0, description="episodes whose passes differ by more go to strong_model"
    )
    strong_model: str | None = Field(
        default=None, description="another model at the same servers, for doubtful episodes"
    )
    runs_per_task: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        default=3,
        description="runs of a task that the model is asked about; the others follow them, where they can",
    )
    keep_labels: bool = Field(
        default=True,
        description="labels that an earlier version made with the same settings stay; false: they are made anew",
    )
    max_calls: int | None = Field(
        default=None, ge=0, description="most requests of a build, over all its processes"
    )
    max_cost_usd: float | None = Field(
        default=None, ge=0, description="highest cost of a build, by `price`"
    )
    price: Price = Price()
    cheap_models: tuple[str, ...] = Field(
        default=(),
        max_length=2,
        description="models at the same servers that label first; `model` where their looks differ",
    )
    cheap_price: Price | None = Field(
        default=None, description="price of calls to cheap_models; without it `price`"
    )

    @field_validator("endpoints")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in map(checked_address, value):
            if not re.fullmatch(r"https?://[^/]+/.*[^/].*", address):
                example = "http://HOST:PORT/v1, or another path of a service"
                raise ValueError(f"{address} is no OpenAI-compatible base: {example}")
        return tuple(address.rstrip("/") for address in value)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that may be asked, `model` first."""
        return tuple(filter(None, (self.model, self.strong_model, *self.cheap_models)))

    @property
    def asked_first(self) -> tuple[str, ...]:
        """The models of the first and the last look; empty: `model`."""
        return self.cheap_models or ("",)

    def price_of(self, model: str) -> Price:
        """The price of a call to one of `models`."""
        return (model in self.cheap_models and self.cheap_price) or self.price

    def unused(self) -> set[str]:
        """Unset settings of later versions: they are not hashed."""
        return set() if self.cheap_models else {"cheap_models", "cheap_price"}

    def identity(self) -> dict[str, Any]:
        """What changes labels: not where they are asked for, how patiently, or for how much."""
        excluded = {
            "model", "revision", "endpoints", "api_key_env", "server", "max_concurrency", "timeout_s", "max_attempts",
            "keep_labels", "max_calls", "max_cost_usd", "price", "cheap_price", *self.unused(),
        }  # fmt: skip
        # Where each run is asked about, labels are what they were before there was a choice
        excluded |= {"runs_per_task"} if self.runs_per_task == "all" else set()
        return self.model_dump(mode="json", exclude=excluded)


def template_version() -> str:
    """Changes with any template of samples' texts."""
    files = sorted((Path(__file__).parent / "samples/templates").glob("*.toml"))
    return hashlib.sha256(
        b"\0".join(f.name.encode() + b"\0" + f.read_bytes() for f in files)
    ).hexdigest()[:16]
