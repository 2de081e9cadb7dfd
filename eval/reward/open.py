"""Open the scorer that a user asks for: a checkpoint in this process, a server's model, or a baseline."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from annotate.config import VlmConfig
from annotate.samples.procvqa import progress_question
from annotate.samples.wording import parse_answer, parse_reply, question_text
from core.errors import UserError
from eval.benchmarks.question import share_of
from eval.reward.scorer import NO_CARD, UNSEEN, CameraView, Reward, Scorer, Source
from eval.reward.stream import (
    LAST_PICTURE,
    RewardError,
    Stream,
    StreamPicture,
    Window,
    trained_window,
)
from eval.runners.checkpoint import open_local
from eval.runners.methods import luma_grid, nearness
from eval.runners.prompt import (
    Asked,
    ModelReply,
    PictureLimits,
    Prompt,
    Runner,
    Sampling,
)
from training.folder import read_card

SHOWN = 200  # characters of an answer that a failure quotes
# Settings for pictures of files alone: a stream's pictures are fitted
OF_FILES = (
    "model_type",
    "prompt_format",
    "longest_px",
    "min_pixels",
    "max_pixels",
)


class ModelScorer(Scorer):
    """A model that is asked, in this process or by way of a server: a camera's window is a prompt.

    Its pictures stand in order of time. A window begins with its oldest picture, so a server shares prefixes only where
    a demonstration in words stands before the one picture.
    """

    def __init__(
        self, runner: Runner, window: Window | None, card: Mapping[str, Any] = NO_CARD
    ) -> None:
        super().__init__(window, card)
        self.runner = runner
        self.source = "head" if runner.has_head else "text"
        self.make_ready = getattr(runner, "make_ready", None)
        runner_settings = {
            k: v for k, v in runner.settings.items() if not card or k not in OF_FILES
        }
        self.settings = {**runner_settings, "window": str(window)}

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        """Raises VlmError where a server is gone or the budget used up."""
        prompts = [_prompt_for(k, view) for k, view in enumerate(views)]
        replies = {reply.key: reply for reply in self.runner.ask(prompts)}
        return [
            self._reward(replies[str(k)], bool(view.stream.steps)) for k, view in enumerate(views)
        ]

    def _reward(self, reply: ModelReply, has_steps: bool) -> Reward:
        words = None if reply.text is None else read_words(reply.text, has_steps)
        if reply.progress is None:
            return words or Reward(self.source, None, failure=reply.error or "no answer")
        return Reward(
            reply.source,
            reply.progress,
            reply.done,
            reasoning=words and words.reasoning,
            unsure=UNSEEN if reply.source == "change" else None,
        )


def _prompt_for(number: int, view: CameraView) -> Asked:
    """What a model is asked about a view. A stream's first picture is among those of its first moment's window: nothing
    is looked at for its sake."""
    s = view.stream
    pictures = view.pictures
    prompt = Prompt(str(number), question(s, len(pictures)), (), task=s.task)
    return Asked(prompt, pictures, s.first.get(view.camera, pictures[0]))


def question(stream: Stream, num_pictures: int) -> str:
    """ProcVQA's question of a window; ProgressLM's of one picture where the stream has steps, which count alike."""
    steps = stream.steps
    if not steps:
        return progress_question(stream.task, num_pictures)
    return question_text(
        "text", stream.task, [k / len(steps) for k in range(1, len(steps) + 1)], steps, "think"
    )


def read_words(text: str, is_progresslm: bool) -> Reward:
    """The reward that an answer gives; where it gives no number, or says n/a, a failure with the
    answer's words."""
    if is_progresslm:
        reply = parse_reply(text)
        answer = parse_answer(text)
        reasoning = "\n".join(filter(None, (reply.ref_think, reply.score_think)))
        share = answer.score if reply.score is None else reply.score
        is_na = reply.score_is_na or answer.is_na
        if is_na:
            failure = "the model says n/a: the state does not fit the steps"
        else:
            failure = "no single score in the answer"
    else:
        share = share_of(text)
        reasoning = text.partition("<progress>")[0].strip()
        failure = "no single progress in the answer"
    if share is None:
        return Reward(
            "text", None, reasoning=reasoning or None, failure=f"{failure}: {text[:SHOWN]!r}"
        )
    return Reward("text", share, reasoning=reasoning or None)


BaselineName = Literal["clock", "visual"]


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

    @property
    def window(self) -> Window | None:
        """For models that do not say what they were trained on."""
        return Window(self.window_frames, self.window_step) if self.window_frames else None


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
        changed = self.model_dump(exclude_defaults=True).keys()
        contradictions = {
            "give either --like, --model or --baseline": all(
                (self.like, any((self.model, self.baseline)))
            ),
            "--like-camera, --lag and --hold need --like": not self.like
            and changed & {"like_camera", "lag", "hold"},
            "give either --model M or --baseline clock|visual": self.model is not None
            and self.baseline is not None,
            "--window-step needs --window-frames": self.window_step is not None
            and self.window_frames is None,
            "--endpoint needs --model, the model's name there": self.model is None
            and self.endpoint,
            "--max-calls and --api-key-env need --endpoint": not self.endpoint
            and changed & {"max_calls", "api_key_env"},
            "--reasoning, --window-frames and --endpoint need --model": of_model
            and (self.baseline or self.like),
            "--answer needs a checkpoint on this machine": self.answer != "auto"
            and (self.baseline or self.endpoint or self.like),
        }
        for message, is_so in contradictions.items():
            if is_so:
                raise UserError(message)


NO_OPTIONS = ScorerOptions()


@dataclass(frozen=True)
class ScorerConfig:
    """A checkpoint of ours in a `folder`; or what the `options` name: a model by its name at endpoints, or a baseline;
    or what compares with shown runs, which `shown` opens. `responses`: where a server's replies are kept, so that none
    is asked for twice (None: nowhere)."""

    folder: Path | None = None
    options: ScorerOptions = NO_OPTIONS
    responses: Path | None = None
    shown: Callable[[], Scorer] | None = None

    @property
    def name(self) -> str:
        """The model's own, whatever it was asked for by: after the next training `latest` is another one."""
        if self.folder:
            return self.folder.name
        return self.options.model or self.options.baseline or "shown"


@contextmanager
def open_scorer(config: ScorerConfig) -> Iterator[Scorer]:
    """Raises RewardError, ModelError, UserError, VlmError."""
    options = config.options
    if config.shown is not None:
        yield config.shown()
    elif options.baseline is not None:
        yield BaselineScorer(options.baseline)
    elif options.endpoint:
        from eval.runners.start import ApiRunner, Books

        vlm = VlmConfig(
            model=options.model or "",
            endpoints=options.endpoint,
            api_key_env=options.api_key_env,
            max_calls=options.max_calls,
        )
        with TemporaryDirectory(prefix="proccorpus-reward-") as spare:
            books = Books(config.responses or Path(spare), f"reward-{options.model}", "reward")
            # A server's model is asked for its likeliest words
            runner = ApiRunner(vlm, Sampling(), PictureLimits(), books)
            yield ModelScorer(runner, options.window)
    elif config.folder is not None:
        yield open_checkpoint(config.folder, options.window, options.reasoning, options.answer)
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
