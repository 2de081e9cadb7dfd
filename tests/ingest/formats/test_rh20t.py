"""RH20T as released: scenes with a video per camera, ratings, human demonstrations and pickled arrays."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.formats import rh20t
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import said, shown, source_of
from tests.kits.rh20t_writer import write_scene, write_texts

PICKLED = ("pickled_data", "warning", None, None)
SCENE = "task_0001_user_0001_scene_0001_cfg_0003"


def test_a_configuration(tmp_path: Path) -> None:
    cfg = tmp_path / "RH20T_cfg3"
    write_scene(cfg, 1, cameras={"cam_2": 5, "cam_10": 6}, metadata={"rating": 9, "calib": 17})
    write_scene(cfg, 1, 2, metadata={"rating": 1})
    write_scene(cfg, 2, metadata={"rating": 0})
    write_scene(cfg, 2, suffix="_human")
    write_scene(cfg, 1, suffix="_human")
    write_texts(tmp_path / "task_description.json", {1: "press the button", 2: "pull the plug"})
    source = source_of(tmp_path, cameras={"wrist": ["cam_10"]})
    listing = list_episodes(source)
    assert (listing.format, listing.fps, listing.cameras) == ("rh20t", 10.0, ("cam_1", "cam_2", "cam_10"))
    assert [(r.episode_index, r.source_id, r.task, r.num_rows, r.success) for r in listing.records] == [
        (0, f"RH20T_cfg3/{SCENE}", "press the button", 5, True),
        (1, "RH20T_cfg3/task_0001_user_0001_scene_0002_cfg_0003", "press the button", 6, False),
        (2, "RH20T_cfg3/task_0002_user_0001_scene_0001_cfg_0003", "pull the plug", 6, False),
    ]
    assert listing.records[0].tasks == ("press the button", "任务 1")
    assert listing.records[0].cameras == ["cam_2", "cam_10"]
    assert said(listing) == [("human_demonstration", "warning", None, None), PICKLED]
    assert listing.findings[0].detail.startswith("2 folders")
    assert listing.findings[1].detail.startswith("state and gripper of 3 episodes")
    assert shown(source, listing.records[2], "cam_1") == [(0, 2, k) for k in range(6)]
    assert shown(source, listing.records[0], "cam_10") == [(1, 1, k) for k in range(6)]
    episode = read_episode(source, listing.records[0])
    assert (episode.state, episode.action, episode.timestamps_s) == (None, None, None)
    assert [(k, t) for k, t, _ in episode.frames("cam_2")][:2] == [(0, 0.0), (1, 0.1)]


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    """In an array, or as a whole file: either would write a file if it were."""

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str, str]]:
            return open, (str(tmp_path / "sprung"), "w")

    folder = write_scene(tmp_path / "a", 1, metadata={"rating": 3})
    np.save(folder / "transformed/tcp_base.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    whole = write_scene(tmp_path / "a", 2, metadata={"rating": 3})
    (whole / "transformed/tcp_base.npy").write_bytes(pickle.dumps(Trap()))
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert said(listing, reason="pickled_data") == [PICKLED]
    assert said(listing, reason="unreadable_data") == [("unreadable_data", "warning", 1, None)]
    assert [read_episode(source, r).state for r in listing.records] == [None, None]
    assert not (tmp_path / "sprung").exists()


def test_plain_arrays_that_do_not_fit(tmp_path: Path) -> None:
    write_scene(tmp_path, 1, metadata={"rating": 2}, plain=4)
    ragged = write_scene(tmp_path, 2, metadata={"rating": 2}, plain=6)
    np.save(ragged / "transformed/gripper.npy", np.zeros(5))
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert [f.detail for f in listing.findings if f.reason == "length_differs"] == [
        "4 states for 6 frames; state is not used",
        "6 rows of state, 5 of the gripper; state and gripper are not used",
    ]
    assert [read_episode(source, r).state for r in listing.records] == [None, None]


@pytest.mark.parametrize(
    ("metadata", "success", "reason"),
    [
        ({"rating": 0}, False, None),
        ({"rating": 1}, False, None),
        ({"rating": 2}, True, None),
        ({"rating": 9}, True, None),
        ({"rating": 10}, None, None),
        ({"rating": -1}, None, None),
        ({"rating": True}, None, None),
        ({"rating": "9"}, None, None),
        ({"rating": 9, "success": False}, False, None),
        ([9], None, None),
        ("{broken", None, "unreadable_data"),
        (None, None, "no_metadata"),
    ],
)
def test_ratings(tmp_path: Path, metadata: Any, success: bool | None, reason: str | None) -> None:
    write_scene(tmp_path, 1, metadata=metadata)
    write_texts(tmp_path / "task_description.json", {1: "press"})
    listing = list_episodes(source_of(tmp_path))
    assert listing.records[0].success is success
    assert said(listing) == ([(reason, "warning", 0, None)] if reason else []) + [PICKLED]


def test_only_human_demonstrations(tmp_path: Path) -> None:
    write_scene(tmp_path, 1, suffix="_human")
    source = source_of(tmp_path)
    assert rh20t.roots(source.files)
    assert said(list_episodes(source)) == [
        ("human_demonstration", "warning", None, None),
        ("no_episodes", "unusable", None, None),
    ]
