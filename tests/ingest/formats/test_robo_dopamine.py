"""Robo-Dopamine's raw episodes: folders with a video per camera and the steps that people marked."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.episode import NativeStep
from ingest.source import format_of, list_episodes
from tests.kits.lerobot_writer import number, said, shown, source_of, write_video

CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")
STEPS = (NativeStep("pick", 1, 4), NativeStep("place", 4, 8))


def keyframes(*spans: tuple[Any, Any, Any]) -> str:
    return json.dumps([{"anotation": name, "start_frame_id": a, "end_frame_id": b} for name, a, b in spans])


def write_episode(folder: Path, episode: int, annotated: str | None, cameras: tuple[str, ...] = CAMERAS) -> None:
    for c, camera in enumerate(cameras):
        write_video(folder / f"{camera}.mp4", [number(c, episode, k) for k in range(10)])
    if annotated is not None:
        (folder / "annotated_keyframes.json").write_text(annotated)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_episode(tmp_path / "episode_001", 0, keyframes(("pick", 1, 4), ("place", 4, 8)))
    write_episode(tmp_path / "episode_002", 1, None, CAMERAS[:2])
    (tmp_path / "task_instruction.json").write_text(json.dumps(["clear the table", "tidy up"]))
    return tmp_path


def test_a_folder_is_an_episode_with_its_cameras(root: Path) -> None:
    source = source_of(root)
    assert format_of(source).name == "robo_dopamine"
    listing = list_episodes(source)
    first, second = listing.records
    assert (first.source_id, first.cameras, first.task) == ("episode_001", list(CAMERAS), "clear the table")
    assert (first.tasks, first.num_rows, first.fps) == (("clear the table", "tidy up"), 10, 10.0)
    assert (first.steps, first.steps_from) == (STEPS, "annotated_keyframes")
    assert (second.steps, second.steps_from, second.cameras) == ((), None, list(CAMERAS[:2]))
    assert said(listing) == [("missing_camera", "warning", 1, CAMERAS[2])]
    assert shown(source, first, CAMERAS[2]) == [(2, 0, k) for k in range(10)]
    assert not listing.numbered


@pytest.mark.parametrize(
    "annotated", [keyframes(("a", 0, 5), ("b", 4, 8)), keyframes(("a", 0, 11)), keyframes((None, 0, 3)), "{}", "[1]"]
)
def test_broken_keyframes_lose_no_episode(root: Path, annotated: str) -> None:
    (root / "episode_001/annotated_keyframes.json").write_text(annotated)
    listing = list_episodes(source_of(root))
    assert said(listing, reason="bad_steps") == [("bad_steps", "warning", 0, None)]
    assert len(listing.records) == 2
    assert listing.records[0].steps == ()
