"""HDF5: LIBERO and robomimic, one episode per file, and files that are damaged or lead elsewhere."""

import json
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ingest.media.frames import VideoError
from ingest.reasons import DataError
from ingest.signals.gripper import combined
from ingest.signals.survey import survey
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.hdf5_writer import film, write_aloha, write_libero, write_robomimic
from tests.kits.lerobot_writer import said, shown, source_of
from tests.kits.signal_kit import only_signal, places_of

AGENT, HAND = "agentview_rgb", "eye_in_hand_rgb"
NO_RATE = ("no_frame_rate", "warning", None, None)
STOVE = "libero_90/KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5"
DRAWER = "libero_goal/open_the_middle_drawer_demo.hdf5"


# Layouts


def test_libero(tmp_path: Path) -> None:
    write_libero(tmp_path / STOVE, {0: 5, 10: 7, 2: 6}, '"turn on the stove"')
    write_libero(tmp_path / DRAWER, {0: 5}, None)
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert (listing.format, listing.fps, listing.cameras, listing.numbered) == ("hdf5", 20.0, (AGENT, HAND), False)
    assert [(r.episode_index, r.source_id, r.task, r.num_rows, r.success) for r in listing.records] == [
        (0, f"{STOVE}#demo_0", "turn on the stove", 5, True),
        (1, f"{STOVE}#demo_2", "turn on the stove", 6, True),
        (2, f"{STOVE}#demo_10", "turn on the stove", 7, True),
        (3, f"{DRAWER}#demo_0", "open the middle drawer", 5, True),
    ]
    assert said(listing) == [("task_from_name", "warning", None, None)]
    assert listing.findings[0].detail.startswith("the instruction of 1 episodes")
    for record, demo in zip(listing.records, [0, 2, 10, 0], strict=True):
        assert shown(source, record, AGENT) == [(0, demo, k) for k in range(record.num_rows or 0)]
        assert shown(source, record, HAND) == [(1, demo, k) for k in range(record.num_rows or 0)]
    episode = read_episode(source, listing.records[1])
    assert episode.state is not None
    assert episode.state[3].tolist() == [3.0] * 6 + [0.03, -0.03]
    fingers = only_signal(source)  # the second one goes against the first
    assert (fingers.column, fingers.dimensions, fingers.weights) == ("state", (6, 7), (0.5, -0.5))
    assert combined(fingers, episode.state).tolist() == pytest.approx([k / 100 for k in range(6)])
    assert [(k, t) for k, t, _ in episode.frames(AGENT)][:2] == [(0, 0.0), (1, 0.05)]


def test_robomimic(tmp_path: Path) -> None:
    """No reward is a failure where others have one; next_obs, depth and the mask are no pictures or episodes."""
    write_robomimic(tmp_path / "a.hdf5", 6, reward=0, env={"env_kwargs": {"control_freq": 25}})
    write_robomimic(tmp_path / "b.hdf5", 6, env={"env_kwargs": {"control_freq": "often"}})
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert listing.cameras == ("agentview_image",)
    assert [(r.source_id, r.fps, r.success) for r in listing.records] == [
        ("a.hdf5#demo_0", 25.0, False),
        ("b.hdf5#demo_0", 20.0, True),
    ]
    assert shown(source, listing.records[0], "agentview_image") == [(0, 0, k) for k in range(6)]
    episode = read_episode(source, listing.records[0])
    assert episode.state is not None
    assert (episode.state.shape, episode.state_names[7:]) == (
        (6, 9),
        ("robot0_gripper_qpos_0", "robot0_gripper_qpos_1"),
    )
    assert places_of(source) == [("robot0 gripper", "state", (7, 8))]


