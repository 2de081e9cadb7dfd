"""Plain video files: one episode each, with notes beside them or a table of them."""

import csv
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from ingest.formats.plain_video import CAMERA
from ingest.registry import Cameras
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import said, shown, source_of, write_video


def write_run(path: Path, episode: int, frames: int, notes: Any = None, fps: int = 10) -> Path:
    write_video(path, [episode << 6 | k for k in range(frames)], fps=fps)
    if notes is not None:
        path.with_suffix(".json").write_text(notes if isinstance(notes, str) else json.dumps(notes))
    return path


def test_a_folder_of_videos(tmp_path: Path) -> None:
    write_run(tmp_path / "b.mkv", 1, 7, {"task": " fold it ", "success": False}, fps=25)
    write_run(tmp_path / "a.mp4", 0, 6, {"task": "fold it", "success": True, "site": "x"})
    write_run(tmp_path / "c/d.MP4", 2, 8, {"task": "stack"})
    (tmp_path / "notes.txt").write_text("not a video")
    source = source_of(tmp_path, group_field="site")
    listing = list_episodes(source)
    assert (listing.format, listing.cameras, said(listing)) == ("video", (CAMERA,), [])
    assert [(r.episode_index, r.source_id, r.fps, r.task, r.success, r.group) for r in listing.records] == [
        (0, "a.mp4", 10.0, "fold it", True, "x"),
        (1, "b.mkv", 25.0, "fold it", False, "b.mkv"),
        (2, "c/d.MP4", 10.0, "stack", None, "c/d.MP4"),
    ]
    assert [shown(source, r, CAMERA) for r in listing.records] == [
        [(0, e, k) for k in range(n)] for e, n in enumerate([6, 7, 8])
    ]
    episode = read_episode(source, listing.records[1])
    assert (episode.state, episode.action, episode.timestamps_s) == (None, None, None)
    assert [(k, t) for k, t, _ in episode.frames(CAMERA)][:3] == [(0, 0.0), (1, 0.04), (2, 0.08)]


# What <name>.json may say


@pytest.mark.parametrize("fps", [0, -5, "fast", [], 1e9, "nan"])
def test_a_rate_that_is_none(tmp_path: Path, fps: Any) -> None:
    """The file's own counts."""
    listing = list_episodes(source_of(write_run(tmp_path / "a.mp4", 0, 6, {"task": "t", "fps": fps}).parent))
    assert (listing.records[0].fps, said(listing)) == (10.0, [("frame_rate", "warning", 0, None)])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"name": "a", "start_frame": 0, "end_frame": 2}, {"name": "b", "start_frame": 2, "end_frame": 6}], "a02 b26"),
        ([{"name": "a", "start_s": 0, "end_s": 0.25}, {"name": "b", "start_s": 0.3, "end_s": 0.6}], "a02 b36"),
        ([{"name": "a", "start_s": 0.1, "end_frame": 2}], "a12"),
        ([], ""),
        ([{"name": "a", "start_frame": 0, "end_frame": 7}], None),  # of 6 frames
        ([{"name": "a", "start_s": 0, "end_s": 0.7}], None),
        ([{"name": "a", "start_s": 0, "end_s": float("inf")}], None),
        ([{"name": "a", "start_s": "0", "end_s": "1"}], None),
        ([{"name": "a", "start_frame": 3, "end_frame": 1}], None),
        ([{"start_frame": 0, "end_frame": 1}], None),
        ([{"name": "a"}], None),
        (["a"], None),
        ("a", None),
    ],
)
def test_steps(tmp_path: Path, steps: Any, expected: str | None) -> None:
    listing = list_episodes(
        source_of(write_run(tmp_path / "a.mp4", 0, 6, {"task": "t", "steps": steps}).parent, fps=10)
    )
    shown_steps = " ".join(f"{s.name}{s.start_frame}{s.end_frame}" for s in listing.records[0].steps)
    assert shown_steps == (expected or "")
    assert said(listing) == ([("bad_steps", "warning", 0, None)] if expected is None else [])


# Side files

TABLE = [
    {"file": "a.mp4", "task": "fold it", "success": True, "group": "x"},
    {"file": "b.mp4", "task": "stack, then fold", "success": False, "group": "y"},
    {"file": "deep/c.mp4", "task": "stack"},
]


def write_side(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n\n" for r in rows))
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)))
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("name", ["metadata.json", "metadata.jsonl", "metadata.csv", "episodes.csv"])
@pytest.mark.parametrize("column", ["file", "file_name", "video"])
def test_a_side_file(tmp_path: Path, name: str, column: str) -> None:
    """It is of its own folder, and a video that it does not name is an episode too."""
    for k, video in enumerate(("s/a.mp4", "s/b.mp4", "s/deep/c.mp4", "s/d.mp4", "a.mp4")):
        write_run(tmp_path / video, k, 6)
    write_side(tmp_path / "s" / name, [{column if k == "file" else k: v for k, v in r.items()} for r in TABLE])
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert [(r.source_id, r.task, r.success, r.group) for r in listing.records] == [
        ("a.mp4", None, None, "a.mp4"),
        ("s/a.mp4", "fold it", True, "x"),
        ("s/b.mp4", "stack, then fold", False, "y"),
        ("s/d.mp4", None, None, "s/d.mp4"),
        ("s/deep/c.mp4", "stack", None, "s/deep/c.mp4"),
    ]
    assert said(listing) == [("no_task", "warning", 0, None), ("no_task", "warning", 3, None)]
    assert listing.numbered is False
    assert shown(source, listing.records[2], CAMERA) == [(0, 1, k) for k in range(6)]


