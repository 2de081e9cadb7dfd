"""Tiny AgiBot World datasets in the published layout; pictures say which frame they are."""

import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.kits.lerobot_writer import film_of
from tests.kits.parts import put

GRIPPER_CAMERAS = ("head_color", "hand_left_color", "hand_right_color")
NOT_KEPT = (
    "state/joint/velocity",
    "state/effector/force",
    "state/robot/position",
    "action/joint/effort",
)
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
    """`entries`: what the file holds, or its text."""
    name = f"task_info/task_{task}.json"
    return put(root, {name: entries}) / name


def rows(frames: int, effectors: int = 2) -> dict[str, np.ndarray]:
    """Joint j of frame k is k + j / 100; effector e is 10 k + e."""
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
    return fields | dict.fromkeys(NOT_KEPT, EMPTY)


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
        folder = f"observations/{task}/{episode}"
        files: dict[str, Any] = {f"{folder}/depth/head_depth_000000.png": b"\x89PNG"}
        for c, camera in enumerate(cameras):
            numbers = film_of(c, episode % 64, frames)
            files[f"{folder}/videos/{camera}.mp4"] = numbers
        stats = {f"proprio_stats/{task}/{episode}/proprio_stats.h5": rows(frames, effectors)}
        put(root, files | stats, fps=30)


def write_agibot(
    root: Path, task: int = 327, lengths: Mapping[int, int] | None = None, **data_options: Any
) -> Path:
    """A whole dataset of one task; each episode has two steps, the second up to its end."""
    lengths = lengths or {648642: 6, 648649: 8}
    entries = [entry(e, [span(0, 2), span(2, n, skill="Place")]) for e, n in lengths.items()]
    write_tasks(root, task, entries)
    write_data(root, task, lengths, **data_options)
    return root


def pack(path: Path, folder: Path, names: Iterable[str]) -> Path:
    """Files and folders below a folder as one tar, by those names, as `tar -cf path -C folder
    names` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in names:
            archive.add(folder / name, name)
    return path
