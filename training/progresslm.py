"""What a line of ProgressLM's files holds, in the three forms that it publishes and all variants of each; and rewards.

Rewards of GRPO on its format: `published` as it was trained with, `mended` without its defects.

Both weigh format .2, reference .5 and score .3 (ProgressLM, arXiv 2601.15224). What `mended` does otherwise, and why:

- What cannot be read is worth -1, a wrong refusal -.5: silence must not pay better than saying that one does not know.
- A score says that it is a percentage: "0.42" was 0.42 % in training and 42 % in evaluation, now it is neither.
- "na" is a refusal, as in evaluation.
- A right refusal is worth 1, as any other right answer; published stops at .84.
- Errors count linearly and against the largest one that the label allows, as in evaluation: a quadratic one left .75
  of the reward to a reference that was half the demonstration off.
- The format is judged without the label: it asks the reply to be consistent, not to be right.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from annotate.samples.wording import (
    NA,
    NA_WORDS,
    TAGS,
    Form,
    parse_reply,
    question_text,
    written_ref,
    written_score,
)

_NONE = frozenset({"", "n/a", "na", "none", "null", "-"})
# RoboMIND's may have another run's name before it
_CAMERA = re.compile(r"(?:.*?(camera_[a-z]+)|(.+?))_\d+(?:_edit)?\.[A-Za-z]+$")


class _Row(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)


class _Message(_Row):
    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(_Row):
    messages: list[_Message]
    images: list[str] = []
    # Ours: the label, where the answer does not tell it
    progress: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def one_turn(self) -> "Conversation":
        roles = [m.role for m in self.messages]
        if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
            raise ValueError(
                f"messages must be of user and assistant, or system, user and assistant, not {roles}"
            )
        return self


class _Label(_Row):
    ref: str
    score_percent: str
    demo_count: int = Field(ge=1)


class RlPrompt(_Row):
    id: str
    user_prompt: str
    system_prompt: str = ""
    answer: _Label
    images: list[str]


def _score(value: Any) -> float | None:
    """0.33, "0.33", "33%" or 33 as 0.33; n/a as None. Raises ValueError."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('is neither a share, a percentage such as "33%", nor "n/a"')
    share = written_score(value)
    if share is None or not math.isfinite(share) or not 0 <= share <= 1:
        raise ValueError(
            f'is {value!r}: neither a share from 0 to 1, a percentage such as "33%", nor "n/a"'
        )
    return share


def _reference(value: Any) -> int | None:
    """3 or "3" as 3; n/a as None. Raises ValueError."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return None
    if isinstance(value, str | int) and not isinstance(value, bool):
        number = written_ref(value)
    else:
        number = None
    if number is None:
        raise ValueError(f'is {value!r}: neither a whole number nor "n/a"')
    return number


def _name(value: Any) -> Any:
    """A file name, or a list that holds just one."""
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"is a list of {len(value)} names, not of one")
        return value[0]
    return value


def _steps(value: Any) -> Any:
    if isinstance(value, str):
        if value.strip().lower() in _NONE:
            return None
        return int(value)
    return value


def camera_of(picture: str) -> str:
    """The camera in a picture's name, camera_top_0012.jpg; empty where the name does not say."""
    match = _CAMERA.match(picture.replace("\\", "/").rsplit("/", 1)[-1])
    if match:
        return match[1] or match[2]
    return ""


Text = Annotated[str, Field(strict=True)]
Items = Annotated[tuple[Text, ...], Field(min_length=1)]


class SourceRow(BaseModel):
    """A demonstration in words or pictures, one picture to place in it, and where it belongs."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: Annotated[Text, Field(min_length=1)]
    task_goal: Text
    text_demo: Items | None = None
    visual_demo: Items | None = None
    total_steps: Annotated[int | None, BeforeValidator(_steps)] = None
    stage_to_estimate: Annotated[str, BeforeValidator(_name), Field(min_length=1)]
    closest_idx: Annotated[int | None, BeforeValidator(_reference)]
    progress_score: Annotated[float | None, BeforeValidator(_score)]
    camera_combination: str | None = None

    @model_validator(mode="after")
    def _one_demonstration(self) -> "SourceRow":
        if (self.text_demo is None) == (self.visual_demo is None):
            raise ValueError(
                "has neither text_demo nor visual_demo"
                if self.text_demo is None
                else "has both demos"
            )
        if self.closest_idx is not None and not 1 <= self.closest_idx <= self.demo_size:
            raise ValueError(
                f"closest_idx is {self.closest_idx}, the demonstration has {self.demo_size} items"
            )
        return self

    @property
    def demo(self) -> tuple[str, ...]:
        return self.text_demo or self.visual_demo or ()

    @property
    def demo_size(self) -> int:
        return len(self.demo)

    @property
    def names(self) -> list[str]:
        """Its pictures below the image root, in the order of its question: the state to place comes last."""
        return [f"{self.id}/{name}" for name in (*(self.visual_demo or ()), self.stage_to_estimate)]

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the task done at each item. Steps in words are done at their end; pictures reach from the start to the end
        of the task."""
        n = self.demo_size
        if self.text_demo:
            return tuple(k / n for k in range(1, n + 1))
        return tuple(k / max(1, n - 1) for k in range(n))

    @property
    def camera(self) -> str:
        """Of the picture that is judged, by its name; empty where the name does not say."""
        return camera_of(self.stage_to_estimate)

    @property
    def kind(self) -> Literal["text", "visual", "cross_view"]:
        if self.text_demo is not None:
            return "text"
        cameras = {camera_of(name) for name in self.visual_demo or ()} - {""}
        elsewhere = self.camera != "" and bool(cameras) and self.camera not in cameras
        if self.camera_combination or elsewhere:
            return "cross_view"
        return "visual"

    def question(self, form: Form) -> str:
        """In our wording, with an image mark for each of its pictures."""
        return question_text(
            self.kind, self.task_goal or None, self.shares, self.text_demo or (), form
        )


