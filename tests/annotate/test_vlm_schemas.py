import json
import random

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vlm_episodes import random_reply

from annotate import schemas
from annotate.vlm_config import VERBS

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
def test_random_replies_are_valid_and_within_the_token_limit(name, seed):
    reply = random_reply(ALL[name], random.Random(seed))
    jsonschema.validate(reply, ALL[name])
    assert len(json.dumps(reply)) <= schemas.longest(ALL[name])


def test_longest_is_met_exactly_but_for_the_last_comma():
    schema = schemas.refine(8)
    assert schemas.longest(schema) == len(json.dumps({"seen": "x" * 100, "picture": 8})) + 2
    schema = schemas.segment(10, 2, min_changes=1)
    change = {"picture": 10, "label": "idle", "outcome": "not_achieved"}
    worst = {"seen": "x" * 300, "first": {"label": "idle", "outcome": "not_achieved"}, "changes": [change] * 9}
    jsonschema.validate(worst, schema)
    assert len(json.dumps(worst)) <= schemas.longest(schema) <= len(json.dumps(worst)) + 30


def test_every_reply_is_bounded():
    assert {name: schemas.longest(s) < 5000 for name, s in ALL.items()} == dict.fromkeys(ALL, True)
