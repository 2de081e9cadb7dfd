"""Layouts of HDF5, Zarr and RLDS that are read right, or whose parts that are not read are named; none is silent.

tests/data/tfds has small datasets that TFDS 4.9.9 wrote.
"""

import json
import struct
import sys
import zipfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
import zarr

from core.paths import ROOT
from ingest.episode import EpisodeData, Listing
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits import array_layouts as kit
from tests.kits.array_layouts import demos, film, groups, smooth, with_one
from tests.kits.lerobot_writer import LFS_POINTER, source_of
from tests.kits.told import Told, golden, golden_rows
from tests.kits.zarr_writer import BLOSC, CAMERA, write_replay


@dataclass(frozen=True)
class ReadDataset:
    """What a dataset shows, in short."""

    listing: Listing
    episodes: list[EpisodeData]
    source: Source

    def shape(self) -> list[tuple[int, ...]]:
        """Rows, and dimensions of state and action, by episode; 0 for none."""
        widths = [
            (e.states and e.states.num_columns, e.actions and e.actions.num_columns)
            for e in self.episodes
        ]
        return [
            (e.record.num_rows or 0, *(w or 0 for w in widths_read))
            for e, widths_read in zip(self.episodes, widths, strict=True)
        ]

    def unknown(self) -> list[str]:
        return [part.name for part in self.listing.parts if part.status == "unknown"]

    def reasons(self) -> set[str]:
        """Of findings other than those of every small dataset."""
        return {f.reason for f in self.listing.findings} - {
            "no_task",
            "no_frame_rate",
            "part_not_used",
        }

    def pictures(self, camera: str, episode: int = 0) -> np.ndarray:
        return np.stack([picture.rgb() for _, _, picture in self.episodes[episode].frames(camera)])


def read(folder: Path, **config: Any) -> ReadDataset:
    source = source_of(folder, **config)
    listing = list_episodes(source)
    details = [f.detail for f in listing.findings if f.reason == "part_not_used"]
    unknown = [part for part in listing.parts if part.status == "unknown"]
    assert len(details) == len(unknown)
    assert all(part.name in detail for part, detail in zip(unknown, details, strict=True))
    return ReadDataset(
        listing, [read_episode(source, record) for record in listing.records], source
    )


ROBOCASA = {"env_kwargs": {"control_freq": 20}}
TWO_ARMS = {
    f"robot{r}_{part}": n for r, (part, n) in product((0, 1), (("eef_pos", 3), ("eef_quat", 4)))
}
NAMES = (
    ("rollout_0", "rollout_1", "rollout_2"),
    ("Trial0", "Trial1"),
    ("eps_0", "eps_1"),
    ("demo_2024_00", "demo_2024_01"),
    ("episodes/episode_0", "episodes/episode_1"),
    ("task_a/demo_0", "task_a/demo_1", "task_b/demo_0"),
    ("alice", "bob"),
    ("a81bc81b-dead", "e5f1c0aa-beef"),
    ("rollout_0",),
)


@golden_rows
def test_groups(new) -> Told:
    """Those of one kind are episodes, those of an episode are none."""
    for names in NAMES:
        yield ", ".join(names), source_of(kit.write_hdf5(new(), groups(*names)))

    def write(file: h5py.File) -> None:
        for name in ("cam_0", "cam_1"):
            file[f"{name}/rgb"] = film(20)
        for name in ("left_arm", "right_arm"):
            file[f"{name}/joint_position"] = smooth(20, 7)

    yield "of an episode", source_of(kit.write_hdf5(new(), write))


