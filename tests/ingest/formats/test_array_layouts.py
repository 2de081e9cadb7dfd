"""Layouts of HDF5, Zarr and RLDS that are read right, or whose parts that are not read are named;
none is silent.

tests/data/tfds has small datasets that TFDS 4.9.9 wrote.
"""

import json
import struct
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
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
from tests.kits.files import table
from tests.kits.lerobot_writer import LFS_POINTER, source_of
from tests.kits.parts import put
from tests.kits.told import Told, golden, golden_rows
from tests.kits.zarr_writer import BLOSC, CAMERA, film, smooth, write_replay, write_zarr

type Tree = dict[str, Any]  # of parts of an HDF5 file


def one(episode: int = 0, count: int = 20, below: str = "") -> Tree:
    """An episode of a state, an action and a camera."""
    return {
        f"{below}observations/qpos": smooth(count, 7, episode),
        f"{below}action": smooth(count, 7, episode),
        f"{below}observations/images/front": film(count, episode),
    }


def groups(*names: str) -> Tree:
    tree: Tree = {}
    for k, name in enumerate(names):
        tree |= one(k, 20 + k, f"{name}/") | {f"{name}@language_instruction": f"task {k}"}
    return tree


def with_one(**stored: Any) -> Tree:
    """An episode beside datasets (by path, with __ for /) and attributes (of names in capitals)."""
    tree = one()
    for name, value in stored.items():
        tree[f"/@{name.lower()}" if name.isupper() else name.replace("__", "/")] = value
    return tree


def demos(width: int, env: Mapping[str, Any], obs: Mapping[str, int], switch: int = -1) -> Tree:
    """Three runs of a simulation; action[`switch`] is 1 while something is held, else -1."""
    tree: Tree = {"data@env_args": json.dumps(env)}
    is_held = (np.arange(30) > 8) & (np.arange(30) < 20)
    for k in range(3):
        actions = smooth(30, width, k)
        actions[:, switch] = np.where(is_held, 1, -1)
        tree[f"data/demo_{k}/actions"] = actions
        tree |= {f"data/demo_{k}/obs/{name}": smooth(30, size, k) for name, size in obs.items()}
        tree[f"data/demo_{k}/obs/front_image"] = film(30, k)
    return tree


def flat(**marks: np.ndarray) -> Tree:
    return {"observations": smooth(24, 11), "actions": smooth(24, 7), "images": film(24)} | marks


def stated_rate() -> Tree:
    tree: Tree = {"data@fps": 10}
    for k in range(2):
        tree[f"data/demo_{k}/actions"] = smooth(20, 7, k)
        tree[f"data/demo_{k}/obs/robot0_eef_pos"] = smooth(20, 3, k)
        tree[f"data/demo_{k}/obs/front_image"] = film(20, k)
    return tree


def two_arms_of_seven(episode: int = 0) -> Tree:
    frame_numbers = np.arange(80)
    qpos = smooth(80, 14, episode)
    for dimension, start in ((6, 20), (13, 30)):
        qpos[:, dimension] = np.clip((frame_numbers - start) / 6, 0, 1) - np.clip(
            (frame_numbers - start - 35) / 6, 0, 1
        )
    grippers = np.c_[frame_numbers > 40, frame_numbers > 50].astype(np.float32)
    return {
        "observations/qpos": qpos,
        "observations/gripper": grippers,
        "action": qpos,
        "timestamp": frame_numbers / 20,
        "observations/images/cam": film(80, episode),
    }


def isaac_lab(*, has_gripper: bool = True) -> Tree:
    """The last action closes below 0; 0.01 s x 2 a step."""
    env = {"env_name": "Lift", "type": 2, "sim_args": {"dt": 0.01, "decimation": 2}}
    tree: Tree = {"data@env_args": json.dumps(env)}
    for k in range(4):
        is_closed = np.arange(150) >= 70 + k
        width = np.where(is_closed, 0.005, 0.04)
        actions = np.c_[smooth(150, 6, k), np.where(is_closed, -1.0, 1.0)]
        demo: Tree = {
            "/obs/eef_pos": smooth(150, 3, k),
            "/obs/gripper_pos": np.stack([width, -width], 1).astype(np.float32),
            "/obs/table_cam": film(150, k),
            "/actions": actions.astype(np.float32),
            "@num_samples": 150,
            "@success": True,
        }
        if not has_gripper:
            del demo["/obs/gripper_pos"]
        tree |= {f"data/demo_{k}{name}": values for name, values in demo.items()}
    return tree


