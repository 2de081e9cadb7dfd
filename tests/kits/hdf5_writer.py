"""Tiny HDF5 files as LIBERO, robomimic, ALOHA/ACT and RoboTwin write them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.kits.lerobot_writer import number, picture
from tests.kits.parts import put

MARK = b"\xff\xfe\x00\x0aXPL-RGB1"  # with which newer RoboTwin marks JPEGs whose colours are right


def film(camera: int, episode: int, frames: int) -> np.ndarray:
    """uint8 [t, h, w, 3]"""
    return np.stack([picture(number(camera, episode, k)) for k in range(frames)])


def jpeg(rgb: np.ndarray) -> bytes:
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert ok
    return data.tobytes()


def swapped_jpeg(rgb: np.ndarray) -> bytes:
    """As RoboTwin did it: RGB handed to an encoder that takes BGR."""
    return jpeg(rgb[:, :, ::-1])


def marked_jpeg(rgb: np.ndarray) -> bytes:
    data = jpeg(rgb)
    end = 4 + int.from_bytes(data[4:6], "big")  # of the first segment, after which the comment goes
    return data[:end] + MARK + data[end:]


def padded_rows(encoded: Sequence[bytes]) -> np.ndarray:
    longest = max(map(len, encoded)) + 7
    return np.stack([np.frombuffer(e.ljust(longest, b"\0"), np.uint8) for e in encoded])


def write_libero(
    path: Path,
    demos: Mapping[int, int],
    instruction: str | None = "turn on the stove",
) -> Path:
    """`demos` are lengths by number. Row k of a demo: ee_states 6 x k, fingers k/100 and -k/100,
    actions k."""
    facts = {
        "macros_image_convention": "opengl",
        "tag": "libero-v1",
        "env_args": json.dumps({"env_kwargs": {}}),
        "total": sum(demos.values()),
        "num_demos": len(demos),
    }
    if instruction is not None:
        problem = {"problem_name": "libero_kitchen", "domain_name": "robosuite"}
        facts["problem_info"] = json.dumps(problem | {"language_instruction": instruction})
    tree: dict[str, Any] = {f"data@{k}": value for k, value in facts.items()}
    for demo, length in demos.items():
        k = np.arange(length, dtype=np.float64)
        last = (np.arange(length) == length - 1).astype(np.uint8)
        arrays = {
            "dones": last,
            "rewards": last,
            "actions": np.tile(k[:, None], 7),
            "states": np.zeros((length, 92)),
            "obs/ee_states": np.tile(k[:, None], 6),
            "obs/gripper_states": np.stack([k / 100, -k / 100], axis=1),
            "obs/joint_states": np.zeros((length, 7)),
            "obs/agentview_rgb": film(0, demo, length)[:, ::-1],
            "obs/eye_in_hand_rgb": film(1, demo, length)[:, ::-1],
        }
        tree |= {f"data/demo_{demo}/{name}": values for name, values in arrays.items()}
        tree[f"data/demo_{demo}@num_samples"] = length
    return written(path, tree)


def written(path: Path, tree: Mapping[str, Any]) -> Path:
    put(path.parent, {path.name: tree})
    return path


def write_robomimic(
    path: Path, length: int, reward: float = 1.0, env: Mapping[str, Any] | None = None
) -> Path:
    """`reward` is that of the last row."""
    tree: dict[str, Any] = {
        "data@env_args": json.dumps({"env_name": "Lift"} | dict(env or {})),
        "data/demo_0/actions": np.zeros((length, 7)),
        "data/demo_0/rewards": np.where(np.arange(length) == length - 1, reward, 0.0),
        "data/demo_0/dones": np.ones(length),
        "mask/train": np.array([b"demo_0"]),
    }
    obs = {
        "robot0_eef_pos": np.tile(np.arange(length)[:, None], 3),
        "robot0_eef_quat": np.zeros((length, 4)),
        "robot0_gripper_qpos": np.tile([0.03, -0.03], (length, 1)),
        "agentview_image": {"data": film(0, 0, length), "compression": "gzip"},
        "agentview_depth": np.zeros((length, 64, 64, 1), np.uint8),
        "object": np.zeros((length, 10)),
    }
    for group in ("obs", "next_obs"):
        tree |= {f"data/demo_0/{group}/{name}": values for name, values in obs.items()}
    return written(path, tree)


def write_aloha(
    path: Path,
    episode: int,
    length: int,
    store: Callable[[Sequence[bytes]], np.ndarray] | None = None,
    cameras: Sequence[str] = ("cam_high", "cam_left_wrist"),
    **stored_arrays: Any,
) -> Path:
    """qpos[k] = (k, ..., k) with the grippers k/10 and k/20."""
    qpos = np.tile(np.arange(length, dtype=np.float64)[:, None], 14)
    qpos[:, 6] /= 10
    qpos[:, 13] /= 20
    tree: dict[str, Any] = {"/@sim": False, "/@compress": store is not None}
    tree |= dict.fromkeys(("observations/qpos", "observations/qvel", "action"), qpos)
    for c, camera in enumerate(cameras):
        pictures = film(c, episode, length)
        if store is not None:
            pictures = store([jpeg(p) for p in pictures])
        tree[f"observations/images/{camera}"] = pictures
    return written(path, tree | stored_arrays)


def write_robotwin(config: Path, episode: int, length: int, texts: Any = None) -> Path:
    """`config` is the folder <task>/<config>. Joints are k, the left gripper k/10 and the right one
    k/20."""
    k = np.arange(length, dtype=np.float64)
    arm = np.tile(k[:, None], 6)
    joints = {"left_arm": arm, "left_gripper": k / 10, "right_arm": arm, "right_gripper": k / 20}
    tree: dict[str, Any] = {f"joint_action/{name}": values for name, values in joints.items()}
    tree["joint_action/vector"] = np.column_stack(list(joints.values()))
    tree["endpose/left_endpose"] = np.zeros((length, 7))
    for c, camera in enumerate(("head_camera", "left_camera", "right_camera")):
        encoded = [swapped_jpeg(p) for p in film(c, episode, length)]
        width = max(map(len, encoded)) + 7
        tree[f"observation/{camera}/rgb"] = np.array(encoded, dtype=f"S{width}")
        tree[f"observation/{camera}/intrinsic_cv"] = np.zeros((length, 3, 3))
        tree[f"observation/{camera}/depth"] = np.zeros((length, 8, 8))
    if texts is not None:
        put(config, {f"instructions/episode{episode}.json": texts})
    return written(config / f"data/episode{episode}.hdf5", tree)
