"""Holds a LeRobot export against the corpus: opened by LeRobot's own reader, compared frame by frame.

LeRobot takes its settings from the environment when it is imported, keeps a copy of the rows, and may break: so it
opens the export in a process that ends, which is this module run with the folder and a file for pictures.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from core.errors import UserError, install_hint
from core.paths import ROOT
from ingest.formats.listing import named
from warehouse.exports.export import MANIFEST
from warehouse.exports.lerobot_plan import LerobotPlan
from warehouse.exports.options import LerobotOptions, Selection
from warehouse.exports.videos import ENCODED
from warehouse.lake import Lake

COLUMNS = ("episode_index", "frame_index", "timestamp", "task_index", "index")
TIME_S = 1e-4  # what LeRobot lets a frame's time be off
# Of 255, on average over a picture. Where videos were only copied, decoders give the same. An encoder's loss is below
# the second, and so may another picture of the same scene be: then times and order show that it is the right one
MOST_OFF_COPIED, MOST_OFF_ENCODED = 0.5, 12.0
TOLD = 300  # characters of what LeRobot said


@dataclass(frozen=True)
class Verified:
    """What LeRobot's reader found; `problems` is empty where all of it is as in the corpus.

    `most_off`: the largest mean difference of a picture to the source's, of 255; None where none were compared.
    """

    lerobot: str
    episodes: int
    frames: int
    cameras: int
    pictures: int
    most_off: float | None
    problems: tuple[str, ...]

    def sentence(self) -> str:
        """The outcome in one line."""
        if self.problems:
            return f"NOT verified by LeRobot {self.lerobot}: {named(self.problems)}"
        compared = self.most_off is not None
        off = f", at most {self.most_off:.1f} of 255 off" if compared else ", faces hidden: not compared"
        return (
            f"Verified: LeRobot {self.lerobot} opens {self.episodes} episodes, {self.frames} frames and {self.cameras} "
            f"cameras with lengths, times and tasks of the corpus; {self.pictures} pictures decoded{off}."
        )


def verify(lake: Lake, selection: Selection, out: Path, options: LerobotOptions) -> Verified:
    """Of each episode all rows, and the pictures of its first, middle and last frame.

    Raises UserError where there is no whole export in the folder or LeRobot is not installed, and what readers of
    sources raise.
    """
    if not (out / MANIFEST).exists():
        raise UserError(f"{out} holds no export that is whole: there is nothing to verify")
    if find_spec("lerobot") is None:
        raise UserError(f"--verify needs LeRobot's own reader: {install_hint('train')}")
    plan = LerobotPlan("lerobot", lake, selection, options)
    # How far pictures may be off, by how the export says that its videos were written
    was_encoded = ENCODED in json.loads((out / MANIFEST).read_text()).get("videos", {})
    limit = MOST_OFF_ENCODED if was_encoded else MOST_OFF_COPIED
    with TemporaryDirectory(prefix="proccorpus-verify-") as scratch:
        found, why = _opened(out.resolve(), sorted(_shown(plan)), Path(scratch))
        if found is None:
            return Verified(version("lerobot"), 0, 0, 0, 0, None, (f"it cannot open it ({why})",))
        problems = _compare(plan, found)
        with np.load(Path(scratch) / "pictures.npz") as pictures:
            count = len(pictures.files)
            most_off, wrong = (None, []) if options.blur else _compare_pictures(plan, pictures, limit)
    shape = found["episodes"], found["frames"], len(found["cameras"])
    return Verified(found["version"], *shape, count, most_off, (*problems, *wrong))


def _shown(plan: LerobotPlan) -> set[int]:
    """The frames of the export whose pictures are compared."""
    first_and_length = zip(plan.starts[:-1], (e.num_frames for e in plan.episodes), strict=True)
    return {first + at for first, n in first_and_length for at in (0, n // 2, n - 1)}


def _opened(root: Path, wanted: Sequence[int], scratch: Path) -> tuple[dict[str, Any] | None, str]:
    """What LeRobot's reader found, or why there is nothing."""
    # Nothing is looked up anywhere, and its copy of the rows goes with the scratch folder
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(scratch / "rows")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "warehouse.exports.verify_lerobot", str(root), str(scratch / "pictures.npz")],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        env=os.environ | offline | {"PYTHONPATH": path},
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, (lines[-1] if lines else f"it ended with {done.returncode}")[:TOLD]
    return json.loads(done.stdout), ""


