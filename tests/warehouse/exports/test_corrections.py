"""Corrections to files and back: JSON lines and Label Studio's timeline, whole, and all that may be wrong."""

import json
from typing import Any

import pytest

from tests.kits.lake_kit import restate, say
from warehouse.exports.corrections import (
    from_lines,
    from_tasks,
    labelling_config,
    lines_of,
    to_tasks,
)
from warehouse.lake import Lake, corrections
from warehouse.lake.corrections import add_rows, parsed
from warehouse.lake.lists import LISTS
from warehouse.lake.outcomes import chunks_to_build
from warehouse.lake.statements import take_back

STEPS = [
    {"name": "Reach <the cube> & \"it\"", "start_frame": 0, "end_frame": 10},
    {"name": "Rest", "start_frame": 10, "end_frame": 12, "kind": "idle"},
    {"name": "Put it down", "start_frame": 12, "end_frame": 30, "completed": False},
]  # fmt: skip


PLAN = ["Look", STEPS[0]["name"], "Put it down", "Leave"]


def jsonl(found: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines_of(found))


def rows(lake: Lake) -> list[dict[str, Any]]:
    return lake.dicts("SELECT * FROM corrections ORDER BY created_at, correction_id")


@pytest.fixture
def told(corpus: Lake) -> Lake:
    """Corrected twice, taken back once; and a label rejected."""
    say(corpus, STEPS, plan=PLAN, base_label_run="x")
    second = say(corpus, STEPS, plan=PLAN, author="grace", comment="ünd, so")
    take_back(corpus, second["correction_id"], author="ada", follows=second["correction_id"])
    run = corpus.rows("SELECT label_run FROM episode_labels WHERE episode_index = 0")[0][0]
    corrections.reject_label(corpus, "tiny", 0, run, author="ada", follows=None)
    return corpus


def without_recording(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "recording"}


def empty(lake: Lake) -> None:
    restate(lake, "DELETE FROM {} WHERE kind IN ('correction', 'rejection')")


def test_json_lines_bring_every_row_back(told):
    rows_before = rows(told)
    text = jsonl(rows(told))
    assert len(rows_before) == len(text.splitlines()) == 4
    read = from_lines(told, text, "somebody")
    # The lake gives each row its recording
    assert (read.rows, read.refused, read.waiting) == (
        [*map(without_recording, rows_before)],
        [],
        [],
    )
    assert add_rows(told, read.rows) == 0
    empty(told)
    assert add_rows(told, from_lines(told, text, "somebody").rows) == 4
    assert rows(told) == rows_before
    assert [c["status"] for c in told.dicts(LISTS["current_corrections"].sql)] == [
        "rejected",
        "accepted",
    ]


def test_a_correction_is_stored_whole():
    first_step = {"name": "A", "start_frame": 0, "end_frame": 10}
    broken = {"name": "B", "start_frame": 10, "end_frame": 30}
    correction = {
        "segments": [first_step, broken | {"completed": False, "pace": "slow"}],
        "plan": ["A", "B"],
    }
    stored = parsed(correction | {"final_progress": 0.5, "catastrophic_frame": 20}).columns(30)
    assert {k: v for k, v in stored.items() if k != "segments"} == {
        "plan": ["A", "B"], "final_progress": 0.5, "catastrophic_frame": 20
    }  # fmt: skip
    segments = json.loads(stored["segments"])
    assert all(
        segment.items() >= expected_segment.items()
        for segment, expected_segment in zip(segments, correction["segments"], strict=True)
    )


def test_label_studio_brings_what_counts_back(told):
    current = told.dicts(
        "SELECT * EXCLUDE chunk FROM current_corrections WHERE status = 'accepted'"
    )
    labels = [{"dataset": "tiny", "episode_index": 1, "label_run": "r", "plan": ["A"],
               "segments": [{"name": "A", "start_frame": 0, "end_frame": 18, "kind": "step", "completed": True,
                             "step": 0}]}]  # fmt: skip
    tasks = json.loads(json.dumps(to_tasks(told, current, labels)))
    assert [
        (t["data"]["episode_index"], len(t["annotations"]), len(t["predictions"])) for t in tasks
    ] == [(1, 0, 1), (2, 1, 0)]
    regions = tasks[1]["annotations"][0]["result"]
    spans = [r["value"]["ranges"] for r in regions if r["type"] == "timelinelabels"]
    assert spans == [
        [{"start": 1, "end": 10}],
        [{"start": 11, "end": 12}],
        [{"start": 13, "end": 30}],
    ]
    assert [r["value"]["choices"] for r in regions if r["type"] == "choices"] == [
        ["completed"],
        ["idle"],
        ["failed"],
    ]
    assert 'value="Reach &lt;the cube&gt; &amp; ' in labelling_config(tasks).replace("'", '"')
    read = from_tasks(told, json.dumps(tasks), "somebody")
    assert read.refused == []
    assert [r["correction_id"] for r in read.rows] == [current[0]["correction_id"]]
    assert read.rows[0]["segments"] == current[0]["segments"]

    # Label Studio keeps no meta, and somebody moved a boundary there
    annotation = tasks[1]["annotations"][0]
    del annotation["meta"]
    annotation |= {"completed_by": {"email": "grace@example.org"}}
    for r in annotation["result"]:
        r.pop("meta", None)
        part = r["value"]["ranges"][0]
        part |= {"end": 9} if part["end"] == 10 else {"start": 10} if part["start"] == 11 else {}
    read = from_tasks(told, json.dumps(tasks), "somebody")
    assert read.refused == []
    [row] = read.rows
    assert row["author"] == "grace@example.org"
    assert [
        (s.start_frame, s.end_frame, s.kind, s.completed, s.step)
        for s in corrections.segments_of(row)
    ] == [(0, 9, "step", True, 1), (9, 12, "idle", False, None), (12, 30, "step", False, 2)]
    assert row["plan"] == PLAN


