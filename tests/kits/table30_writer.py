"""Tiny Table30 datasets, each robot's as published; pictures say which frame they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kits.lerobot_writer import film_of
from tests.kits.parts import put

START_S = 1750405586.3430033
CAMERAS = {
    "arx5": ("arm_realsense_rgb", "global_realsense_rgb", "right_realsense_rgb"),
    "ur5": ("global_realsense_rgb", "handeye_realsense_rgb"),
    "franka": ("handeye_realsense_rgb", "main_realsense_rgb", "side_realsense_rgb"),
    "aloha": ("cam_high_rgb", "cam_wrist_left_rgb", "cam_wrist_right_rgb"),
}


def frame(robot: str, k: int, arm: int = 0) -> dict[str, Any]:
    """Joint j of frame k is k + j / 10 + 100 arm; the gripper as each robot gives it; milliseconds
    since an epoch."""
    joints = [k + j / 10 + 100 * arm for j in range(7 if robot == "franka" else 6)]
    time = {"timestamp": START_S * 1000 + 1000 * k / 30}
    match robot:
        case "arx5":
            end_fields: dict[str, Any] = {"end_effector_pose": [0.0] * 6, "gripper_width": k / 100}
        case "ur5":
            end_fields = {"ee_positions": [0.0] * 7, "gripper": min(5 * k, 255)}
        case "franka":
            end_fields = {"ee_positions": [0.0] * 7, "gripper": [0, 1], "gripper_width": [k / 100]}
        case _:
            master = [9.0] * 6
            return {
                "joint_positions": master,
                "joint_vel": [0.0] * 7,
                "qpos": joints,
                "gripper": k / 100 + arm,
            } | time
    return {"joint_positions": joints} | end_fields | time


def write_task(
    root: Path, name: str, robot: str, lengths: Mapping[int, int], prompt: str | None = "do it"
) -> Path:
    """One task's folder; `prompt` is in its metadata."""
    described = {"task_name": name, "scoring": "...", "task_tag": [robot.upper()]}
    described |= {} if prompt is None else {"prompt": prompt}
    video = {"fps": 30, "ext": "mp4", "encoding": {"vcodec": "libx264", "pix_fmt": "yuv420p"}}
    info = {"robot_id": f"{robot}_1", "task_desc": described, "video_info": video}
    files: dict[str, Any] = {"task_desc.json": described, "meta/task_info.json": info}
    arms = {"left_states": 0, "right_states": 1} if robot == "aloha" else {"states": 0}
    for episode, frames in lengths.items():
        folder = f"data/episode_{episode:06d}"
        files[f"{folder}/meta/episode_meta.json"] = {
            "episode_index": episode,
            "start_time": START_S,
            "end_time": START_S + frames / 30,
            "frames": frames,
        }
        for arm_name, arm in arms.items():
            rows = [frame(robot, k, arm) for k in range(frames)]
            files[f"{folder}/states/{arm_name}.jsonl"] = rows
        for c, camera in enumerate(CAMERAS[robot]):
            numbers = film_of(c, episode, frames)
            files[f"{folder}/videos/{camera}.mp4"] = numbers
    return put(root / name, files, fps=30)
