"""Arrays beside plain videos: which file is whose, what is state and action, and what cannot be read."""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.episode import EpisodeData
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import LFS_POINTER, said, source_of, write_video

K = np.arange(6, dtype=np.float32)
NO_TASK = ("no_task", "warning", 0, None)


def rows(width: int, frames: int = 6, first: float = 0.0) -> np.ndarray:
    """[frames, width]: dimension d of row k is first + k + d / 10."""
    return first + np.arange(frames)[:, None] + np.arange(width) / 10


def one(root: Path, name: str = "a.mp4", frames: int = 6) -> Path:
    return write_video(root / name, range(frames))


def episode_in(root: Path, index: int = 0, **config: Any) -> EpisodeData:
    source = source_of(root, **config)
    return read_episode(source, list_episodes(source).records[index])


def shape(values: np.ndarray | None) -> tuple[int, ...] | None:
    return None if values is None else values.shape


# What is read


def test_a_single_array_without_a_name_is_the_action(tmp_path: Path) -> None:
    """As in the sample of BridgeData V2 that is published as mp4 and npz."""
    one(tmp_path)
    np.savez(tmp_path / "a.npz", rows(10))
    source = source_of(tmp_path)
    listing = list_episodes(source)
    (record,) = listing.records
    assert said(listing) == [NO_TASK]
    assert (record.num_rows, record.data_uri) == (6, "a.npz")
    episode = read_episode(source, record)
    assert (episode.state, episode.state_names) == (None, ())
    assert episode.action_names == tuple(f"action.{d}" for d in range(10))
    np.testing.assert_allclose(episode.action, rows(10))  # pyright: ignore
    assert len(list(episode.frames("video"))) == 6


def test_arrays_by_their_names(tmp_path: Path) -> None:
    one(tmp_path)
    named = {"qpos": rows(6), "gripper_position": K / 6, "actions": rows(7, first=9), "timestamps": K, "seen": rows(2)}
    np.savez_compressed(tmp_path / "a.npz", **named, names=np.array(["x"]), picture=np.zeros((6, 8, 8, 3)))
    episode = episode_in(tmp_path)
    assert episode.state_names == (*(f"qpos.{d}" for d in range(6)), "gripper_position")
    assert episode.action_names == tuple(f"actions.{d}" for d in range(7))
    np.testing.assert_allclose(episode.state, np.column_stack([rows(6), K / 6]))  # pyright: ignore
    assert (shape(episode.action), episode.action[0, 0]) == ((6, 7), 9)  # pyright: ignore


@pytest.mark.parametrize(
    ("files", "state", "action"),
    [
        (("a_states.npy", "a_actions.npy"), (6, 2), (6, 2)),
        (("a.action.npy",), None, (6, 2)),
        (("a-qpos.npy",), (6, 2), None),
        (("a.npy",), None, (6, 2)),
        (("A.npy", "b_states.npy", "a_1.npy", "ab_states.npy", "a_depth.npy"), None, None),  # of others, or of no rows
        (("states.npy", "actions.npz"), (6, 2), (6, 2)),  # alone in the folder
    ],
)
def test_whose_a_file_is(
    tmp_path: Path, files: tuple[str, ...], state: tuple[int, ...] | None, action: tuple[int, ...] | None
) -> None:
    one(tmp_path / "run", "a.mp4")
    for name in files:
        (np.savez if name.endswith(".npz") else np.save)(tmp_path / "run" / name, rows(2))
    episode = episode_in(tmp_path)
    assert (shape(episode.state), shape(episode.action)) == (state, action)
    read = {f.file for f in list_episodes(source_of(tmp_path)).findings if f.reason == "rows_not_read"}
    assert read == (set() if state or action else {"run/A.npy"})


def test_the_registry_says_which_array_is_what(tmp_path: Path) -> None:
    one(tmp_path)
    np.savez(tmp_path / "a.npz", first=rows(2), second=rows(3), action=rows(4))
    episode = episode_in(tmp_path, keys={"state": ["second"], "action": ["first"]})
    assert (shape(episode.state), shape(episode.action)) == ((6, 3), (6, 2))
    episode = episode_in(tmp_path, keys={"state": ["first"]})
    assert (shape(episode.state), shape(episode.action)) == ((6, 2), (6, 4))
    np.savez(tmp_path / "a.npz", rows(2))
    episode = episode_in(tmp_path, keys={"state": ["arr_0"]})
    assert (shape(episode.state), shape(episode.action)) == ((6, 2), None)


# What cannot be used


class Trap:
    """Unpickled, it would write a file."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.at), "w")


def bomb() -> bytes:
    """A packed array that claims, and has, more than anybody's rows."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (1 << 26, 1)})
    return packed(out.getvalue() + bytes(1 << 20))


def packed(member: bytes, name: str = "action.npy") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, member)
    return out.getvalue()


def damaged() -> bytes:
    out = io.BytesIO()
    np.savez(out, action=rows(50))
    data = bytearray(out.getvalue())
    data[300] ^= 0xFF  # within the values: the archive's checksum finds it
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason", "why"),
    [
        (b"", "unreadable_data", "a.npz cannot be read"),
        (b"PK\x03\x04 no archive", "unreadable_data", "a.npz cannot be read"),
        (damaged(), "unreadable_data", "a.npz cannot be read (Bad CRC-32"),
        (bomb(), "over_limit", "a.npz: numbers: 67,108,864, over the limit of 16,777,216 (limits.max_values"),
        # A header of 64 MB: NumPy would read it whole before it looks at it
        (packed(b"\x93NUMPY\x02\x00" + (1 << 26).to_bytes(4, "little") + b" " * (1 << 26)), "unreadable_data", "a.npz"),
        (packed(b"no array"), "unreadable_data", "a.npz cannot be read"),
        (packed(b"x", "notes.txt"), "unreadable_data", "a.npz holds no rows of numbers"),
        (packed(pickle.dumps({})), "unreadable_data", "a.npz cannot be read"),
        (LFS_POINTER.encode(), "lfs_pointer", "a.npz is a git-LFS pointer"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, data: bytes, reason: str, why: str) -> None:
    """They are named, and the pictures are used."""
    one(tmp_path)
    (tmp_path / "a.npz").write_bytes(data)
    listing = list_episodes(source_of(tmp_path))
    assert said(listing) == [NO_TASK, (reason, "warning", 0, None), ("rows_not_read", "warning", None, None)]
    assert listing.findings[1].detail.startswith(why)
    assert listing.findings[1].detail.endswith("; its rows are not used")
    assert (listing.findings[1].file, listing.findings[2].file) == ("a.npz", "a.npz")


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_nothing_is_unpickled(tmp_path: Path, name: str) -> None:
    one(tmp_path)
    objects = np.array([Trap(tmp_path / "sprung")] * 6, dtype=object)
    (np.savez if name == "a.npz" else np.save)(tmp_path / name, objects, allow_pickle=True)
    listing = list_episodes(source_of(tmp_path))
    assert ("pickled_data", "warning", 0, None) in said(listing)
    assert not (tmp_path / "sprung").exists()
    if name == "a.npz":  # beside rows of numbers they are only left out
        np.savez(tmp_path / name, allow_pickle=True, info=objects, action=rows(2))
        assert shape(episode_in(tmp_path).action) == (6, 2)
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_lies_about_its_size(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (6, 1000)})
    one(tmp_path)
    (tmp_path / "a.npz").write_bytes(packed(out.getvalue() + struct.pack("<d", 1.0)))
    assert said(list_episodes(source_of(tmp_path)), reason="unreadable_data")