def test_other_contents_go_to_review(told):
    text = jsonl(rows(told)[:1])
    empty(told)
    told.con.execute(
        "UPDATE episode_content SET content_hash = 'other', former_hashes = [], num_frames = 99 WHERE episode_index = 2"
    )
    read = from_lines(told, text, "somebody")
    assert read.waiting == ["line 1: episode 2 of tiny has other contents by now"]
    assert add_rows(told, read.rows) == 1
    assert [c["status"] for c in told.dicts(LISTS["current_corrections"].sql)] == ["review"]
    assert chunks_to_build(told) == {}


GOOD = {"dataset": "tiny", "episode_index": 2, "segments": STEPS}
WRONG_LINES = [
    ("{", "it is not JSON"),
    ("[" * 3_000, "it is not JSON"),
    ("[]", "line 3: it is no JSON object"),
    ({}, "dataset: it is missing (and 1 more)"),
    (GOOD | {"dataset": "none"}, "the corpus has no episode 2 of 'none'"),
    (GOOD | {"episode_index": 99}, "the corpus has no episode 99"),
    (GOOD | {"episode_index": True}, "episode_index: it is no whole number, such as 3"),
    (GOOD | {"segments": STEPS[:2]}, "segments end at frame 12, the episode has 30"),
    (GOOD | {"segments": [STEPS[0], STEPS[2]]}, "a gap"),
    (GOOD | {"segments": None}, "segments: it is no list"),
    (GOOD | {"author": 5}, "author: it is no text"),
    (GOOD | {"created_at": "yesterday"}, "is no time such as"),
    (GOOD | {"created_at": "0001-01-01T00:00:00+23:59"}, "is no time such as"),
    (GOOD | {"created_at": "2999-01-01T00:00:00"}, "is in the future"),
    (GOOD | {"status": "maybe"}, "status: Input should be 'accepted', 'review' or 'rejected'"),
    (GOOD | {"status": "rejected"}, "line 3: a rejection says what it is of"),
    (GOOD | {"correction_id": "0123456789abcdef"}, "its content is not that of its correction_id"),
]


@pytest.mark.parametrize(("line", "why"), WRONG_LINES, ids=[why for _, why in WRONG_LINES])
def test_a_wrong_line_is_named_and_the_others_are_read(made_lake, line, why):
    text = line if isinstance(line, str) else json.dumps(line)
    read = from_lines(made_lake, f"{json.dumps(GOOD)}\n\n{text}\n", "ada")
    assert len(read.rows) == 1
    assert len(read.refused) == 1
    assert read.refused[0].startswith("line 3: ")
    assert why in read.refused[0]


def region(start: Any, end: Any, name: Any = "A", prefix: str = "r") -> dict[str, Any]:
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [name]}
    return {
        "id": f"{prefix}{start}",
        "type": "timelinelabels",
        "from_name": "steps",
        "to_name": "video",
        "value": value,
    }


DATA = {"dataset": "tiny", "episode_index": 2}
WRONG_RESULTS = [
    ([region(1, 20), region(15, 30)], "an overlap"),
    ([region(1, 20), region(22, 30)], "a gap"),
    ([region(1, 31)], "covers frames 0-31, the episode has 30"),
    ([region(0, 30)], "greater than or equal to 0"),
    ([region(1, 30, " ")], "name: it is empty"),
    ([region(1, 30, 5)], "name: it is no text"),
    ([region("1", 30)], "no span with one label and one range"),
    ([region(1, 30) | {"value": {}}], "no span with one label and one range"),
    (
        [region(1, 30) | {"value": {"ranges": [], "timelinelabels": ["A"]}}],
        "several labels or ranges",
    ),
    ([region(1, 30), region(1, 30)], "two regions have the id"),
    ([], "segments: "),
    (["x"], "no span with one label and one range"),
]


@pytest.mark.parametrize(("result", "why"), WRONG_RESULTS, ids=[why for _, why in WRONG_RESULTS])
def test_a_wrong_annotation_is_named_and_the_others_are_read(made_lake, result, why):
    good = {"result": [region(1, 10), region(11, 30, "B")]}
    tasks = [
        {
            "data": DATA,
            "annotations": [good, {"result": result}, {"was_cancelled": True, "result": []}],
        },
        {},
    ]
    read = from_tasks(made_lake, json.dumps(tasks), "ada")
    assert [r["author"] for r in read.rows] == ["ada"]
    assert [x.split(": ")[0] for x in read.refused] == ["task 1", "task 1", "task 2"]
    assert why in read.refused[0]
    assert "cancelled" in read.refused[1]
    assert "no data with a list of annotations" in read.refused[2]
