"""Datasets as writers' own conventions have them: the right value is read, or a finding names the
very thing."""

import json
import re
from itertools import chain, product
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest

from core.paths import ROOT
from ingest.episode import EpisodeData, FrameTimes, Listing
from ingest.formats import FORMATS
from ingest.formats.lerobot_episode import VideoSpan, match
from ingest.media.camera_kinds import kind_by_name, look_of
from ingest.signals.naming import named_grippers
from ingest.signals.survey import survey
from ingest.source import adapter_of, list_episodes, read_episode
from tests.kits import lerobot_writer, parts
from tests.kits import rlds_writer as rlds
from tests.kits.hdf5_writer import write_aloha
from tests.kits.lerobot_writer import (
    FRONT,
    RATE,
    edit_info,
    edit_parquet,
    film_of,
    picture,
    shown,
    source_of,
    v2_data,
    v2_video,
    write_json_lines,
    write_v2,
    write_v3,
    write_video,
)
from tests.kits.mcap_writer import SECOND, START, record, recorder
from tests.kits.told import Told, golden, golden_rows

LENGTH = 20
IMAGES = "observation.images."


def declare(root: Path, **features: tuple[str, list[int]]) -> None:
    """More features of info.json: dtype and shape by name."""
    for name, (dtype, shape) in features.items():
        lerobot_writer.declare(root, {name: {"dtype": dtype, "shape": shape, "names": None}})


def listed(root: Path, **entry: Any) -> tuple[Listing, EpisodeData]:
    source = source_of(root, **entry)
    listing = list_episodes(source)
    return listing, read_episode(source, listing.records[0])


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int64(), pa.list_(pa.bool_(), 1)], ids=str)
def test_flags_and_whole_numbers_are_grippers(tmp_path, kind):
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
    assert episode.action[:, 2].tolist() == list(map(float, closed))
    gripper_entry = {"column": "action", "dimension": "gripper_closed", "closed": 1, "open": 0}
    source = source_of(root, gripper=gripper_entry)
    [signal] = survey(source, list_episodes(source).records, None).signals
    assert (signal.dimensions, signal.polarity, signal.located_by) == (
        (2,),
        "high_is_closed",
        "registry",
    )


def films(root: Path, **pictures: np.ndarray) -> Path:
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


def test_names_of_kinds():
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


def test_pictures_are_found_by_the_end_of_the_recorders_path(tmp_path):
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


def test_rows_and_pictures_of_other_rates_are_joined_by_time():
    rows_s = np.arange(120) / 60
    pictures = match(FrameTimes(np.arange(60), 1 / 30), rows_s, 120, VideoSpan())
    assert pictures.places is not None
    assert (np.abs(pictures.places / 30 - rows_s) <= 1 / 60 + 1e-9).all()
    assert pictures.reason == "timestamp_drift"
    assert "60 rows and 30 pictures come in a second" in pictures.doubt
    longer = match(FrameTimes(np.arange(90), 1 / 30), rows_s, 120, VideoSpan())
    assert longer.places is None, "the camera went on for a second: its times are not the rows'"


def test_a_gripper_of_eight_joints_is_one():
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


def test_hdf5_beside_pictures(tmp_path):
    pictures = {f"observations/7/head_{k}.jpg": b"\xff\xd8" for k in range(3)}
    rows = {"aligned_joints.h5": {"state/joint/position": np.zeros((6, 14))}}
    parts.put(tmp_path, rows | pictures)
    [record] = list_episodes(source_of(tmp_path)).records
    assert [(v.camera, v.uri) for v in record.videos] == [
        ("observations/7/head", "observations/7/head")
    ]


def write_robodm(path: Path, codec: Any) -> Path:
    path.parent.mkdir()
    with av.open(str(path), "w", format="matroska") as out:
        streams: list[Any] = [out.add_stream(codec, rate=RATE) for _ in range(2)]
        for stream, name in zip(streams, ("action", "camera"), strict=True):
            stream.width = 64
            stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.metadata["FEATURE_NAME"] = name
        for k, stream in product(range(6), streams):
            packets = [av.Packet(b"any bytes")]
            if codec == "rawvideo":
                packets[0].pts = packets[0].dts = k
                packets[0].stream = stream
            else:
                packets = stream.encode(av.VideoFrame.from_ndarray(picture(k), format="rgb24"))
            out.mux(packets)
        for stream in streams:
            out.mux(stream.encode() if codec != "rawvideo" else [])
    return path.parent


