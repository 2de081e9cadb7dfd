"""The doctor: what it looks at by default and in full, and what it tells."""

from pathlib import Path

import pytest

from ingest.reasons import REASONS
from ingest.sources.types import SourceError
from pipeline.inspection import in_short, inspect_source
from pipeline.inspection_report import finding_groups
from tests.kits.lerobot_writer import FRONT, LFS_POINTER, WRIST, v2_video, write_v2


def reasons(inspected: dict) -> list[tuple]:
    return [(f["reason"], f["severity"], f["episode_index"]) for f in inspected["findings"]]


# The gripper of write_v2 is open in every second frame
TREMBLES = ("gripper_unused", "warning", None)


def test_headers_of_videos_that_are_not_decoded_are_read(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "data", [6] * 9, cameras=[FRONT, WRIST])
    v2_video(root, FRONT, 2).write_text("no video")
    v2_video(root, WRIST, 3).write_text(LFS_POINTER)
    inspected = inspect_source(root)
    assert reasons(inspected) == [
        TREMBLES,
        ("undecodable_video", "warning", 2),
        ("lfs_pointer", "warning", 3),
    ]
    assert [f["camera"] for f in inspected["findings"]] == [None, FRONT, WRIST]


def test_the_worst_comes_first_and_like_findings_are_one_line(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "data", [6] * 6, tasks=("",))
    for episode in (1, 4):
        v2_video(root, FRONT, episode).unlink()
    inspected = inspect_source(root)
    assert [s for _, s, _ in reasons(inspected)] == ["unusable"] * 2 + ["warning"] * 7
    assert all(f["remedy"] == REASONS[f["reason"]].remedy for f in inspected["findings"])
    lines = finding_groups(inspected["findings"])
    assert [(x["severity"], x["check"], x["count"], x["episode_index"]) for x in lines] == [
        ("unusable", "no_video", 2, 1),
        ("warning", "no_task", 6, 0),
        ("warning", "gripper_unused", 1, None),
    ]


def test_a_folder_of_datasets_is_a_line_on_each(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "held" / "cups", [6, 7], cameras=[FRONT, WRIST])
    v2_video(root, FRONT, 1).unlink()
    v2_video(root, WRIST, 1).unlink()
    write_v2(tmp_path / "held" / "deep" / "Plates", [6])
    for name in ("clips/a.mp4", "teaser.mp4"):
        (tmp_path / "held" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "held" / name).write_bytes(v2_video(root, FRONT, 0).read_bytes())
    inspected = inspect_source(tmp_path / "held")
    assert [
        (r["folder"], r["name"], r["format"], r["episodes"], r["usable_so_far"])
        for r in inspected["datasets"]
    ] == [
        ("clips", "clips", "video", 1, 1),
        ("cups", "cups", "lerobot_v2.1", 2, 1),
        ("deep/Plates", "plates", "lerobot_v2.1", 1, 1),
    ]
    assert [in_short(r) for r in inspected["datasets"]] == [
        "1 no_task, nothing describes its videos: a build of all leaves it out",
        "1 no_video",
        "",
    ]
    assert inspected["beside"] == ["teaser.mp4"]
    assert [(f["folder"], f["reason"]) for f in inspected["findings"]] == [
        ("clips", "no_task"),
        ("cups", "no_video"),
    ]
    everything = inspect_source(tmp_path / "held", full=True)
    assert [r["usable_so_far"] for r in everything["datasets"]] == [1, 1, 1]


def test_the_format_that_a_person_says(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "cups", [6])
    with pytest.raises(SourceError, match="its files look like lerobot"):
        inspect_source(root, format="rlds")
    with pytest.raises(SourceError, match="is a part of the dataset"):
        inspect_source(root / "videos")
    assert inspect_source(root / "videos", format="video")["format"] == "video"