WEIGHTS = {"format": 0.2, "ref": 0.5, "score": 0.3}

WRONG_REFUSAL, WRONG_ANSWER, UNREADABLE = -0.5, -0.5, -1.0  # mended

_BODY = {"ref": "[^<]*", "score": rf"\s*(?:\d+(?:\.\d+)?%?|{NA})\s*"}
_FORMAT = re.compile(
    r"\s*".join(f"<{tag}>{_BODY.get(tag, '.*?')}</{tag}>" for tag in TAGS),
    re.DOTALL | re.IGNORECASE | re.ASCII,
)
_SCORE = re.compile(r"(\d+(?:\.\d+)?)\s*%?", re.ASCII)


@dataclass(frozen=True)
class Truth:
    """The right answer for a reply: reference from 1 and score in percent, both None for n/a; number of items shown."""

    ref: int | None
    score_percent: float | None
    demo_count: int

    def __post_init__(self) -> None:
        if (self.ref is None) != (self.score_percent is None):
            raise ValueError("of reference and score one is n/a and the other is not")
        if self.ref is not None and not 1 <= self.ref <= self.demo_count:
            raise ValueError(f"reference {self.ref} of {self.demo_count} items")
        if self.score_percent is not None and not 0 <= self.score_percent <= 100:
            raise ValueError(f"a score of {self.score_percent} %")


@dataclass(frozen=True)
class ReplyReward:
    """The parts of WEIGHTS. Errors are 0..1: 0 for a right refusal, 1 where nothing can be compared."""

    format: float
    ref: float
    score: float
    ref_error: float
    score_error: float


def published(response: str, truth: Truth) -> ReplyReward:
    """As released, its defects included; ProgressLM (arXiv 2601.15224) computes the same."""
    fields = {tag: _first(response, tag) for tag in TAGS}
    ref_na = fields["ref"].lower() == NA
    score_na = fields["score"].lower() == NA
    base = _FORMAT.fullmatch(response.strip()) is not None
    think = (fields["score_think"].lower() == NA) == (truth.score_percent is None)
    form = 0.4 * base + 0.3 * (ref_na == score_na) + 0.3 * think

    # As released: the first digits of the tag are the reference, whatever stands around them.
    digits = re.search(r"\d{1,18}", fields["ref"], re.ASCII)
    off = None
    if digits and not ref_na and truth.ref is not None:
        off = min(abs(int(digits[0]) - truth.ref) / max(truth.demo_count - 1, 1), 1.0)
    ref, ref_error = _published_part(off, ref_na, truth.ref is None, power=2)

    number = _SCORE.fullmatch(fields["score"])
    off = None
    if number and truth.score_percent is not None:
        off = min(abs(float(number[1]) - truth.score_percent) / 100, 1.0)
    score, score_error = _published_part(off, score_na, truth.score_percent is None, power=1)
    return ReplyReward(form, ref, score, ref_error, score_error)


def _published_part(
    off: float | None, said_na: bool, is_na: bool, power: int
) -> tuple[float, float]:
    """(reward, error) of the reference or the score; `off` is None where no number was said or none is right."""
    if is_na:
        if said_na:
            return (0.8, 0.0)
        return (-0.3, 1.0)
    if said_na:
        return -0.8, 1.0
    if off is None:
        return (0.0, 1.0)
    return (1 - off**power, off)


def mended(response: str, truth: Truth) -> ReplyReward:
    """Read strictly; see the module. Between -.8 (nothing readable) and 1."""
    reply = parse_reply(response)
    thinks_na = reply.score_think.lower() in NA_WORDS
    form = float(reply.format_ok and reply.ref_is_na == reply.score_is_na == thinks_na)
    # a reference to an item that is not there is no reference
    ref = reply.ref if reply.ref is not None and reply.ref <= truth.demo_count else None
    percent = None if reply.score is None else 100 * reply.score
    ref_reward, ref_error = _mended_part(ref, reply.ref_is_na, truth.ref, 1, truth.demo_count)
    score_reward, score_error = _mended_part(
        percent, reply.score_is_na, truth.score_percent, 0, 100
    )
    return ReplyReward(form, ref_reward, score_reward, ref_error, score_error)


def _mended_part(
    value: float | None, said_na: bool, label: float | None, low: float, high: float
) -> tuple[float, float]:
    if said_na:
        if label is None:
            return (1.0, 0.0)
        return (WRONG_REFUSAL, 1.0)
    if value is None:
        return UNREADABLE, 1.0
    if label is None:
        return WRONG_ANSWER, 1.0
    # One item only: nothing to get wrong
    error = abs(value - label) / (max(label - low, high - label) or 1)
    return 1 - error, error


def _first(response: str, tag: str) -> str:
    match = re.search(rf"<{tag}>(.*?)</{tag}>", response, re.DOTALL | re.IGNORECASE)
    if match:
        return match[1].strip()
    return ""


REWARDS: Mapping[str, Callable[[str, Truth], ReplyReward]] = {
    "published": published,
    "mended": mended,
}
