"""What the fuzz tests spoil: a tiny dataset of each format."""

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa

from tests.kits import agibot_writer as agibot
from tests.kits import hdf5_writer as hdf5
from tests.kits import rlds_writer as rlds
from tests.kits.lerobot_writer import (
    FRONT,
    WRIST,
    edit_info,
    edit_parquet,
    features,
    number,
    picture,
    v2_data,
    write_v2,
    write_v3,
    write_video,
)
from tests.kits.rh20t_writer import write_scene, write_texts
from tests.kits.step_forms import V2_FORMS, V3_FORMS
from tests.kits.table30_writer import write_task
from tests.kits.zarr_writer import BLOSC, write_replay

TASKS = ("pick the cup", "place it")


@dataclass(frozen=True)
class Base:
    """`usable`: how many of its episodes can be used as long as nothing is spoilt."""

    write: Callable[[Path], object]
    usable: int
    fields: Mapping[str, Any] = field(default_factory=dict)  # of the registry entry


def lerobot_pictures(root: Path) -> None:
    """Pictures in the rows of one camera, beside them for the other."""
    write_v2(root, [6, 7], cameras=())
    image = {"dtype": "image", "shape": [64, 64, 3], "names": ["height", "width", "channel"]}
    edit_info(root, features=features([], 10) | {FRONT: image, WRIST: image})
    (root / "images").mkdir()
    for episode, length in enumerate((6, 7)):
        shown = [[picture(number(camera, episode, k)) for k in range(length)] for camera in range(2)]
        inside = [{"bytes": cv2.imencode(".png", p)[1].tobytes(), "path": None} for p in shown[0]]
        beside = [{"bytes": None, "path": f"images/{episode}_{k}.jpg"} for k in range(length)]
        for named, p in zip(beside, shown[1], strict=True):
            (root / str(named["path"])).write_bytes(cv2.imencode(".jpg", p)[1].tobytes())
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        edit_parquet(v2_data(root, episode), **{FRONT: pa.array(inside, kind), WRIST: pa.array(beside, kind)})


def with_steps(root: Path, forms: Mapping[str, Callable[..., None]]) -> None:
    """Every form of steps that a dataset of its version may bring, at once."""
    for write in forms.values():
        write(root, [("reach", 1, 4), ("grasp", 4, 8), ("place", 8, 11)])


def robo_dopamine(root: Path) -> None:
    for camera in range(2):
        write_video(root / f"episode_001/cam_{camera}.mp4", [number(camera, 0, k) for k in range(9)])
    spans = [{"anotation": name, "start_frame_id": a, "end_frame_id": b} for name, a, b in (("x", 1, 4), ("y", 4, 8))]
    (root / "episode_001/annotated_keyframes.json").write_text(json.dumps(spans))
    (root / "task_instruction.json").write_text(json.dumps(["clear the table", "tidy up"]))


def libero(root: Path) -> None:
    hdf5.write_libero(root / "KITCHEN_SCENE1_turn_on_the_stove_demo.hdf5", {0: 6, 1: 7})
    hdf5.write_libero(root / "LIVING_ROOM_SCENE2_pick_up_the_cup_demo.hdf5", {0: 8}, None)


def aloha(root: Path) -> None:
    hdf5.write_aloha(root / "episode_0.hdf5", 0, 6, hdf5.padded_rows, timestamps=[k / 50 for k in range(6)])
    hdf5.write_aloha(root / "episode_1.hdf5", 1, 7)


def zarr_store(root: Path) -> None:
    write_replay(root / "umi.zarr.zip", [6, 7], task="fold the towel", fps=20)
    write_replay(root / "more.zarr", [6], BLOSC, 4, fps=20)


def robotwin(root: Path) -> None:
    for episode, length in enumerate((6, 7)):
        texts = {"seen": ["hit the block"], "unseen": ["knock"]}
        hdf5.write_robotwin(root / "beat_block/clean", episode, length, texts)