@golden_rows
def test_grippers_and_rates_by_writer(new) -> Told:
    humanoid = {"env_name": "x", "env_kwargs": {"robots": ["GR1"], "control_freq": 20}}
    for title, write in {
        "RoboCasa": demos(12, ROBOCASA, {"robot0_base_to_eef_pos": 3}, {}, 6),
        "Isaac Lab": kit.isaac_lab,
        "Isaac Lab, by the action": kit.isaac_lab_without_gripper,
        "ManiSkill": kit.maniskill,
        "two arms of robosuite": demos(14, ROBOCASA, TWO_ARMS, {}, 6),
        "no gripper is invented": demos(24, humanoid, {"robot0_right_eef_pos": 3}, {}, 0),
        "base actions are joined": with_one(base_action=smooth(20, 2)),
    }.items():
        yield title, source_of(kit.write_hdf5(new(), write))
    four = kit.write_hdf5(new(), kit.two_arms_of_seven, 4)
    yield "two arms of seven joints", source_of(four)


@golden_rows
def test_rates_and_texts_that_are_stated(new) -> Told:
    times_ns = (np.arange(20) * 4e7 + 1.7e18).astype(np.int64)
    stored = {"observations__tactile": smooth(20, 16), "zorp": np.arange(20.0), "note": "hello"}
    for title, write in {
        "a rate of the data's attribute": kit.stated_rate,
        "of an attribute": with_one(CONTROL_FREQ=25),
        "of a dataset": with_one(meta__fps=25),
        "times in a column": with_one(timestamp=(np.arange(20) * 0.05)[:, None]),
        "other times": with_one(time_stamps=np.arange(20) / 25),
        "nanoseconds": with_one(observations__timestamp_ns=times_ns),
        "a text, RoboMIND's": with_one(language_raw=np.array([b"fold it"])),
        "of an attribute of the file": with_one(TASK_DESCRIPTION="fold it"),
        "below the observations": with_one(observations__instruction="fold it"),
        "in JSON": with_one(METADATA='{"robot": "x", "task": {"language_instruction": "fold it"}}'),
        "in bytes": with_one(instruction_text=np.frombuffer(b"fold it", np.uint8)),
        "what nothing reads": with_one(
            **stored, WEATHER="sunny", SUCCESS=0.5, observations__state=smooth(20, 7)
        ),
    }.items():
        yield title, source_of(kit.write_hdf5(new(), write))


@pytest.mark.parametrize(
    ("write", "lengths"), [(kit.flat, (10, 7, 7)), (kit.flat_by_index, (8, 8, 8))]
)
def test_a_flat_file_is_cut(tmp_path, write, lengths):
    dataset = read(kit.write_hdf5(tmp_path, write))
    assert dataset.shape() == [(n, 11, 7) for n in lengths]
    start = lengths[0]
    stop = start + lengths[1]
    state = dataset.episodes[1].state
    assert state is not None
    assert np.array_equal(state, smooth(24, 11)[start:stop].astype(float))
    assert np.array_equal(dataset.pictures(dataset.listing.cameras[0], 1), film(24)[start:stop])
    assert dataset.unknown() == []


def test_one_observation_more_than_actions(tmp_path):
    dataset = read(kit.write_hdf5(tmp_path, kit.maniskill))
    assert dataset.shape() == [(60, 9, 7)] * 3
    action = dataset.episodes[0].action
    assert action is not None
    assert np.array_equal(action[-1], action[-2])
    (finding,) = [f for f in dataset.listing.findings if f.reason == "length_differs"]
    assert "3 episodes have one observation more than actions" in finding.detail
    assert len(dataset.pictures(dataset.listing.cameras[0])) == 60


def test_robomind(tmp_path):
    folder = tmp_path / "h5_franka/place/success_episodes/train/100/data"
    folder.mkdir(parents=True)
    kit.write_hdf5(folder, kit.robomind)
    dataset = read(tmp_path)
    (record,) = dataset.listing.records
    assert (record.task, record.success, dataset.shape()) == (
        "put the cube down",
        True,
        [(20, 8, 8)],
    )
    assert np.array_equal(dataset.pictures("camera_top"), film(20))
    assert (dataset.unknown(), dataset.reasons()) == ([], set())


def test_each_picture_is_one_camera(tmp_path):
    for k, write in enumerate((kit.virtual, kit.linked)):
        (tmp_path / str(k)).mkdir()
        dataset = read(kit.write_hdf5(tmp_path / str(k), write))
        assert dataset.listing.cameras == ("front",)
        assert np.array_equal(dataset.pictures("front"), film(20))
        assert (dataset.unknown(), dataset.reasons()) == ([], set())


