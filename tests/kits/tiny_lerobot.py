"""A tiny LeRobot v2.0 dataset: real h264 and Parquet, small enough to be built in a second."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS = 5
WIDTH, HEIGHT = 64, 48
CAMERA = "observation.images.front"
TASKS = ("put the cube on the plate", "open the drawer")
LENGTHS = (24, 18, 30, 12, 26)  # frames of episodes 0, 1, ...
NAMED = (0, 2, 4)  # episodes whose grippers show the steps that the task asks for; of the others only time is known
STATE_NAMES = ["x", "y", "gripper"]


def video_path(root: Path, episode: int) -> Path:
    return root / f"videos/chunk-000/{CAMERA}/episode_{episode:06d}.mp4"


def rows_path(root: Path, episode: int) -> Path:
    return root / f"data/chunk-000/episode_{episode:06d}.parquet"


def make_dataset(root: Path, lengths: Sequence[int] = LENGTHS) -> Path:
    """Episodes of the given lengths; every second one has the other task. Returns the root."""
    features = {
        "observation.state": {"dtype": "float32", "shape": [len(STATE_NAMES)], "names": STATE_NAMES},
        CAMERA: {
            "dtype": "video",
            "shape": [HEIGHT, WIDTH, 3],
            "names": ["height", "width", "channel"],
            "info": {"video.fps": float(FPS), "video.codec": "h264"},
        },
        **{name: {"dtype": "int64", "shape": [1], "names": None} for name in ("frame_index", "task_index")},
    }
    info = {
        "codebase_version": "v2.0",
        "robot_type": "tiny_arm",
        "fps": FPS,
        "chunks_size": 1000,
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    write_lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(TASKS)])
    write_lines(
        root / "meta/episodes.jsonl",
        [{"episode_index": e, "tasks": [TASKS[e % 2]], "length": n} for e, n in enumerate(lengths)],
    )
    for episode, n in enumerate(lengths):
        write_rows(root, episode, n)
        write_video(root, episode, n)
    return root


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def signals(episode: int, n: int) -> np.ndarray:
    """State [n, 3]: the arm moves, closes the gripper in the middle and moves on; speeds differ by episode."""
    t = np.linspace(0.0, 1.0, n)
    x = t * (1.0 + 0.2 * episode)
    y = np.sin(3.0 * t + episode)
    gripper = np.clip(4.0 * (0.6 - t), 0.0, 1.0)
    return np.stack([x, y, gripper], axis=1).astype(np.float32)


def write_rows(root: Path, episode: int, n: int, scale: float = 1.0, like: int | None = None) -> None:
    """Rows of one episode; another `scale` gives other states, `like` those of another episode."""
    path = rows_path(root, episode)
    path.parent.mkdir(parents=True, exist_ok=True)
    states = signals(episode if like is None else like, n)
    table = pa.table(
        {
            "observation.state": pa.array((states * np.float32([scale, 1.0, 1.0])).tolist(), pa.list_(pa.float32(), 3)),
            "timestamp": pa.array(np.arange(n) / FPS, pa.float32()),
            "frame_index": pa.array(np.arange(n), pa.int64()),
            "episode_index": pa.array(np.full(n, episode), pa.int64()),
            "task_index": pa.array(np.full(n, episode % 2), pa.int64()),
        }
    )
    pq.write_table(table, path)


def write_video(root: Path, episode: int, n: int, grey: int = 60) -> None:
    """A bright square that follows the state over a textured ground; another `grey` gives other pictures."""
    path = video_path(root, episode)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = signals(episode, n)
    ground = np.full((HEIGHT, WIDTH, 3), grey, np.uint8)
    ground[:, ::8] += 40
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for k in range(n):
            picture = ground.copy()
            left = int(state[k, 0] / 2.0 * (WIDTH - 16)) % (WIDTH - 16)
            top = int((state[k, 1] + 1.0) / 2.0 * (HEIGHT - 16))
            picture[top : top + 16, left : left + 16] = (230, 40 * (episode % 5), 30)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
