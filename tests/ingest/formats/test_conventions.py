"""Datasets as writers' own conventions have them: the right value is read, or a finding names the very thing."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import EpisodeData, Listing
from ingest.formats.lerobot_frames import VideoSpan, match
from ingest.formats.tree import UNREAD
from ingest.media.camera_kinds import kind_by_name, look_of
from ingest.media.video import FrameTimes
from ingest.signals.naming import named_grippers
from ingest.signals.survey import survey
from ingest.source import format_of, list_episodes, read_episode
from tests.kits.droid_writer import write_recording, write_rows
from tests.kits.hdf5_writer import write_aloha
from tests.kits.lerobot_writer import (
    FRONT,
    edit_info,
    edit_parquet,
    picture,
    shown,
    source_of,
    v2_data,
    v2_video,
    write_json_lines,
    write_v2,
    write_video,
)
from tests.kits.mcap_writer import SECOND, START, record, recorder

LENGTH = 20
IMAGES = "observation.images."


def declare(root: Path, **features: tuple[str, list[int]]) -> None:
    """More features of info.json: dtype and shape by name."""
    info = json.loads((root / "meta/info.json").read_text())
    added = {
        name: {"dtype": dtype, "shape": shape, "names": None}
        for name, (dtype, shape) in features.items()
    }
    edit_info(root, features=info["features"] | added)


def listed(root: Path, **entry: Any) -> tuple[Listing, EpisodeData]:
    source = source_of(root, **entry)
    listing = list_episodes(source)
    return listing, read_episode(source, listing.records[0])


def details(listing: Listing, reason: str) -> list[str]:
    return [finding.detail for finding in listing.findings if finding.reason == reason]


def uses(listing: Listing) -> dict[str, str]:
    """What each part is used for, or why it is not."""
    return {part.name: part.use or part.why for part in listing.parts}


# State and action of LeRobot


def test_a_slice_counts_within_the_column_that_it_names(tmp_path: Path) -> None:
    """StarVLA and GR00T: `original_key`. The parts beside observation.state are read, or are copies of it."""
    root = write_v2(tmp_path, [LENGTH])
    opening = np.repeat([1.0, 0.0], LENGTH // 2)
    joints = np.arange(2.0 * LENGTH).reshape(LENGTH, 2) + 0.5
    lists = pa.array(np.column_stack([joints, opening]).tolist(), pa.list_(pa.float32(), 3))
    added = {
        "observation.state.joints": pa.array(joints.tolist()),
        "observation.state.gripper": opening,
    }
    edit_parquet(v2_data(root, 0), **{"observation.state": lists}, action=lists, **added)
    parts = {
        "observation.state.joints": ("float64", [2]),
        "observation.state.gripper": ("float32", [1]),
    }
    declare(root, **{"observation.state": ("float32", [3])}, action=("float32", [3]), **parts)
    slices = {
        "gripper": {"start": 0, "end": 1, "original_key": "observation.state.gripper"},
        "joints": {"start": 0, "end": 2, "original_key": "observation.state.joints"},
    }
    of_action = {"gripper": {"start": 2, "end": 3, "original_key": "action"}}
    (root / "meta/modality.json").write_text(json.dumps({"state": slices, "action": of_action}))
    listing, episode = listed(root)
    assert episode.state_names == ("", "", "", "gripper")
    assert episode.action_names == ("", "", "gripper.0")
    assert episode.state is not None
    assert (episode.state[:, 3] == opening).all()
    column_uses = uses(listing)
    assert column_uses["observation.state.gripper"] == "state"
    assert column_uses["observation.state.joints"] == "a copy of state[0:2]"
    assert not details(listing, "part_not_used")


def test_a_slice_of_a_column_without_a_usual_name(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [LENGTH])
    claw = pa.array([[float(k % 2), 1.0] for k in range(LENGTH)])
    edit_parquet(v2_data(root, 0), **{"observation.state": None, "proprio": claw})
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["observation.state"]
    edit_info(root, features=info["features"])
    declare(root, proprio=("float64", [2]), action=("float32", [3]))
    slices = {
        "left_gripper": {"start": 0, "end": 1, "original_key": "proprio"},
        "off": {"start": 1, "end": 9},
    }
    slices["off"]["original_key"] = "proprio"
    (root / "meta/modality.json").write_text(json.dumps({"state": slices}))
    listing, episode = listed(root)
    assert (episode.state_names, episode.names_by) == (("left_gripper.0", ""), "modality.json")
    assert details(listing, "part_not_used") == [
        "column meta/modality.json: state.off: it ends at 9, and proprio has 2 dimensions"
    ]


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int64(), pa.list_(pa.bool_(), 1)], ids=str)
def test_flags_and_whole_numbers_are_grippers(tmp_path: Path, kind: pa.DataType) -> None:
    """As LeRobot stores features of shape (1,). The registry can name their dimension."""
    root = write_v2(tmp_path, [LENGTH])
    closed = [k >= LENGTH // 2 for k in range(LENGTH)]
    cells = pa.array(
        [[flag] for flag in closed] if pa.types.is_fixed_size_list(kind) else closed
    ).cast(kind)
    arm = pa.array([[float(k), 0.0] for k in range(LENGTH)])
    names = ("observation.gripper_closed", "action.gripper_closed")
    edit_parquet(
        v2_data(root, 0), **{"observation.state": arm, "action": arm}, **dict.fromkeys(names, cells)
    )
    declare(root, **{"observation.state": ("float64", [2]), "action": ("float64", [2])})
    declare(root, **dict.fromkeys(names, ("bool", [1])))
    _, episode = listed(root)
    assert episode.state_names == episode.action_names == ("", "", "gripper_closed")
    assert episode.action is not None
    assert episode.action[:, 2].tolist() == list(map(float, closed))
    gripper_entry = {"column": "action", "dimension": "gripper_closed", "closed": 1, "open": 0}
    source = source_of(root, gripper=gripper_entry)
    [signal] = survey(source, list_episodes(source).records, None).signals
    assert (signal.dimensions, signal.polarity, signal.located_by) == (
        (2,),
        "high_is_closed",
        "registry",
    )


def test_the_registry_names_columns(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [LENGTH])
    torque = pa.array([[k * 0.1, k * 0.2] for k in range(LENGTH)])
    edit_parquet(v2_data(root, 0), **{"observation.torque": torque})
    declare(root, **{"observation.torque": ("float64", [2])})
    listing, _ = listed(root)
    detail = f"column observation.torque (2 float64): {UNREAD}"
    assert details(listing, "part_not_used") == [detail]
    listing, episode = listed(root, keys={"state": ["observation.state", "observation.torque"]})
    assert episode.state_names == ("x", "y", "gripper.pos", "torque.0", "torque.1")
    assert not details(listing, "part_not_used")


# Cameras that show no colours


def films(root: Path, **pictures: np.ndarray) -> Path:
    """A LeRobot dataset of one episode, with a video of each camera, of which all pictures are alike."""
    write_v2(root, [LENGTH], cameras=())
    for camera, shot in pictures.items():
        declare(root, **{IMAGES + camera: ("video", [*shot.shape])})
        write_video(v2_video(root, IMAGES + camera, 0), [shot] * LENGTH)
    return root


def scene(seed: int) -> np.ndarray:
    """A picture of many colours."""
    rng = np.random.default_rng(seed)
    return cv2.resize(
        rng.integers(0, 255, (8, 8, 3), np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC
    )


def test_depth_masks_and_touch_are_no_main_camera(tmp_path: Path) -> None:
    grey = np.repeat(scene(1)[..., :1], 3, axis=2)
    masks = np.where(
        scene(2)[..., :1] > 128, np.array([200, 30, 30]), np.array([30, 30, 200])
    ).astype(np.uint8)
    cameras = {"depth": grey, "front": scene(3), "segmentation": masks, "tactile_left": scene(4)}
    listing, _ = listed(films(tmp_path, **cameras, a_depth_map=scene(5)))
    assert listing.cameras == (f"{IMAGES}front", f"{IMAGES}a_depth_map")
    parts = details(listing, "part_not_used")
    assert (
        "its name says depth, but its pictures have colours: it comes after the other cameras"
        in parts[0]
    )
    assert [detail.partition(": ")[2].partition(":")[0] for detail in parts[1:]] == [
        "its name says depth and its pictures are grey",
        "its name says masks and its pictures are of few colours",
        "its name says touch",
    ]
    # What the remedy names is what helps
    camera_names = [f"{IMAGES}front", f"{IMAGES}depth"]
    assert listed(tmp_path, cameras=camera_names)[0].cameras[:2] == tuple(camera_names)


def test_depth_alone_is_better_than_nothing(tmp_path: Path) -> None:
    listing, _ = listed(films(tmp_path, depth=np.repeat(scene(1)[..., :1], 3, axis=2)))
    assert listing.cameras == (f"{IMAGES}depth",)


def test_names_of_kinds() -> None:
    for name in (
        "depth_camera_rgb",
        "unmasked_front",
        "hand_color",
        "observation.images.top",
        "wrist",
    ):
        assert kind_by_name(name) == "", name
    for name, kind in (
        ("rgb_depth", "depth"),
        ("leftTactile", "touch"),
        ("semantic_front", "masks"),
        ("ir1", "infrared"),
    ):
        assert kind_by_name(name) == kind, name
    assert (look_of(scene(0)), look_of(picture(5))) == ("", "grey")


# Tasks that change within an episode


def test_a_task_of_each_row_names_steps(tmp_path: Path) -> None:
    steps = ("reach the cup", "grasp the cup", "lift the cup")
    root = write_v2(tmp_path, [LENGTH, LENGTH], tasks=(*steps, "tidy the table"))
    for episode in (0, 1):
        edit_parquet(v2_data(root, episode), task_index=pa.array(np.repeat([0, 1, 2], [8, 5, 7])))
    lines = [{"episode_index": 0, "tasks": [*steps], "length": LENGTH}]
    lines += [{"episode_index": 1, "tasks": [*steps, "valid", "tidy the table"], "length": LENGTH}]
    write_json_lines(root / "meta/episodes.jsonl", lines)
    listing, _ = listed(root)
    for episode in listing.records:
        spans = [(step.name, step.start_frame, step.end_frame) for step in episode.steps]
        assert spans == [(steps[0], 0, 8), (steps[1], 8, 13), (steps[2], 13, 20)]
        assert episode.steps_from == "task_index"
    assert [episode.task for episode in listing.records] == ["; ".join(steps), "tidy the table"]
    assert [f.episode_index for f in listing.findings if f.reason == "no_task"] == [0]


# Where pictures are


def test_pictures_are_found_by_the_end_of_the_recorders_path(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [LENGTH, LENGTH], cameras=())
    declare(root, **{FRONT: ("image", [64, 64, 3])})
    for episode in (0, 1):
        paths = [f"images/{FRONT}/episode_{episode:06d}/frame_{k:06d}.png" for k in range(LENGTH)]
        for k, path in enumerate(paths):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / path), picture(episode << 6 | k))
        cells = [
            {"bytes": None, "path": f"C:\\data\\set\\{path}".replace("/", "\\")} for path in paths
        ]
        edit_parquet(v2_data(root, episode), **{FRONT: pa.array(cells)})
    source = source_of(root)
    listing = list_episodes(source)
    assert [shown(source, episode, FRONT)[7] for episode in listing.records] == [
        (0, 0, 7),
        (0, 1, 7),
    ]
    # No picture of another episode stands in for one that is gone
    next((root / "images").rglob("episode_000001/frame_000007.png")).unlink()
    with pytest.raises(Exception, match="frame_000007"):
        shown(source_of(root), listing.records[1], FRONT)


def test_pictures_without_their_video_are_named(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [LENGTH])
    v2_video(root, FRONT, 0).unlink()
    for k in range(LENGTH):
        path = root / f"images/{FRONT}/episode-000000/frame-{k:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    listing, _ = listed(root)
    [detail] = details(listing, "other_layout")
    assert f"{LENGTH} pictures lie in images/{FRONT}/episode-000000" in detail


# Rates


def test_rows_and_pictures_of_other_rates_are_joined_by_time() -> None:
    rows_s = np.arange(120) / 60
    pictures = match(FrameTimes(np.arange(60), 1 / 30), rows_s, 120, VideoSpan())
    assert pictures.places is not None
    assert (np.abs(pictures.places / 30 - rows_s) <= 1 / 60 + 1e-9).all()
    assert pictures.reason == "timestamp_drift"
    assert "60 rows and 30 pictures come in a second" in pictures.doubt
    longer = match(FrameTimes(np.arange(90), 1 / 30), rows_s, 120, VideoSpan())
    assert longer.places is None, "the camera went on for a second: its times are not the rows'"


def test_each_row_shows_the_picture_of_its_time(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [LENGTH])
    edit_info(root, fps=20)
    edit_parquet(v2_data(root, 0), timestamp=(np.arange(LENGTH) / 20).astype(np.float32))
    write_video(v2_video(root, FRONT, 0), list(range(LENGTH // 2)), fps=10)
    source = source_of(root)
    [episode] = list_episodes(source).records
    frames = [frame for _, _, frame in shown(source, episode, FRONT)]
    assert len(frames) == LENGTH
    assert frames[::2] == list(range(LENGTH // 2)), "rows that have a picture of their own time"


# Other formats


def test_droid_as_recorded(tmp_path: Path) -> None:
    folders = [write_recording(tmp_path / "AUTOLab", run, success=run < 2) for run in range(3)]
    texts = {"language_instruction1": "put the lid on", "language_instruction2": "close the pot"}
    uuid = next(folders[0].glob("metadata_*")).stem.removeprefix("metadata_")
    (tmp_path / "aggregated-annotations-030724.json").write_text(json.dumps({uuid: texts}))
    write_rows(folders[1] / "trajectory.h5", 12, {"observation/touch": np.zeros((12, 4))})
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert (format_of(source).name, listing.fps, listing.cameras) == (
        "droid",
        15,
        ("ext1", "ext2", "wrist"),
    )
    failed, first, second = listing.records
    assert [episode.success for episode in listing.records] == [False, True, True]
    assert (first.tasks, second.task) == (
        ("put the lid on", "close the pot"),
        "Move object to a new position",
    )
    episode = read_episode(source, failed)
    assert episode.state is not None
    assert episode.state.shape == (12, 8)
    assert episode.action_names[-1] == episode.state_names[-1] == "gripper_position"
    assert shown(source, failed, "ext2")[3] == (1, 2, 3)
    assert details(listing, "part_not_used") == [
        "array observation/touch (12 x 4 float64): DROID's recorder has none of this name"
    ]


def test_recordings_without_pictures_have_the_rate_of_others(tmp_path: Path) -> None:
    record(tmp_path)
    with recorder(tmp_path / "a_first.mcap") as writer:
        for k in range(LENGTH):
            writer.move(k, 0, START + k * SECOND // 10)
            writer.write(
                "/scan", writer.numbers, {"layout": {"data_offset": 0}, "data": [1.0]}, START + k
            )
    listing = list_episodes(source_of(tmp_path))
    assert [episode.fps for episode in listing.records] == [10, 10]
    assert listing.fps == 10
    [detail] = details(listing, "part_not_used")
    assert detail == f"topic /scan (std_msgs/msg/Float64MultiArray): {UNREAD}"


def test_texts_of_rdt_beside_the_data(tmp_path: Path) -> None:
    write_aloha(tmp_path / "episode_0.hdf5", 0, 8)
    texts = {
        "instruction": "fold the shirt",
        "expanded_instruction": ["Fold it.", "Lay it flat and fold it."],
    }
    (tmp_path / "expanded_instruction_gpt-4-turbo.json").write_text(json.dumps(texts))
    listing = list_episodes(source_of(tmp_path))
    assert listing.records[0].tasks == ("fold the shirt", "Fold it.", "Lay it flat and fold it.")
    assert not details(listing, "no_task")


def test_a_gripper_of_eight_joints_is_one() -> None:
    arm = [
        f"{part}_joint"
        for part in ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
    ]
    links = ("outer_knuckle", "inner_knuckle", "outer_finger", "inner_finger")
    fingers = [
        "finger_joint",
        *(f"{side}_{link}_joint" for side, link in product(("left", "right"), links)),
    ][:8]
    assert [(g.arm, g.dimensions) for g in named_grippers([*arm, *fingers])] == [
        ("", tuple(range(6, 14)))
    ]