def test_robocasa_text_and_action_gripper(tmp_path: Path) -> None:
    """GR1-like: pictures below obs, the instruction in ep_meta; without state the last action is the gripper."""
    with h5py.File(tmp_path / "pick.hdf5", "w") as file:
        group = file.create_group("data/demo_0")
        group.attrs["ep_meta"] = json.dumps({"lang": "pick the pear"})
        group["obs/ego_view"] = film(0, 0, 5)
        group["actions"] = np.arange(15).reshape(5, 3)
    source = source_of(tmp_path)
    listing = list_episodes(source)
    (record,) = listing.records
    assert (record.task, record.fps, record.cameras, said(listing)) == ("pick the pear", 20.0, ["ego_view"], [])
    episode = read_episode(source, record)
    assert episode.state is None
    assert episode.action is not None
    assert episode.action[:, 2].tolist() == [2.0, 5.0, 8.0, 11.0, 14.0]
    closing = only_signal(source)
    assert (closing.column, closing.dimensions, closing.polarity) == ("action", (2,), "high_is_closed")


@pytest.mark.parametrize(
    ("step", "fps"), [(0.04, 25.0), (40, 25.0), (40_000, 25.0), (40_000_000, 25.0), (0.5, 2.0), (0, 10.0), (-0.1, 10.0)]
)
def test_frame_rate_by_the_rows_times(tmp_path: Path, step: float, fps: float) -> None:
    """In s, ms, µs or ns; times that stand still or run back say nothing."""
    write_aloha(tmp_path / "a.hdf5", 0, 6, timestamp=1000 * step + step * np.arange(6))
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert listing.records[0].fps == fps
    assert (NO_RATE in said(listing)) == (step <= 0)
    times = read_episode(source, listing.records[0]).timestamps_s
    assert times is not None
    assert np.diff(times).tolist() == pytest.approx([1 / fps if step > 0 else step] * 5)


def test_registry_overrules(tmp_path: Path) -> None:
    write_aloha(tmp_path / "a.hdf5", 0, 6, say=np.bytes_(b" fold it "), won=np.array([0, 1, 0]), site=np.bytes_(b"x"))
    keys = {"state": ["observations/qvel"], "action": ["action"], "language": ["say"], "success": ["won"]}
    source = source_of(
        tmp_path,
        fps=5,
        keys=keys,
        gripper={"column": "action", "dimension": 13},
        cameras={"exo": ["cam_left_wrist"], "wrist": ["cam_high"]},
    )
    listing = list_episodes(source)
    (record,) = listing.records
    assert (record.fps, record.tasks, record.success) == (5.0, ("fold it",), False)
    assert (listing.cameras, said(listing)) == (("cam_left_wrist", "cam_high"), [])
    episode = read_episode(source, record)
    assert episode.state is not None
    assert episode.state.shape == (6, 14)
    assert places_of(source) == [("gripper", "action", (13,))]


def test_keys_that_lead_nowhere(tmp_path: Path) -> None:
    write_aloha(tmp_path / "a.hdf5", 0, 6)
    listing = list_episodes(source_of(tmp_path, keys={"state": ["observations/joints"]}))
    assert said(listing) == [("no_data", "unusable", 0, None)]
    assert "observations/joints" in listing.findings[0].detail


def test_a_recording_without_pictures(tmp_path: Path) -> None:
    """As an xArm's recorder leaves it: no pictures in their group, no text, and times that tell no two rows apart."""
    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file.create_group("cam_data")
        file["end_position"], file["gripper_state"] = np.zeros((158, 6)), np.zeros(158)
        file["step"], file["timestamp"] = np.arange(368, 526), np.full(158, 1.7e9, np.float32)
        file["transformed_hand_coords"] = np.zeros((158, 24, 3))
        file["transformed_hand_frames"] = np.zeros((158, 4, 3))
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert [(r.source_id, r.videos, r.task) for r in listing.records] == [("episode_0.hdf5", (), None)]
    assert said(listing) == [("no_video", "unusable", 0, None), ("no_task", "warning", 0, None), NO_RATE]
    assert listing.findings[0].detail == (
        "no pictures that can be read among its 6 datasets: end_position, gripper_state, step, timestamp, "
        "transformed_hand_coords, transformed_hand_frames"
    )
    # Its gripper is known all the same, and rests
    episode = read_episode(source, listing.records[0])
    assert episode.state_names[5:] == ("end_position_5", "gripper_state_0")
    surveyed = survey(source, listing.records, None)
    assert [(s.dimensions, s.is_used) for s in surveyed.signals] == [((6,), False)]
    assert [f.reason for f in surveyed.findings] == ["gripper_unused"]