def test_pictures_that_lie_otherwise(tmp_path):
    dataset = read(kit.write_hdf5(tmp_path, kit.pictures))
    cameras = {
        "front",
        "rgba",
        "channels_first",
        "unit_floats",
        "byte_floats",
        "depth_camera",
        "unmasked_view",
    }
    assert set(dataset.listing.cameras) == cameras
    for camera in cameras:
        assert np.array_equal(dataset.pictures(camera), film(20)), camera
    below = "observations/images"
    assert sorted(dataset.unknown()) == [
        f"{below}/signed_floats",
        f"{below}/two_at_once",
        "observations/tactile",
    ]


def test_an_orientation_turns_no_picture(tmp_path):
    dataset = read(kit.write_hdf5(tmp_path, kit.exif))
    assert dataset.pictures("front").shape == (20, 12, 16, 3)


BLACK = np.concatenate([film(18)[:0], np.zeros((1, 12, 16, 3), np.uint8), film(18)[1:]])


def test_zarr_arrays_without_chunks(tmp_path):
    """zarr >= 3 stores no chunk of the fill value alone."""
    arrays = {
        "meta/success": np.zeros(3, bool),
        "data/img": BLACK,
        "data/robot_joint": np.zeros((18, 6), np.float32),
    }
    dataset = read(kit.write_zarr(tmp_path, arrays, {}))
    assert [record.success for record in dataset.listing.records] == [False] * 3
    assert np.array_equal(dataset.pictures("img"), BLACK[:5])
    (finding,) = [f for f in dataset.listing.findings if f.reason == "missing_chunks"]
    assert "1 of 18 chunks of data/img" in finding.detail
    used = {part.name: part.use for part in dataset.listing.parts if part.status == "used"}
    assert used["data/robot_joint"] == "state"


def test_zarr_layouts(tmp_path):
    texts = np.array(["a", "b", "c"], dtype="S1")
    arrays = {
        "data/state": np.zeros(0),
        "data/obs/cam": film(18).astype(np.float32),
        "data/obs/robot_state": smooth(18, 4),
        "data/timestamp": (np.arange(18) * 50_000_000)[:, None],
        "data/zorp": smooth(18, 3),
        "meta/length": np.array([5, 7, 6]),
        "meta/task": texts,
        "meta/zorp": np.array([1, 2, 3]),
    }
    dataset = read(kit.write_zarr(tmp_path, arrays, {"meta/zorp": kit.DELTA}, weather="sunny"))
    assert dataset.shape() == [(5, 4, 2), (7, 4, 2), (6, 4, 2)]
    assert dataset.listing.cameras == ("img", "obs/cam")
    assert np.array_equal(dataset.pictures("obs/cam", 1), film(18)[5:12])
    assert [record.task for record in dataset.listing.records] == ["a", "b", "c"]
    assert dataset.listing.fps == 20
    assert sorted(dataset.unknown()) == ["attribute weather", "data/zorp", "meta/zorp"]


RLDS: dict[str, tuple[tuple[int, int], tuple[str, ...], list[str]]] = {
    # dimensions of state and action, cameras, what is named as not read
    "exif": ((7, 7), ("image",), []),
    "image_beside": ((7, 7), ("image", "wrist"), []),
    "template": ((7, 7), ("image",), []),
    "ragged": ((0, 7), ("image",), ["steps/observation/state"]),
    "ragged_names": ((7, 7), ("image",), []),
    "state_names": ((7, 7), ("image",), []),
    "state_in_parts": ((7, 7), ("image",), []),
    "other_names": ((20, 7), ("image",), ["steps/success"]),
    "all_kinds": (
        (11, 7),
        ("chw", "depth_camera_rgb", "float", "rgba", "unmasked_view"),
        [
            "note",
            "steps/extra",
            *(f"steps/observation/{name}" for name in ("bf", "cams", "stack", "tactile")),
        ],
    ),
}


