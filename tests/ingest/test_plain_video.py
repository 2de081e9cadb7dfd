"""Plain video files: one episode each, with notes beside them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from lerobot_writer import LFS_POINTER, said, shown, source_of, write_video

from ingest.plain_video import CAMERA
from ingest.source import list_episodes, read_episode


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
    assert (episode.state, episode.gripper, episode.timestamps_s) == (None, None, None)
    assert [(k, t) for k, t, _ in episode.frames(CAMERA)][:3] == [(0, 0.0), (1, 0.04), (2, 0.08)]


def test_one_file(tmp_path: Path) -> None:
    write_run(tmp_path / "other.mp4", 1, 6)
    source = source_of(write_run(tmp_path / "a.mp4", 0, 6))
    listing = list_episodes(source)
    assert [r.source_id for r in listing.records] == ["a.mp4"]
    assert shown(source, listing.records[0], CAMERA) == [(0, 0, k) for k in range(6)]


def test_rate_of_the_registry(tmp_path: Path) -> None:
    listing = list_episodes(source_of(write_run(tmp_path / "a.mp4", 0, 6), fps=5))
    assert (listing.fps, listing.records[0].fps) == (5.0, 5.0)


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    """Text named .mp4, and a pointer: each is one episode that cannot be used, beside one that can."""
    write_run(tmp_path / "a.mp4", 0, 6, {"task": "t"})
    for name, text in (("b.mp4", "no video at all\n" * 99), ("c.mp4", LFS_POINTER)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).with_suffix(".json").write_text('{"task": "t"}')
    listing = list_episodes(source_of(tmp_path))
    assert said(listing) == [("undecodable_video", "unusable", 1, CAMERA), ("lfs_pointer", "unusable", 2, CAMERA)]
    assert [f.file for f in listing.findings] == ["b.mp4", "c.mp4"]
    assert len(listing.records) == 3


@pytest.mark.parametrize(
    ("notes", "findings"),
    [
        (None, ["no_task"]),
        ("{broken", ["unreadable_data", "no_task"]),
        ([1], ["no_task"]),
        ({"task": 7}, ["no_task"]),
        ({"task": " "}, ["no_task"]),
        ({"task": None, "success": "yes"}, ["no_task"]),
    ],
)
def test_notes_that_say_no_task(tmp_path: Path, notes: Any, findings: list[str]) -> None:
    listing = list_episodes(source_of(write_run(tmp_path / "a.mp4", 0, 6, notes).parent))
    assert [f.reason for f in listing.findings] == findings
    assert {f.severity for f in listing.findings} == {"warning"}
    (record,) = listing.records
    assert (record.task, record.tasks, record.success) == (None, (), None)


def test_groups_do_not_move_when_a_file_is_added(tmp_path: Path) -> None:
    """An index does; so a split that was given by group stays with its video."""
    write_run(tmp_path / "b.mp4", 0, 6)
    before = {r.source_id: r.group for r in list_episodes(source_of(tmp_path)).records}
    shutil.copy(tmp_path / "b.mp4", tmp_path / "a.mp4")
    after = {r.source_id: r.group for r in list_episodes(source_of(tmp_path)).records}
    assert after["b.mp4"] == before["b.mp4"] != after["a.mp4"]


def test_stamp_covers_the_notes(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a.mp4", 0, 6, {"task": "t"})
    (before,) = list_episodes(source_of(tmp_path)).records
    path.with_suffix(".json").write_text('{"task": "another"}')
    (after,) = list_episodes(source_of(tmp_path)).records
    assert before.source_stamp != after.source_stamp


def test_no_videos(tmp_path: Path) -> None:
    from ingest.plain_video import list_episodes as plain

    listing = plain(source_of(tmp_path))
    assert (listing.records, said(listing)) == ((), [("no_episodes", "unusable", None, None)])
