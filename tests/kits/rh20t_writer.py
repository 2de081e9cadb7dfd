"""Tiny RH20T scenes: a video per camera, metadata, and arrays that are pickled, as in the release,
or plain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.kits.lerobot_writer import film_of
from tests.kits.parts import put


def write_scene(
    cfg: Path,
    task: int,
    scene: int = 1,
    cameras: Mapping[str, int] | None = None,
    metadata: Any = None,
    plain: int | None = None,
    suffix: str = "",
) -> Path:
    """`cameras` are frames by name; `plain` rows of arrays: tcp_base k, gripper (10 k, -1); else
    pickled.

    Pictures say (camera, task, frame).
    """
    cameras = cameras or {"cam_1": 6}
    folder = cfg / f"task_{task:04d}_user_0001_scene_{scene:04d}_cfg_0003{suffix}"
    files: dict[str, Any] = {}
    for c, (camera, frames) in enumerate(cameras.items()):
        files[f"{camera}/color.mp4"] = film_of(c, task, frames)
        times = {"color": list(range(0, 100 * frames, 100)), "depth": []}
        files[f"{camera}/timestamps.npy"] = np.array(times, dtype=object)
    if metadata is not None:
        files["metadata.json"] = metadata
    if plain is None:
        stored: dict = {c: [{"timestamp": 0, "tcp": [0.0] * 7}] for c in cameras}
        tcp = gripper = np.array(stored, dtype=object)
    else:
        k = np.arange(plain, dtype=np.float64)
        tcp = np.tile(k[:, None], 7)
        gripper = np.stack([10 * k, np.full(plain, -1.0)], axis=1)
    return put(
        folder, files | {"transformed/tcp_base.npy": tcp, "transformed/gripper.npy": gripper}
    )


def write_texts(path: Path, texts: Mapping[int, str]) -> None:
    stored = {
        f"task_{task:04d}": {
            "task_description_english": text,
            "task_description_chinese": f"任务 {task}",
        }
        for task, text in texts.items()
    }
    put(path.parent, {path.name: stored})