@pytest.mark.parametrize("name", RLDS)
def test_rlds(name):
    widths, cameras, unknown = RLDS[name]
    dataset = read(ROOT / "tests/data/tfds" / name)
    assert dataset.shape() == [(6, *widths), (8, *widths)]
    assert (dataset.listing.cameras, sorted(dataset.unknown())) == (cameras, unknown)
    assert dataset.reasons() == set()
    rows, columns = np.mgrid[:12, :16]
    first = np.stack([columns * 9, rows * 13, (rows + columns) * 5], -1).astype(np.uint8)
    for camera in set(cameras) - {"image"}:
        assert np.array_equal(dataset.pictures(camera)[0], first), camera
    assert all(dataset.pictures(camera).shape == (6, 12, 16, 3) for camera in cameras)


def test_rlds_parts_by_name():
    names = read(ROOT / "tests/data/tfds/ragged_names").episodes[0].action_names
    assert names == (*["arm"] * 6, "gripper")
    kinds = read(ROOT / "tests/data/tfds/all_kinds")
    # A class is known by its name, not by its number; the instruction lies in the observation
    assert [(record.success, record.task) for record in kinds.listing.records] == [
        (True, "stack it"),
        (False, "stack it"),
    ]


def test_rlds_that_is_marked_invalid():
    listing = list_episodes(source_of(ROOT / "tests/data/tfds/invalid"))
    assert [
        (f.reason, f.severity, f.episode_index)
        for f in listing.findings
        if f.episode_index is not None
    ] == [("known_bad", "unusable", 0)]


LENGTHS = [6, 8]


@golden
def test_stores(new) -> Told:
    root = new()
    write_replay(root / "a.zarr", [6])
    write_replay(root / "b.zarr.zip", [7])
    yield "several", source_of(root)
    yield "one itself", source_of(root / "a.zarr")
    yield "an archive itself", source_of(root / "b.zarr.zip")
    with zipfile.ZipFile(root / "c.zarr.zip", "w") as archive:
        for path in (p for p in (root / "a.zarr").rglob("*") if p.is_file()):
            archive.write(path, f"a.zarr/{path.relative_to(root / 'a.zarr')}")
    yield "inside a folder of its archive", source_of(root / "c.zarr.zip")
    root = new()
    write_replay(root / "umi.zarr", LENGTHS)
    yield "what one does not say is a finding", source_of(root)
    yield "the registry says the rate", source_of(root, fps=59.94)
    yield "the registry's state is not there", source_of(root, keys={"state": ["joints"]})
    for codec in (
        numcodecs.LZ4(),
        numcodecs.Zstd(),
        numcodecs.Zlib(),
        numcodecs.GZip(),
        numcodecs.BZ2(),
    ):
        write_replay((root := new()) / "umi.zarr", [6], codec, 4)
        yield f"packed by {codec.codec_id}", source_of(root)
    write_replay((root := new()) / "umi.zarr", [6], numcodecs.LZMA(), 4)
    yield "packed by lzma", source_of(root)


@golden
def test_broken_stores(new) -> Told:
    def store() -> Path:
        return write_replay(new() / "umi.zarr", LENGTHS)

    for values in ([8, 6], [6, 99]):
        (path := store() / "meta/episode_ends/0").write_bytes(np.array(values, np.int64).tobytes())
        yield f"ends {values}", source_of(path.parents[3])
    path = store()
    (path / "data" / CAMERA / "2.0.0.0").unlink()
    (path / "data/robot0_eef_pos/0.0").unlink()
    yield (
        "what was never written: no picture is made up, and of numbers the format says what it is",
        source_of(path.parent),
    )
    changes: tuple[dict[str, Any], ...] = (
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "delta", "dtype": "|u1"}]},
        {"shape": [-1, 64, 64, 3]},
        {"chunks": [2, 64, 64, 3]},
    )
    for changed in changes:
        described = (path := store()) / "data" / CAMERA / ".zarray"
        described.write_text(json.dumps(json.loads(described.read_text()) | changed))
        yield f"a camera with {changed}", source_of(path.parent)
    path = store()
    for described in path.rglob(".z*"):
        described.unlink()
    (path / "meta/episode_ends/zarr.json").write_text("{}")
    yield "Zarr 3", source_of(path.parent)
    for title, content in (
        ("no archive", b"PK\x03\x04 not at all"),
        ("a pointer", LFS_POINTER.encode()),
    ):
        (root := new()).joinpath("x.zarr.zip").write_bytes(content)
        yield title, source_of(root)


