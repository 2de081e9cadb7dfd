"""Texts of samples: the wording of questions and answers, and replies in ProgressLM's formats, read.

Wordings are template files, whose every change is another version; training and benchmarks use
them, too. A reply has four tags that reason, or a percentage alone. Two ways to read it: `strict`
takes only what has one meaning: a tag that stands once, a whole number as reference, a percentage
from 0 to 100 that says it is one, or n/a. `published` reads as the released evaluation does, which
takes the first match and guesses ("0.42" is 42 %, "42" too, "nan" is 100 %). Format and published
parsers are ProgressLM's (arXiv 2601.15224).
"""

import math
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from core.values import IMAGE_MARK

Mode = Literal["strict", "published"]

TAGS = ("ref_think", "ref", "score_think", "score")
NA = "n/a"
NA_WORDS = frozenset({NA, "na"})
MAX_DIGITS = 18  # of a reference; int() refuses numbers of some thousand digits

_WHOLE = re.compile(
    r"\s*" + r"\s*".join(rf"<{tag}>(?P<{tag}>.*?)</{tag}>" for tag in TAGS) + r"\s*", re.DOTALL
)
_REFERENCE = re.compile(rf"[1-9]\d{{0,{MAX_DIGITS - 1}}}", re.ASCII)
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*%", re.ASCII)
_FIRST_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DIGITS = re.compile(r"\d+")

UNREADABLE = (None, False)  # neither a value nor n/a


@dataclass(frozen=True)
class ParsedReply:
    """A parsed reply. `ref` counts from 1, `score` is 0..1; both are None for n/a and for unparsable text."""

    ref: int | None
    score: float | None
    ref_is_na: bool
    score_is_na: bool
    ref_think: str
    score_think: str
    score_text: str  # as it stands in the tag, stripped; empty without the tag
    format_ok: bool  # nothing but the four tags, once each and in order; reference and score can be read strictly


@dataclass(frozen=True)
class ParsedAnswer:
    """A reply without reasoning: `score` 0..1, None for n/a and for what cannot be read."""

    score: float | None
    is_na: bool


def parse_reply(text: str, mode: Mode = "strict") -> ParsedReply:
    """The four tags of a reply that reasons. Never raises, whatever the text."""
    ref_think, ref_text, score_think, score_text = (_tag_content(text, tag, mode) for tag in TAGS)
    # Both readings are made: whether the format is right is judged strictly, however values are read
    strict = _value_or_na(ref_text, _strict_ref), _value_or_na(score_text, _strict_score)
    published = _value_or_na(ref_text, _published_ref), _value_or_na(score_text, _published_score)
    (ref, ref_is_na), (score, score_is_na) = strict if mode == "strict" else published
    has_each_tag_once = all(text.count(f"<{tag}>") == text.count(f"</{tag}>") == 1 for tag in TAGS)
    has_nothing_else = _WHOLE.fullmatch(text) is not None
    return ParsedReply(
        ref=ref,
        score=score,
        ref_is_na=ref_is_na,
        score_is_na=score_is_na,
        ref_think=ref_think,
        score_think=score_think,
        score_text=score_text,
        format_ok=has_each_tag_once and UNREADABLE not in strict and has_nothing_else,
    )


def _tag_content(text: str, tag: str, mode: Mode) -> str:
    """What stands in the first such tag, stripped; strictly, a tag that stands twice says nothing."""
    contents: list[str] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    is_ambiguous = mode == "strict" and len(contents) > 1
    if is_ambiguous or not contents:
        return ""
    return contents[0].strip()


def parse_answer(text: str, mode: Mode = "strict") -> ParsedAnswer:
    """A percentage or n/a without reasoning.

    Example: parse_answer("42%") has the score 0.42, and so has parse_answer("about 42",
    "published").
    """
    stripped = text.strip()
    # A full stop ends the sentence and is no part of the number
    if mode == "strict":
        return ParsedAnswer(*_value_or_na(stripped.removesuffix("."), _strict_score))
    if stripped.lower() in NA_WORDS:
        return ParsedAnswer(None, True)
    if percent := _FIRST_PERCENTAGE.search(stripped):
        return ParsedAnswer(_clamped_share(float(percent[1]) / 100), False)
    number = _NUMBER.search(stripped)
    return ParsedAnswer(_share(float(number[0])) if number else None, False)