def maniskill() -> Tree:
    """One observation more than actions."""
    tree: Tree = {}
    frame_numbers = np.arange(60)
    width = np.where((frame_numbers > 20) & (frame_numbers < 45), 0.005, 0.04)
    for k in range(3):
        qpos = np.c_[smooth(60, 7, k), width, width].astype(np.float32)
        tree |= {
            f"traj_{k}/obs/agent/qpos": qpos,
            f"traj_{k}/obs/agent/qvel": smooth(60, 9),
            f"traj_{k}/obs/sensor_data/base_camera/rgb": film(60, k),
            f"traj_{k}/actions": smooth(59, 7, k),
            f"traj_{k}/success": np.arange(59) == 58,
        }
    return tree


def ragged(rows: Sequence[bytes]) -> dict[str, Any]:
    """Bytes of any length by row."""
    cells = np.empty(len(rows), object)
    for k, row in enumerate(rows):
        cells[k] = np.frombuffer(row, np.uint8)
    return {"data": cells, "dtype": h5py.vlen_dtype(np.uint8)}


def encoded(suffix: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def robomind() -> Tree:
    """Two of twenty pictures are bare pixels."""
    stored = [
        rgb.tobytes() if k in (0, 11) else encoded(".png", rgb) for k, rgb in enumerate(film(20))
    ]
    return {
        "language_raw": np.array([b"put the cube down"]),
        "language_distilbert": np.zeros((1, 8), np.float32),
        "puppet/joint_position": smooth(20, 8),
        "puppet/end_effector": smooth(20, 6),
        "master/joint_position": smooth(20, 8, 1),
        "observations/rgb_images/camera_top": ragged(stored),
        "observations/depth_images/camera_top": ragged([bytes(4)] * 20),
    }


def virtual() -> Tree:
    layout = h5py.VirtualLayout((20, 12, 16, 3), np.uint8)
    layout[:5] = h5py.VirtualSource(".", "parts/a", (5, 12, 16, 3))
    layout[5:] = h5py.VirtualSource(".", "parts/b", (15, 12, 16, 3))
    halves = {"parts/a": film(20)[:5], "parts/b": film(20)[5:]}
    return one() | halves | {"observations/images/front": layout}


def linked() -> Tree:
    images = h5py.SoftLink("/observations/images")
    return one() | {"pictures": images, "main": h5py.SoftLink("/observations/images/front")}


def pictures() -> Tree:
    film_pictures = film(20)
    stored = {
        "rgba": np.concatenate([film_pictures, film_pictures[..., :1]], -1),
        "channels_first": film_pictures.transpose(0, 3, 1, 2),
        "unit_floats": (film_pictures / 255).astype(np.float32),
        "byte_floats": film_pictures.astype(np.float32),
        "signed_floats": (film_pictures / 127.5 - 1).astype(np.float32),
        "two_at_once": np.stack([film_pictures, film_pictures], 1),
        "depth_camera/color": film_pictures,
        "unmasked_view": film_pictures,
        "depth": film_pictures[..., 0].astype(np.uint16),
        "cam_segmentation": film_pictures,
    }
    tree = one() | {f"observations/images/{name}": values for name, values in stored.items()}
    return tree | {"observations/tactile": smooth(20, 16)}


def exif() -> Tree:
    """JPEG files with an orientation, which PIL leaves."""
    turned = (
        b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    jpegs = [cv2.imencode(".jpg", rgb)[1].tobytes() for rgb in film(20)]
    stored = [jpeg[:2] + turned + jpeg[2:] for jpeg in jpegs]
    return one() | {"observations/images/front": ragged(stored)}


def write_hdf5(folder: Path, *trees: Tree) -> Path:
    """A file for each tree."""
    return put(folder, {f"episode_{k}.hdf5": tree for k, tree in enumerate(trees)})


@dataclass(frozen=True)
class ReadDataset:
    """What a dataset shows, in short."""

    listing: Listing
    episodes: list[EpisodeData]
    source: Source

    def shape(self) -> list[tuple[int, ...]]:
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
    for names in NAMES:
        yield ", ".join(names), source_of(write_hdf5(new(), groups(*names)))

    tree = {f"{name}/rgb": film(20) for name in ("cam_0", "cam_1")}
    tree |= {f"{name}/joint_position": smooth(20, 7) for name in ("left_arm", "right_arm")}
    yield "of an episode", source_of(write_hdf5(new(), tree))


@golden_rows
def test_grippers_and_rates_by_writer(new) -> Told:
    humanoid = {"env_name": "x", "env_kwargs": {"robots": ["GR1"], "control_freq": 20}}
    for title, tree in {
        "RoboCasa": demos(12, ROBOCASA, {"robot0_base_to_eef_pos": 3}, 6),
        "Isaac Lab": isaac_lab(),
        "Isaac Lab, by the action": isaac_lab(has_gripper=False),
        "ManiSkill": maniskill(),
        "two arms of robosuite": demos(14, ROBOCASA, TWO_ARMS, 6),
        "no gripper is invented": demos(24, humanoid, {"robot0_right_eef_pos": 3}, 0),
        "base actions are joined": with_one(base_action=smooth(20, 2)),
    }.items():
        yield title, source_of(write_hdf5(new(), tree))
    four = write_hdf5(new(), *map(two_arms_of_seven, range(4)))
    yield "two arms of seven joints", source_of(four)


@golden_rows
def test_rates_and_texts_that_are_stated(new) -> Told:
    times_ns = (np.arange(20) * 4e7 + 1.7e18).astype(np.int64)
    stored = {"observations__tactile": smooth(20, 16), "zorp": np.arange(20.0), "note": "hello"}
    for title, tree in {
        "a rate of the data's attribute": stated_rate(),
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
        yield title, source_of(write_hdf5(new(), tree))


ENDED = {"terminals": np.arange(24) == 9, "timeouts": np.isin(np.arange(24), [16, 23])}


@pytest.mark.parametrize(
    ("marks", "lengths"),
    [(ENDED, (10, 7, 7)), ({"episode_index": np.repeat([0, 1, 2], 8)}, (8, 8, 8))],
)
def test_a_flat_file_is_cut(tmp_path, marks, lengths):
    dataset = read(write_hdf5(tmp_path, flat(**marks)))
    assert dataset.shape() == [(n, 11, 7) for n in lengths]
    start = lengths[0]
    stop = start + lengths[1]
    state = dataset.episodes[1].state
    assert state is not None
    assert np.array_equal(state, smooth(24, 11)[start:stop].astype(float))
    assert np.array_equal(dataset.pictures(dataset.listing.cameras[0], 1), film(24)[start:stop])
    assert dataset.unknown() == []


def test_one_observation_more_than_actions(tmp_path):
    dataset = read(write_hdf5(tmp_path, maniskill()))
    assert dataset.shape() == [(60, 9, 7)] * 3
    action = dataset.episodes[0].action
    assert np.array_equal(action[-1], action[-2])
    (finding,) = [f for f in dataset.listing.findings if f.reason == "length_differs"]
    assert "3 episodes have one observation more than actions" in finding.detail
    assert len(dataset.pictures(dataset.listing.cameras[0])) == 60


def test_robomind(tmp_path):
    folder = tmp_path / "h5_franka/place/success_episodes/train/100/data"
    write_hdf5(folder, robomind())
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
    for k, tree in enumerate((virtual(), linked())):
        dataset = read(write_hdf5(tmp_path / str(k), tree))
        assert dataset.listing.cameras == ("front",)
        assert np.array_equal(dataset.pictures("front"), film(20))
        assert (dataset.unknown(), dataset.reasons()) == ([], set())


def test_pictures_that_lie_otherwise(tmp_path):
    dataset = read(write_hdf5(tmp_path, pictures()))
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
    dataset = read(write_hdf5(tmp_path, exif()))
    assert dataset.pictures("front").shape == (20, 12, 16, 3)


BLACK = np.concatenate([film(18)[:0], np.zeros((1, 12, 16, 3), np.uint8), film(18)[1:]])


def test_zarr_arrays_without_chunks(tmp_path):
    # zarr >= 3 stores no chunk of the fill value alone
    arrays = {
        "meta/success": np.zeros(3, bool),
        "data/img": BLACK,
        "data/robot_joint": np.zeros((18, 6), np.float32),
    }
    dataset = read(write_zarr(tmp_path, arrays, {}))
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
    dataset = read(
        write_zarr(tmp_path, arrays, {"meta/zorp": numcodecs.Delta(dtype="i8")}, weather="sunny")
    )
    assert dataset.shape() == [(5, 4, 2), (7, 4, 2), (6, 4, 2)]
    assert dataset.listing.cameras == ("img", "obs/cam")
    assert np.array_equal(dataset.pictures("obs/cam", 1), film(18)[5:12])
    assert [record.task for record in dataset.listing.records] == ["a", "b", "c"]
    assert dataset.listing.fps == 20
    assert sorted(dataset.unknown()) == ["attribute weather", "data/zorp", "meta/zorp"]


RLDS = table("tfds/layouts")


@pytest.mark.parametrize("name", RLDS)
def test_rlds(name):
    widths, cameras, unknown = RLDS[name]
    dataset = read(ROOT / "tests/data/tfds" / name)
    assert dataset.shape() == [(6, *widths), (8, *widths)]
    assert ([*dataset.listing.cameras], sorted(dataset.unknown())) == (cameras, unknown)
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
    # Blosc by itself reads as many bytes as a header says
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
    # A description may claim any number of texts of any length that are all the fill value, in no bytes
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
