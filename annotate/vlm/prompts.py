"""Prompts for the model: the texts of annotate/vlm/prompts, filled in.

Texts that others wrote are put in by `quote` only, so that they stay within their quotation marks.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import annotate.vlm.schemas as schemas
from annotate.config import VlmConfig
from annotate.model_client.calls import Image, Request
from annotate.segments import DONE, IDLE

FOLDER = Path(__file__).parent / "prompts"
VERSION = "prompts-1"  # of how the texts are filled in
OF_VIEWS = "views.txt"  # asked with the pictures of several cameras only: other questions are what they were
MAX_QUOTED = 600  # characters of a text that others wrote
# Characters that tokens of chat templates are made of: a tokenizer must not find one in what others wrote
TEMPLATE_CHARACTERS = "<>[]|"

Pictures = tuple[str | Image, ...]  # the beginning of a request


def quote(text: str) -> str:
    """`text` as a JSON string on one line, cut to MAX_QUOTED characters.

    Escaped is all that could end it, hide (direction marks, control characters) or be taken for a template's token.
    """
    cut = text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 4] + " ..."

    def shown(character: str) -> str:
        if character not in TEMPLATE_CHARACTERS and character.isprintable():
            return character
        units = character.encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[k : k + 4]}" for k in range(0, len(units), 4))

    return "".join(map(shown, json.dumps(cut, ensure_ascii=False)))


@cache
def _template(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8").strip()


def render(name: str, **values: object) -> str:
    """A prompt text with each `{field}` filled in once; braces in a value stay. KeyError for a field without value."""
    return re.sub(r"\{(\w+)\}", lambda m: str(values[m[1]]), _template(name))


@cache
def prompt_version(*, several_views: bool = False) -> str:
    """Changes with any prompt file that is used, with how they are filled in, and with the schemas."""
    h = hashlib.sha256(f"{VERSION}\0{schemas.SCHEMAS_VERSION}\0".encode())
    used = (f for f in FOLDER.glob("*.txt") if several_views or f.name != OF_VIEWS)
    for f in sorted(used):
        h.update(f.name.encode() + b"\0" + f.read_bytes() + b"\0")
    return h.hexdigest()[:16]


def request(
    stage: str,
    pictures: Sequence[str | Image],
    question: str,
    schema: schemas.Schema,
    config: VlmConfig,
    model: str = "",
) -> Request:
    """Pictures first, the question last: requests about the same pictures begin with the same bytes."""
    return Request(
        stage=stage,
        system=render("system"),
        content=(*pictures, question),
        schema=schema,
        max_tokens=schemas.max_tokens(schema),
        temperature=config.temperature,
        seed=config.seed,
        model=model,
    )


def one_line(text: str) -> str:
    """A model's text on one line, without invisible characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def seconds(frame: int, fps: float) -> str:
    return f"{frame / fps:.2f}"


def task_text(task: str | None, *, inferred: bool = False) -> str:
    if task is None:
        return render("task_missing")
    return render("task_inferred" if inferred else "task_stated", task=quote(task))


def step_list(names: Sequence[str]) -> str:
    return "\n".join(f"{k}. {quote(name)}" for k, name in enumerate(names, 1))


def activity(label: int | str, names: Sequence[str]) -> str:
    """A label in words."""
    if label == IDLE:
        return "idle: the robot stands still, waits, or moves to no purpose"
    if label == DONE:
        return "done: every step is complete and the robot only rests or withdraws"
    return f"step {int(label) + 1}, {quote(names[int(label)])}"