def written_score(written: str | float | None) -> float | None:
    """A score as prediction and label files hold it, as the published metrics read it; not clamped to 0..1."""
    text = str(written).strip().lower()  # None, too, is a word for nothing
    if text in NA_WORDS | {"", "none", "null", "-"}:
        return None
    try:
        # With its sign "0.5%" is half a percent; without one, 0.5 is a half
        value = float(text.removesuffix("%"))
    except ValueError:
        return None
    if value > 1 or text.endswith("%"):
        return value / 100
    return value


def written_ref(written: str | float | None) -> int | None:
    """A reference as prediction and label files hold it, as the published metrics read it."""
    if written is None or str(written).strip().lower() in ("", "n/a"):
        return None
    try:
        return int(written)
    except (ValueError, OverflowError):
        return None


def _clamped_share(value: float) -> float:
    return max(0.0, min(1.0, value))  # in this order NaN gives 1, as published


def _share(value: float) -> float:
    return _clamped_share(value / 100 if value > 1 else value)


def _value_or_na[T](text: str, read: Callable[[str], T | None]) -> tuple[T | None, bool]:
    """(the value, None where there is none; is it n/a?)"""
    if text.lower() in NA_WORDS:
        return (None, True)
    return (read(text), False)


def _published_ref(text: str) -> int | None:
    digits = _DIGITS.search(text)
    if digits and len(digits[0]) <= MAX_DIGITS:
        return int(digits[0])
    return None


def _published_score(text: str) -> float | None:
    try:
        if text.endswith("%"):
            return _clamped_share(float(text[:-1]) / 100)
        return _share(float(text))
    except ValueError:
        return None


def _strict_ref(text: str) -> int | None:
    if _REFERENCE.fullmatch(text):
        return int(text)
    return None


def _strict_score(text: str) -> float | None:
    percentage = _PERCENTAGE.fullmatch(text)
    score = float(percentage[1]) / 100 if percentage else math.inf
    if score <= 1:
        return score
    return None


View = Literal["text", "visual", "cross_view"]  # of a ProgressLM sample
Form = Literal["think", "no_think"]

TEMPLATES = Path(__file__).parent / "templates"


@cache
def template(file: str, *path: str) -> Any:
    """A text (or table of texts) of <file>.toml, without the line break it begins with."""
    entry: Any = _load(file)
    for part in path:
        entry = entry[part]
    if isinstance(entry, str):
        return entry.strip("\n")
    return entry


@cache
def _load(file: str) -> dict[str, Any]:
    return tomllib.loads((TEMPLATES / f"{file}.toml").read_text())


def without_marks(text: str) -> str:
    """A text from outside, fit for a question: <image> marks stand for pictures and nothing else."""
    return text.replace(IMAGE_MARK, "image")


def task_text(task: str | None) -> str:
    return without_marks(task or template("procvqa", "task_missing"))


# ProgressLM


def question_text(
    view: View, task: str | None, shares: Sequence[float], steps: Sequence[str], form: Form
) -> str:
    """The question, with an <image> mark for each picture of the demonstration and, last, for the state to judge.

    `shares` of the task (0..1) that are done after each step of a demonstration in words, or in
    each of its pictures; `steps` are its words and empty for pictures.
    """
    kind = "text" if view == "text" else "visual"
    line = template("progresslm", "item", f"{kind}_line")
    items = [
        line.format(number=number, name=without_marks(name), percent=percent(share))
        for number, (name, share) in enumerate(
            zip(steps or [""] * len(shares), shares, strict=True), 1
        )
    ]
    question = template("progresslm", view, "question").format(
        task=task_text(task), num_items=len(items), demonstration="\n".join(items)
    )
    item = template("progresslm", "item", kind)
    return f"{question}\n{template('progresslm', 'form', form, 'ask').format(item=item)}"


def answer_text(
    form: Form, *, ref_think: str = "", ref: int | str, score_think: str = "", score: str
) -> str:
    """The answer; without reasoning it is the score alone."""
    return template("progresslm", "form", form, "answer").format(
        ref_think=ref_think, ref=ref, score_think=score_think, score=score
    )


def percent(share: float) -> str:
    """Whole percent, half to even, as demonstrations show it."""
    return f"{100 * share:.0f}"


def score_text(score: float | None) -> str:
    """A score 0..1 as answers give it: percent with up to two decimals, or n/a.

    Example: score_text(0.4250) == "42.5%" and score_text(1.0) == "100%".
    """
    if score is None:
        return NA
    return f"{100 * score:.2f}".rstrip("0").rstrip(".") + "%"
