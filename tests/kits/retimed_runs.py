"""Several runs of one task made of a real one: its pictures and rows at other paces, in LeRobot v2.0 with h264.

Of each frame of each run it is known which frame of the real run it shows, so what is like what is known, too.
"""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.kits.lerobot_writer import write_video
from tests.kits.real_data import GR1

FPS = 10
TASK = "pick the cupcake from the counter and place it in the plate"
CAMERA = "observation.images.ego_view"
REAL = 4  # its number, in file names
FRAMES = 328  # of the real run, at 20 a second


def paces() -> list[np.ndarray]:
    """By run, the frame of the real one that each of its frames shows.

    The second is slower at first and quicker later, the third waits for two seconds, the fourth stops at six tenths.
    """
    last = FRAMES - 1
    even = np.arange(0, FRAMES, 2)
    bent = last * np.linspace(0, 1, 180) ** 1.3
    waiting = np.concatenate([even[:80], np.full(20, even[80]), even[80:]])
    return [np.round(pace).astype(np.int64) for pace in (even, bent, waiting, even[: int(0.6 * len(even))])]


def make_runs(root: Path) -> Path:
    """The dataset; returns its folder."""
    (root / "meta").mkdir(parents=True)
    for name in ("modality.json", "stats.json"):
        shutil.copy(GR1 / "meta" / name, root / "meta" / name)
    info = json.loads((GR1 / "meta/info.json").read_text())
    runs = paces()
    info |= {"total_episodes": len(runs), "total_frames": sum(map(len, runs)), "total_tasks": 1, "fps": FPS}
    info |= {"data_path": "data/episode_{episode_index:06d}.parquet"}
    info |= {"video_path": "videos/{video_key}/episode_{episode_index:06d}.mp4"}
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": TASK}) + "\n")
    episodes = [{"episode_index": e, "tasks": [TASK], "length": len(pace)} for e, pace in enumerate(runs)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in episodes))

    rows = pq.read_table(GR1 / f"data/chunk-000/episode_{REAL:06d}.parquet")
    with av.open(str(GR1 / f"videos/chunk-000/{CAMERA}/episode_{REAL:06d}.mp4")) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    (root / "data").mkdir()
    (root / "videos" / CAMERA).mkdir(parents=True)
    for episode, pace in enumerate(runs):
        _write_rows(root / f"data/episode_{episode:06d}.parquet", rows, episode, pace)
        _write_video(root / f"videos/{CAMERA}/episode_{episode:06d}.mp4", [pictures[k] for k in pace], 4 * episode)
    return root


def _write_rows(path: Path, rows: pa.Table, episode: int, pace: np.ndarray) -> None:
    run = rows.select(["observation.state", "action"]).take(pa.array(pace))
    n = len(pace)
    numbers = {"timestamp": np.arange(n) / FPS, "frame_index": np.arange(n)}
    numbers |= {"episode_index": np.full(n, episode), "task_index": np.zeros(n, np.int64)}
    for name, values in numbers.items():
        run = run.append_column(name, pa.array(values))
    pq.write_table(run.replace_schema_metadata(None), path)


def _write_video(path: Path, pictures: list[np.ndarray], brighter: int) -> None:
    lit = [np.minimum(picture.astype(np.int16) + brighter, 255).astype(np.uint8) for picture in pictures]
    write_video(path, lit, options={"crf": "20", "preset": "ultrafast", "g": "10"})
