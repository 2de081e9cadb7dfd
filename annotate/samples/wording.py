"""The wording of samples, also for training and benchmarks: template files, whose every change is another version."""

import hashlib
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from annotate.samples.replies import NA
from core.values import IMAGE_MARK

View = Literal["text", "visual", "cross_view"]  # of a ProgressLM sample
Form = Literal["think", "no_think"]

TEMPLATES = Path(__file__).parent / "templates"


@cache
def template(file: str, *path: str) -> Any:
    """A text (or table of texts) of <file>.toml, without the line break it begins with."""
    entry: Any = _load(file)
    for part in path:
        entry = entry[part]
    return entry.strip("\n") if isinstance(entry, str) else entry


@cache
def _load(file: str) -> dict[str, Any]:
    return tomllib.loads((TEMPLATES / f"{file}.toml").read_text())


def template_version() -> str:
    """Changes with any template file."""
    files = sorted(TEMPLATES.glob("*.toml"))
    return hashlib.sha256(b"\0".join(f.name.encode() + b"\0" + f.read_bytes() for f in files)).hexdigest()[:16]


def without_marks(text: str) -> str:
    """A text from outside, fit for a question: <image> marks stand for pictures and nothing else."""
    return text.replace(IMAGE_MARK, "image")


def task_text(task: str | None) -> str:
    return without_marks(task or template("procvqa", "task_missing"))


# ProgressLM


def question_text(view: View, task: str | None, shares: Sequence[float], steps: Sequence[str], form: Form) -> str:
    """The question, with an <image> mark for each picture of the demonstration and, last, for the state to judge.

    `shares` of the task (0..1) that are done after each step of a demonstration in words, or in each of its pictures;
    `steps` are its words and empty for pictures.
    """
    kind = "text" if view == "text" else "visual"
    line = template("progresslm", "item", f"{kind}_line")
    items = [
        line.format(number=number, name=without_marks(name), percent=percent(share))
        for number, (name, share) in enumerate(zip(steps or [""] * len(shares), shares, strict=True), 1)
    ]
    wording = template("progresslm", view, "question")
    question = wording.format(task=task_text(task), num_items=len(items), demonstration="\n".join(items))
    return (
        f"{question}\n{template('progresslm', 'form', form, 'ask').format(item=template('progresslm', 'item', kind))}"
    )


def answer_text(form: Form, *, ref_think: str = "", ref: int | str, score_think: str = "", score: str) -> str:
    """The answer; without reasoning it is the score alone."""
    wording = template("progresslm", "form", form, "answer")
    return wording.format(ref_think=ref_think, ref=ref, score_think=score_think, score=score)


def percent(share: float) -> str:
    """Whole percent, half to even, as demonstrations show it."""
    return f"{100 * share:.0f}"


def score_text(score: float | None) -> str:
    """A score 0..1 as answers give it: percent with up to two decimals, or n/a.

    Example: score_text(0.4250) == "42.5%" and score_text(1.0) == "100%".
    """
    return NA if score is None else f"{100 * score:.2f}".rstrip("0").rstrip(".") + "%"
