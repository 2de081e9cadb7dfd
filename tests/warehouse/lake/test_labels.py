"""Stored labels: the reader gives the segments that were published, by episode or by label run."""

import json

import pytest

from annotate.label_gate import LabelGate
from annotate.segments import Segment
from core.tables import TABLES
from warehouse.lake import Lake
from warehouse.lake.labels import (
    StoredLabel,
    active_labels,
    active_labels_of,
    dataset_gates,
    labels_of_episode,
    labels_of_run,
)
from warehouse.lake.publishing import StageRun

REACH = Segment("reach", 0, 10, step=0, confidence=0.5, notes="slow")
GRASP = Segment("grasp", 10, 12, completed=False, step=1)
DONE = Segment("done", 12, 20, kind="done")


@pytest.fixture
def labelled(lake: Lake, ds: str) -> str:
    """A dataset with two label runs of episode 0 in chunk 0, and one of episode 7 in chunk 1; `b` is active."""
    labels = {(0, 0, "a"): [REACH, DONE], (0, 0, "b"): [REACH, GRASP, DONE], (7, 1, "b"): [DONE]}
    for chunk in (0, 1):
        for run in ("a", "b"):
            here = {(e, c, r): s for (e, c, r), s in labels.items() if (c, r) == (chunk, run)}
            rows = [
                {"dataset": ds, "episode_index": episode, "chunk": chunk, "label_run": run}
                | {"segment_index": i, "num_planned": 2}
                | segment.__dict__
                for (episode, _, _), segments in here.items()
                for i, segment in enumerate(segments)
            ]
            stage_run = StageRun("segments", ds, chunk, run, "", "", len(rows), "", 0.0)
            lake.publish(stage_run, {"segments": TABLES["segments"].rows(rows)})
        active = [
            {"dataset": ds, "episode_index": episode, "chunk": chunk, "label_run": "b", "why": "newest"}
            for (episode, c, run) in labels
            if (c, run) == (chunk, "b")
        ]
        stage_run = StageRun("progress", ds, chunk, "b", "", "", 0, "", 0.0)
        lake.publish(stage_run, {"active_runs": TABLES["active_runs"].rows(active)})
    return ds


def test_active_labels_are_those_of_the_active_run(lake: Lake, labelled: str) -> None:
    label = StoredLabel([REACH, GRASP, DONE], 2, "b")
    assert active_labels(lake.con, labelled, 0) == {0: label}
    assert active_labels(lake.con, labelled, 2) == {}
    assert active_labels_of(lake.con, labelled, [0, 7, 8]) == {0: label, 7: StoredLabel([DONE], 2, "b")}


def test_labels_of_one_run_or_one_episode(lake: Lake, labelled: str) -> None:
    other = StoredLabel([REACH, DONE], 2, "a")
    assert labels_of_run(lake.con, labelled, 0, "a") == {0: other}
    assert labels_of_run(lake.con, labelled, 1, "a") == {}
    both = labels_of_episode(lake.con, labelled, 0, 0)
    assert list(both) == ["a", "b"]
    assert both["a"] == other


def test_unnamed_steps_are_read_as_such(lake: Lake, labelled: str) -> None:
    lake.con.execute("UPDATE segments SET named = false WHERE name = 'grasp'")
    assert [s.named for s in active_labels(lake.con, labelled, 0)[0].segments] == [True, False, True]


def test_a_lake_of_an_earlier_version_has_labels_too(lake: Lake, labelled: str) -> None:
    before = active_labels(lake.con, labelled, 0)
    # Other tests go on with the same lake
    lake.con.execute("BEGIN")
    try:
        lake.con.execute("ALTER TABLE segments DROP COLUMN named")
        assert active_labels(lake.con, labelled, 0) == before
    finally:
        lake.con.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("samples", "asked", "gate"),
    [
        ({}, {}, LabelGate(0.0, 0.5)),
        ({"min_confidence": 0.3, "min_name_confidence": 0.0}, {}, LabelGate(0.3, 0.0)),
        ({"min_confidence": 0.3}, {"min_confidence": 0.0, "min_name_confidence": 0.9}, LabelGate(0.0, 0.9)),
    ],
    ids=["built by an earlier version", "as built", "as asked"],
)
def test_labels_have_to_be_as_sure_as_asked_else_as_built(
    lake: Lake, ds: str, samples: dict, asked: dict, gate: LabelGate
) -> None:
    config = {"dataset": ds, "config_hash": "", "config": json.dumps({"stages": {"samples": samples}})}
    lake.upsert("configuration", build_configs=TABLES["build_configs"].rows([config]))
    assert dataset_gates(lake.con, **asked)[ds] == gate
