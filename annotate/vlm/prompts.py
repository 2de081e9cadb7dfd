"""Prompts for the model: the texts of annotate/vlm/prompts, filled in; and JSON schemas of the replies of each stage.

Texts that others wrote are put in by `quote` only, so that they stay within their quotation marks.

Every reply that is valid can be used: labels and pictures are chosen from lists, and every text and
list is bounded, so that guided decoding ends even for a model that knows nothing. What a model
should think of first comes first.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from annotate.config import VlmConfig
from annotate.model_client.calls import Image, Request
from annotate.model_client.reading import THOUGHT, max_chars, reply_form
from core.domain.label import DONE, IDLE

FOLDER = Path(__file__).parent / "prompts"
VERSION = "prompts-2"  # of how the texts are filled in
OF_VIEWS = "views.txt"  # asked with the pictures of several cameras only: other questions are what they were
MAX_QUOTED = 600  # characters of a text that others wrote
# Characters that tokens of chat templates are made of: a tokenizer must not find one in what others wrote
TEMPLATE_CHARACTERS = "<>[]|"

Pictures = tuple[str | Image, ...]  # the beginning of a request
Schema = dict[str, Any]


def quote(text: str) -> str:
    """`text` as a JSON string on one line, cut to MAX_QUOTED characters.

    Escaped is all that could end it, hide (direction marks, control characters) or be taken for a
    template's token.
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
    h = hashlib.sha256(f"{VERSION}\0{SCHEMAS_VERSION}\0".encode())
    used = (f for f in FOLDER.glob("*.txt") if several_views or f.name != OF_VIEWS)
    for f in sorted(used):
        h.update(f.name.encode() + b"\0" + f.read_bytes() + b"\0")
    return h.hexdigest()[:16]


def request(
    stage: str,
    pictures: Sequence[str | Image],
    question: str,
    schema: Schema,
    config: VlmConfig,
    model: str = "",
) -> Request:
    """Pictures first, the question last: requests about the same pictures begin with the same bytes.

    The question ends with the form of its reply in words: some servers send a model nothing else of
    the schema.
    """
    question = f"{question}\n\n{render('form', form=reply_form(schema))}"
    return Request(
        stage=stage,
        system=render("system"),
        content=(*pictures, question),
        schema=schema,
        max_tokens=max_tokens(schema),
        temperature=config.temperature,
        seed=config.seed,
        model=model,
        extra=config.extra_body,
    )


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


SCHEMAS_VERSION = "schemas-2"  # part of prompt_version()
# Characters that the texts of a reply may have: what is thought of first is short, or it costs more than the answer
SCENE_CHARS = 240
TASK_CHARS = 120
OBJECT_CHARS = 60
SEEN_CHARS = 300
EVENT_CHARS = 100
EVIDENCE_CHARS = 100
REASON_CHARS = 240
REPEATED = 120  # characters in one repetition of a pattern
ACHIEVED = "achieved"


def plan_reply(vocabulary: Sequence[str], max_steps: int, *, infer_task: bool) -> Schema:
    step = _object(verb={"type": "string", "enum": list(vocabulary)}, object=_text(OBJECT_CHARS))
    task = {"task": _text(TASK_CHARS)} if infer_task else {}
    steps = {"type": "array", "items": step, "minItems": 2, "maxItems": max_steps}
    return _object(scene=_thought(SCENE_CHARS), **task, steps=steps)


def segment_reply(pictures: Sequence[int], num_steps: int, *, min_changes: int) -> Schema:
    """pictures: their numbers; the first one cannot be a change."""
    activity = {
        "label": {"type": "string", "enum": [*(str(k + 1) for k in range(num_steps)), IDLE, DONE]},
        "outcome": {"type": "string", "enum": [ACHIEVED, "not_achieved"]},
    }
    change = _object(picture=_number(pictures[1:]), **activity)
    max_changes = min(len(pictures) - 1, 2 * num_steps + 6)
    changes = {"type": "array", "items": change, "minItems": min_changes, "maxItems": max_changes}
    return _object(seen=_thought(SEEN_CHARS), first=_object(**activity), changes=changes)


def refine_reply(pictures: Sequence[int]) -> Schema:
    return _object(seen=_thought(EVENT_CHARS), picture=_number(pictures[1:]))


def verify_reply(num_attempts: int) -> Schema:
    verdict = _object(
        criterion=_thought(EVIDENCE_CHARS),
        evidence=_thought(EVIDENCE_CHARS),
        completed={"type": "boolean"},
    )
    return _object(**{attempt_key(k): verdict for k in range(1, num_attempts + 1)})


def reason_reply(pictures: Sequence[int]) -> Schema:
    return _object(**{picture_key(k): _thought(REASON_CHARS) for k in pictures})


def attempt_key(number: int) -> str:
    return f"attempt_{number}"


def picture_key(number: int) -> str:
    return f"picture_{number}"


def max_tokens(schema: Mapping[str, Any]) -> int:
    """Characters of the longest valid reply as json.dumps writes it: as many tokens as any tokenizer needs for it.

    Example: {"picture": 12}, where the choices go up to 12, has 2 for the braces, 9 for the key, 4
    for colon, comma and blanks, and 2 for the number: 17.
    """
    if "enum" in schema:
        return max(len(json.dumps(x)) for x in schema["enum"])
    if schema["type"] == "object":
        return 2 + sum(
            len(json.dumps(k)) + 4 + max_tokens(v) for k, v in schema["properties"].items()
        )
    if schema["type"] == "array":
        return 2 + schema["maxItems"] * (2 + max_tokens(schema["items"]))
    if schema["type"] == "boolean":
        return 5
    return 2 + max_chars(schema)


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _text(max_chars: int) -> Schema:
    """Printable ASCII without quotes and backslashes: no character takes more than one token, none has to be escaped.

    By a pattern only: under vLLM 0.32 with xgrammar 0.2.8 a text bounded by `maxLength` may hold
    control characters and broken UTF-8, both bounds at once are refused, and a repetition of more
    than 128 is an internal error (xgrammar's issue 647), so a long one is told in parts.
    """
    first = r"[!#-\[\]-~]"  # is no blank
    lengths = [min(REPEATED, max_chars - 1 - start) for start in range(0, max_chars - 1, REPEATED)]
    tail_pattern = "".join(rf"[ !#-\[\]-~]{{0,{length}}}" for length in lengths)
    return {"type": "string", "pattern": f"^{first}{tail_pattern}$"}


def _thought(max_chars: int) -> Schema:
    """A text that no label is made of: a reply without it can be used."""
    return _text(max_chars) | {"description": THOUGHT}


def _number(choices: Sequence[int]) -> Schema:
    return {"type": "integer", "enum": list(choices)}
