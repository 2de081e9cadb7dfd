"""AgiBot World: loose files and tar archives, timed steps, rows in HDF5, and what can be wrong with each."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ingest.episode import CameraVideo
from ingest.formats import agibot
from ingest.reasons import DataError
from ingest.registry import Gripper, Keys
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.agibot_writer import (
    GRIPPER_CAMERAS,
    entry,
    pack,
    rows_path,
    state,
    write_agibot,
    write_data,
    write_tar,
    write_tasks,
)
from tests.kits.lerobot_writer import said, shown, source_of
from tests.kits.signal_kit import places_of

HEAD, LEFT, RIGHT = GRIPPER_CAMERAS
TASK = "Pickup items in the supermarket"


def rows(source: Source) -> list[tuple[str, int | None]]:
    return [(r.source_id, r.num_rows) for r in list_episodes(source).records]


def as_on_the_hub(root: Path, loose: Path, rows_tar: str = "proprio_stats.tar") -> Path:
    """The two halves of the data in tars: observations by task, rows of all tasks together."""
    shutil.copytree(loose / "task_info", root / "task_info")
    for task in (loose / "observations").iterdir():
        episodes = sorted(p.name for p in task.iterdir())
        for at in range(0, len(episodes), 2):
            some = episodes[at : at + 2]
            pack(root / f"observations/{task.name}/{some[0]}-{some[-1]}.tar", task, some)
    tasks = sorted(p.name for p in (loose / "proprio_stats").iterdir())
    pack(root / f"proprio_stats/{rows_tar}", loose / "proprio_stats", tasks)
    return root


@pytest.mark.parametrize("rows_tar", ["proprio_stats.tar", "5-648650.tar"])  # of Alpha, of Beta
def test_archives(tmp_path: Path, rows_tar: str) -> None:
    """The same episodes as from loose files, by uris of members."""
    write_agibot(tmp_path / "loose", lengths={648642: 6, 648649: 8, 648650: 5})
    write_agibot(tmp_path / "loose", 9, {5: 7}, cameras=(HEAD,))
    source = source_of(as_on_the_hub(tmp_path / "hub", tmp_path / "loose", rows_tar))
    loose, listing = list_episodes(source_of(tmp_path / "loose")), list_episodes(source)
    assert said(listing) == said(loose) == []
    uri = "observations/327/648642-648649.tar!/648642/videos/head_color.mp4"
    assert listing.records[0].videos[0] == CameraVideo(HEAD, uri, 0)
    assert listing.records[0].data_uri == f"proprio_stats/{rows_tar}!/327/648642/proprio_stats.h5"
    for ours, theirs in zip(listing.records, loose.records, strict=True):
        assert (ours.source_id, ours.num_rows, ours.steps, ours.cameras) == (
            theirs.source_id,
            theirs.num_rows,
            theirs.steps,
            theirs.cameras,
        )
        a, b = read_episode(source, ours), read_episode(source_of(tmp_path / "loose"), theirs)
        np.testing.assert_array_equal(a.state, b.state)
        for camera in ours.cameras:
            assert shown(source, ours, camera) == shown(source_of(tmp_path / "loose"), theirs, camera) != []


def test_names_that_lead_out_of_an_archive(tmp_path: Path) -> None:
    write_agibot(tmp_path, lengths={1: 6})
    write_tar(tmp_path / "observations/327/1-1.tar", [("../1/videos/extra_color.mp4", b"x")])
    listing = list_episodes(source_of(tmp_path))
    assert said(listing) == [("path_escape", "warning", None, None)]
    assert listing.findings[0].file == "observations/327/1-1.tar!/../1/videos/extra_color.mp4"


# Metadata


def test_what_the_task_file_says_and_does_not(tmp_path: Path) -> None:
    write_data(tmp_path, 1, {1: 5, 2: 5, 3: 5}, cameras=(HEAD,))
    entries = [
        entry(1, done=True, site="kitchen"),
        entry(2, task_name=" "),
        entry(2, task_name="a second one"),
        entry(4),
        {"task_name": "of none"},
        entry(5) | {"episode_id": "5"},
        "text",
    ]
    write_tasks(tmp_path, 1, entries)
    listing = list_episodes(source_of(tmp_path, success_field="done", group_field="site"))
    assert [(r.source_id, r.task, r.success, r.group) for r in listing.records] == [
        ("1/1", TASK, True, "kitchen"),
        ("1/2", None, None, "1/2"),
        ("1/3", None, None, "1/3"),
        ("1/4", TASK, None, "1/4"),
    ]
    assert said(listing) == [
        ("duplicate_episode", "warning", None, None),
        *[("unreadable_data", "warning", None, None)] * 3,
        ("no_task", "warning", 1, None),
        ("not_in_metadata", "warning", 2, None),
        ("no_task", "warning", 2, None),
        ("no_video", "unusable", 3, None),
        ("no_data", "unusable", 3, None),
    ]


# Rows


def one(tmp_path: Path, **fields: Any) -> Source:
    """One episode of 6 frames, whose rows a test changes with `edit`."""
    write_agibot(tmp_path, 1, {1: 6}, cameras=(HEAD,))
    return source_of(tmp_path, **fields)


def edit(root: Path, **arrays: Any) -> None:
    """Replace arrays of the episode's file, `__` standing for `/`; None takes one out."""
    with h5py.File(rows_path(root, 1, 1), "r+") as file:
        for name, array in arrays.items():
            path = name.replace("__", "/")
            if path in file:
                del file[path]
            if array is not None:
                file[path] = array


