"""HDF5: LIBERO, robomimic and RoboTwin, one episode per file, and files that are damaged or lead
elsewhere."""

import json
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ingest.formats import agibot, robotwin
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from tests.kits.agibot_writer import (
    GRIPPER_CAMERAS,
    entry,
    pack,
    rows_path,
    write_agibot,
    write_data,
    write_tasks,
)
from tests.kits.hdf5_writer import (
    film,
    marked_jpeg,
    swapped_jpeg,
    write_aloha,
    write_libero,
    write_robomimic,
    write_robotwin,
)
from tests.kits.lerobot_writer import picture, source_of
from tests.kits.parts import change, put
from tests.kits.told import Told, golden, golden_rows, told

STOVE = "libero_90/KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5"
DRAWER = "libero_goal/open_the_middle_drawer_demo.hdf5"
TEXTS = {"seen": ["hit the block", " use the hammer ", "hit the block"], "unseen": ["knock"]}


@golden
def test_layouts(new) -> Told:
    root = new()
    write_libero(root / STOVE, {0: 5, 10: 7, 2: 6}, '"turn on the stove"')
    write_libero(root / DRAWER, {0: 5}, None)
    yield "LIBERO", source_of(root)
    root = new()
    write_robomimic(root / "a.hdf5", 6, reward=0, env={"env_kwargs": {"control_freq": 25}})
    write_robomimic(root / "b.hdf5", 6, env={"env_kwargs": {"control_freq": "often"}})
    yield (
        "robomimic: no reward is a failure where others have one; next_obs, depth, mask are none",
        source_of(root),
    )
    gr1 = {
        "data/demo_0@ep_meta": json.dumps({"lang": "pick the pear"}),
        "data/demo_0/obs/ego_view": film(0, 0, 5),
        "data/demo_0/actions": np.arange(15).reshape(5, 3),
    }
    yield (
        "as GR1: the instruction is in ep_meta; without state the last action is the gripper",
        source_of(put(new(), {"pick.hdf5": gr1})),
    )
    x_arm = {
        "end_position": np.zeros((158, 6)),
        "gripper_state": np.zeros(158),
        "step": np.arange(368, 526),
        "timestamp": np.full(158, 1.7e9, np.float32),
        "transformed_hand_coords": np.zeros((158, 24, 3)),
        "transformed_hand_frames": np.zeros((158, 4, 3)),
    }
    yield (
        "as an xArm's recorder leaves it: without pictures and text, and times that stand still",
        source_of(put(new(), {"episode_0.hdf5": x_arm})),
    )
    for step in (0.04, 40, 40_000, 40_000_000, 0.5, 0, -0.1):
        root = new()
        write_aloha(root / "a.hdf5", 0, 6, timestamp=1000 * step + step * np.arange(6))
        yield (
            f"rows {step} apart: s, ms, µs or ns; times that stand still or run back say nothing",
            source_of(root),
        )
    root = new()
    write_aloha(
        root / "a.hdf5",
        0,
        6,
        say=np.bytes_(b" fold it "),
        won=np.array([0, 1, 0]),
        site=np.bytes_(b"x"),
    )
    keys = {
        "state": ["observations/qvel"],
        "action": ["action"],
        "language": ["say"],
        "success": ["won"],
    }
    cameras = {"exo": ["cam_left_wrist"], "wrist": ["cam_high"]}
    gripper = {"column": "action", "dimension": 13}
    yield (
        "the registry overrules",
        source_of(root, fps=5, keys=keys, gripper=gripper, cameras=cameras),
    )
    yield "keys that lead nowhere", source_of(root, keys={"state": ["observations/joints"]})
    root = new()
    for episode, length in ((0, 5), (10, 6), (9, 7)):
        write_robotwin(root / "beat_block/clean", episode, length, TEXTS)
    write_robotwin(root / "beat_block/random", 0, 5, {"unseen": ["knock"]})
    yield "RoboTwin: a task of two configurations", source_of(root, fps=16.67)