def test_a_store_that_has_changed_since_it_was_listed_is_not_read(tmp_path):
    store = write_replay(tmp_path / "umi.zarr", LENGTHS)
    source = source_of(tmp_path)
    record = list_episodes(source).records[1]
    (store / "meta/episode_ends/0").write_bytes(np.array([7, 14], np.int64).tobytes())
    with pytest.raises(DataError, match="no more rows 6 to 14"):
        read_episode(source, record)


@pytest.mark.parametrize(("codec", "at"), [(BLOSC, 4), (numcodecs.LZ4(), 0)])
def test_a_chunk_that_claims_more_than_its_array_is_not_read(tmp_path, codec, at):
    chunk = write_replay(tmp_path / "umi.zarr", LENGTHS, codec, 3) / "data" / CAMERA / "0.0.0.0"
    data = bytearray(chunk.read_bytes())
    struct.pack_into("<I", data, at, 1 << 20)
    chunk.write_bytes(data)
    source = source_of(tmp_path)
    frames = read_episode(source, list_episodes(source).records[0]).frames(CAMERA)
    with pytest.raises(DataError, match=CAMERA):
        list(frames)


def test_a_chunk_that_is_cut_off_never_comes_to_its_decoder(tmp_path, monkeypatch):
    """Blosc by itself reads as many bytes as a header says."""

    class StandIn(numcodecs.Blosc):
        def decode(self, buf: Any, out: Any = None) -> Any:
            raise AssertionError("it was asked to decode")

    chunk = write_replay(tmp_path / "umi.zarr", LENGTHS, BLOSC, 3) / "data" / CAMERA / "0.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    source = source_of(tmp_path)
    record = list_episodes(source).records[0]
    data = read_episode(source, record)
    monkeypatch.setattr(numcodecs, "Blosc", StandIn)
    with pytest.raises(DataError, match="a chunk of it is cut off"):
        list(data.frames(CAMERA))


def test_without_imagecodecs_the_finding_names_it(tmp_path, monkeypatch):
    write_replay(tmp_path / "umi.zarr", LENGTHS)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    details = {f.reason: f.detail for f in list_episodes(source_of(tmp_path)).findings}
    assert "imagecodecs" in details["unknown_codec"]


@pytest.mark.parametrize("name", ["umi.zarr", "umi.zarr.zip"])
def test_a_description_over_the_limit_is_not_read(tmp_path, name):
    write_replay(tmp_path / name, [6])
    assert list_episodes(source_of(tmp_path)).records[0].num_rows == 6
    listing = list_episodes(source_of(tmp_path, limits={"max_header_bytes": 1}))
    assert [finding.reason for finding in listing.findings] == ["over_limit"]
    assert "limits.max_header_bytes" in listing.findings[0].detail


def test_texts_over_the_limit_are_not_read(tmp_path):
    """A description may claim any number of texts of any length that are all the fill value, in no bytes."""
    path = write_replay(tmp_path / "umi.zarr", [6, 8])
    zarr.open_group(path, mode="a", zarr_format=2).create_array(
        "meta/task", shape=(2,), dtype="S16", chunks=(2,)
    )
    source = source_of(tmp_path)
    assert not any("limits." in finding.detail for finding in list_episodes(source).findings)
    details = [
        finding.detail
        for finding in list_episodes(source_of(tmp_path, limits={"max_bytes": 8})).findings
    ]
    assert any("task" in detail and "limits.max_bytes" in detail for detail in details), details
