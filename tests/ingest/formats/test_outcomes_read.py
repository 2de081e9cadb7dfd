"""Outcomes as each format brings them, and what is said to say so."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import Listing
from ingest.source import list_episodes
from tests.kits.hdf5_writer import write_aloha, write_libero, write_robotwin
from tests.kits.lerobot_writer import edit_parquet, source_of, v2_data, write_v2
from tests.kits.rlds_writer import episode, write_dataset

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


@pytest.mark.parametrize("name", ["next.reward", "reward"])
def test_lerobot_reward(tmp_path: Path, name: str) -> None:
    listing = of_lerobot(tmp_path, {name: [[0, 0, 0, 1.0], [0.0] * 4, [0, 1.0, 0, 0]]})
    assert outcomes(listing) == [(True, f"final {name}"), (False, f"final {name}"), None]


def test_lerobot_reward_that_says_nothing(tmp_path: Path) -> None:
    listing = of_lerobot(tmp_path / "unset", {"next.reward": [[0.0] * 4] * 2})
    assert (outcomes(listing), listing.never_set) == ([None, None], ("next.reward",))
    listing = of_lerobot(tmp_path / "dense", {"next.reward": [[0, 0, 0, 1.0], [0, 0.3, 0.6, 0.9], [0.0] * 4]})
    assert (outcomes(listing), listing.never_set) == ([None] * 3, ())


# RLDS


def of_rlds(root: Path, *episodes: dict[str, Any], **config: Any) -> Listing:
    return list_episodes(source_of(write_dataset(root, {"train": [list(episodes)]}), fps=5, **config))


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


def test_robotwin(tmp_path: Path) -> None:
    for k in range(2):
        write_robotwin(tmp_path / "task/demo", k, 5, {"seen": ["do it"]})
        with h5py.File(tmp_path / f"task/demo/data/episode{k}.hdf5", "r+") as file:
            file.attrs["success"] = k == 0
    assert outcomes(list_episodes(source_of(tmp_path))) == [(True, "metadata success"), (False, "metadata success")]


def test_a_reward_that_cannot_be_read_loses_no_episode(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", {0: 5})
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/rewards"]
        file["data/demo_0/rewards"] = h5py.ExternalLink("b.hdf5", "/rewards")
    listing = list_episodes(source_of(tmp_path))
    assert outcomes(listing) == [None]
    assert {(f.reason, f.severity, f.episode_index) for f in listing.findings} == {("path_escape", "warning", 0)}
