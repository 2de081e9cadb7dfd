"""Several runs of one task made of a real one: its pictures and rows at other paces, in LeRobot
v2.0 with h264.

Of each frame of each run it is known which frame of the real run it shows, so what is like what is
known, too.
"""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.kits.lerobot_writer import (
    V2_DATA,
    V2_VIDEO,
    episode_rows,
    v2_data,
    v2_video,
    write_parquet,
    write_v2_meta,
    write_video,
)
from tests.kits.real_data import GR1

FPS = 10
TASK = "pick the cupcake from the counter and place it in the plate"
CAMERA = "observation.images.ego_view"
REAL = 4  # its number, in file names
FRAMES = 328  # of the real run, at 20 a second


def paces() -> list[np.ndarray]:
    """By run, the frame of the real one that each of its frames shows.

    The second is slow first and quick later, the third waits for two seconds, the fourth stops at
    six tenths.
    """
    last = FRAMES - 1
    even = np.arange(0, FRAMES, 2)
    bent = last * np.linspace(0, 1, 180) ** 1.3
    waiting = np.concatenate([even[:80], np.full(20, even[80]), even[80:]])
    return [
        np.round(pace).astype(np.int64)
        for pace in (even, bent, waiting, even[: int(0.6 * len(even))])
    ]


def make_runs(root: Path) -> Path:
    """The dataset; returns its folder."""
    runs = paces()
    info = json.loads((GR1 / "meta/info.json").read_text())
    info |= {
        "total_episodes": len(runs),
        "total_frames": sum(map(len, runs)),
        "total_tasks": 1,
        "fps": FPS,
    }
    info |= {
        "data_path": V2_DATA,
        "video_path": V2_VIDEO,
    }  # its own lead nowhere but for its one episode
    write_v2_meta(root, dict(enumerate(map(len, runs))), [TASK], **info)
    for name in ("modality.json", "stats.json"):
        shutil.copy(GR1 / "meta" / name, root / "meta" / name)

    rows = pq.read_table(GR1 / f"data/chunk-000/episode_{REAL:06d}.parquet")
    with av.open(str(GR1 / f"videos/chunk-000/{CAMERA}/episode_{REAL:06d}.mp4")) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    for episode, pace in enumerate(runs):
        run = rows.select(["observation.state", "action"]).take(pa.array(pace))
        run_columns = {name: run[name] for name in run.column_names}
        write_parquet(
            v2_data(root, episode), episode_rows(episode, len(pace), FPS, 0) | run_columns
        )
        # Each run a little brighter than the one before
        lit = [
            np.minimum(pictures[k].astype(np.int16) + 4 * episode, 255).astype(np.uint8)
            for k in pace
        ]
        encoder_options = {"crf": "20", "preset": "ultrafast", "g": "10"}
        write_video(v2_video(root, CAMERA, episode), lit, options=encoder_options)
    return root
