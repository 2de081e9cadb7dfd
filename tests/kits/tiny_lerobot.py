"""A tiny LeRobot v2.0 dataset: real h264 and Parquet, small enough to be built in a second."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.kits import lerobot_writer as writer

FPS = 5
WIDTH = 64
HEIGHT = 48
CAMERA = "observation.images.front"
TASKS = ("put the cube on the plate", "open the drawer")
LENGTHS = (24, 18, 30, 12, 26)  # frames of episodes 0, 1, ...
NAMED = (
    0,
    2,
    4,
)  # episodes whose grippers show the steps that the task asks for; of the others only time is known
STATE_NAMES = ["x", "y", "gripper"]
NONE = range(0)
rows_path = writer.v2_data


def video_path(root: Path, episode: int) -> Path:
    return writer.v2_video(root, CAMERA, episode)


def make_dataset(root: Path, lengths: Sequence[int] = LENGTHS) -> Path:
    """Episodes of the given lengths; every second one has the other task. Returns the root."""
    video_info = {"video.fps": float(FPS), "video.codec": "h264"}
    features = {
        "observation.state": {"dtype": "float32", "shape": [len(STATE_NAMES)], "names": STATE_NAMES},
        CAMERA: {
            "dtype": "video", "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channel"], "info": video_info
        },
    }  # fmt: skip
    about = {"codebase_version": "v2.0", "robot_type": "tiny_arm", "fps": FPS, "features": features}
    writer.write_v2_meta(root, dict(enumerate(lengths)), TASKS, **about)
    for episode, n in enumerate(lengths):
        write_rows(root, episode, n)
        write_video(root, episode, n)
    return root


def signals(episode: int, n: int) -> np.ndarray:
    """State [n, 3]: the arm moves, closes the gripper in the middle and moves on; speeds differ by
    episode."""
    t = np.linspace(0.0, 1.0, n)
    x = t * (1.0 + 0.2 * episode)
    y = np.sin(3.0 * t + episode)
    gripper = np.clip(4.0 * (0.6 - t), 0.0, 1.0)
    return np.stack([x, y, gripper], axis=1).astype(np.float32)


def write_rows(
    root: Path, episode: int, n: int, scale: float = 1.0, source_episode: int | None = None
) -> None:
    """Rows of one episode; another `scale` gives other states, `source_episode` those of another
    episode."""
    states = signals(episode if source_episode is None else source_episode, n) * np.float32(
        [scale, 1.0, 1.0]
    )
    columns = writer.episode_rows(episode, n, FPS, episode % 2)
    del columns["action"]
    columns["observation.state"] = pa.array(states.tolist(), pa.list_(pa.float32(), 3))
    writer.write_parquet(rows_path(root, episode), columns)


def write_video(
    root: Path, episode: int, n: int, grey: int = 60, black: range = NONE, frozen: range = NONE
) -> None:
    """A video of `pictures`."""
    shown = pictures(episode, n, grey, black, frozen)
    writer.write_video(
        video_path(root, episode), shown, fps=FPS, options={"crf": "18", "preset": "ultrafast"}
    )


def pictures(
    episode: int, n: int, grey: int = 60, black: range = NONE, frozen: range = NONE
) -> list[np.ndarray]:
    """A bright square that follows the state over a textured ground; another `grey` gives other
    pictures.

    black, frozen: frames that are black, or show the picture before them. Each is uint8 [HEIGHT,
    WIDTH, 3].
    """
    state = signals(episode, n)
    ground = np.full((HEIGHT, WIDTH, 3), grey, np.uint8)
    ground[:, ::8] += 40
    shown: list[np.ndarray] = []
    for x, y, _ in state:
        left_px = int(x / 2.0 * (WIDTH - 16)) % (WIDTH - 16)
        top = int((y + 1.0) / 2.0 * (HEIGHT - 16))
        shown.append(ground.copy())
        shown[-1][top : top + 16, left_px : left_px + 16] = (230, 40 * (episode % 5), 30)
        number = len(shown) - 1
        if number in black:
            shown[-1][:] = 0
        elif number in frozen:
            shown[-1] = shown[-2]
    return shown