@pytest.mark.parametrize(
    ("text", "success"), [("true", True), ("FALSE", False), ("1", True), ("0", False), ("?", None)]
)
def test_success_in_csv(tmp_path: Path, text: str, success: bool | None) -> None:
    write_run(tmp_path / "a.mp4", 0, 6)
    (tmp_path / "metadata.csv").write_text(f"file,task,success\na.mp4,t,{text}\n")
    assert list_episodes(source_of(tmp_path)).records[0].success is success


def test_the_notes_overrule_the_row(tmp_path: Path) -> None:
    write_run(tmp_path / "a.mp4", 0, 6, {"task": "by the notes"})
    write_side(
        tmp_path / "metadata.json", [{"file": "./a.mp4", "task": "by the row", "success": True, "camera": "top"}]
    )
    listing = list_episodes(source_of(tmp_path))
    assert [(r.task, r.success, r.cameras) for r in listing.records] == [("by the notes", True, ["top"])]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"file": "none.mp4"}, "no_video"),
        ({"file": "../a.mp4"}, "path_escape"),
        ({"file": "x/../../a.mp4"}, "path_escape"),
        ({"file": "/etc/passwd"}, "path_escape"),
        ({"file": "b.mp4"}, "duplicate_episode"),
        ({"task": "t"}, "unreadable_data"),
        ({"file": 7}, "unreadable_data"),
    ],
)
def test_rows_that_name_no_video_of_the_folder(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    write_run(tmp_path / "a.mp4", 0, 6, {"task": "t"})
    write_run(tmp_path / "s/b.mp4", 1, 6)
    (tmp_path / "s/notes.txt").write_text("")
    write_side(tmp_path / "s/metadata.jsonl", [{"file": "b.mp4", "task": "t"}, row])
    listing = list_episodes(source_of(tmp_path))
    assert [(f.reason, f.severity, f.episode_index, f.file) for f in listing.findings] == [
        (reason, "warning", None, "s/metadata.jsonl")
    ]
    assert "s/metadata.jsonl row 3: " in listing.findings[0].detail  # lines are counted, and one is empty
    assert [r.source_id for r in listing.records] == ["a.mp4", "s/b.mp4"]


# Several cameras

JOINED = [
    {"file": "a.mp4", "episode": 1, "camera": "top", "task": "t"},
    {"file": "b.mp4", "episode": 1, "camera": "side"},
    {"file": "c.mp4", "episode": "two", "camera": "top", "task": "u", "success": True},
]


def write_joined(root: Path, rows: list[dict[str, Any]] | None = None, **fps: int) -> Path:
    for k, name in enumerate("abc"):
        write_run(root / f"s/{name}.mp4", k, 6, fps=fps.get(name, 10))
    write_side(root / "s/metadata.json", JOINED if rows is None else rows)
    return root


def test_cameras_of_one_episode(tmp_path: Path) -> None:
    source = source_of(write_joined(tmp_path), cameras=Cameras(exo=("top",)))
    listing = list_episodes(source)
    assert [(r.source_id, r.cameras, r.task, r.success, r.num_rows) for r in listing.records] == [
        ("s/1", ["top", "side"], "t", None, 6),
        ("s/two", ["top"], "u", True, None),
    ]
    assert (listing.cameras, said(listing)) == (("top", "side"), [])
    assert shown(source, listing.records[0], "side") == [(0, 1, k) for k in range(6)]
    assert list_episodes(source_of(tmp_path)).cameras == ("side", "top")


def test_a_camera_named_twice(tmp_path: Path) -> None:
    listing = list_episodes(source_of(write_joined(tmp_path, [JOINED[0], JOINED[1] | {"camera": "top"}])))
    assert said(listing)[0] == ("bad_video_pointer", "warning", None, None)
    assert [(r.source_id, r.cameras) for r in listing.records] == [
        ("s/1", ["top"]),
        ("s/b.mp4", [CAMERA]),
        ("s/c.mp4", [CAMERA]),
    ]


def test_cameras_of_different_rates(tmp_path: Path) -> None:
    listing = list_episodes(source_of(write_joined(tmp_path, b=20)))
    assert said(listing) == [("frame_rate", "warning", 0, "side")]
    assert (listing.records[0].cameras, listing.records[0].fps) == (["top"], 10.0)


def test_stamp_covers_the_row(tmp_path: Path) -> None:
    """And no other row: editing one episode is no change of the next."""
    before = [r.source_stamp for r in list_episodes(source_of(write_joined(tmp_path))).records]
    write_side(tmp_path / "s/metadata.json", [*JOINED[:2], JOINED[2] | {"task": "v"}])
    after = [r.source_stamp for r in list_episodes(source_of(tmp_path)).records]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


def test_a_rate_that_no_camera_has(tmp_path: Path) -> None:
    """Two thousand million frames a second, by which sizes of arrays would follow; the episode cannot be used."""
    data = bytearray(write_video(tmp_path / "a.avi", range(12), "mpeg4").read_bytes())
    at = data.index(b"strh") + 28
    data[at : at + 8] = struct.pack("<II", 1, 2**31 - 1)
    (tmp_path / "a.avi").write_bytes(data)
    listing = list_episodes(source_of(tmp_path))
    assert ("over_limit", "unusable", 0, None) in said(listing)
    assert [record.fps for record in listing.records] == [1000]


def test_groups_do_not_move_when_a_file_is_added(tmp_path: Path) -> None:
    """An index does; so a split that was given by group stays with its video."""
    write_run(tmp_path / "b.mp4", 0, 6)
    before = {r.source_id: r.group for r in list_episodes(source_of(tmp_path)).records}
    shutil.copy(tmp_path / "b.mp4", tmp_path / "a.mp4")
    after = {r.source_id: r.group for r in list_episodes(source_of(tmp_path)).records}
    assert after["b.mp4"] == before["b.mp4"] != after["a.mp4"]
