"""Outcomes as each format brings them, and what is said to say so."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import Listing
from ingest.formats import tables
from ingest.source import list_episodes
from tests.kits import agibot_writer
from tests.kits.hdf5_writer import write_aloha, write_libero, write_robotwin
from tests.kits.lerobot_writer import (
    edit_parquet,
    source_of,
    v2_data,
    v3_data,
    v3_meta,
    write_json_lines,
    write_v2,
    write_v3,
    write_video,
)
from tests.kits.real_data import BRIDGE, DOPAMINE, GR1
from tests.kits.rh20t_writer import write_scene
from tests.kits.rlds_writer import episode, write_dataset
from tests.kits.table30_writer import write_task

Said = tuple[bool, str] | None


def outcomes(listing: Listing) -> list[Said]:
    said: list[Said] = []
    for r in listing.records:
        assert (r.success is None) == (r.success_source is None)
        said.append(None if r.success is None else (r.success, r.success_source or ""))
    return said


def of_lerobot(root: Path, columns: Mapping[str, Sequence[Any]], **config: Any) -> Listing:
    """Of a dataset whose episode k has the k-th value of each column: its rows."""
    write_v2(root, [4] * len(next(iter(columns.values()))), cameras=())
    for name, episodes in columns.items():
        for k, rows in enumerate(episodes):
            edit_parquet(v2_data(root, k), **{name: rows})
    return list_episodes(source_of(root, **config))


# LeRobot

WON, LOST = [False, False, False, True], [False] * 4


@pytest.mark.parametrize("name", ["next.success", "success", "is_success", "episode_success"])
def test_lerobot_flag(tmp_path: Path, name: str) -> None:
    listing = of_lerobot(tmp_path, {name: [WON, LOST, [True] * 4, [False, True, False, False]]})
    assert outcomes(listing) == [(success, f"column {name}") for success in (True, False, True, False)]
    assert listing.never_set == ()


@pytest.mark.parametrize(
    "won",
    [
        [0, 0, 0, 1],
        [0.0, 0.0, None, 1.0],
        pa.array([[0], [0], [0], [1]], pa.list_(pa.int64())),
        pa.array([[0], [0], [0], [1]], pa.list_(pa.float32(), 1)),
    ],
)
def test_lerobot_types_of_flags(tmp_path: Path, won: Any) -> None:
    assert outcomes(of_lerobot(tmp_path, {"next.success": [won, LOST]})) == [
        (True, "column next.success"),
        (False, "column next.success"),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [None] * 4,
        ["maybe"] * 4,
        [0.2, 0.4, 0.6, 1.0],
        pa.array([[0], [0], [0, 1], [1]], pa.list_(pa.int64())),
        [2**60] * 4,
    ],
)
def test_lerobot_columns_that_are_no_flag(tmp_path: Path, rows: Any) -> None:
    listing = of_lerobot(tmp_path, {"next.success": [rows, rows]})
    assert (outcomes(listing), listing.never_set) == ([None, None], ())


def test_lerobot_flag_that_is_never_set(tmp_path: Path) -> None:
    """But for the field that the registry names, which is taken at its word."""
    listing = of_lerobot(tmp_path, {"next.success": [LOST, LOST]})
    assert (outcomes(listing), listing.never_set) == ([None, None], ("next.success",))
    listing = list_episodes(source_of(tmp_path, success_field="next.success"))
    assert outcomes(listing) == [(False, "column next.success")] * 2


@pytest.mark.parametrize("name", ["next.reward", "reward"])
def test_lerobot_reward(tmp_path: Path, name: str) -> None:
    listing = of_lerobot(tmp_path, {name: [[0, 0, 0, 1.0], [0.0] * 4, [0, 1.0, 0, 0]]})
    assert outcomes(listing) == [(True, f"final {name}"), (False, f"final {name}"), None]


def test_lerobot_reward_that_says_nothing(tmp_path: Path) -> None:
    listing = of_lerobot(tmp_path / "unset", {"next.reward": [[0.0] * 4] * 2})
    assert (outcomes(listing), listing.never_set) == ([None, None], ("next.reward",))
    listing = of_lerobot(tmp_path / "dense", {"next.reward": [[0, 0, 0, 1.0], [0, 0.3, 0.6, 0.9], [0.0] * 4]})
    assert (outcomes(listing), listing.never_set) == ([None] * 3, ())


def test_lerobot_what_the_metadata_says_comes_first(tmp_path: Path) -> None:
    of_lerobot(tmp_path, {"next.success": [WON, LOST, WON], "won": [["no"] * 4, ["yes"] * 4, ["?"] * 4]})
    rows = [{"episode_index": k, "is_success": said} for k, said in enumerate([False, None, None])]
    write_json_lines(tmp_path / "meta/episodes.jsonl", rows)
    source = source_of(tmp_path)
    assert outcomes(list_episodes(source)) == [
        (False, "metadata is_success"),
        (False, "column next.success"),
        (True, "column next.success"),
    ]
    # The registry's field before all, in words, too
    assert outcomes(list_episodes(source_of(tmp_path, success_field="won"))) == [
        (False, "column won"),
        (True, "column won"),
        (True, "column next.success"),
    ]


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 1 << 16])
def test_lerobot_v3_episodes_that_share_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """However many rows are read at a time."""
    monkeypatch.setattr(tables, "BATCH", batch)
    lengths = [4, 1, 6, 3, 5]
    root = write_v3(tmp_path, lengths, cameras={}, per_data_file=3)
    ends = [[0, 0, 0, 1], [0], [0, 0, 0, 0, 1, 1], [0, 0, 0], [0, 0, 0, 0, 1]]
    for file, inside in enumerate((ends[:3], ends[3:])):
        flat = [value for rows in inside for value in rows]
        edit_parquet(v3_data(root, file), **{"next.reward": np.array(flat, np.float32)})
    expected = [(success, "final next.reward") for success in (True, False, True, False, True)]
    assert outcomes(list_episodes(source_of(root))) == expected
    edit_parquet(v3_meta(root), success=[None, True, None, None, False])
    expected[1], expected[4] = (True, "metadata success"), (False, "metadata success")
    assert outcomes(list_episodes(source_of(root))) == expected


# RLDS


def of_rlds(root: Path, *episodes: dict[str, Any], **config: Any) -> Listing:
    return list_episodes(source_of(write_dataset(root, {"train": [list(episodes)]}), fps=5, **config))


def rewarded(which: int, *rewards: float, ended: bool | None = None) -> dict[str, Any]:
    length = len(rewards)
    terminal = None if ended is None else (np.arange(length) == length - 1) & ended
    changes = {"steps__reward": np.array(rewards, np.float32), "steps__is_terminal": terminal}
    return episode(which, length, changes=changes)


def test_rlds_reward_and_ends(tmp_path: Path) -> None:
    won, won_before_the_last = rewarded(0, 0, 0, 1, ended=True), rewarded(1, 0, 1, 0, ended=True)
    lost, cut_off = rewarded(2, 0, 0, 0, ended=True), rewarded(3, 0, 0, 0, ended=False)
    assert outcomes(of_rlds(tmp_path / "both", won, won_before_the_last, lost, cut_off)) == [
        (True, "final reward"),
        (True, "final reward"),
        (False, "final reward"),
        None,
    ]
    # Where no episode ever ends, the mark means nothing
    cut_too = rewarded(0, 0, 0, 1, ended=False)
    assert outcomes(of_rlds(tmp_path / "never", cut_too, cut_off)) == [(True, "final reward"), (False, "final reward")]
    listing = of_rlds(tmp_path / "unset", lost, rewarded(1, 0, 0, 0, ended=True))
    assert (outcomes(listing), listing.never_set) == ([None, None], ("reward",))
    assert outcomes(of_rlds(tmp_path / "ends", lost, cut_off)) == [(True, "final is_terminal"), None]


def test_rlds_features_and_paths(tmp_path: Path) -> None:
    """Of the steps, beside them, and of folders as DROID has them; without any keys in the registry."""
    in_steps = [episode(k, steps__is_success=np.array([0, 0, 0, 0, 0, k])) for k in range(2)]
    assert outcomes(of_rlds(tmp_path / "steps", *in_steps)) == [
        (False, "column is_success"),
        (True, "column is_success"),
    ]
    beside = [episode(k, episode_metadata__episode_success=[k]) for k in range(2)]
    assert outcomes(of_rlds(tmp_path / "beside", *beside)) == [
        (False, "metadata episode_success"),
        (True, "metadata episode_success"),
    ]
    paths = [episode(k, episode_metadata__file_path=[f"/droid/{at}/run.h5".encode()]) for k, at in enumerate("ab")]
    paths += [episode(2, episode_metadata__file_path=[b"/droid/success/run.h5"])]
    paths += [episode(3, episode_metadata__file_path=[b"/droid/failure/run.h5"], steps__reward=np.ones(6))]
    said = {r.source_id: (r.success, r.success_source) for r in of_rlds(tmp_path / "paths", *paths).records}
    assert said["/droid/success/run.h5#2"] == (True, "folder name")
    assert said["/droid/failure/run.h5#3"] == (False, "folder name")
    assert [said[f"/droid/{at}/run.h5#{k}"] for k, at in enumerate("ab")] == [(None, None)] * 2


def test_rlds_outcomes_stay_with_their_episodes(tmp_path: Path) -> None:
    """Records get their order only after all were read."""
    episodes = [episode(k, episode_metadata__success=[k % 2]) for k in (3, 0, 2, 1)]
    listing = of_rlds(tmp_path, *episodes)
    assert [(r.source_id, r.success) for r in listing.records] == [(f"/raw/run.h5#{k}", k % 2 == 1) for k in range(4)]


# Others


def test_hdf5(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", {0: 5, 1: 5, 2: 5, 3: 5, 4: 5})
    with h5py.File(path, "r+") as file:
        demos: list[Any] = [file[f"data/demo_{k}"] for k in range(5)]
        demos[0].attrs["is_success"] = False
        demos[1]["success"] = np.array([False, False, True, True, False])
        del demos[2]["rewards"]
        demos[2]["rewards"] = np.zeros(5)
        demos[3].attrs["success"] = "Yes"
    assert outcomes(list_episodes(source_of(tmp_path))) == [
        (False, "metadata is_success"),
        (False, "column success"),
        (False, "final rewards"),
        (True, "metadata success"),
        (True, "final rewards"),
    ]


def test_hdf5_flag_that_is_never_set(tmp_path: Path) -> None:
    for k in range(2):
        write_aloha(tmp_path / f"episode_{k}.hdf5", k, 5, is_success=np.zeros(5, bool))
    listing = list_episodes(source_of(tmp_path))
    assert (outcomes(listing), listing.never_set) == ([None, None], ("is_success",))


def test_folder_names(tmp_path: Path) -> None:
    """Of HDF5 files and of videos; a file's own name says nothing, what is stated beside it says more."""
    for k, folder in enumerate(("day1/success", "day1/Failure", "day2", "failed")):
        path = tmp_path / "h5" / folder / "episode_0.hdf5"
        write_aloha(path, k, 5)
        write_video(tmp_path / "videos" / folder / "success.mp4", [k] * 4)
    assert outcomes(list_episodes(source_of(tmp_path / "h5"))) == [
        (False, "folder name"),
        (True, "folder name"),
        None,
        (False, "folder name"),
    ]
    (tmp_path / "videos/failed/success.json").write_text(json.dumps({"is_success": True}))
    assert outcomes(list_episodes(source_of(tmp_path / "videos"))) == [
        (False, "folder name"),
        (True, "folder name"),
        None,
        (True, "metadata is_success"),
    ]