def test_dexterous_hands(tmp_path: Path) -> None:
    write_agibot(tmp_path, 1, {1: 6}, cameras=(HEAD,), effectors=12)
    source = source_of(tmp_path)
    episode = read_episode(source, list_episodes(source).records[0])
    expected = state(6, 12)
    np.testing.assert_array_equal(episode.state, np.hstack([expected["joint"], expected["effector"]]))
    assert places_of(source) == [("left hand", "state", (*range(14, 20),)), ("right hand", "state", (*range(20, 26),))]


def test_fields_without_values(tmp_path: Path) -> None:
    """AgiBot writes an empty array for what it has not."""
    source = one(tmp_path)
    edit(tmp_path, state__effector__position=np.zeros(0, np.float32), timestamp=None)
    (record,) = list_episodes(source).records
    episode = read_episode(source, record)
    assert (record.num_rows, episode.timestamps_s, places_of(source)) == (6, None, [])
    np.testing.assert_array_equal(episode.state, state(6)["joint"])


def test_registry(tmp_path: Path) -> None:
    one(tmp_path)
    keys = Keys(state=("state/end/position", "state/effector/position"))
    source = source_of(tmp_path, keys=keys, gripper=Gripper(column="state", dimension=7), fps=15)
    (record,) = list_episodes(source).records
    episode = read_episode(source, record)
    np.testing.assert_array_equal(episode.state, np.hstack([np.zeros((6, 6)), state(6)["effector"]]))
    assert (places_of(source), episode.action) == ([("gripper", "state", (7,))], None)
    assert [t for _, t, _ in episode.frames(HEAD)][1] == 1 / 15
    by_action = source_of(tmp_path, gripper=Gripper(column="action", dimension="right_gripper"))
    np.testing.assert_allclose(read_episode(by_action, record).action[:, 15], np.linspace(0, 1, 6))  # pyright: ignore
    assert places_of(by_action) == [("gripper", "action", (15,))]


def test_no_rows(tmp_path: Path) -> None:
    write_agibot(tmp_path, 1, {1: 6, 2: 6}, cameras=(HEAD,))
    rows_path(tmp_path, 1, 2).unlink()
    with h5py.File(rows_path(tmp_path, 1, 1), "w") as file:
        file["timestamp"] = np.zeros(0, np.int64)
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert said(listing) == [("no_data", "unusable", 0, None), ("no_data", "unusable", 1, None)]
    for record in listing.records:
        with pytest.raises(DataError) as error:
            read_episode(source, record)
        assert error.value.reason == "no_data"


def test_not_agibot(tmp_path: Path) -> None:
    for name in ("task_info/readme.json", "observations/x/a.mp4", "videos/head_color.mp4", "proprio_stats.h5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps([]))
    assert not agibot.recognises(source_of(tmp_path))