# What is wrong with the data


def test_lengths_that_differ(tmp_path: Path) -> None:
    """The states count; actions of another length are not used, so neither is their gripper."""
    path = write_robomimic(tmp_path / "a.hdf5", 6)
    with h5py.File(path, "a") as file:
        demo: Any = file["data/demo_0"]
        demo.attrs["num_samples"] = 9
        del demo["actions"], demo["obs/robot0_gripper_qpos"]
        demo["actions"] = np.zeros((5, 7))
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert said(listing, reason="length_differs") == [("length_differs", "warning", 0, None)] * 2
    assert listing.records[0].num_rows == 6
    assert (read_episode(source, listing.records[0]).action, places_of(source)) == (None, [])


def test_no_rows(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["observations/qpos"], file["observations/images/top"] = np.zeros((0, 14)), film(0, 0, 5)
    listing = list_episodes(source_of(tmp_path))
    assert said(listing, severity="unusable") == [("no_data", "unusable", 0, None)]


def test_rows_that_changed_since_they_were_listed(tmp_path: Path) -> None:
    source = source_of(write_libero(tmp_path / "a_demo.hdf5", {0: 5}))
    (record,) = list_episodes(source).records
    write_libero(tmp_path / "a_demo.hdf5", {0: 6})
    with pytest.raises(DataError, match="6 rows; there were 5"):
        read_episode(source, record)


# What leads elsewhere, or claims more than there is


def with_link(path: Path, at: str, link: h5py.ExternalLink | h5py.SoftLink) -> Source:
    with h5py.File(path, "a") as file:
        del file[at]
        file[at] = link
    return source_of(path)


def test_soft_links_through_an_external_link(tmp_path: Path) -> None:
    write_aloha(tmp_path / "elsewhere/a.hdf5", 0, 6)
    path = write_aloha(tmp_path / "a.hdf5", 0, 6)
    with h5py.File(path, "a") as file:
        file["away"] = h5py.ExternalLink(str(tmp_path / "elsewhere/a.hdf5"), "/observations")
    listing = list_episodes(with_link(path, "observations/qpos", h5py.SoftLink("/away/qpos")))
    assert said(listing) == [("path_escape", "unusable", 0, None)]


def test_soft_links_in_a_circle(tmp_path: Path) -> None:
    source = with_link(write_aloha(tmp_path / "a.hdf5", 0, 6), "observations/qpos", h5py.SoftLink("/observations/qpos"))
    listing = list_episodes(source)
    assert said(listing) == [("unreadable_data", "unusable", 0, None)]
    assert "too many links" in listing.findings[0].detail


def test_data_that_is_stored_elsewhere(tmp_path: Path) -> None:
    """A file of raw numbers, and a virtual dataset over another file: neither is opened."""
    other = write_aloha(tmp_path / "elsewhere/a.hdf5", 0, 6)
    (tmp_path / "elsewhere/raw").write_bytes(film(0, 0, 6).tobytes())
    layout = h5py.VirtualLayout((6, 64, 64, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(other), "observations/images/cam_high", (6, 64, 64, 3))
    with h5py.File(write_aloha(tmp_path / "a.hdf5", 0, 6, cameras=("good",)), "a") as file:
        images: Any = file["observations/images"]
        images.create_dataset("raw", (6, 64, 64, 3), np.uint8, external=str(tmp_path / "elsewhere/raw"))
        images.create_virtual_dataset("virtual", layout)
    listing = list_episodes(source_of(tmp_path / "a.hdf5"))
    assert listing.cameras == ("good",)
    assert said(listing, reason="path_escape") == [
        ("path_escape", "warning", 0, "raw"),
        ("path_escape", "warning", 0, "virtual"),
    ]


def test_pictures_that_were_never_written(tmp_path: Path) -> None:
    """12 TB of them are claimed by a file of a few kB; also where one chunk of them is missing."""
    with h5py.File(write_aloha(tmp_path / "a.hdf5", 0, 6, cameras=("good",)), "a") as file:
        images: Any = file["observations/images"]
        images.create_dataset("huge", (10**9, 64, 64, 3), np.uint8, chunks=(1, 64, 64, 3))
        part = images.create_dataset("part", (6, 64, 64, 3), np.uint8, chunks=(2, 64, 64, 3))
        part[:4] = film(0, 0, 4)
        images.create_dataset("whole", (6, 64, 64, 3), np.uint8)
    assert (tmp_path / "a.hdf5").stat().st_size < 200_000
    listing = list_episodes(source_of(tmp_path))
    bad = {f.camera: f.detail for f in listing.findings if f.reason == "unreadable_data"}
    assert bad == {
        "huge": "/observations/images/huge: 1000000000 of its 1000000000 chunks were never written",
        "part": "/observations/images/part: 1 of its 3 chunks were never written",
        "whole": "/observations/images/whole was never written",
    }
    assert listing.cameras == ("good",)


def test_chunks_that_unpack_to_too_much(tmp_path: Path) -> None:
    """A chunk of 192 bytes that holds 64 MB, and one that is said to be larger than is held."""
    with h5py.File(write_aloha(tmp_path / "a.hdf5", 0, 6, cameras=("good",)), "a") as file:
        images: Any = file["observations/images"]
        bomb = images.create_dataset("bomb", (1, 8, 8, 3), np.uint8, chunks=(1, 8, 8, 3), compression="gzip")
        bomb.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(1 << 26)))
        wide = images.create_dataset("wide", (1, 8192, 8192, 3), np.uint8, chunks=(1, 8192, 8192, 3))
        wide.id.write_direct_chunk((0, 0, 0, 0), b"x")
    listing = list_episodes(source_of(tmp_path))
    over = "201,326,592, over the limit of 67,108,864 (limits.max_chunk_bytes of the registry entry)"
    assert {f.camera: (f.reason, f.detail) for f in listing.findings if f.camera} == {
        "bomb": ("unreadable_data", "/observations/images/bomb has a chunk of 65238 bytes where 192 fit"),
        "wide": ("over_limit", f"/observations/images/wide: bytes of a chunk: {over}"),
    }