@golden_rows
def test_columns_of_state(new) -> Told:
    root = write_v2(new(), [LENGTH])
    opening = np.repeat([1.0, 0.0], LENGTH // 2)
    joints = np.arange(2.0 * LENGTH).reshape(LENGTH, 2) + 0.5
    lists = pa.array(np.column_stack([joints, opening]).tolist(), pa.list_(pa.float32(), 3))
    state = "observation.state"
    added = {f"{state}.joints": pa.array(joints.tolist()), f"{state}.gripper": opening}
    edit_parquet(v2_data(root, 0), **{state: lists, "action": lists}, **added)
    declare(root, **dict.fromkeys((state, "action"), ("float32", [3])))
    declare(root, **{f"{state}.joints": ("float64", [2]), f"{state}.gripper": ("float32", [1])})
    slices = {
        name: {"start": 0, "end": width, "original_key": f"{state}.{name}"}
        for name, width in (("gripper", 1), ("joints", 2))
    }
    slices = {"state": slices, "action": {"gripper": {"start": 2, "end": 3}}}
    slices["action"]["gripper"]["original_key"] = "action"
    (root / "meta/modality.json").write_text(json.dumps(slices))
    yield (
        "slices of StarVLA and GR00T: what is beside the state is read, or is a copy",
        source_of(root),
    )
    root = write_v2(new(), [LENGTH])
    claw = pa.array([[float(k % 2), 1.0] for k in range(LENGTH)])
    edit_parquet(v2_data(root, 0), **{"observation.state": None, "proprio": claw})
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["observation.state"]
    edit_info(root, features=info["features"])
    declare(root, proprio=("float64", [2]), action=("float32", [3]))
    ends = {"left_gripper": (0, 1), "off": (1, 9)}
    slices = {n: {"start": a, "end": b, "original_key": "proprio"} for n, (a, b) in ends.items()}
    (root / "meta/modality.json").write_text(json.dumps({"state": slices}))
    yield "a slice of a column without a usual name, and one beyond it", source_of(root)
    root = write_v2(new(), [LENGTH])
    torque = pa.array([[k * 0.1, k * 0.2] for k in range(LENGTH)])
    edit_parquet(v2_data(root, 0), **{"observation.torque": torque})
    declare(root, **{"observation.torque": ("float64", [2])})
    yield "a column that nothing names", source_of(root)
    keys = {"state": ["observation.state", "observation.torque"]}
    yield "and that the registry names", source_of(root, keys=keys)


@golden_rows
def test_which_cameras_count(new) -> Told:
    grey = np.repeat(scene(1)[..., :1], 3, axis=2)
    colours = np.array([200, 30, 30]), np.array([30, 30, 200])
    masks = np.where(scene(2)[..., :1] > 128, *colours).astype(np.uint8)
    cameras = {"depth": grey, "front": scene(3), "segmentation": masks, "tactile_left": scene(4)}
    root = films(new(), **cameras, a_depth_map=scene(5))
    yield "of five kinds", source_of(root)
    yield "of which two are chosen", source_of(root, cameras=[f"{IMAGES}front", f"{IMAGES}depth"])
    yield "depth alone", source_of(films(new(), depth=grey))
    root = write_v2(new(), [LENGTH])
    v2_video(root, FRONT, 0).unlink()
    for k in range(LENGTH):
        path = root / f"images/{FRONT}/episode-000000/frame-{k:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    yield "pictures without their video", source_of(root)


@golden_rows
def test_tasks_and_steps(new) -> Told:
    steps = ("reach the cup", "grasp the cup", "lift the cup")
    root = write_v2(new(), [LENGTH, LENGTH], tasks=(*steps, "tidy the table"))
    for episode in (0, 1):
        edit_parquet(v2_data(root, episode), task_index=pa.array(np.repeat([0, 1, 2], [8, 5, 7])))
    lines = [{"episode_index": 0, "tasks": [*steps], "length": LENGTH}]
    lines += [{"episode_index": 1, "tasks": [*steps, "valid", "tidy the table"], "length": LENGTH}]
    write_json_lines(root / "meta/episodes.jsonl", lines)
    yield "a task of each row names steps", source_of(root)
    root = new()
    write_aloha(root / "episode_0.hdf5", 0, 8)
    expanded = ["Fold it.", "Lay it flat and fold it."]
    texts = {"instruction": "fold the shirt", "expanded_instruction": expanded}
    (root / "expanded_instruction_gpt-4-turbo.json").write_text(json.dumps(texts))
    yield "texts of RDT beside the data", source_of(root)


SERIALS = {"ext1": "20103212", "ext2": "22246076", "wrist": "18026681"}


def write_droid(lab: Path, run: int, frames: int = 12, *, success: bool) -> Path:
    """A recording of DROID as in the raw release. Joint j of frame k is k + j / 10."""
    outcome = "success" if success else "failure"
    folder = lab / outcome / "2023-07-07" / f"Fri_Jul__7_09:0{run}:39_2023"
    uuid = f"{lab.name}+236539bc+2023-07-07-09h-0{run}m-39s"
    facts = {
        "uuid": uuid,
        "lab": lab.name,
        "current_task": "Move object to a new position",
        "success": success,
    }
    facts |= {f"{role}_cam_serial": serial for role, serial in SERIALS.items()}
    files: dict[str, Any] = {f"metadata_{uuid}.json": facts, "trajectory.h5": droid_rows(frames)}
    for c, serial in enumerate(SERIALS.values()):
        files[f"recordings/MP4/{serial}.mp4"] = film_of(c, run, frames)
    return parts.put(folder, files, fps=15)


def droid_rows(frames: int) -> dict[str, np.ndarray]:
    k = np.arange(frames, dtype=np.float64)
    joints = k[:, None] + np.arange(7) / 10
    gripper = (k >= frames / 2).astype(np.float64)
    return {
        "observation/robot_state/joint_positions": joints,
        "observation/robot_state/gripper_position": gripper,
        "observation/robot_state/cartesian_position": joints[:, :6],
        "action/joint_position": joints,
        "action/gripper_position": gripper,
        "observation/timestamp/skip_action": np.zeros(frames, bool),
    }


@golden
def test_as_recorders_write_them(new) -> Told:
    root = new()
    folders = [write_droid(root / "AUTOLab", run, success=run < 2) for run in range(3)]
    texts = {"language_instruction1": "put the lid on", "language_instruction2": "close the pot"}
    uuid = next(folders[0].glob("metadata_*")).stem.removeprefix("metadata_")
    (root / "aggregated-annotations-030724.json").write_text(json.dumps({uuid: texts}))
    parts.change(folders[1] / "trajectory.h5", {"observation/touch": np.zeros((12, 4))})
    yield "DROID", source_of(root)
    root = new()
    record(root)
    with recorder(root / "a_first.mcap") as writer:
        for k in range(LENGTH):
            writer.move(k, 0, START + k * SECOND // 10)
            scan = {"layout": {"data_offset": 0}, "data": [1.0]}
            writer.write("/scan", writer.numbers, scan, START + k)
    yield "MCAP: one without pictures has the rate of the other", source_of(root)


@golden_rows
def test_what_lies_otherwise(new) -> Told:
    root = rlds.write_dataset(new(), {"train": [[rlds.episode(0)], [rlds.episode(1)]]})
    for shard in root.rglob("*.tfrecord*"):
        shard.rename(shard.with_name(shard.name.replace(".tfrecord", ".array_record")))
    info = next(root.rglob("dataset_info.json"))
    parts.change(info, {"fileFormat": "array_record"})
    yield "records of TFDS that are no TFRecord", source_of(root)
    root = write_v3(new(), [6, 7], {})
    edit_info(root, storage_format="lance")
    for file in (root / "data").rglob("*.parquet"):
        file.unlink()
    parts.put(root, {"train.lance/data/0.lance": b"LANC"})
    yield "LeRobot in Lance tables", source_of(root)
    for title, codec in {"pickled": "rawvideo", "encoded": "libx264"}.items():
        yield f"Robo-DM, {title}", source_of(write_robodm(new() / "set/run.mkv", codec))
    root = new()
    write_video(root / "run.mkv", range(6))
    yield "a plain film of the kind", source_of(root)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_format_is_registered_in_one_place_only(format_):
    # The name of its module stands in no other module's text, and the module has what an adapter has
    adapter = adapter_of(format_)
    assert all(callable(getattr(adapter, f)) for f in ("roots", "list_episodes", "read_episode"))
    code = list(
        chain.from_iterable(
            (ROOT / room).rglob("*.py")
            for room in ("core", "ingest", "warehouse", "pipeline", "assets", "cli")
        )
    )
    assert len(code) > 100
    naming = [p for p in code if f'"{format_.adapter}"' in p.read_text()]
    assert naming == [ROOT / "ingest/formats/__init__.py"]
    quoted = {f'"{format_.name}"' for format_ in FORMATS}
    listing = [p for p in code if quoted <= set(re.findall(r'"\w+"', p.read_text()))]
    assert listing == [ROOT / "ingest/formats/__init__.py"]
