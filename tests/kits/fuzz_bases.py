"""What the fuzz tests spoil: a tiny dataset of each format."""

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.kits import agibot_writer as agibot
from tests.kits import hdf5_writer as hdf5
from tests.kits import lerobot_writer as le
from tests.kits import rlds_writer as rlds
from tests.kits.rh20t_writer import write_scene, write_texts
from tests.kits.step_forms import V2_FORMS, V3_FORMS
from tests.kits.table30_writer import write_task
from tests.kits.zarr_writer import BLOSC, write_replay

# How many of its episodes can be used as long as nothing is spoilt
BASES = {
    "lerobot_v2": 3, "lerobot_v3": 3, "lerobot_pictures": 2, "lerobot_steps": 2, "lerobot_labels": 2,
    "robo_dopamine": 1, "video": 3, "table30": 2, "rh20t": 2, "rlds": 3, "libero": 3, "aloha": 2, "zarr": 3,
    "robotwin": 2, "agibot": 2, "agibot_tars": 2,
}  # fmt: skip
NATIVE = {"annotator": "native"}
FIELDS: Mapping[str, Mapping[str, Any]] = {  # of the registry entry
    "video": NATIVE, "agibot": NATIVE, "agibot_tars": NATIVE, "rlds": {"fps": 5.0}, "robotwin": {"fps": 16.67}
}  # fmt: skip
TASKS = ("pick the cup", "place it")
SPANS = [("reach", 1, 4), ("grasp", 4, 8), ("place", 8, 11)]


def write_base(name: str, root: Path) -> Mapping[str, Any]:
    """Write the dataset of a name into a folder, new or empty; returns fields of its registry entry."""
    match name:
        case "lerobot_v2":
            le.write_v2(root, [6, 7, 8], cameras=(le.FRONT, le.WRIST), tasks=TASKS)
        case "lerobot_v3":
            le.write_v3(root, [6, 7, 8], cameras={le.FRONT: 3, le.WRIST: 1}, tasks=TASKS)
        case "lerobot_pictures":  # in the rows of one camera, beside them for the other
            le.write_v2(root, [6, 7], cameras=())
            image = {"dtype": "image", "shape": [64, 64, 3], "names": ["height", "width", "channel"]}
            le.edit_info(root, features=le.features([], 10) | {le.FRONT: image, le.WRIST: image})
            (root / "images").mkdir()
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            for episode, length in enumerate((6, 7)):
                inside = [{"bytes": rlds.png(le.number(0, episode, k)), "path": None} for k in range(length)]
                beside = [{"bytes": None, "path": f"images/{episode}_{k}.jpg"} for k in range(length)]
                for k, named in enumerate(beside):
                    (root / str(named["path"])).write_bytes(hdf5.jpeg(le.picture(le.number(1, episode, k))))
                pictures = {le.FRONT: pa.array(inside, kind), le.WRIST: pa.array(beside, kind)}
                le.edit_parquet(le.v2_data(root, episode), **pictures)
        case "lerobot_steps" | "lerobot_labels":  # every form of steps that a dataset of its version may bring, at once
            is_v2 = name == "lerobot_steps"
            if is_v2:
                le.write_v2(root, [12, 9], tasks=TASKS)
            else:
                le.write_v3(root, [12, 9], cameras={le.FRONT: 2})
            for write in (V2_FORMS if is_v2 else V3_FORMS).values():
                write(root, SPANS)
        case "robo_dopamine":
            for camera in range(2):
                shown = [le.number(camera, 0, k) for k in range(9)]
                le.write_video(root / f"episode_001/cam_{camera}.mp4", shown)
            spans = [{"anotation": n, "start_frame_id": a, "end_frame_id": b} for n, a, b in (("x", 1, 4), ("y", 4, 8))]
            (root / "episode_001/annotated_keyframes.json").write_text(json.dumps(spans))
            (root / "task_instruction.json").write_text(json.dumps(["clear the table", "tidy up"]))
        case "video":  # a table with two cameras of one episode, notes with steps beside a video, and one by itself
            for k, film in enumerate(("a/left.mp4", "a/right.mp4", "b.mp4", "c.mkv")):
                le.write_video(root / film, [le.number(0, k, n) for n in range(6)])
            with (root / "a/metadata.csv").open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(("file", "camera", "episode", "task", "success"))
                table.writerows((f"{camera}.mp4", camera, "1", "stack", "true") for camera in ("left", "right"))
            steps = [{"name": "reach", "start_s": 0, "end_s": 0.3}, {"name": "grasp", "start_frame": 3, "end_frame": 6}]
            (root / "b.json").write_text(json.dumps({"task": "fold", "fps": 10, "steps": steps, "success": True}))
            (root / "metadata.jsonl").write_text(json.dumps({"file": "c.mkv", "task": "sort", "group": "g"}) + "\n")
        case "table30":
            write_task(root, "fold_towel", "aloha", {0: 6})
            write_task(root, "press_button", "franka", {0: 7})
        case "rh20t":
            known = {"rating": 7, "calib": 3}
            write_scene(root / "RH20T_cfg3", 1, cameras={"cam_1": 6, "cam_2": 7}, metadata=known, plain=6)
            write_scene(root / "RH20T_cfg3", 2, cameras={"cam_1": 6}, metadata=known)
            write_texts(root / "task_description.json", {1: "press the button", 2: "open the door"})
        case "rlds":
            records = [[rlds.episode(0), rlds.episode(1, 7)], [rlds.episode(2, 8)]]
            rlds.write_dataset(root, {"train": records})
        case "libero":
            hdf5.write_libero(root / "KITCHEN_SCENE1_turn_on_the_stove_demo.hdf5", {0: 6, 1: 7})
            hdf5.write_libero(root / "LIVING_ROOM_SCENE2_pick_up_the_cup_demo.hdf5", {0: 8}, None)
        case "aloha":
            hdf5.write_aloha(root / "episode_0.hdf5", 0, 6, hdf5.padded_rows, timestamps=[k / 50 for k in range(6)])
            hdf5.write_aloha(root / "episode_1.hdf5", 1, 7)
        case "zarr":
            write_replay(root / "umi.zarr.zip", [6, 7], task="fold the towel", fps=20)
            write_replay(root / "more.zarr", [6], BLOSC, 4, fps=20)
        case "robotwin":
            for episode, length in enumerate((6, 7)):
                texts = {"seen": ["hit the block"], "unseen": ["knock"]}
                hdf5.write_robotwin(root / "beat_block/clean", episode, length, texts)
        case "agibot":
            agibot.write_agibot(root)
        case "agibot_tars":  # as on the hub
            loose, lengths = root.parent / f"{root.name}.loose", {648642: 6, 648649: 8}
            agibot.write_agibot(loose, 327, lengths, cameras=agibot.GRIPPER_CAMERAS[:2])
            spans = {e: [agibot.span(0, 2), agibot.span(2, n)] for e, n in lengths.items()}
            agibot.write_tasks(root, 327, [agibot.entry(e, found) for e, found in spans.items()])
            tar = root / "observations/327/648642-648649.tar"
            agibot.pack(tar, loose / "observations/327", sorted(map(str, lengths)))
            agibot.pack(root / "proprio_stats/proprio_stats.tar", loose / "proprio_stats", ["327"])
            shutil.rmtree(loose)
    return FIELDS.get(name, {})
