"""Tiny DROID recordings as in the raw release; pictures say which frame they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.kits.lerobot_writer import number, write_video

SERIALS = {"ext1": "20103212", "ext2": "22246076", "wrist": "18026681"}


def write_recording(
    lab: Path, run: int, frames: int = 12, *, success: bool = True, **metadata: Any
) -> Path:
    """`metadata`: more of its fields. Joint j of frame k is k + j / 10."""
    folder = (
        lab / ("success" if success else "failure") / "2023-07-07" / f"Fri_Jul__7_09:0{run}:39_2023"
    )
    uuid = f"{lab.name}+236539bc+2023-07-07-09h-0{run}m-39s"
    for c, serial in enumerate(SERIALS.values()):
        write_video(
            folder / f"recordings/MP4/{serial}.mp4",
            [number(c, run, k) for k in range(frames)],
            fps=15,
        )
    facts = {
        "uuid": uuid,
        "lab": lab.name,
        "current_task": "Move object to a new position",
        "success": success,
    }
    facts |= {f"{role}_cam_serial": serial for role, serial in SERIALS.items()} | metadata
    (folder / f"metadata_{uuid}.json").write_text(json.dumps(facts))
    write_rows(folder / "trajectory.h5", frames)
    return folder


def write_rows(
    path: Path, frames: int, added_arrays: Mapping[str, np.ndarray] | None = None
) -> None:
    k = np.arange(frames, dtype=np.float64)
    joints = k[:, None] + np.arange(7) / 10
    gripper = (k >= frames / 2).astype(np.float64)
    with h5py.File(path, "w") as file:
        for group, name in (
            ("observation/robot_state", "joint_positions"),
            ("action", "joint_position"),
        ):
            file[f"{group}/{name}"] = joints
            file[f"{group}/gripper_position"] = gripper
        file["observation/robot_state/cartesian_position"] = joints[:, :6]
        file["observation/timestamp/skip_action"] = np.zeros(frames, bool)
        for name, array in (added_arrays or {}).items():
            file[name] = array
