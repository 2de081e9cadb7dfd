"""Schemas and windows of questions; which runs of a task are asked about."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import annotate.vlm.few_runs as few_runs
from annotate.config import VERBS, MotionConfig, TransferConfig, VlmConfig
from annotate.motion.observe import Signals
from annotate.transfer import Transferred
from annotate.vlm import prompts
from annotate.vlm.windows import (
    Span,
    are_looks_alike,
    confidences,
    expected_f1,
    merged_spans,
    search_ranges,
    shifted_frames,
    shown_frames,
    spans_of,
)
from core.domain.label import STEP, Label, Segment
from tests.kits.files import table

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
INVALID = table("invalid_vlm_replies")


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


CONFIG = VlmConfig()


def test_two_pictures_a_second_are_shown_or_fewer():
    assert len(shown_frames(range(0, 35 * 30, 30), 35 * 30, 30.0, CONFIG)) == 48
    assert len(shown_frames(range(0, 36 * 30, 30), 36 * 30, 30.0, CONFIG)) == 73
    frames_shown = shown_frames(range(0, 100, 15), 100, 15.0, CONFIG)
    assert frames_shown == (0, 8, 15, 22, 30, 38, 45, 52, 60, 68, 75, 82, 90, 98, 99)
    assert shown_frames(range(0, 300, 12), 300, 30.0, CONFIG)[:4] == (0, 12, 30, 48)


@given(st.integers(2, 400), st.integers(1, 40), st.floats(0.5, 60))
def test_shown_frames_are_frames_of_the_episode(num_frames, interval, fps):
    frames_shown = shown_frames(range(0, num_frames, interval), num_frames, fps, CONFIG)
    assert list(frames_shown) == sorted(set(frames_shown))
    assert (frames_shown[0], frames_shown[-1]) == (0, num_frames - 1)


@settings(max_examples=200)
@given(st.integers(2, 400), st.integers(1, 40))
def test_shifted_pictures_are_no_more_and_others(num_frames, interval):
    frames_shown = shown_frames(range(0, num_frames, interval), num_frames, 30.0, CONFIG)
    shifted = shifted_frames(frames_shown)
    assert len(shifted) <= len(frames_shown)
    assert (shifted[0], shifted[-1]) == (0, num_frames - 1)
    assert list(shifted) == sorted(set(shifted))
    assert shifted != frames_shown or len(frames_shown) == 2


def change(picture, label="2", outcome="achieved"):
    return {"picture": picture, "label": label, "outcome": outcome}


def read(*changes):
    first = {"label": "1", "outcome": "achieved"}
    return spans_of({"seen": "x", "first": first, "changes": list(changes)}, (0, 10, 20, 30, 40), 3)


def test_a_reply_is_taken_as_it_is_or_sorted_and_noted():
    first = Span(0, -1, 0, True)
    as_it_is = [first, Span(1, 0, 10, True), Span("idle", 20, 30, True), Span(1, 30, 40, False)]
    assert read(change(10), change(30, "idle"), change(40, "2", "not_achieved")) == as_it_is
    low = Span(1, 0, 10, True, ("changes not in the order of time: sorted",))
    assert read(change(40, "3"), change(10)) == [first, low, Span(2, 30, 40, True)]
    assert read() == [Span(0, -1, 0, True, ("no change was told",))]


A = (0, 10, 20, 30, 40, 50)
B = (30, 40, 50, 60, 70, 80)


FAILED = (0, -1, 0, False)


@pytest.mark.parametrize(
    ("early", "late", "joined"),
    [  # where they agree the later window saw the end of a step, so its word counts
        (
            [(0, -1, 0, True), (1, 20, 30, False)],
            [(1, -1, 30, True), (2, 50, 60, True)],
            [(1, 20, 30, True), (2, 50, 60, True)],
        ),
        # A retry that both saw is one, two that both saw are two
        (
            [FAILED, (0, 20, 30, False)],
            [(0, -1, 30, False), (0, 40, 50, True)],
            [(0, 20, 30, True)],
        ),
        (
            [FAILED, (0, 20, 30, False), (0, 40, 50, False)],
            [(0, -1, 30, False), (0, 40, 50, True)],
            [(0, 20, 30, False), (0, 40, 50, True)],
        ),
        # Where they never agree the later one counts from the middle
        ([(0, -1, 0, True)], [(1, -1, 30, True)], [(1, 30, 40, True)]),
    ],
)
def test_windows_are_joined(early, late, joined):
    spans = merged_spans([(A, [Span(*s) for s in early]), (B, [Span(*s) for s in late])])
    assert [(s.label, s.after, s.start, s.completed) for s in spans] == [early[0], *joined]
    assert spans[1].notes == (("windows disagree here",) if len(early) == 1 else ())


@st.composite
def looks(draw):
    num_frames = draw(st.integers(2, 300))
    frames_shown = sorted(
        {0, num_frames - 1, *draw(st.lists(st.integers(0, num_frames - 1), max_size=12))}
    )
    marks = draw(st.lists(st.integers(1, len(frames_shown) - 1), unique=True, min_size=1))
    return num_frames, [
        Span(0, -1, 0, True),
        *(Span(0, frames_shown[m - 1], frames_shown[m], True) for m in sorted(marks)),
    ]


@settings(max_examples=300)
@given(looks())
def test_search_ranges_are_apart_in_order_and_inside(case):
    num_frames, spans = case
    ranges = search_ranges(spans, num_frames)
    ends = [0, *(chain.from_iterable(ranges)), num_frames]
    assert all(a < b or (a == b and k % 2 == 1) for k, (a, b) in enumerate(pairwise(ends)))
    for (low, high), s in zip(ranges, spans[1:], strict=True):
        assert low <= s.after + 1 <= s.start <= high


FIRST = [Span(0, -1, 0, True), Span(1, 30, 60, True), Span("idle", 120, 150, True)]


def test_looks_agree_when_their_changes_may_be_the_same():
    same = [Span(0, -1, 0, False), Span(1, 45, 75, True), Span("idle", 105, 135, True)]
    assert are_looks_alike(FIRST, same, 0, 0)
    # 166 at the earliest, and not after 150: 16 frames
    late = [*same[:2], Span("idle", 165, 195, True)]
    assert not are_looks_alike(FIRST, late, 15, 30)
    assert are_looks_alike(FIRST, late, 16, 32)
    assert not are_looks_alike(FIRST, same[:2], 1000, 2000)
    assert not are_looks_alike(FIRST, [*same[:2], Span(2, 105, 135, True)], 1000, 2000)


def test_confidence_of_one_look_is_by_the_arms_changes():
    starts = [0, 50, 140]
    fps = 30.0
    assert expected_f1(starts, (), fps) == 0.5
    assert expected_f1(starts, (50, 140), fps) == 1.0
    # 0.5 s and 1.0 s off, however far the second one is: 1.12 - 0.87 x 0.75
    assert expected_f1(starts, (65, 800), fps) == pytest.approx(0.4675)
    assert expected_f1([0], (65, 120), fps) == pytest.approx(0.25)
    assert confidences(FIRST, starts, 200, None, 0.4675, 15) == [0.4675] * 3


def test_confidence_of_two_looks_is_mostly_their_agreement():
    # The second look begins step 2 at frame 80 and never sees the idle time
    other_spans = [Span(0, -1, 0, True), Span(1, 80, 80, True)]
    first, second, third = confidences(FIRST, [0, 50, 140], 200, other_spans, 1.0, 15)
    # All frames have its label; its one boundary is 30 frames off
    assert first == pytest.approx(0.5 + 0.2)
    assert second == pytest.approx(0.5 * 60 / 90 + 0.2, abs=1e-4)
    assert third == 0.2


N = 20


def answer(*, is_doubtful: bool = False) -> Label:
    segments = [Segment("reach", 0, 9, STEP, True, 0), Segment("put", 9, N, STEP, True, 1)]
    return Label(segments, 2, ("reach", "put"), task="t", needs_review=is_doubtful)


def asked(
    monkeypatch: pytest.MonkeyPatch, spreads: dict[int, float], doubtful: Sequence[int] = ()
) -> list[list[int]]:
    runs = [Signals(10.0, np.ones(N), None, task="t", episode_index=k) for k in range(7)]

    def followed(episodes: Sequence[Signals], *_: object) -> list[Transferred]:
        # A label that nobody is sure enough of to follow: here only which runs are asked about matters
        label = replace(answer(), confidence=0.0)
        return [
            Transferred(label, None, spread=spreads.get(e.episode_index, 0.01)) for e in episodes
        ]

    monkeypatch.setattr(
        few_runs, "most_telling", lambda episodes, motion: [e.episode_index for e in episodes]
    )
    monkeypatch.setattr(few_runs, "annotate", followed)
    rounds = []

    async def ask(runs: Sequence[int]) -> dict[int, Label]:
        rounds.append(sorted(runs))
        return {k: answer(is_doubtful=k in doubtful) for k in runs}

    task = few_runs.label_task(
        runs,
        ask,
        lambda k, label: np.linspace(0, 1, N),
        VlmConfig(),
        TransferConfig(),
        MotionConfig(),
    )
    asyncio.run(task)
    return rounds


def test_the_last_run_asked_about_is_the_least_alike(monkeypatch):
    assert asked(monkeypatch, {5: 0.2, 3: 0.1})[:2] == [[0, 1], [5]]
    assert asked(monkeypatch, {})[:2] == [[0, 1], [2]]
    # One doubtful answer is made up for by the others; for two there is one more, again the least alike
    assert asked(monkeypatch, {5: 0.2, 3: 0.1}, doubtful=(1,))[:3] == [[0, 1], [5], [2, 3, 4, 6]]
    assert asked(monkeypatch, {5: 0.2, 3: 0.1}, doubtful=(1, 5))[:4] == [
        [0, 1],
        [5],
        [3],
        [2, 4, 6],
    ]
    assert asked(monkeypatch, {5: 0.2, 3: 0.1}, doubtful=(0, 1))[:3] == [[0, 1], [5], [3]]
