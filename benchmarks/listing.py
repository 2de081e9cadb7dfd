"""Listing and chunking of a large dataset from metadata alone: CPU seconds and peak memory.

    python -m benchmarks.listing [--episodes N] [--check]

Makes a LeRobot dataset v3.0 of N episodes (default 100,000) of two frames each, whose files of video are empty; lists
it, gives every episode its chunk and split, and publishes all to a lake. `--check` exits 1 when that takes a minute of
CPU, or a gigabyte; an episode or chunk that is lost always does.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Figure, arguments, exit_code, machine, memory_mb
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.config import DatasetBuild
from pipeline.plan import plan
from pipeline.stage import StageContext, run_stage
from pipeline.stages import stage_specs
from warehouse.lake import open_lake

CAMERAS = ("observation.images.front", "observation.images.wrist")
LENGTH = 2
FPS = 15
TASKS = 500
CHUNK = 500
OF_A_FILE = 100
LIMIT_S = 60
LIMIT_MB = 1024


def make(root: Path, episodes: int) -> None:
    video = {"dtype": "video", "shape": [480, 640, 3], "names": None, "info": {"video.fps": FPS}}
    state = {"dtype": "float32", "shape": [7], "names": None}
    features = {"observation.state": state, "action": state} | dict.fromkeys(CAMERAS, video)
    info = {
        "codebase_version": "v3.0",
        "robot_type": "toy",
        "fps": FPS,
        "chunks_size": 1000,
        "features": features,
    }
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    tasks = [f"put object {k} on the table" for k in range(TASKS)]
    pq.write_table(
        pa.table({"task_index": list(range(TASKS)), "task": tasks}), root / "meta/tasks.parquet"
    )
    number = list(range(episodes))
    columns = {
        "episode_index": number,
        "tasks": [[tasks[e % TASKS]] for e in number],
        "length": [LENGTH] * episodes,
        "data/chunk_index": [0] * episodes,
        "data/file_index": [0] * episodes,
    }
    for camera in CAMERAS:
        columns[f"videos/{camera}/chunk_index"] = [0] * episodes
        columns[f"videos/{camera}/file_index"] = [e // OF_A_FILE for e in number]
        for name, k in (("from", 0), ("to", 1)):
            columns[f"videos/{camera}/{name}_timestamp"] = [
                (e % OF_A_FILE + k) * LENGTH / FPS for e in number
            ]
        (root / f"videos/{camera}/chunk-000").mkdir(parents=True)
        for file in range(-(-episodes // OF_A_FILE)):
            (root / f"videos/{camera}/chunk-000/file-{file:03d}.mp4").touch()
    pq.write_table(pa.table(columns), root / "meta/episodes/chunk-000/file-000.parquet")
    (root / "data/chunk-000").mkdir(parents=True)
    rows = {
        "episode_index": np.repeat(number, LENGTH),
        "frame_index": np.tile(np.arange(LENGTH), episodes),
    }
    pq.write_table(
        pa.table(rows | {"timestamp": rows["frame_index"] / FPS}),
        root / "data/chunk-000/file-000.parquet",
    )


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument("--episodes", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "made", args.episodes)
        space = Workspace(Path(folder) / "workspace")
        build = DatasetBuild(
            dataset=DatasetConfig(name="made", source=f"{folder}/made", chunk_size=CHUNK)
        )
        start = time.process_time()
        lake = open_lake(space)
        source = build.source(space.sources)
        (step,) = plan(lake, {build.name: stage_specs(build)}, {build.name: source.fingerprint()})
        run_stage(StageContext(lake, build, step, source))
        cpu_s = time.process_time() - start
        peak = memory_mb(os.getpid())[1]
        counts = lake.rows(
            "SELECT count(*), count(DISTINCT chunk), (SELECT count(*) FROM splits) FROM episode_facts"
        )
    print(
        f"{counts[0][0]:,} episodes listed, split and published in {cpu_s:.1f} s of CPU, {peak:.0f} MB; {machine()}"
    )
    if counts != [(args.episodes, -(-args.episodes // CHUNK), args.episodes)]:
        sys.exit(f"episodes, chunks and episodes with a split are {counts[0]}")
    figures = (
        Figure("CPU", cpu_s, LIMIT_S, "s", smaller=True),
        Figure("memory", peak, LIMIT_MB, "MB", smaller=True),
    )
    return exit_code(figures, args.check)


if __name__ == "__main__":
    sys.exit(main())
