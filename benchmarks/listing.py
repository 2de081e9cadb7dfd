"""Listing and chunking of large datasets from metadata alone: seconds and peak memory.

    python -m benchmarks.listing [--episodes N]

Makes two metadata-only LeRobot datasets, v2.1 (JSON lines) and v3.0 (Parquet), of N episodes each (default 100,000),
with no row and no video; lists both, gives every episode its chunk and split, and publishes all to a lake. Exits 1
when that takes a minute, or a gigabyte, or an episode or chunk is lost.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import arguments, memory_mb
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.config import DatasetBuild
from pipeline.plan import plan
from pipeline.stage import StageContext, run_stage
from pipeline.stages import stage_specs
from warehouse.lake import Lake, open_lake

CAMERAS = ("observation.images.front", "observation.images.wrist")
LENGTH, TASKS, CHUNK = 150, 500, 500
LIMIT_S, LIMIT_MB = 60, 1024


def info(version: str) -> dict:
    video = {"dtype": "video", "shape": [480, 640, 3], "names": None, "info": {"video.fps": 15}}
    state = {"dtype": "float32", "shape": [7], "names": None}
    features = {"observation.state": state, "action": state} | dict.fromkeys(CAMERAS, video)
    return {"codebase_version": version, "robot_type": "toy", "fps": 15, "chunks_size": 1000, "features": features}


def tasks_of(episode: int) -> list[str]:
    return [f"put object {episode % TASKS} on the table"]


def write_v21(root: Path, episodes: int) -> None:
    meta = root / "meta"
    meta.mkdir(parents=True)
    (meta / "info.json").write_text(json.dumps(info("v2.1")))
    with (meta / "tasks.jsonl").open("w") as f:
        f.writelines(json.dumps({"task_index": t, "task": tasks_of(t)[0]}) + "\n" for t in range(TASKS))
    with (meta / "episodes.jsonl").open("w") as f:
        for e in range(episodes):
            f.write(json.dumps({"episode_index": e, "tasks": tasks_of(e), "length": LENGTH}) + "\n")
    (meta / "episodes_stats.jsonl").touch()


def write_v30(root: Path, episodes: int) -> None:
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info("v3.0")))
    tasks = {"task_index": range(TASKS), "task": [tasks_of(t)[0] for t in range(TASKS)]}
    pq.write_table(pa.table({k: list(v) for k, v in tasks.items()}), root / "meta/tasks.parquet")
    number = list(range(episodes))
    table = {
        "episode_index": number,
        "tasks": [tasks_of(e) for e in number],
        "length": [LENGTH] * episodes,
        "data/chunk_index": [0] * episodes,
        "data/file_index": [e // 1000 for e in number],
    }
    for camera in CAMERAS:
        table[f"videos/{camera}/chunk_index"] = [0] * episodes
        table[f"videos/{camera}/file_index"] = [e // 100 for e in number]
        table[f"videos/{camera}/from_timestamp"] = [e % 100 * LENGTH / 15 for e in number]
        table[f"videos/{camera}/to_timestamp"] = [(e % 100 + 1) * LENGTH / 15 for e in number]
    pq.write_table(pa.table(table), root / "meta/episodes/chunk-000/file-000.parquet")


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--episodes", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        writers = {"v21": write_v21, "v30": write_v30}
        for name, write in writers.items():
            write(Path(folder) / name, args.episodes)
        space = Workspace(Path(folder) / "workspace")
        builds = [
            DatasetBuild(dataset=DatasetConfig(name=n, source=str(Path(folder) / n), chunk_size=CHUNK)) for n in writers
        ]
        start = time.perf_counter()
        list_only(space, builds)
        seconds = time.perf_counter() - start
        peak = memory_mb(os.getpid())[1]
        lake = Lake(space, read_only=True)
        found = lake.rows("SELECT dataset, count(*), count(DISTINCT chunk) FROM episode_facts GROUP BY 1 ORDER BY 1")
        split = lake.rows("SELECT count(*) FROM splits")[0][0]
    print(f"2 x {args.episodes} episodes listed, split and published in {seconds:.1f} s, peak memory {peak:.0f} MB")
    chunks = -(-args.episodes // CHUNK)
    whole = found == [(n, args.episodes, chunks) for n in writers] and split == 2 * args.episodes
    if not whole:
        print(f"error: expected {args.episodes} episodes in {chunks} chunks each, found {found}", file=sys.stderr)
    return int(not whole or seconds > LIMIT_S or peak > LIMIT_MB)


def list_only(space: Workspace, builds: list[DatasetBuild]) -> None:
    """The episodes stage of each dataset, as a build begins: no episode has anything to measure."""
    lake = open_lake(space)
    for build in builds:
        source = build.source(space.sources)
        (step,) = plan(lake, {build.name: stage_specs(build)}, {build.name: source.fingerprint()})
        run_stage(StageContext(lake, build, step, source))


if __name__ == "__main__":
    sys.exit(main())