def _compare(plan: LerobotPlan, found: Mapping[str, Any]) -> list[str]:
    """What differs, in words."""
    if (found["episodes"], found["frames"]) != (len(plan.episodes), plan.starts[-1]):
        told = f"{found['episodes']} episodes and {found['frames']} frames"
        return [f"it has {told}, not {len(plan.episodes)} and {plan.starts[-1]}"]
    differs = {
        f"{found['fps']:g} fps, not {plan.fps:g}": found["fps"] != plan.fps,
        f"the cameras {named(found['cameras'])}, not {named(plan.cameras)}": {*found["cameras"]} != {*plan.cameras},
    }
    return [*filter(differs.get, differs), *_compare_rows(plan, found)]


def _compare_rows(plan: LerobotPlan, found: Mapping[str, Any]) -> list[str]:
    """Each kind of difference once, with the episodes that it is in."""
    rows = {name: np.array(values) for name, values in found["rows"].items()}
    lengths = np.diff(plan.starts)
    episode, index = np.repeat(np.arange(len(lengths)), lengths), np.arange(plan.starts[-1])
    frame = index - np.repeat(plan.starts[:-1], lengths)
    # A frame's task is its episode's, or any where steps are tasks
    told = np.array([found["tasks"].get(str(k)) for k in rows["task_index"].tolist()], object)
    tasks = np.repeat(np.array([e.task or "" for e in plan.episodes], object), lengths)
    wrong = {
        "another length": rows["episode_index"] != episode,
        "frames out of order": (rows["frame_index"] != frame) | (rows["index"] != index),
        "other times": np.abs(rows["timestamp"] - frame / plan.fps) >= TIME_S,
        "another task": ~np.isin(told, list(plan.tasks)) if plan.options.flavour == "subtask" else told != tasks,
    }
    where = {what: np.unique(episode[at]).astype(str).tolist() for what, at in wrong.items() if at.any()}
    return [f"{what} in episode {named(episodes)}" for what, episodes in where.items()]


def _compare_pictures(plan: LerobotPlan, pictures: Mapping[str, np.ndarray], limit: float) -> tuple[float, list[str]]:
    """The largest mean difference of a picture to that of the source, of 255; and which are another picture."""
    wanted, off = _shown(plan), dict[str, float]()
    for (number, e), camera in product(enumerate(plan.episodes), plan.cameras):
        for frame, (_, _, picture) in enumerate(plan.readers[e.dataset].episode(e).frames(plan.cameras_of(e)[camera])):
            if plan.starts[number] + frame in wanted:
                ours, theirs = picture.rgb(), pictures[f"{plan.starts[number] + frame}/{camera}"]
                mean = float(np.abs(theirs.astype(np.int16) - ours).mean()) if ours.shape == theirs.shape else 255.0
                off[f"frame {frame} of episode {number} by {camera}"] = mean
    wrong = [f"another picture at {where} ({o:.1f} of 255 off)" for where, o in off.items() if o > limit]
    return max(off.values(), default=0.0), wrong


def contents(root: Path, wanted: list[int], pictures: Path) -> dict[str, Any]:
    """What LeRobot finds in the folder; the pictures of the wanted frames go to a .npz file as "<frame>/<camera>".

    Raises whatever LeRobot raises.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset: Any = LeRobotDataset("local/export", root=root, video_backend="pyav")
    rows = dataset.hf_dataset.with_format("numpy").select_columns(list(COLUMNS))[:]
    cameras = list(dataset.meta.camera_keys)
    arrays = {}
    for frame in wanted:
        item = dataset[frame]
        for camera in cameras:
            arrays[f"{frame}/{camera}"] = (item[camera].numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
    np.savez(pictures, **arrays)
    return {
        "version": version("lerobot"),
        "fps": float(dataset.fps),
        "cameras": cameras,
        "episodes": int(dataset.num_episodes),
        "frames": len(dataset),
        "tasks": {int(row.task_index): str(text) for text, row in dataset.meta.tasks.iterrows()},
        "rows": {name: np.asarray(rows[name]).ravel().tolist() for name in COLUMNS},
    }


if __name__ == "__main__":
    # LeRobot prints; standard output is the answer's
    with contextlib.redirect_stdout(sys.stderr):
        answer = contents(Path(sys.argv[1]), json.load(sys.stdin), Path(sys.argv[2]))
    json.dump(answer, sys.stdout)
