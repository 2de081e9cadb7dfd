"""Opens a LeRobot dataset with LeRobot's own reader and says what is in it, as JSON: a process of its own.

It reads where the dataset is from its arguments, and which frames' pictures are wanted from standard input. LeRobot
takes its settings from the environment when it is imported, keeps a copy of the rows, and may break: so it does that in
a process that ends.
"""

import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("episode_index", "frame_index", "timestamp", "task_index", "index")


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


def main() -> None:
    root, pictures = map(Path, sys.argv[1:])
    # LeRobot prints; standard output is the answer's
    with contextlib.redirect_stdout(sys.stderr):
        found = contents(root, json.load(sys.stdin), pictures)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