def agibot_tars(root: Path) -> None:
    """As on the hub."""
    loose, lengths = root.parent / f"{root.name}.loose", {648642: 6, 648649: 8}
    agibot.write_agibot(loose, 327, lengths, cameras=agibot.GRIPPER_CAMERAS[:2])
    spans = {e: [agibot.span(0, 2), agibot.span(2, n)] for e, n in lengths.items()}
    agibot.write_tasks(root, 327, [agibot.entry(e, found) for e, found in spans.items()])
    tar = root / "observations/327/648642-648649.tar"
    agibot.pack(tar, loose / "observations/327", sorted(map(str, lengths)))
    agibot.pack(root / "proprio_stats/proprio_stats.tar", loose / "proprio_stats", ["327"])
    shutil.rmtree(loose)


def rh20t(root: Path) -> None:
    known = {"rating": 7, "calib": 3}
    write_scene(root / "RH20T_cfg3", 1, cameras={"cam_1": 6, "cam_2": 7}, metadata=known, plain=6)
    write_scene(root / "RH20T_cfg3", 2, cameras={"cam_1": 6}, metadata=known)
    write_texts(root / "task_description.json", {1: "press the button", 2: "open the door"})


def table30(root: Path) -> None:
    write_task(root, "fold_towel", "aloha", {0: 6})
    write_task(root, "press_button", "franka", {0: 7})


def video(root: Path) -> None:
    """A table with two cameras of one episode, notes with steps beside a video, and a video by itself."""
    for k, name in enumerate(("a/left.mp4", "a/right.mp4", "b.mp4", "c.mkv")):
        write_video(root / name, [number(0, k, n) for n in range(6)])
    with (root / "a/metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "camera", "episode", "task", "success"))
        table.writerows((f"{camera}.mp4", camera, "1", "stack", "true") for camera in ("left", "right"))
    steps = [{"name": "reach", "start_s": 0, "end_s": 0.3}, {"name": "grasp", "start_frame": 3, "end_frame": 6}]
    (root / "b.json").write_text(json.dumps({"task": "fold", "fps": 10, "steps": steps, "success": True}))
    (root / "metadata.jsonl").write_text(json.dumps({"file": "c.mkv", "task": "sort", "group": "g"}) + "\n")


RECORDS = [[rlds.episode(0), rlds.episode(1, 7)], [rlds.episode(2, 8)]]
NATIVE = {"annotator": "native"}
BASES = {
    "lerobot_v2": Base(lambda root: write_v2(root, [6, 7, 8], cameras=(FRONT, WRIST), tasks=TASKS), 3),
    "lerobot_v3": Base(lambda root: write_v3(root, [6, 7, 8], cameras={FRONT: 3, WRIST: 1}, tasks=TASKS), 3),
    "lerobot_pictures": Base(lerobot_pictures, 2),
    "lerobot_steps": Base(lambda root: with_steps(write_v2(root, [12, 9], tasks=TASKS), V2_FORMS), 2),
    "lerobot_labels": Base(lambda root: with_steps(write_v3(root, [12, 9], cameras={FRONT: 2}), V3_FORMS), 2),
    "robo_dopamine": Base(robo_dopamine, 1),
    "video": Base(video, 3, NATIVE),
    "table30": Base(table30, 2),
    "rh20t": Base(rh20t, 2),
    "rlds": Base(lambda root: rlds.write_dataset(root, {"train": RECORDS}), 3, {"fps": 5.0}),
    "libero": Base(libero, 3),
    "aloha": Base(aloha, 2),
    "zarr": Base(zarr_store, 3),
    "robotwin": Base(robotwin, 2, {"fps": 16.67}),
    "agibot": Base(agibot.write_agibot, 2, NATIVE),
    "agibot_tars": Base(agibot_tars, 2, NATIVE),
}


def write_base(name: str, root: Path) -> Base:
    """The dataset of a name in a new folder."""
    BASES[name].write(root)
    return BASES[name]