@golden
def test_outcomes(new) -> Told:
    root = new()
    outcomes = {
        "data/demo_0@is_success": False,
        "data/demo_1/success": np.array([False, False, True, True, False]),
        "data/demo_2/rewards": np.zeros(5),
        "data/demo_5/rewards": h5py.ExternalLink("b.hdf5", "/rewards"),
        "data/demo_3@success": "Yes",
    }
    change(write_libero(root / "a.hdf5", dict.fromkeys(range(6), 5)), outcomes)
    yield "of LIBERO; a reward that cannot be read loses no episode", source_of(root)
    root = new()
    for k in range(2):
        write_aloha(root / f"episode_{k}.hdf5", k, 5, is_success=np.zeros(5, bool))
    yield "a flag that is never set", source_of(root)
    root = new()
    for k in range(2):
        change(write_robotwin(root / "task/demo", k, 5, {"seen": ["do it"]}), {"/@success": k == 0})
    yield "of RoboTwin", source_of(root)


@golden
def test_damage(new) -> Told:
    root = new()
    for name, num_actions in {"a": 5, "b": 0}.items():
        parts = {
            "data/demo_0@num_samples": 9,
            "data/demo_0/actions": np.zeros((num_actions, 7)),
            "data/demo_0/obs/robot0_gripper_qpos": None,
        }
        change(write_robomimic(root / f"{name}.hdf5", 6), parts)
    yield (
        "lengths that differ: states count, and neither actions of another length nor their gripper",
        source_of(root),
    )
    root = new()
    tree = {"observations/qpos": np.zeros((0, 14)), "observations/images/top": film(0, 0, 5)}
    yield "no rows", source_of(put(root, {"a.hdf5": tree}))
    root = new()
    write_aloha(root / "a.hdf5", 0, 6)
    yield "pictures larger than the limit", source_of(root, limits={"max_pixels": 64 * 64 - 1})


QPOS = "observations/qpos"
IMAGES = "observations/images"


@golden
def test_what_leads_elsewhere_or_claims_too_much(new) -> Told:
    away = write_aloha(new() / "a.hdf5", 0, 6)
    libero = write_libero(new() / "a_demo.hdf5", {0: 5})
    for title, path, links in (
        (
            "a soft link through an external link",
            QPOS,
            {"away": h5py.ExternalLink(str(away), "/observations")},
        ),
        ("a soft link in a circle", QPOS, {QPOS: h5py.SoftLink(f"/{QPOS}")}),
        (
            "the whole data behind an external link",
            "data",
            {"data": h5py.ExternalLink(str(libero), "/data")},
        ),
    ):
        root = new()
        if path == "data":
            write = write_libero(root / "a.hdf5", {0: 5})
        else:
            write = write_aloha(root / "a.hdf5", 0, 6)
        through = {path: h5py.SoftLink("/away/qpos")}
        change(write, links if path in links else links | through)
        yield title, source_of(root)
    root = new()
    (away.parent / "raw").write_bytes(film(0, 0, 6).tobytes())
    layout = h5py.VirtualLayout((6, 64, 64, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(away), f"{IMAGES}/cam_high", (6, 64, 64, 3))
    with h5py.File(write_aloha(root / "a.hdf5", 0, 6, cameras=("good",)), "a") as file:
        images: Any = file[IMAGES]
        images.create_dataset("raw", (6, 64, 64, 3), np.uint8, external=str(away.parent / "raw"))
        images.create_virtual_dataset("virtual", layout)
        # Nearly all never written
        images.create_dataset("huge", (1000, 64, 64, 3), np.uint8, chunks=(1, 64, 64, 3))
        part = images.create_dataset("part", (6, 64, 64, 3), np.uint8, chunks=(2, 64, 64, 3))
        part[:4] = film(0, 0, 4)
        images.create_dataset("never", (6, 64, 64, 3), np.uint8)
        # A chunk that stores more than its 192 bytes need, and one that is said to be larger than the limit
        packed = images.create_dataset(
            "packed", (1, 8, 8, 3), np.uint8, chunks=(1, 8, 8, 3), compression="gzip"
        )
        packed.id.write_direct_chunk(
            (0, 0, 0, 0), zlib.compress(np.random.default_rng(0).bytes(1 << 13))
        )
        wide = images.create_dataset("wide", (1, 128, 128, 3), np.uint8, chunks=(1, 128, 128, 3))
        wide.id.write_direct_chunk((0, 0, 0, 0), b"x")
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 64, 64, 3))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # Zstandard, which needs a plug-in
        space = h5py.h5s.create_simple((6, 64, 64, 3))
        h5py.h5d.create(images.id, b"zstd", h5py.h5t.NATIVE_UINT8, space, plist)
    limits = {"max_chunk_bytes": 40_000}
    assert (root / "a.hdf5").stat().st_size < 400_000
    yield (
        "stored elsewhere, never written, unpacking to too much, or by a filter that is not here",
        source_of(root, limits=limits),
    )


