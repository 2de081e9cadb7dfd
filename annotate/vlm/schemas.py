"""JSON schemas of the replies of each stage.

Every reply that is valid can be used: labels and pictures are chosen from lists, and every text and list is bounded, so
that guided decoding ends even for a model that knows nothing. What a model should think of first comes first.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from annotate.segments import DONE, IDLE

SCHEMAS_VERSION = "schemas-1"  # part of prompt_version()
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

Schema = dict[str, Any]


def plan_reply(vocabulary: Sequence[str], max_steps: int, *, infer_task: bool) -> Schema:
    step = _object(verb={"type": "string", "enum": list(vocabulary)}, object=_text(OBJECT_CHARS))
    task = {"task": _text(TASK_CHARS)} if infer_task else {}
    steps = {"type": "array", "items": step, "minItems": 2, "maxItems": max_steps}
    return _object(scene=_text(SCENE_CHARS), **task, steps=steps)


def segment_reply(num_pictures: int, num_steps: int, *, min_changes: int) -> Schema:
    """Pictures are numbered from 1, and the first one cannot be a change."""
    activity = {
        "label": {"type": "string", "enum": [*(str(k + 1) for k in range(num_steps)), IDLE, DONE]},
        "outcome": {"type": "string", "enum": [ACHIEVED, "not_achieved"]},
    }
    change = _object(picture=_number(range(2, num_pictures + 1)), **activity)
    most = min(num_pictures - 1, 2 * num_steps + 6)
    changes = {"type": "array", "items": change, "minItems": min_changes, "maxItems": most}
    return _object(seen=_text(SEEN_CHARS), first=_object(**activity), changes=changes)


def refine_reply(num_pictures: int) -> Schema:
    return _object(seen=_text(EVENT_CHARS), picture=_number(range(2, num_pictures + 1)))


def verify_reply(num_attempts: int) -> Schema:
    verdict = _object(criterion=_text(EVIDENCE_CHARS), evidence=_text(EVIDENCE_CHARS), completed={"type": "boolean"})
    return _object(**{attempt_key(k): verdict for k in range(1, num_attempts + 1)})


def reason_reply(pictures: Sequence[int]) -> Schema:
    return _object(**{picture_key(k): _text(REASON_CHARS) for k in pictures})


def attempt_key(number: int) -> str:
    return f"attempt_{number}"


def picture_key(number: int) -> str:
    return f"picture_{number}"


def max_tokens(schema: Mapping[str, Any]) -> int:
    """Characters of the longest valid reply as json.dumps writes it: as many tokens as any tokenizer needs for it.

    Example: {"picture": 12}, where the choices go up to 12, has 2 for the braces, 9 for the key, 4 for colon, comma and
    blanks, and 2 for the number: 17.
    """
    if "enum" in schema:
        return max(len(json.dumps(x)) for x in schema["enum"])
    if schema["type"] == "object":
        return 2 + sum(len(json.dumps(k)) + 4 + max_tokens(v) for k, v in schema["properties"].items())
    if schema["type"] == "array":
        return 2 + schema["maxItems"] * (2 + max_tokens(schema["items"]))
    return 5 if schema["type"] == "boolean" else 2 + max_chars(schema)


def _object(**properties: Schema) -> Schema:
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def _text(max_chars: int) -> Schema:
    """Printable ASCII without quotes and backslashes: no character takes more than one token, none has to be escaped.

    By a pattern only: under vLLM 0.32 with xgrammar 0.2.8 a text bounded by `maxLength` may hold control characters and
    broken UTF-8, both bounds at once are refused, and a repetition of more than 128 is an internal error (xgrammar's
    issue 647), so a long one is told in parts.
    """
    first = r"[!#-\[\]-~]"  # is no blank
    lengths = [min(REPEATED, max_chars - 1 - start) for start in range(0, max_chars - 1, REPEATED)]
    rest = "".join(rf"[ !#-\[\]-~]{{0,{length}}}" for length in lengths)
    return {"type": "string", "pattern": f"^{first}{rest}$"}


def max_chars(text: Mapping[str, Any]) -> int:
    return 1 + sum(map(int, re.findall(r"\{0,(\d+)\}", text["pattern"])))


def _number(choices: Sequence[int]) -> Schema:
    return {"type": "integer", "enum": list(choices)}
