"""What exports cost: time and memory of `lerobot` over many episodes, and of `rabc` over many frames.

    python -m benchmarks.exports lerobot [--episodes 10000] [--frames 20] [--folder DIR]
    python -m benchmarks.exports rabc [--episodes 33334] [--frames 300] [--folder DIR]

A LeRobot v2.0 dataset of equal episodes is written and listed; labels of five segments each are put into the lake as
the stages would. Wrong counts fail. Each part of the work runs in a process of its own, so that memory is the export's.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from core.paths import Workspace
from pipeline.config import source_build
from pipeline.plan import MISSING
from pipeline.stage import StageContext, Step, run_stage
from pipeline.stages import LISTING
from tests.kits.tiny_lerobot import make_dataset, rows_path, video_path, write_lines
from warehouse.exports import EXPORT_KINDS, rabc
from warehouse.exports.options import Selection
from warehouse.lake import Lake

SEGMENTS = 5
ANY = Selection(allow=("unknown",))
LABELS = {
    "episode_content": "SELECT dataset, episode_index, chunk, num_rows, fps, 0.0, cameras, source_stamp "
    "FROM episode_facts",
    "segments": f"SELECT f.dataset, f.episode_index, 'run', k, f.chunk, 'step ' || k, k * num_rows // {SEGMENTS}, "
    f"(k + 1) * num_rows // {SEGMENTS}, true, 'step', k, {SEGMENTS}, 0.9, NULL "
    f"FROM episode_facts f, range({SEGMENTS}) r(k)",
    "progress": "SELECT f.dataset, f.episode_index, 'run', i, f.chunk, "
    f"i * {SEGMENTS} // num_rows, i / (num_rows - 1), NULL FROM episode_facts f, unnest(range(num_rows)) u(i)",
    "active_runs": "SELECT dataset, episode_index, chunk, 'run', 'named by the configuration' FROM episode_facts",
}


def make(folder: Path, episodes: int, frames: int) -> None:
    """The source (files of one episode under many names) and a lake with its labels."""
    source = make_dataset(folder / "source", [frames])
    rows = pq.read_table(rows_path(source, 0))
    info = json.loads((source / "meta/info.json").read_text())
    (source / "meta/info.json").write_text(json.dumps(info | {"chunks_size": 1_000_000}))
    lines = [{"episode_index": e, "tasks": ["put the cube on the plate"], "length": frames} for e in range(episodes)]
    write_lines(source / "meta/episodes.jsonl", lines)
    assert rows.num_rows == frames
    for e in range(1, episodes):
        rows_path(source, e).hardlink_to(rows_path(source, 0))
        video_path(source, e).hardlink_to(video_path(source, 0))
    lake = Lake(Workspace(folder / "workspace"))
    build = source_build(source, "made", None, None)
    step = Step(LISTING.spec(build), "made", None, MISSING, "new")
    run_stage(StageContext(lake, build, step, build.source(lake.workspace.sources)))
    lake.con.execute("SET threads = 2")
    for table, sql in LABELS.items():
        lake.con.execute(f"INSERT INTO {table} {sql}")


def measured(kind: str, folder: Path) -> dict[str, float]:
    lake = Lake(Workspace(folder / "workspace"), read_only=True)
    started, cpu = time.monotonic(), time.process_time()
    done = EXPORT_KINDS[kind].export(lake, ANY, folder / "out")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.monotonic() - started, time.process_time() - cpu
    return {"episodes": done.episodes, "frames": done.frames, "wall_s": wall, "cpu_s": cpu, "peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("kind", choices=("lerobot", "rabc"))
    parser.add_argument("--episodes", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--part", choices=("make", "export"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    episodes, frames = (10_000, 20) if given.kind == "lerobot" else (33_334, 300)
    episodes, frames = given.episodes or episodes, given.frames or frames
    if given.part == "make":
        make(given.folder, episodes, frames)
        return
    if given.part == "export":
        print(json.dumps(measured(given.kind, given.folder)))
        return
    folder = Path(tempfile.mkdtemp(prefix="exports-", dir=given.folder))
    try:
        again = [sys.executable, "-m", "benchmarks.exports", given.kind, "--episodes", str(episodes)]
        again += ["--frames", str(frames), "--folder", str(folder), "--part"]
        subprocess.run([*again, "make"], check=True)
        out = subprocess.run([*again, "export"], check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(out)
        assert (found["episodes"], found["frames"]) == (episodes, episodes * frames), found
        print({k: round(v, 1) for k, v in found.items()})
        if given.kind == "rabc":
            assert pq.ParquetFile(folder / "out" / rabc.FILE).metadata.num_rows == episodes * frames
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