def test_side_files_and_task_files(tmp_path: Path) -> None:
    write_video(tmp_path / "video/a.mp4", [1] * 4)
    write_video(tmp_path / "video/b.mp4", [2] * 4)
    (tmp_path / "video/metadata.csv").write_text("file,episode_success\na.mp4,yes\nb.mp4,fail\n")
    assert outcomes(list_episodes(source_of(tmp_path / "video"))) == [
        (True, "metadata episode_success"),
        (False, "metadata episode_success"),
    ]
    agibot_writer.write_data(tmp_path / "agibot", 1, {1: 5, 2: 5, 3: 5}, cameras=("head_color",))
    entries = [agibot_writer.entry(k) for k in (1, 2, 3)]
    entries[0]["success"], entries[1]["label_info"]["is_success"] = 1, False
    agibot_writer.write_tasks(tmp_path / "agibot", 1, entries)
    assert outcomes(list_episodes(source_of(tmp_path / "agibot"))) == [
        (True, "metadata success"),
        (False, "metadata is_success"),
        None,
    ]
    write_task(tmp_path / "table30", "press", "ur5", {0: 5, 1: 5})
    for k, meta in enumerate(sorted((tmp_path / "table30").rglob("episode_meta.json"))):
        meta.write_text(json.dumps({"frames": 5, "is_success": k == 1}))
    assert outcomes(list_episodes(source_of(tmp_path / "table30"))) == [
        (False, "metadata is_success"),
        (True, "metadata is_success"),
    ]
    write_scene(tmp_path / "rh20t", 1, metadata={"rating": 1})
    write_scene(tmp_path / "rh20t", 2, metadata={"rating": 8, "success": False})
    assert outcomes(list_episodes(source_of(tmp_path / "rh20t"))) == [
        (False, "metadata rating"),
        (False, "metadata success"),
    ]


