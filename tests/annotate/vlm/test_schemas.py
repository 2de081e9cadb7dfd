import json
import random
import re

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.vlm import schemas
from annotate.vlm.config import VERBS
from tests.kits.vlm_episodes import random_reply

ALL = {
    "plan": schemas.plan(VERBS, 8, infer_task=False),
    "plan and task": schemas.plan(VERBS, 8, infer_task=True),
    "segment": schemas.segment(24, 5, min_changes=1),
    "segment of a window": schemas.segment(24, 5, min_changes=0),
    "segment of two pictures": schemas.segment(2, 1, min_changes=1),
    "refine": schemas.refine(8),
    "verify": schemas.verify(12),
    "reason": schemas.reason([1, 3, 24]),
}
VALID = {
    "plan": {
        "scene": "An arm",
        "steps": [{"verb": "Grasp", "object": "the cup"}, {"verb": "Place", "object": "it (on 5%)"}],
    },
    "segment": {
        "seen": "It moves",
        "first": {"label": "idle", "outcome": "achieved"},
        "changes": [{"picture": 2, "label": "5", "outcome": "not_achieved"}],
    },
    "refine": {"seen": "It closes", "picture": 8},
    "reason": {"picture_1": "A", "picture_3": "B", "picture_24": "C"},
}


def changed(stage: str, *path: str | int, to: object) -> dict:
    value = json.loads(json.dumps(VALID[stage]))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return value


@pytest.mark.parametrize("stage", VALID)
def test_a_plain_reply_is_valid(stage):
    jsonschema.validate(VALID[stage], ALL[stage])


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
            assert set(schema) in ({"type", "enum"}, {"type", "pattern"})

    walk(ALL[name])


@pytest.mark.parametrize(
    ("stage", "value"),
    [
        ("plan", changed("plan", "steps", to=VALID["plan"]["steps"][:1])),
        ("plan", changed("plan", "steps", to=VALID["plan"]["steps"] * 5)),
        ("plan", changed("plan", "steps", 0, "verb", to="Juggle")),
        ("plan", changed("plan", "steps", 0, "object", to="")),
        ("plan", changed("plan", "steps", 0, "object", to=" ")),
        ("plan", changed("plan", "steps", 0, "object", to="x" * 61)),
        ("plan", changed("plan", "steps", 0, "object", to='the "cup"')),
        ("plan", changed("plan", "steps", 0, "object", to="the\ncup")),
        ("plan", changed("plan", "steps", 0, "object", to="the cup\x00")),
        ("plan", changed("plan", "steps", 0, "object", to="the cup\\")),
        ("plan", changed("plan", "steps", 0, "object", to="the \ud800")),
        ("plan", changed("plan", "scene", to="x" * 241)),
        ("plan", changed("plan", "task", to="Lift it")),
        ("segment", changed("segment", "changes", to=[])),
        ("segment", changed("segment", "changes", 0, "picture", to=1)),
        ("segment", changed("segment", "changes", 0, "picture", to=25)),
        ("segment", changed("segment", "changes", 0, "picture", to=2.5)),
        ("segment", changed("segment", "changes", 0, "label", to="6")),
        ("segment", changed("segment", "first", "outcome", to="maybe")),
        ("refine", changed("refine", "picture", to=1)),
        ("refine", changed("refine", "picture", to=None)),
        ("reason", changed("reason", "picture_2", to="more")),
    ],
)
def test_what_could_not_be_used_is_invalid(stage, value):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, ALL[stage])


def test_a_missing_task_is_asked_for_and_no_other():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(VALID["plan"], ALL["plan and task"])
    jsonschema.validate(VALID["plan"] | {"task": "Lift the cup"}, ALL["plan and task"])


def test_windows_of_long_episodes_may_hold_no_change():
    jsonschema.validate(changed("segment", "changes", to=[]), ALL["segment of a window"])


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_replies_are_valid(name, seed):
    jsonschema.validate(random_reply(ALL[name], random.Random(seed)), ALL[name])


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
            return "x" * schemas.max_chars(schema)
        case "boolean":
            return False


@pytest.mark.parametrize("name", ALL)
def test_the_token_limit_is_enough_for_any_tokenizer_and_not_more(name):
    reply = largest(ALL[name])
    jsonschema.validate(reply, ALL[name])
    needed = len(json.dumps(reply))
    assert needed <= schemas.max_tokens(ALL[name]) <= 1.05 * needed + 10
    assert schemas.max_tokens(ALL[name]) < 3600


def test_long_texts_are_bounded_in_parts():
    text = schemas.reason([1])["properties"]["picture_1"]
    assert schemas.max_chars(text) == 240
    assert re.findall(r"\{0,(\d+)\}", text["pattern"]) == ["120", "119"]
    jsonschema.validate("x" * 240, text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate("x" * 241, text)
