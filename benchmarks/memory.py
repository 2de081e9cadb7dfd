"""Does memory grow with a dataset? Each stage of a build, and each command, at one and at ten times the size.

    python -m benchmarks.memory [--episodes 300]

Plain videos of 20 frames of 128x96 px, each of a pattern of its own, in chunks of 50 episodes; labels by `motion`. The
build is one process, which forgets the most memory that it has had at the begin of each stage: so each stage has a peak
of its own, on top of what the process holds. Every command is a process of its own. Ten times the episodes may take a
quarter more memory;
"""

import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks.busy import tell_task
from benchmarks.explorer import exploring
from benchmarks.harness import Figure, apart, measure, memory_mb
from benchmarks.pipeline import encode_all
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.build import BuildListener, run_build
from pipeline.config import DatasetBuild, StageConfigs
from pipeline.stage import StageMoment
from warehouse.lake import Lake

CHUNK = 50
TIMES = 10
MOST_GROWTH = 1.25
WIDTH = 128
HEIGHT = 96
FRAMES = 20
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
        pictures = (np.roll(whole, 3 * min(t, FRAMES // 2), axis=1) for t in range(FRAMES))
        encode_all("h264", folder / f"episode_{k:05d}.mp4", pictures)
        tell_task(folder / f"episode_{k:05d}.json", k)


def build(folder: str, space: str) -> dict[str, float]:
    """The most megabytes of each stage; in a process of its own."""
    peaks: dict[str, float] = {}

    class Peaks(BuildListener):
        def moment(self, moment: StageMoment) -> None:
            stage = ELSE if moment.duration_s is None and not moment.episodes else moment.stage
            peaks[stage] = max(peaks.get(stage, 0.0), memory_mb(os.getpid())[1])
            forget_peak()

    peaks_of_stages = Peaks()
    config = DatasetConfig(name="videos", source=folder, chunk_size=CHUNK)
    forget_peak()
    report = run_build(
        Workspace(Path(space)),
        [DatasetBuild(dataset=config, stages=StageConfigs())],
        1,
        peaks_of_stages,
    )
    if report.failed:
        sys.exit(report.failed[0].trace)
    peaks_of_stages.moment(StageMoment("videos", 0, ELSE, 0.0))
    return peaks


def forget_peak() -> None:
    """The most memory that this process has had is what it has now."""
    Path("/proc/self/clear_refs").write_text("5")


def command_mb(words: tuple[str, ...], space: Path) -> float:
    """The most megabytes of a command's own process."""
    command = [sys.executable, "-m", "proccorpus", *words, "--workspace", str(space)]
    process = subprocess.run(
        [sys.executable, "-c", LAUNCH, *command], stdout=subprocess.PIPE, text=True
    )
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed")
    return float(process.stdout) / 1024


def measured(folder: Path) -> dict[str, float]:
    """Most megabytes, by stage and by command."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        space = Path(name) / "space"
        out_folder = Path(name)
        peaks = {
            f"build: {stage}": mb for stage, mb in apart(build, str(folder), str(space)).items()
        }
        peaks["build again"] = max(apart(build, str(folder), str(space)).values())
        for title, words in COMMANDS.items():
            if words[0] == "export":
                out = ("--out", str(out_folder / title.replace(" ", "-")))
            else:
                out = ()
            peaks[title] = command_mb((*words, *out), space)
            print(f"{folder.name}: {title}: {peaks[title]:.0f} MB", file=sys.stderr, flush=True)
        with exploring(space) as (_, pid, _):
            peaks["explorer, the first page"] = memory_mb(pid)[1]
        lake = Lake(Workspace(space), read_only=True)
        episodes, frames = lake.rows("SELECT count(*), sum(num_frames) FROM episode_content")[0]
        print(f"{episodes:,} episodes, {frames:,} frames", flush=True)
    return peaks


def figures(args: Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name:
        memory_by_part = []
        for episodes in (args.episodes, TIMES * args.episodes):
            folder = Path(name) / f"{episodes}"
            make(folder, episodes)
            memory_by_part.append(measured(folder))
    small, large = memory_by_part
    for part in large:
        growth = large[part] / small[part]
        note = f"{small[part]:.0f} and {large[part]:.0f} MB"
        yield Figure(part, growth, MOST_GROWTH, "times the memory", smaller=True, note=note)


if __name__ == "__main__":
    measure(__doc__, figures, episodes=300)
