"""The rewards of GRPO on ProgressLM's format: `published` as it was trained with, `mended` without its defects.

Both weigh format .2, reference .5 and score .3 (ProgressLM, arXiv 2601.15224). What `mended` does otherwise, and why:

- What cannot be read is worth -1, a wrong refusal -.5: silence must not pay better than saying that one does not know.
- A score says that it is a percentage: "0.42" was 0.42 % in training and 42 % in evaluation, now it is neither.
- "na" is a refusal, as in evaluation.
- A right refusal is worth 1, as any other right answer; published stops at .84.
- Errors count linearly and against the largest one that the label allows, as in evaluation: a quadratic one left .75
  of the reward to a reference that was half the demonstration off.
- The format is judged without the label: it asks the reply to be consistent, not to be right.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from annotate.samples.wording import NA, NA_WORDS, TAGS, parse_reply

WEIGHTS = {"format": 0.2, "ref": 0.5, "score": 0.3}

WRONG_REFUSAL, WRONG_ANSWER, UNREADABLE = -0.5, -0.5, -1.0  # mended

_BODY = {"ref": "[^<]*", "score": rf"\s*(?:\d+(?:\.\d+)?%?|{NA})\s*"}
_FORMAT = re.compile(
    r"\s*".join(f"<{tag}>{_BODY.get(tag, '.*?')}</{tag}>" for tag in TAGS), re.DOTALL | re.IGNORECASE | re.ASCII
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
    """Parts and their weighted sum. Errors are 0..1: 0 for a right refusal, 1 where nothing can be compared."""

    format: float
    ref: float
    score: float
    ref_error: float
    score_error: float

    @property
    def overall(self) -> float:
        return sum(weight * getattr(self, part) for part, weight in WEIGHTS.items())


def published(response: str, truth: Truth) -> ReplyReward:
    """As released, its defects included; ProgressLM (arXiv 2601.15224) computes the same."""
    said = {tag: _first(response, tag) for tag in TAGS}
    ref_na, score_na = said["ref"].lower() == NA, said["score"].lower() == NA
    base = _FORMAT.fullmatch(response.strip()) is not None
    think = (said["score_think"].lower() == NA) == (truth.score_percent is None)
    form = 0.4 * base + 0.3 * (ref_na == score_na) + 0.3 * think

    # As released: the first digits of the tag are the reference, whatever stands around them.
    digits = re.search(r"\d{1,18}", said["ref"], re.ASCII)
    off = None
    if digits and not ref_na and truth.ref is not None:
        off = min(abs(int(digits[0]) - truth.ref) / max(truth.demo_count - 1, 1), 1.0)
    ref, ref_error = _published_part(off, ref_na, truth.ref is None, power=2)

    number = _SCORE.fullmatch(said["score"])
    off = None
    if number and truth.score_percent is not None:
        off = min(abs(float(number[1]) - truth.score_percent) / 100, 1.0)
    score, score_error = _published_part(off, score_na, truth.score_percent is None, power=1)
    return ReplyReward(form, ref, score, ref_error, score_error)


def _published_part(off: float | None, said_na: bool, is_na: bool, power: int) -> tuple[float, float]:
    """(reward, error) of the reference or the score; `off` is None where no number was said or none is right."""
    if is_na:
        return (0.8, 0.0) if said_na else (-0.3, 1.0)
    if said_na:
        return -0.8, 1.0
    return (0.0, 1.0) if off is None else (1 - off**power, off)


def mended(response: str, truth: Truth) -> ReplyReward:
    """Read strictly; see the module. Between -.8 (nothing readable) and 1."""
    said = parse_reply(response)
    thinks_na = said.score_think.lower() in NA_WORDS
    form = float(said.format_ok and said.ref_is_na == said.score_is_na == thinks_na)
    # a reference to an item that is not there is no reference
    ref = said.ref if said.ref is not None and said.ref <= truth.demo_count else None
    percent = None if said.score is None else 100 * said.score
    ref_reward, ref_error = _mended_part(ref, said.ref_is_na, truth.ref, 1, truth.demo_count)
    score_reward, score_error = _mended_part(percent, said.score_is_na, truth.score_percent, 0, 100)
    return ReplyReward(form, ref_reward, score_reward, ref_error, score_error)


def _mended_part(
    value: float | None, said_na: bool, label: float | None, low: float, high: float
) -> tuple[float, float]:
    if said_na:
        return (1.0, 0.0) if label is None else (WRONG_REFUSAL, 1.0)
    if value is None:
        return UNREADABLE, 1.0
    if label is None:
        return WRONG_ANSWER, 1.0
    error = abs(value - label) / (max(label - low, high - label) or 1)  # one item only: nothing to get wrong
    return 1 - error, error


def _first(response: str, tag: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", response, re.DOTALL | re.IGNORECASE)
    return found[1].strip() if found else ""


REWARDS: Mapping[str, Callable[[str, Truth], ReplyReward]] = {"published": published, "mended": mended}
