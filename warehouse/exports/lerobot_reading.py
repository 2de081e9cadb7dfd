"""What LeRobot's own reader finds in a LeRobot dataset: rows, and pictures of some frames.

LeRobot takes its settings from the environment when it is imported, keeps a copy of the rows, and may break: so it
reads in a process that ends, which is this module run with the folder and a file for arrays.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.paths import ROOT
from ingest.media.video import Frame, decode, frame_times

COLUMNS = ("episode_index", "frame_index", "timestamp", "task_index", "index")
LONGEST = 300  # characters of what LeRobot said
NUMBERS = ("float", "int", "uint", "bool")

type Place = tuple[int, int]  # episode and frame


class Reading(NamedTuple):
    """`facts`: version, fps, cameras, episodes, frames, tasks. `rows`: arrays [frames, ...] by feature. `pictures`:
    uint8 [h, w, 3] by episode, frame and camera. `refused`: what LeRobot said of frames that it does not show."""

    facts: Mapping[str, Any]
    rows: Mapping[str, np.ndarray]
    pictures: Mapping[tuple[int, int, str], np.ndarray]
    refused: Mapping[Place, str]

    def rows_of(self, feature: str, episode: int) -> np.ndarray:
        return self.rows[feature][self.rows["episode_index"] == episode]


def read(root: Path, places: Iterable[Place], scratch: Path) -> Reading | str:
    """What LeRobot's reader finds below a folder; or why it cannot open it."""
    # Nothing is looked up anywhere, and its copy of the rows goes with the scratch folder
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(scratch / "rows"),
    }
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    arrays = scratch / "read.npz"
    process = subprocess.run(
        [sys.executable, "-m", __name__, str(root.resolve()), str(arrays)],
        input=json.dumps(sorted(places)),
        capture_output=True,
        text=True,
        env=os.environ | offline | {"PYTHONPATH": path},
        check=False,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        return (lines[-1] if lines else f"it ended with {process.returncode}")[:LONGEST]
    facts = json.loads(process.stdout)
    rows = dict[str, np.ndarray]()
    pictures = dict[tuple[int, int, str], np.ndarray]()
    with np.load(arrays) as stored:
        for name in stored.files:
            kind, _, key = name.partition(" ")
            if kind == "rows":
                rows[key] = stored[name]
            else:
                episode, frame, camera = key.split(" ", 2)
                pictures[int(episode), int(frame), camera] = stored[name]
    refused = {(episode, frame): reason for episode, frame, reason in facts.pop("refused")}
    return Reading(facts, rows, pictures, refused)


def _contents(root: Path, places: list[list[int]], arrays: Path) -> dict[str, Any]:
    """What LeRobot finds in the folder; arrays go to a .npz file. Raises whatever LeRobot raises as it opens it."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset: Any = LeRobotDataset("local/export", root=root, video_backend="pyav")
    kinds = {name: feature["dtype"] for name, feature in dataset.features.items()}
    numeric = [
        name for name in dataset.hf_dataset.column_names if kinds.get(name, "").startswith(NUMBERS)
    ]
    columns = dataset.hf_dataset.with_format("numpy").select_columns(numeric)[:]
    stored: dict[str, Any] = {f"rows {name}": np.asarray(columns[name]) for name in numeric}
    stored |= {f"rows {name}": np.ravel(columns[name]) for name in COLUMNS}
    refused = []
    for episode, frame in places:
        try:
            item = dataset[int(dataset.meta.episodes[episode]["dataset_from_index"]) + frame]
        except Exception as e:  # the reader's word, whatever it is
            refused.append(
                (episode, frame, (str(e).splitlines() or [type(e).__name__])[0][:LONGEST])
            )
            continue
        for camera in dataset.meta.camera_keys:
            stored[f"picture {episode} {frame} {camera}"] = _picture(dataset, item, episode, camera)
    np.savez(arrays, **stored)
    return {
        "version": version("lerobot"),
        "fps": float(dataset.fps),
        "cameras": list(dataset.meta.camera_keys),
        "episodes": int(dataset.num_episodes),
        "frames": len(dataset),
        "tasks": {int(row.task_index): str(text) for text, row in dataset.meta.tasks.iterrows()},
        "refused": refused,
    }


def _picture(dataset: Any, item: Mapping[str, Any], episode: int, camera: str) -> np.ndarray:
    """uint8 [h, w, 3] as LeRobot shows it. PyAV, which it decodes by here, takes no notice of what
    a video states of its colours: of such a video the picture at LeRobot's time is decoded by our
    own reader."""
    if camera in dataset.meta.video_keys:
        path = dataset.root / dataset.meta.get_video_file_path(episode, camera)
        if not _is_usual(path):
            begin_s = dataset.meta.episodes[episode][f"videos/{camera}/from_timestamp"]
            place = frame_times(path).nearest(np.array([begin_s + float(item["timestamp"])]))[0]
            return next(decode(path, int(place), 1)).rgb()
    return (item[camera].numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)


@lru_cache(maxsize=64)
def _is_usual(path: Path) -> bool:
    first = next(decode(path))
    return not isinstance(first, Frame) or (first.has_usual_colours and not first.quarter_turns)


if __name__ == "__main__":
    # LeRobot prints; standard output is the answer's
    with contextlib.redirect_stdout(sys.stderr):
        answer = _contents(Path(sys.argv[1]), json.load(sys.stdin), Path(sys.argv[2]))
    json.dump(answer, sys.stdout)
