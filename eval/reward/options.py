"""What a user says of the model that gives rewards: options of the commands `reward` and `serve`, and of exports."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.errors import UserError
from eval.reward.open import BaselineName, ScorerConfig
from eval.reward.window import Window


class ModelOptions(BaseModel):
    """How a model is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_frames: int | None = Field(
        default=None, ge=1, description="Pictures of a window, if the model does not state it."
    )
    window_step: float | None = Field(
        default=None, ge=0.0, description="Seconds between these pictures; default: consecutive frames."
    )
    endpoint: tuple[str, ...] = Field(
        default=(), description="Base address of an OpenAI-compatible server, ends in /v1; repeatable."
    )
    api_key_env: str | None = Field(default=None, description="Environment variable that holds the endpoint's key.")
    max_calls: int | None = Field(default=None, ge=0, description="Maximum number of requests to the endpoint.")

    def scorer(self, model: str | None, folder: Path | None, responses: Path | None) -> ScorerConfig:
        """`folder`: of the model, where no server has it; `responses`: where a server's replies are kept."""
        if self.window_step is not None and self.window_frames is None:
            raise UserError("--window-step needs --window-frames")
        window = Window(self.window_frames, self.window_step) if self.window_frames else None
        same = self.model_dump(include={"api_key_env", "max_calls", "baseline", "reasoning", "answer"})
        return ScorerConfig(folder, model or "", self.endpoint, window=window, responses=responses, **same)


class ScorerOptions(ModelOptions):
    """Which model gives rewards, or which baseline, and how it is asked. Raises UserError for contradictions."""

    model: str | None = Field(
        default=None,
        description="A model of the workspace, a checkpoint's folder, or a name at --endpoint; default: latest.",
    )
    baseline: BaselineName | None = Field(
        default=None, description="Score without a model: by elapsed time, or by change of the pixels."
    )
    reasoning: bool = Field(default=False, description="Add the model's answer in words; much slower with a head.")
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
        default=(), description="Camera of the shown runs, in the run's order; default: the preferred one; repeatable."
    )
    lag: float = Field(default=0.0, ge=0.0, le=2.0, description="Seconds by which --like speaks later, and better.")
    hold: float = Field(default=0.5, ge=0.0, description="Seconds at the end in one go that are a success to --like.")

    def model_post_init(self, context: object) -> None:
        of_model = self.reasoning or self.window_frames or self.endpoint
        contradictions = {
            "give either --like, --model or --baseline": all((self.like, any((self.model, self.baseline)))),
            "--like-camera and --lag need --like": all((not self.like, any((self.like_camera, self.lag)))),
            "give either --model M or --baseline clock|visual": self.model is not None and self.baseline is not None,
            "--endpoint needs --model, the model's name there": self.model is None and self.endpoint,
            "--reasoning, --window-frames and --endpoint need --model": self.baseline and of_model,
            "--answer needs a checkpoint on this machine": self.answer != "auto" and (self.baseline or self.endpoint),
        }
        for what, is_so in contradictions.items():
            if is_so:
                raise UserError(what)
