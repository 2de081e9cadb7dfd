"""Does memory grow with a dataset? Each stage of a build, and each command, at one and at ten times the size.

    python -m benchmarks.memory [--episodes 300] [--check]

Plain videos of 20 frames of 128x96 px, each of a pattern of its own, in chunks of 50 episodes; labels by `motion`. The
build is one process, which forgets the most memory that it has had at the begin of each stage: so each stage has a peak
of its own, on top of what the process holds. Every command is a process of its own. Ten times the episodes may take a
quarter more memory; `--check` exits 1 where that is missed by more than 15 %.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.busy import MOST_GROWTH, tell_task
from benchmarks.explorer import memory_mb, serving
from benchmarks.pipeline import encode_all
from benchmarks.tables import is_missed, table
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.build import run_build
from pipeline.chunk import StageMoment
from pipeline.config import DatasetBuild, StageConfigs
from warehouse.lake import Lake

CHUNK, TIMES = 50, 10
WIDTH, HEIGHT, FRAMES = 128, 96, 20
ELSE = "listing, planning and all else"
# By a small process: a new one begins with the peak of the one that starts it
LAUNCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
COMMANDS = {
    "status": ("status",),
    "sql": ("sql", "SELECT camera, count(*), avg(visual_change) FROM frames GROUP BY ALL"),
    "release create": ("release", "create", "memory", "--allow-licence", "unknown"),
    "release verify": ("release", "verify", "memory"),
    "export lerobot": ("export", "lerobot", "--release", "memory", "--allow-licence", "unknown"),
    "export datasets": ("export", "datasets", "--release", "memory", "--allow-licence", "unknown"),
    "doctor": ("doctor",),
    "gc": ("gc", "--yes"),
}


def make(folder: Path, episodes: int) -> None:
    """Pictures that no two episodes share: a release would find test data among those for training."""
    folder.mkdir()
    for k in range(episodes):
        cells = np.random.default_rng(k).integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
        whole = cv2.resize(cells, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        shown = (np.roll(whole, 3 * min(t, FRAMES // 2), axis=1) for t in range(FRAMES))
        encode_all("h264", folder / f"episode_{k:05d}.mp4", shown)
        tell_task(folder / f"episode_{k:05d}.json", k)


def build(folder: Path, space: Path) -> None:
    """Run in a process of its own: prints the most megabytes of each stage."""
    peaks: dict[str, float] = {}

    def tell(moment: StageMoment) -> None:
        stage = ELSE if moment.duration_s is None and not moment.episodes else moment.stage
        peaks[stage] = max(peaks.get(stage, 0.0), memory_mb(os.getpid())[1])
        forget_peak()

    config = DatasetConfig(name="videos", source=str(folder), chunk_size=CHUNK)
    forget_peak()
    report = run_build(Workspace(space), [DatasetBuild(dataset=config, stages=StageConfigs())], 1, on_moment=tell)
    if report.failed:
        sys.exit(report.failed[0].trace)
    tell(StageMoment("videos", 0, ELSE, 0.0))
    print(json.dumps(peaks))


def forget_peak() -> None:
    """The most memory that this process has had is what it has now."""
    Path("/proc/self/clear_refs").write_text("5")


def built(folder: Path, space: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--build", str(folder), str(space)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if said.returncode:
        sys.exit(f"the build of {folder.name} failed")
    return json.loads(said.stdout.splitlines()[-1])


def command_mb(words: tuple[str, ...], space: Path) -> float:
    """The most megabytes of a command's own process."""
    command = [sys.executable, "-m", "proccorpus", *words, "--workspace", str(space)]
    done = subprocess.run([sys.executable, "-c", LAUNCH, *command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed")
    return float(done.stdout) / 1024


def measured(folder: Path) -> dict[str, float]:
    """Most megabytes, by stage and by command."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        space, outside = Path(name) / "space", Path(name)
        peaks = {f"build: {stage}": mb for stage, mb in built(folder, space).items()}
        peaks["build again"] = max(built(folder, space).values())
        for title, words in COMMANDS.items():
            out = ("--out", str(outside / title.replace(" ", "-"))) if words[0] == "export" else ()
            peaks[title] = command_mb((*words, *out), space)
            print(f"{folder.name}: {title}: {peaks[title]:.0f} MB", file=sys.stderr, flush=True)
        with serving(Workspace(space)) as (_, pid, _):
            peaks["explorer, the first page"] = memory_mb(pid)[1]
        lake = Lake(Workspace(space), read_only=True)
        episodes, frames = lake.rows("SELECT count(*), sum(num_frames) FROM episode_content")[0]
        print(f"{episodes:,} episodes, {frames:,} frames", flush=True)
    return peaks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=300, help="of the smaller dataset")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed by more than 15 %%")
    parser.add_argument("--build", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        build(*given.build)
        return 0
    with tempfile.TemporaryDirectory() as name:
        found = []
        for episodes in (given.episodes, TIMES * given.episodes):
            folder = Path(name) / f"{episodes}"
            make(folder, episodes)
            found.append(measured(folder))
    small, large = found
    table(
        ("", "MB", f"MB at {TIMES} times the episodes", f"growth (goal {MOST_GROWTH})"),
        [(part, f"{small[part]:.0f}", f"{large[part]:.0f}", f"{large[part] / small[part]:.2f}") for part in large],
    )
    missed = [part for part in large if is_missed(large[part] / small[part], MOST_GROWTH, smaller_is_better=True)]
    for part in missed:
        print(f"Missed: {part}: {large[part]:.0f} instead of {small[part]:.0f} MB")
    return int(given.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
