"""Open the scorer that a user asks for: a checkpoint in this process, a server's model, or a baseline."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from annotate.config import VlmConfig
from core.errors import UserError
from eval.reward.model import ModelScorer
from eval.reward.scorer import CameraView, Reward, Scorer, Source
from eval.reward.stream import LAST_PICTURE, RewardError, StreamPicture, Window, trained_window
from eval.runners.prompt import LocalRunner, PictureLimits, Sampling
from eval.runners.weightless import luma_grid, nearness
from training.folder import is_laptop, read_card

BATCH = 32  # views in one forward pass of the language model
BaselineName = Literal["clock", "visual"]


@dataclass(frozen=True)
class ScorerConfig:
    """One of: `folder` of a checkpoint of ours; `model` by its name at `endpoints`; `baseline`; `shown`.

    `window` is for models that do not say what they were trained on; `responses`: where a server's replies are kept,
    so that none is asked for twice (None: nowhere).
    """

    folder: Path | None = None
    model: str = ""
    endpoints: tuple[str, ...] = ()
    baseline: BaselineName | None = None
    window: Window | None = None
    reasoning: bool = False
    answer: Literal["auto", "head", "text"] = "auto"  # of `folder`
    responses: Path | None = None
    api_key_env: str | None = None
    max_calls: int | None = None
    shown: Callable[[], Scorer] | None = None  # opens what compares with shown runs


@contextmanager
def open_scorer(config: ScorerConfig) -> Iterator[Scorer]:
    """Raises RewardError, ModelError, UserError, VlmError."""
    if config.shown is not None:
        yield config.shown()
    elif config.baseline is not None:
        yield BaselineScorer(config.baseline)
    elif config.endpoints:
        from eval.runners.api import ApiRunner, Books

        client_settings = {
            name: getattr(config, name)
            for name in ("model", "endpoints", "api_key_env", "max_calls")
        }
        with TemporaryDirectory(prefix="proccorpus-reward-") as spare:
            books = Books(config.responses or Path(spare), f"reward-{config.model}", "reward")
            # A server's model is asked for its likeliest words
            yield ModelScorer(
                ApiRunner(VlmConfig(**client_settings), Sampling(), PictureLimits(), books),
                config.window,
            )
    elif config.folder is not None:
        yield open_checkpoint(config.folder, config.window, config.reasoning, config.answer)
    else:
        raise RewardError("a reward needs a model, or a baseline: clock or visual")


def open_checkpoint(
    folder: Path,
    window: Window | None = None,
    reasoning: bool = False,
    answer: Literal["auto", "head", "text"] = "auto",
) -> ModelScorer:
    """A checkpoint of ours of whatever kind. `window` is for those that do not say what they were trained on. Raises
    ModelError, RewardError: for another window than the model's above all; EncoderError for a laptop model's."""
    trained = trained_window(folder, window)  # before the weights are read
    scorer = ModelScorer(
        open_local(folder, reasoning=reasoning, answer=answer), trained, read_card(folder)
    )
    # What was calibrated is what is served by default
    scorer.success = scorer.success if answer == "auto" else None
    return scorer


def open_local(folder: Path, batch_size: int = BATCH, **options: Any) -> LocalRunner:
    """A checkpoint in this process that answers prompts; `options`: as eval.runners.local.open_runner has it. Raises
    UserError, ModelError; EncoderError for a laptop model's."""
    if not is_laptop(folder):
        from eval.runners.local import open_runner

        return open_runner(folder, batch_size, **options)
    from eval.reward.laptop import LaptopRunner

    if options.get("reasoning") or options.get("answer") == "text":
        raise RewardError(
            f"{folder.name} is a laptop model, which has no words: ask it for numbers alone"
        )
    return LaptopRunner(folder, batch_size)


