"""The episodes stage: rows of the tables datasets, episode_facts and splits, and the table of findings."""

from itertools import chain
from pathlib import Path

import pytest

from ingest.episode import REASONS, Finding
from ingest.episodes import (
    MAX_DETAILS,
    EpisodesResult,
    episodes_stage,
    findings_table,
    settled_listing,
)
from ingest.sources.files import Source
from ingest.splits import SplitConfig
from tests.kits.lerobot_writer import said, source_of, write_v2

UNUSED = (
    "gripper_unused",
    "warning",
    None,
    None,
)  # the gripper of the writer's rows goes to and fro in each frame


def listed(source: Source) -> EpisodesResult:
    """The stage on a source that nothing is known of."""
    return episodes_stage(source, settled_listing(source, {}), SplitConfig(), {})


# Findings


def test_findings_of_one_thing_are_one_row() -> None:
    """It says all of them and is as bad as the worst; the table's key must be unique."""
    findings = [
        Finding("unreadable_data", "cut off", "warning", file="a"),
        Finding("unreadable_data", "cut off", "warning", file="b"),
        Finding("length_differs", "5 or 6", "unusable", 1),
        Finding("length_differs", "5", "warning", 1),
        Finding("length_differs", "5", "warning", 1),
    ]
    rows = findings_table("d", "episodes", findings, 5).to_pylist()
    assert [(r["reason"], r["detail"], r["severity"], r["file"]) for r in rows] == [
        ("unreadable_data", "a cut off; b cut off", "warning", "a"),
        ("length_differs", "5 or 6; 5", "unusable", None),
    ]


def test_very_many_findings_of_one_thing() -> None:
    findings = [
        Finding("unreadable_data", "cut off", "warning", file=f"{k}") for k in range(20_000)
    ]
    (row,) = findings_table("d", "episodes", findings, 5).to_pylist()
    details = row["detail"].split("; ")
    assert details[:2] == ["0 cut off", "1 cut off"]
    assert details[MAX_DETAILS:] == [f"and {20_000 - MAX_DETAILS} more"]


def test_findings_are_of_known_kinds() -> None:
    for reason, severity in (("nonsense", "warning"), ("no_video", "fatal")):
        with pytest.raises(ValueError, match="unknown finding"):
            Finding(reason, "x", severity)
    assert all(text and text[0].islower() for text in chain.from_iterable(REASONS.values()))


def test_texts_that_the_lake_cannot_hold(tmp_path: Path) -> None:
    """A NUL character anywhere in an episode: it is shown as another, and the episode is not used."""
    root = write_v2(tmp_path, [6, 7], tasks=("a\0b", "pick"))
    result = listed(source_of(root))
    assert said(result.findings) == [("unreadable_data", "unusable", 0, None), UNUSED]
    assert [r.task for r in result.records] == ["a\ufffdb", "pick"]
    (row,) = findings_table(
        "toy", "frames", [Finding("no_video", "\0", camera="\0", file="\0")], 500
    ).to_pylist()
    assert {row["detail"], row["camera"], row["file"]} == {"\ufffd"}


def test_texts_beyond_the_limit(tmp_path: Path) -> None:
    """A task of 50 MB ended a build: it is cut off, and its episode is not used."""
    root = write_v2(tmp_path, [6, 7], tasks=("x" * 101, "place it"))
    source = source_of(root, limits={"max_text": 100})
    result = listed(source)
    (finding,) = [f for f in result.findings if f.reason == "over_limit"]
    assert (finding.severity, finding.episode_index) == ("unusable", 0)
    assert finding.detail.startswith(
        "characters of one of its texts: 101, over the limit of 100 (limits.max_text"
    )
    assert [record.task for record in result.records] == ["x" * 100, "place it"]
