"""What ProgressLM's families ask and how they are answered: the one wording, for samples, training and benchmarks."""

from collections.abc import Sequence
from typing import Literal

from annotate.samples.procvqa import task_text
from annotate.samples.replies import NA
from annotate.samples.wording import template, without_marks

View = Literal["text", "visual", "cross_view"]
Form = Literal["think", "no_think"]


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