class ModelOptions(BaseModel):
    """How a model is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_frames: int | None = Field(
        default=None, ge=1, description="Pictures of a window, if the model does not state it."
    )
    window_step: float | None = Field(
        default=None,
        ge=0.0,
        description="Seconds between these pictures; default: consecutive frames.",
    )
    endpoint: tuple[str, ...] = Field(
        default=(),
        description="Base address of an OpenAI-compatible server, ends in /v1; repeatable.",
    )
    api_key_env: str | None = Field(
        default=None, description="Environment variable that holds the endpoint's key."
    )
    max_calls: int | None = Field(
        default=None, ge=0, description="Maximum number of requests to the endpoint."
    )


class ScorerOptions(ModelOptions):
    """Which model gives rewards, or which baseline, and how it is asked. Raises UserError for contradictions."""

    model: str | None = Field(
        default=None,
        description="A model of the workspace, a checkpoint's folder, or a name at --endpoint; default: latest.",
    )
    baseline: BaselineName | None = Field(
        default=None,
        description="Score without a model: by elapsed time, or by change of the pixels.",
    )
    reasoning: bool = Field(
        default=False, description="Add the model's answer in words; much slower with a head."
    )
    answer: Literal["auto", "head", "text"] = Field(
        default="auto",
        description="Read the answer from a head or from text; auto: a head that reads only the question, else text.",
    )

    like: tuple[str, ...] = Field(
        default=(),
        description="Compare with a labelled run, DATASET/EPISODE, or with a task's references; without a model; "
        "repeatable.",
    )
    like_camera: tuple[str, ...] = Field(
        default=(),
        description="Camera of the shown runs, in the run's order; default: the preferred one; repeatable.",
    )
    lag: float = Field(
        default=0.0, ge=0.0, le=2.0, description="Seconds by which --like speaks later, and better."
    )
    hold: float = Field(
        default=0.5,
        ge=0.0,
        description="Seconds at the end in one go that are a success to --like.",
    )

    def model_post_init(self, context: object) -> None:
        of_model = self.reasoning or self.window_frames or self.endpoint
        contradictions = {
            "give either --like, --model or --baseline": all(
                (self.like, any((self.model, self.baseline)))
            ),
            "--like-camera and --lag need --like": all(
                (not self.like, any((self.like_camera, self.lag)))
            ),
            "give either --model M or --baseline clock|visual": self.model is not None
            and self.baseline is not None,
            "--endpoint needs --model, the model's name there": self.model is None
            and self.endpoint,
            "--reasoning, --window-frames and --endpoint need --model": self.baseline and of_model,
            "--answer needs a checkpoint on this machine": self.answer != "auto"
            and (self.baseline or self.endpoint),
        }
        for message, is_so in contradictions.items():
            if is_so:
                raise UserError(message)


# Rewards without a model: what one gets without looking, or by looking at pixels only. Both know how the run ends


class BaselineScorer(Scorer):
    """The baseline of a name; looks at one view after the other. Raises RewardError."""

    def __init__(self, name: str) -> None:
        super().__init__(LAST_PICTURE)
        if name not in BASELINES:
            raise RewardError(f"there is no baseline {name!r}: {', '.join(BASELINES)}")
        self.source = name
        self._one = BASELINES[name]
        self.settings = {"runner": "none", "answer": self.source}

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        return [self._one(v) for v in views]


def _clock(view: CameraView) -> Reward:
    duration = view.stream.duration_s
    if duration is None:
        return Reward("clock", None, failure="the clock needs the run's duration_s")
    return Reward("clock", float(np.clip(view.moment.timestamp_s / max(duration, 1e-9), 0, 1)))


def _visual(view: CameraView) -> Reward:
    goal = view.stream.goal.get(view.camera)
    if goal is None:
        return Reward(
            "visual", None, failure=f"the visual distance needs a goal picture of {view.camera}"
        )
    current_grid = _kept_grid(view.pictures[-1])
    first = _kept_grid(view.stream.first[view.camera])
    return Reward("visual", nearness(current_grid, first, luma_grid(goal)))


def _kept_grid(picture: StreamPicture) -> np.ndarray:
    if picture.seen is None:
        picture.seen = luma_grid(picture.rgb)
    return picture.seen


BASELINES: dict[Source, Callable[[CameraView], Reward]] = {"clock": _clock, "visual": _visual}
