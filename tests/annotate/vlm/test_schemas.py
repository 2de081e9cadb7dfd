import json
import re

import jsonschema
import pytest

from annotate.config import VERBS
from annotate.vlm import prompts

ALL = {
    "plan": prompts.plan_reply(VERBS, 8, infer_task=False),
    "plan and task": prompts.plan_reply(VERBS, 8, infer_task=True),
    "segment": prompts.segment_reply(range(1, 25), 5, min_changes=1),
    "segment of a window": prompts.segment_reply(range(1, 25), 5, min_changes=0),
    "segment of two pictures": prompts.segment_reply(range(1, 3), 1, min_changes=1),
    "refine": prompts.refine_reply(range(1, 9)),
    "verify": prompts.verify_reply(12),
    "reason": prompts.reason_reply([1, 3, 24]),
}
STEPS = [{"verb": "Grasp", "object": "the cup"}, {"verb": "Place", "object": "it (on 5%)"}]
VALID = {
    "plan": {"scene": "An arm", "steps": STEPS},
    "segment": {
        "seen": "It moves",
        "first": {"label": "idle", "outcome": "achieved"},
        "changes": [{"picture": 2, "label": "5", "outcome": "not_achieved"}],
    },
    "refine": {"seen": "It closes", "picture": 8},
    "reason": {"picture_1": "A", "picture_3": "B", "picture_24": "C"},
}
OBJECT = ("steps", 0, "object")
CHANGE = ("changes", 0)
# Stage, path of what is changed in a valid reply, and to what
INVALID = [
    ("plan", ("steps",), STEPS[:1]),
    ("plan", ("steps",), STEPS * 5),
    ("plan", ("steps", 0, "verb"), "Juggle"),
    ("plan", OBJECT, ""),
    ("plan", OBJECT, " "),
    ("plan", OBJECT, "x" * 61),
    ("plan", OBJECT, 'the "cup"'),
    ("plan", OBJECT, "the\ncup"),
    ("plan", OBJECT, "the cup\x00"),
    ("plan", OBJECT, "the cup\\"),
    ("plan", OBJECT, "the \ud800"),
    ("plan", ("scene",), "x" * 241),
    ("plan", ("task",), "Lift it"),
    ("segment", ("changes",), []),
    ("segment", (*CHANGE, "picture"), 1),
    ("segment", (*CHANGE, "picture"), 25),
    ("segment", (*CHANGE, "picture"), 2.5),
    ("segment", (*CHANGE, "label"), "6"),
    ("segment", ("first", "outcome"), "maybe"),
    ("refine", ("picture",), 1),
    ("refine", ("picture",), None),
    ("reason", ("picture_2",), "more"),
]


def test_a_plain_reply_is_valid_and_what_could_not_be_used_is_not():
    for stage, value in VALID.items():
        jsonschema.validate(value, ALL[stage])
    for stage, path, bad_value in INVALID:
        inner = value = json.loads(json.dumps(VALID[stage]))
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = bad_value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, ALL[stage])
    # A missing task is asked for, and windows of long episodes may hold no change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(VALID["plan"], ALL["plan and task"])
    jsonschema.validate(VALID["plan"] | {"task": "Lift the cup"}, ALL["plan and task"])
    jsonschema.validate(VALID["segment"] | {"changes": []}, ALL["segment of a window"])


@pytest.mark.parametrize("name", ALL)
def test_schemas_are_themselves_valid_and_open_nowhere(name):
    jsonschema.Draft202012Validator.check_schema(ALL[name])

    def walk(schema):
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])
            for inner in schema["properties"].values():
                walk(inner)
        elif schema["type"] == "array":
            assert schema["maxItems"] >= schema["minItems"]
            walk(schema["items"])
        elif schema["type"] in ("string", "integer"):
            assert set(schema) - {"description"} in ({"type", "enum"}, {"type", "pattern"})

    walk(ALL[name])


def largest(schema):
    """The longest valid reply."""
    if "enum" in schema:
        return max(schema["enum"], key=lambda x: len(json.dumps(x)))
    match schema["type"]:
        case "object":
            return {k: largest(v) for k, v in schema["properties"].items()}
        case "array":
            return [largest(schema["items"])] * schema["maxItems"]
        case "string":
            return "x" * prompts.max_chars(schema)
        case "boolean":
            return False


@pytest.mark.parametrize("name", ALL)
def test_the_token_limit_is_enough_for_any_tokenizer_and_not_more(name):
    reply = largest(ALL[name])
    jsonschema.validate(reply, ALL[name])
    needed = len(json.dumps(reply))
    assert needed <= prompts.max_tokens(ALL[name]) <= 1.05 * needed + 10
    assert prompts.max_tokens(ALL[name]) < 3600


def test_long_texts_are_bounded_in_parts():
    text = prompts.reason_reply([1])["properties"]["picture_1"]
    assert prompts.max_chars(text) == 240
    assert re.findall(r"\{0,(\d+)\}", text["pattern"]) == ["120", "119"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate("x" * 241, text)