def test_filters_that_need_a_plug_in(tmp_path: Path) -> None:
    with h5py.File(write_aloha(tmp_path / "a.hdf5", 0, 6, cameras=("good",)), "a") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 64, 64, 3))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # Zstandard
        space = h5py.h5s.create_simple((6, 64, 64, 3))
        h5py.h5d.create(file["observations/images"].id, b"zstd", h5py.h5t.NATIVE_UINT8, space, plist)
    listing = list_episodes(source_of(tmp_path))
    assert said(listing, reason="unreadable_data") == [("unreadable_data", "warning", 0, "zstd")]
    assert "filter 32015" in listing.findings[0].detail


def test_pictures_larger_than_the_limit(tmp_path: Path) -> None:
    source = source_of(write_aloha(tmp_path / "a.hdf5", 0, 6), limits={"max_pixels": 64 * 64 - 1})
    (record,) = list_episodes(source).records
    with pytest.raises(VideoError, match="picture 0 of /observations/images/cam_high claims to be 64x64 px") as e:
        list(read_episode(source, record).frames("cam_high"))
    assert e.value.reason == "over_limit"


def test_the_whole_data_behind_an_external_link(tmp_path: Path) -> None:
    write_libero(tmp_path / "elsewhere/a_demo.hdf5", {0: 5})
    link = h5py.ExternalLink(str(tmp_path / "elsewhere/a_demo.hdf5"), "/data")
    listing = list_episodes(with_link(write_libero(tmp_path / "a_demo.hdf5", {0: 5}), "data", link))
    assert said(listing) == [("path_escape", "unusable", 0, None)]