def test_rows_that_changed_since_they_were_listed(tmp_path):
    source = source_of(write_libero(tmp_path / "a_demo.hdf5", {0: 5}))
    (record,) = list_episodes(source).records
    write_libero(tmp_path / "a_demo.hdf5", {0: 6})
    with pytest.raises(DataError, match="6 rows; there were 5"):
        read_episode(source, record)
    write_libero(tmp_path / "a_demo.hdf5", {3: 5})
    with pytest.raises(
        DataError,
        match=r"a_demo\.hdf5: there is no group data/demo_0 any more: the file has changed",
    ):
        read_episode(source, record)
    write_libero(tmp_path / "a_demo.hdf5", {0: 5})
    frames = read_episode(source, record).frames
    change(tmp_path / "a_demo.hdf5", {"data/demo_0/obs/agentview_rgb": None})
    with pytest.raises(
        DataError, match=r"a_demo\.hdf5: there are no pictures of agentview any more"
    ):
        next(frames("agentview"))


JOINTS = np.arange(60.0).reshape(20, 3)
PICTURES = np.zeros((20, 16, 16, 3), np.uint8)
FLAT = {"joint_pos": JOINTS, "actions": JOINTS, "rgb": PICTURES}


def test_pictures_that_are_fewer_than_rows(tmp_path):
    few = {"rgb": PICTURES[:15], "obs/unit_rgb": np.zeros((0, 16, 16, 3), np.float32)}
    source = source_of(put(tmp_path, {"flat.hdf5": FLAT | few | {"episode_ends": [10, 20]}}))
    listing = list_episodes(source)
    [empty] = [part for part in listing.parts if part.name == "obs/unit_rgb"]
    assert (empty.status, empty.why) == ("known", "it holds no values")
    episodes = [read_episode(source, record) for record in listing.records]
    assert [len(list(episode.frames("rgb"))) for episode in episodes] == [10, 5]


@golden_rows
def test_values_of_each_episode(new) -> Told:
    def write(**values: Any) -> Path:
        return put(new(), {"flat.hdf5": FLAT | values})

    ends = [6, 13, 20]
    lists = {"task": ["open", "close", "turn"], "session": [7, 7, 8], "seed": [0, 1, 2]}
    root = write(episode_ends=ends, success=[True, False, True], scene=[0, 1, 2], **lists)
    yield "lists beside the rows", source_of(root, group_field="session")
    yield "a list of another length", source_of(write(episode_ends=ends, success=[True, False]))
    root = write()
    names = ("/@success", "/@session", "/@task")
    change(root / "flat.hdf5", dict.fromkeys(names, h5py.Empty("f4")))
    yield "attributes without a value", source_of(root)
    yield "which was asked for", source_of(root, group_field="session")


@pytest.mark.parametrize("encode", [swapped_jpeg, marked_jpeg, None])
def test_colours_of_robotwin(tmp_path, encode):
    # Red is red, by the simulator's old way of encoding, by that which marks its JPEGs as right, and raw
    red = picture(0xFFFF)
    red[:, :, 1:] = 30
    pictures: Sequence[Any] = [red if encode is None else encode(red)] * 5
    path = write_robotwin(tmp_path / "t/c", 0, 5, TEXTS)
    change(path, {"observation/head_camera/rgb": np.array(pictures)})
    source = source_of(tmp_path)
    (record,) = list_episodes(source).records
    _, _, frame = next(read_episode(source, record).frames("head_camera"))
    assert np.abs(frame.rgb().astype(int) - red).max() < (8 if encode else 1)
    assert round(float(frame.luma().mean())) == pytest.approx(0.299 * 220 + 0.701 * 30, abs=2)


