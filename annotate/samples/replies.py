"""Replies in ProgressLM's formats, read: four tags that reason, or a percentage alone; and the texts that files hold.

Two ways to read each. `strict` takes only what has one meaning: a tag that stands once, a whole number as reference, a
percentage from 0 to 100 that says it is one, or n/a. `published` reads as the released evaluation does, which takes
the first match and guesses ("0.42" is 42 %, "42" too, "nan" is 100 %).
The format and its published parsers are ProgressLM's (arXiv 2601.15224).
"""

import re
from dataclasses import dataclass
from typing import Literal

Mode = Literal["strict", "published"]
Family = Literal["qwen", "openai", "internvl"]

TAGS = ("ref_think", "ref", "score_think", "score")
NA = "n/a"
NA_WORDS = frozenset({NA, "na"})
MAX_DIGITS = 18  # of a reference; int() refuses numbers of some thousand digits

_WHOLE = re.compile(r"\s*" + r"\s*".join(rf"<{tag}>(?P<{tag}>.*?)</{tag}>" for tag in TAGS) + r"\s*", re.DOTALL)
_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*%", re.ASCII)
_FIRST_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DECIMAL = re.compile(r"0?\.\d+")


@dataclass(frozen=True)
class Reply:
    """What a reply says. `ref` counts from 1, `score` is 0..1; both are None for n/a and for what cannot be read."""

    ref: int | None
    score: float | None
    ref_is_na: bool
    score_is_na: bool
    ref_think: str
    score_think: str
    ref_text: str  # as it stands in the tag, stripped; empty without the tag
    score_text: str
    format_ok: bool  # nothing but the four tags, once each and in order; reference and score can be read strictly

    @property
    def is_parsed(self) -> bool:
        """There is a score, or a refusal to give one."""
        return self.score is not None or self.score_is_na


@dataclass(frozen=True)
class Answer:
    """A reply without reasoning: `score` 0..1, None for n/a and for what cannot be read."""

    score: float | None
    is_na: bool


def parse_reply(text: str, mode: Mode = "strict") -> Reply:
    """The four tags of a reply that reasons. Never raises, whatever the text."""
    found = {tag: re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in TAGS}
    once = all(text.count(f"<{tag}>") == text.count(f"</{tag}>") == 1 for tag in TAGS)
    said = {tag: (matches[0].strip() if matches else "") for tag, matches in found.items()}
    if mode == "strict":  # said twice is not said
        said = {tag: s if len(found[tag]) == 1 else "" for tag, s in said.items()}
    ref, ref_is_na = (_strict_ref if mode == "strict" else _published_ref)(said["ref"])
    score, score_is_na = (_strict_score if mode == "strict" else _published_score)(said["score"])
    readable = _strict_ref(said["ref"]) != (None, False) and _strict_score(said["score"]) != (None, False)
    return Reply(
        ref,
        score,
        ref_is_na,
        score_is_na,
        said["ref_think"],
        said["score_think"],
        said["ref"],
        said["score"],
        format_ok=once and readable and _WHOLE.fullmatch(text) is not None,
    )


def parse_answer(text: str, mode: Mode = "strict", family: Family = "qwen") -> Answer:
    """A percentage or n/a without reasoning. `family`: whose published parser; they differ in what they look for."""
    stripped = text.strip()
    if mode == "strict":
        return Answer(*_strict_score(stripped.removesuffix(".")))
    if family != "internvl" and stripped.lower() in NA_WORDS:
        return Answer(None, True)
    if percent := _FIRST_PERCENTAGE.search(stripped):
        return Answer(_clamped(float(percent[1]) / 100), False)
    patterns = (_DECIMAL, re.compile(r"\d+")) if family == "openai" else (_NUMBER,)
    for pattern in patterns:
        if number := pattern.search(stripped):
            return Answer(_share(float(number[0])), False)
    return Answer(None, stripped.lower() in NA_WORDS)


def written_score(written: str | float | None) -> float | None:
    """A score as prediction and label files hold it, as the published metrics read it; not clamped to 0..1."""
    if written is None:
        return None
    text = str(written).strip()
    if text.lower() in NA_WORDS | {"", "none", "null", "-"}:
        return None
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        value = float(text)
    except ValueError:
        return None
    return value / 100 if value > 1 else value


def written_ref(written: str | float | None) -> int | None:
    """A reference as prediction and label files hold it, as the published metrics read it."""
    if written is None or str(written).strip().lower() in ("", "n/a"):
        return None
    try:
        return int(written)
    except (ValueError, OverflowError):
        return None


def _clamped(value: float) -> float:
    return max(0.0, min(1.0, value))  # in this order NaN gives 1, as published


def _share(value: float) -> float:
    return _clamped(value / 100 if value > 1 else value)


def _published_ref(text: str) -> tuple[int | None, bool]:
    if text.lower() in NA_WORDS:
        return None, True
    digits = re.search(r"\d+", text)
    return (int(digits[0]) if digits and len(digits[0]) <= MAX_DIGITS else None), False


def _published_score(text: str) -> tuple[float | None, bool]:
    if text.lower() in NA_WORDS:
        return None, True
    try:
        return (_clamped(float(text[:-1]) / 100) if text.endswith("%") else _share(float(text))), False
    except ValueError:
        return None, False


def _strict_ref(text: str) -> tuple[int | None, bool]:
    if text.lower() in NA_WORDS:
        return None, True
    return (int(text) if re.fullmatch(rf"[1-9]\d{{0,{MAX_DIGITS - 1}}}", text, re.ASCII) else None), False


def _strict_score(text: str) -> tuple[float | None, bool]:
    if text.lower() in NA_WORDS:
        return None, True
    percent = _PERCENTAGE.fullmatch(text)
    value = float(percent[1]) / 100 if percent else None
    return (value if value is not None and value <= 1 else None), False
