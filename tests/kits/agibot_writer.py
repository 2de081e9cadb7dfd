"""Tiny AgiBot World datasets in the published layout; pictures say which frame they are."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.kits.lerobot_writer import number, write_video

GRIPPER_CAMERAS = ("head_color", "hand_left_color", "hand_right_color")
EMPTY = np.zeros(0, np.float32)  # how a field without values is published
FIRST_NS = 1_726_000_000_000_000_000


def span(start: int, end: int, skill: str = "Pick") -> dict[str, Any]:
    return {
        "start_frame": start,
        "end_frame": end,
        "action_text": f"{skill} {start}",
        "skill": skill,
    }


def entry(episode: int, spans: Iterable[Mapping[str, Any]] = (), **fields: Any) -> dict[str, Any]:
    return {
        "episode_id": episode,
        "label_info": {"action_config": list(spans)},
        "task_name": "Pickup items in the supermarket",
        "init_scene_text": "The robot stands at the fruit stand.",
    } | fields


def write_tasks(root: Path, task: int, entries: Any) -> Path:
    path = root / f"task_info/task_{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries, indent=4))
    return path


def write_rows(path: Path, frames: int, effectors: int = 2) -> Path:
    """Joint j of frame k is k + j / 100; effector e is 10 k + e."""
    path.parent.mkdir(parents=True, exist_ok=True)
    k = np.arange(frames, dtype=np.float64)[:, None]
    joint = k + np.arange(14) / 100
    fields: dict[str, np.ndarray] = {
        "timestamp": FIRST_NS + np.arange(frames, dtype=np.int64) * 33_333_333,
        "state/joint/position": joint,
        "state/joint/current_value": joint,
        "state/effector/position": 10 * k + np.arange(effectors),
        "state/end/position": np.zeros((frames, 2, 3)),
        "state/end/orientation": np.zeros((frames, 2, 4)),
        "state/head/position": np.zeros((frames, 2)),
        "state/waist/position": np.zeros((frames, 2)),
        "action/joint/position": joint + 1,
        "action/effector/position": np.linspace(0, 1, frames)[:, None].repeat(effectors, 1),
        "action/joint/index": np.arange(frames - 2),
    }
    nothing = (
        "state/joint/velocity",
        "state/effector/force",
        "state/robot/position",
        "action/joint/effort",
    )
    with h5py.File(path, "w") as file:
        for name, array in (fields | dict.fromkeys(nothing, EMPTY)).items():
            file[name] = array
    return path


def rows_path(root: Path, task: int, episode: int) -> Path:
    return root / f"proprio_stats/{task}/{episode}/proprio_stats.h5"


def write_data(
    root: Path,
    task: int,
    lengths: Mapping[int, int],
    cameras: Sequence[str] = GRIPPER_CAMERAS,
    effectors: int = 2,
) -> None:
    """Loose files of some episodes (frames by id)."""
    for episode, frames in lengths.items():
        write_rows(rows_path(root, task, episode), frames, effectors)
        for c, camera in enumerate(cameras):
            numbers = [number(c, episode % 64, k) for k in range(frames)]
            write_video(
                root / f"observations/{task}/{episode}/videos/{camera}.mp4", numbers, fps=30
            )
        depth = root / f"observations/{task}/{episode}/depth/head_depth_000000.png"
        depth.parent.mkdir(parents=True, exist_ok=True)
        depth.write_bytes(b"\x89PNG")


def write_agibot(
    root: Path, task: int = 327, lengths: Mapping[int, int] | None = None, **data_options: Any
) -> Path:
    """A whole dataset of one task; each episode has two steps, the second up to its end."""
    lengths = lengths or {648642: 6, 648649: 8}
    write_tasks(
        root, task, [entry(e, [span(0, 2), span(2, n, skill="Place")]) for e, n in lengths.items()]
    )
    write_data(root, task, lengths, **data_options)
    return root


def pack(path: Path, folder: Path, names: Iterable[str]) -> Path:
    """Files and folders below a folder as one tar, by those names, as `tar -cf path -C folder names` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in names:
            archive.add(folder / name, name)
    return path


def write_tar(path: Path, members: Iterable[tuple[tarfile.TarInfo | str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