def test_robotwin(tmp_path: Path) -> None:
    for k in range(2):
        write_robotwin(tmp_path / "task/demo", k, 5, {"seen": ["do it"]})
        with h5py.File(tmp_path / f"task/demo/data/episode{k}.hdf5", "r+") as file:
            file.attrs["success"] = k == 0
    assert outcomes(list_episodes(source_of(tmp_path))) == [(True, "metadata success"), (False, "metadata success")]


def test_real_datasets() -> None:
    """GR1's reward is set in the last row alone; in the debug set of BridgeData no reward and no end is ever set."""
    assert outcomes(list_episodes(source_of(GR1)))[-1] == (True, "final next.reward")
    bridge = list_episodes(source_of(BRIDGE))
    assert (set(outcomes(bridge)), bridge.never_set) == ({None}, ("reward",))
    assert set(outcomes(list_episodes(source_of(DOPAMINE)))) == {None}


def test_a_reward_that_cannot_be_read_loses_no_episode(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", {0: 5})
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/rewards"]
        file["data/demo_0/rewards"] = h5py.ExternalLink("b.hdf5", "/rewards")
    listing = list_episodes(source_of(tmp_path))
    assert outcomes(listing) == [None]
    assert {(f.reason, f.severity, f.episode_index) for f in listing.findings} == {("path_escape", "warning", 0)}
