"""The episodes stage: rows of the tables datasets, episode_facts and splits, and the table of findings."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.tables import TABLES
from ingest.episode import REASONS, Finding, record_from_row, record_row
from ingest.episodes import MAX_DETAILS, episodes_stage, findings_table
from ingest.signals.gripper import signal_from_row
from ingest.source import list_episodes
from ingest.splits import SplitConfig
from tests.kits.lerobot_writer import FRONT, WRIST, said, source_of, v2_video, write_json_lines, write_v2, write_v3
from tests.kits.signal_kit import only_signal

UNUSED = ("gripper_unused", "warning", None, None)  # the gripper of the writer's rows goes to and fro in each frame


def test_tables(tmp_path: Path) -> None:
    source = source_of(
        write_v3(tmp_path, [6, 7, 8, 9, 10], cameras={FRONT: 5, WRIST: 2}), chunk_size=2, title="Toy", license="MIT"
    )
    result = episodes_stage(source, SplitConfig(), {}, {})
    assert {n: (t.schema, t.num_rows) for n, t in result.tables.items()} == {
        n: (TABLES[n].schema, rows)
        for n, rows in (("datasets", 1), ("signals", 1), ("episode_facts", 5), ("splits", 5), ("other_tasks", 0))
    }
    (dataset,) = result.tables["datasets"].to_pylist()
    assert dataset == {
        "dataset": "toy",
        "title": "Toy",
        "robot": "toy",
        "format": "lerobot_v3.0",
        "fps": 10.0,
        "license": "MIT",
        "source_uri": str(tmp_path),
        "source_revision": None,
        "chunk_size": 2,
        "role": "train",
        "cameras": [FRONT, WRIST],
        "views": [],
        "notes": None,
    }
    (signal,) = result.tables["signals"].to_pylist()
    assert (signal["dataset"], signal["signal_index"], signal["names"], signal["is_used"]) == (
        "toy",
        0,
        ["gripper.pos"],
        False,
    )
    assert signal_from_row(signal) == only_signal(source)
    facts = result.tables["episode_facts"].to_pylist()
    assert [(f["episode_index"], f["chunk"], f["num_rows"], f["cameras"]) for f in facts] == [
        (e, e // 2, 6 + e, [FRONT, WRIST]) for e in range(5)
    ]
    assert facts[3]["videos"] == [
        {"camera": FRONT, "uri": f"videos/{FRONT}/chunk-000/file-000.mp4", "start_frame": 21},
        {"camera": WRIST, "uri": f"videos/{WRIST}/chunk-000/file-001.mp4", "start_frame": 8},
    ]
    splits = result.tables["splits"].to_pylist()
    assert sorted(s["split"] for s in splits) == ["test_id", "train", "train", "train", "val"]
    assert [(s["group"], s["chunk"]) for s in splits] == [(f"episode {e}", e // 2) for e in range(5)]
    assert (said(result.findings), result.records) == ([UNUSED], list_episodes(source).records)


def test_a_record_survives_the_lake(tmp_path: Path) -> None:
    source = source_of(write_v3(tmp_path, [6, 7], cameras={FRONT: 2, WRIST: 1}))
    result = episodes_stage(source, SplitConfig(), {}, {})
    assert tuple(record_from_row(row) for row in result.tables["episode_facts"].to_pylist()) == result.records
    assert record_row(result.records[1])["cameras"] == [FRONT, WRIST]


def test_a_selection_splits_as_the_whole_does(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6] * 12)
    v2_video(root, FRONT, 3).unlink()
    v2_video(root, FRONT, 7).unlink()
    source = source_of(root, chunk_size=5)
    whole = episodes_stage(source, SplitConfig(), {}, {})
    part = episodes_stage(replace(source, selected=frozenset({2, 7, 11, 99})), SplitConfig(), {}, {})
    assert [r.episode_index for r in part.records] == [2, 7, 11]
    rows = {s["episode_index"]: s for s in whole.tables["splits"].to_pylist()}
    assert set(rows) == set(range(12)) - {3, 7}, "what cannot be used has no split"
    assert part.tables["splits"].to_pylist() == [rows[e] for e in (2, 11)]
    assert said(whole.findings) == [("no_video", "unusable", 3, None), ("no_video", "unusable", 7, None), UNUSED]
    assert said(part.findings) == [("no_video", "unusable", 7, None), UNUSED]
    assert part.tables["signals"].to_pylist() == whole.tables["signals"].to_pylist()


def test_splits_given_before_stay(tmp_path: Path) -> None:
    """And one group's episodes go together."""
    root = write_v2(tmp_path, [6] * 12)
    write_json_lines(root / "meta/episodes.jsonl", [{"episode_index": e, "day": e // 2} for e in range(12)])
    source = source_of(root, group_field="day")
    first = {s["group"]: s["split"] for s in episodes_stage(source, SplitConfig(), {}, {}).tables["splits"].to_pylist()}
    assert sorted(first) == ["0", "1", "2", "3", "4", "5"]
    other = {"train": "val", "val": "train", "test_id": "test_id"}
    turned = {g: other[s] for g, s in first.items()}
    again = episodes_stage(source, SplitConfig(), turned, {}).tables["splits"].to_pylist()
    assert [s["split"] for s in again] == [turned[str(e // 2)] for e in range(12)]


def test_a_dataset_without_metadata(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    result = episodes_stage(source_of(tmp_path), SplitConfig(), {}, {})
    assert {n: t.num_rows for n, t in result.tables.items()} == {
        "datasets": 1,
        "signals": 0,
        "other_tasks": 0,
        "episode_facts": 0,
        "splits": 0,
    }
    assert said(result.findings) == [("no_metadata", "unusable", None, None)]


# Findings


def test_findings_table() -> None:
    findings = [
        Finding("no_video", "none", "unusable", 7),
        Finding("missing_camera", "no wrist", "warning", 7, "wrist", "a.mp4"),
        Finding("path_template", "elsewhere", "warning"),
    ]
    table = findings_table("d", "episodes", findings, 5)
    assert table.schema == TABLES["findings"].schema
    assert [tuple(r.values()) for r in table.to_pylist()] == [
        ("d", 7, 1, None, "episodes", "no_video", "none", None, "unusable"),
        ("d", 7, 1, "wrist", "episodes", "missing_camera", "no wrist", "a.mp4", "warning"),
        ("d", None, None, None, "episodes", "path_template", "elsewhere", None, "warning"),
    ]


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
    findings = [Finding("unreadable_data", "cut off", "warning", file=f"{k}") for k in range(20_000)]
    (row,) = findings_table("d", "episodes", findings, 5).to_pylist()
    details = row["detail"].split("; ")
    assert details[:2] == ["0 cut off", "1 cut off"]
    assert details[MAX_DETAILS:] == [f"and {20_000 - MAX_DETAILS} more"]


def test_findings_are_of_known_kinds() -> None:
    for reason, severity in (("nonsense", "warning"), ("no_video", "fatal")):
        with pytest.raises(ValueError, match="unknown finding"):
            Finding(reason, "x", severity)
    assert all(text and text[0].islower() for reason in REASONS.values() for text in reason)


def test_texts_that_the_lake_cannot_hold(tmp_path: Path) -> None:
    """A NUL character anywhere in an episode: it is shown as another, and the episode is not used."""
    root = write_v2(tmp_path, [6, 7], tasks=("a\0b", "pick"))
    result = episodes_stage(source_of(root), SplitConfig(), {}, {})
    assert said(result.findings) == [("unreadable_data", "unusable", 0, None), UNUSED]
    assert [r.task for r in result.records] == ["a\ufffdb", "pick"]
    (row,) = findings_table("toy", "frames", [Finding("no_video", "\0", camera="\0", file="\0")], 500).to_pylist()
    assert {row["detail"], row["camera"], row["file"]} == {"\ufffd"}


def test_a_view_that_no_episode_has(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6, 6], cameras=(FRONT, WRIST))
    result = episodes_stage(source_of(root, cameras=[WRIST, "top"]), SplitConfig(), {}, {})
    assert said(result.findings, camera="top") == [("camera_without_files", "warning", None, "top")]
    (finding,) = [f for f in result.findings if f.camera == "top"]
    assert f"there are {FRONT}, {WRIST}" in finding.detail
    assert result.tables["datasets"]["views"].to_pylist() == [[WRIST, "top"]]
    # The views come first, the main one before all
    assert [f["cameras"] for f in result.tables["episode_facts"].to_pylist()] == [[WRIST, FRONT]] * 2


def test_texts_beyond_the_limit(tmp_path: Path) -> None:
    """A task of 50 MB ended a build: it is cut off, and its episode is not used."""
    root = write_v2(tmp_path, [6, 7], tasks=("x" * 101, "place it"))
    source = source_of(root, limits={"max_text": 100})
    result = episodes_stage(source, SplitConfig(), {}, {})
    (finding,) = [f for f in result.findings if f.reason == "over_limit"]
    assert (finding.severity, finding.episode_index) == ("unusable", 0)
    assert finding.detail.startswith("characters of one of its texts: 101, over the limit of 100 (limits.max_text")
    assert [record.task for record in result.records] == ["x" * 100, "place it"]