def test_which_files_are_robotwins(tmp_path):
    # data/episode<k>.hdf5 alone can be anybody's, so the registry has to say it
    write_robotwin(tmp_path / "a/t/c", 0, 5)
    write_robotwin(tmp_path / "b/t/c", 0, 5, TEXTS)
    write_robotwin(tmp_path / "c/t/c", 0, 5)
    (tmp_path / "c/t/c/seed.txt").write_text("0")
    (tmp_path / "d/t/c/instructions").mkdir(parents=True)
    (tmp_path / "d/t/c/instructions/episode0.json").write_text("{}")
    formats = [list_episodes(source_of(tmp_path / name)).format for name in "abc"]
    assert formats == ["hdf5", "robotwin", "robotwin"]
    assert not robotwin.recognises(source_of(tmp_path / "d"))
    assert list_episodes(source_of(tmp_path / "a", format="robotwin")).format == "robotwin"


HEAD = GRIPPER_CAMERAS[0]


@pytest.mark.parametrize("rows_tar", ["proprio_stats.tar", "5-648650.tar"])  # of Alpha, of Beta
def test_archives(tmp_path, rows_tar):
    loose = tmp_path / "loose"
    root = tmp_path / "hub"
    write_agibot(loose, lengths={648642: 6, 648649: 8, 648650: 5})
    write_agibot(loose, 9, {5: 7}, cameras=(HEAD,))
    shutil.copytree(loose / "task_info", root / "task_info")
    for tar, task, episodes in (
        ("327/648642-648649", "327", ["648642", "648649"]),
        ("327/648650-648650", "327", ["648650"]),
        ("9/5-5", "9", ["5"]),
    ):
        pack(root / f"observations/{tar}.tar", loose / "observations" / task, episodes)
    pack(root / f"proprio_stats/{rows_tar}", loose / "proprio_stats", ["327", "9"])
    archive_lines = told(source_of(root))
    expected = told(source_of(loose))
    assert f"6 rows of proprio_stats/{rows_tar}!/327/648642/proprio_stats.h5" in archive_lines[1]
    for index, (line, other_line) in enumerate(zip(archive_lines, expected, strict=True)):
        if " rows of " in line:
            line, other_line = (
                text.replace(text.split(" rows of ")[1].split(",")[0], "")
                for text in (line, other_line)
            )
        assert line == other_line, index


@golden
def test_metadata(new) -> Told:
    write_agibot(root := new(), lengths={1: 6})
    put(root, {"observations/327/1-1.tar": [("../1/videos/extra_color.mp4", b"x")]})
    yield "a name that leads out of an archive", source_of(root)
    write_data(root := new(), 1, {1: 5, 2: 5, 3: 5}, cameras=(HEAD,))
    first = entry(1, done=True, site="kitchen")
    second = entry(2, task_name="a second one")
    broken = [{"task_name": "of none"}, entry(5) | {"episode_id": "5"}, "text"]
    write_tasks(root, 1, [first, entry(2, task_name=" "), second, entry(4), *broken])
    yield (
        "what the task file says, and does not",
        source_of(root, success_field="done", group_field="site"),
    )


@golden
def test_rows(new) -> Told:
    def edited(**arrays: Any) -> Path:
        """One episode of 6 frames with other arrays, `__` standing for `/`; None takes one out."""
        write_agibot(root := new(), 1, {1: 6}, cameras=(HEAD,))
        change(rows_path(root, 1, 1), {name.replace("__", "/"): a for name, a in arrays.items()})
        return root

    write_agibot(root := new(), 1, {1: 6}, cameras=(HEAD,), effectors=12)
    yield "dexterous hands", source_of(root)
    empty = edited(state__effector__position=np.zeros(0, np.float32), timestamp=None)
    yield "an empty array is what AgiBot writes for what it has not", source_of(empty)
    root = edited()
    keys = {"state": ["state/end/position", "state/effector/position"]}
    state = {"column": "state", "dimension": 7}
    action = {"column": "action", "dimension": "right_gripper"}
    yield "as the registry says", source_of(root, keys=keys, gripper=state, fps=15)
    yield "the gripper in the action, by the registry", source_of(root, gripper=action)
    write_agibot(root := new(), 1, {1: 6, 2: 6}, cameras=(HEAD,))
    rows_path(root, 1, 2).unlink()
    put(rows_path(root, 1, 1).parent, {"proprio_stats.h5": {"timestamp": np.zeros(0, np.int64)}})
    yield "none", source_of(root)


def test_not_agibot(tmp_path):
    for name in (
        "task_info/readme.json",
        "observations/x/a.mp4",
        "videos/head_color.mp4",
        "proprio_stats.h5",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps([]))
    assert not agibot.recognises(source_of(tmp_path))
