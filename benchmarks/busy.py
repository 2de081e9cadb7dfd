"""How busy two workers are while chunks differ in size.

    python -m benchmarks.busy [--minutes 20] [--short 1000]

Builds by two workers, labels by `motion`, of plain videos (h264, 640x480): one episode of so many minutes, which is one
chunk, made of the shipped samples again and again; and so many short episodes of 20 frames.

Twenty times a second it is asked how many threads of the build run, or would if a core were free: 2 of 2 is busy. Time
counts from the first stage of a chunk to the end of the last one. benchmarks.memory measures whether memory grows.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from benchmarks.decoding import repeat_video
from benchmarks.harness import Figure, apart, measure
from benchmarks.pipeline import FPS, encode
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.build import BuildListener, run_build
from pipeline.config import DatasetBuild, StageConfigs
from pipeline.stage import StageMoment
from tests.kits.sql_attacks import below

WORKERS = 2
CLIP = 600
SHORT = 20
CLIPS = 8
EVERY_S = 0.05
BUSY_GOAL = 0.85


def make_long(folder: Path, minutes: int) -> None:
    folder.mkdir()
    clip = folder.parent / "clip.mp4"
    encode("h264", clip, 0, CLIP)
    repeat_video(clip, folder / "episode_000.mp4", minutes * 60 * FPS // CLIP)
    tell_task(folder / "episode_000.json", 0)


def make_short(folder: Path, episodes: int) -> None:
    """A few clips of the shipped sample, again and again."""
    folder.mkdir()
    clips = [folder.parent / f"{folder.name}-{k}.mp4" for k in range(CLIPS)]
    for k, clip in enumerate(clips):
        encode("h264", clip, 37 * k, SHORT)
    for k in range(episodes):
        os.link(clips[k % CLIPS], folder / f"episode_{k:05d}.mp4")
        tell_task(folder / f"episode_{k:05d}.json", k)


def tell_task(path: Path, k: int) -> None:
    path.write_text(json.dumps({"task": f"put block {k % 50} into the tray", "fps": FPS}))


class Times(BuildListener):
    def __init__(self, times: list[float]) -> None:
        self.times = times

    def moment(self, moment: StageMoment) -> None:
        self.times.append(time.monotonic())


def build(folder: str, space: str) -> tuple[float, float, int]:
    """Run in a process of its own: says when the work on chunks began and ended, and how many frames there are."""
    times: list[float] = []
    configured = DatasetBuild(
        dataset=DatasetConfig(name="videos", source=folder), stages=StageConfigs()
    )
    workspace = Workspace(Path(space))
    report = run_build(workspace, [configured], WORKERS, Times(times))
    if report.failed:
        sys.exit(report.failed[0].trace)
    frames = sum(
        int(stage_report.numbers["decoded_frames"])
        for stage_report in report.done
        if stage_report.run.stage == "frames"
    )
    return times[0], times[-1], frames


def watched(folder: Path) -> Figure:
    """Build in a process of its own, and look at it meanwhile."""
    start_time = time.monotonic()
    looks = list[tuple[float, int]]()
    with tempfile.TemporaryDirectory(dir=folder.parent) as space, ThreadPoolExecutor(1) as pool:
        building = pool.submit(apart, build, str(folder), space)
        while not building.done():
            looks.append((time.monotonic(), sum(map(running_threads, below(os.getpid())))))
            time.sleep(EVERY_S)
    start, end, frames = building.result()
    busy = statistics.mean(
        min(count, WORKERS) / WORKERS for time_s, count in looks if start <= time_s <= end
    )
    title = f"{len(list(folder.glob('*.mp4'))):,} episodes keep two workers busy"
    seconds = f"{end - start:.0f} s of chunks of {time.monotonic() - start_time:.0f}"
    return Figure(title, busy, BUSY_GOAL, note=f"{frames:,} frames, {seconds}")


def running_threads(pid: int) -> int:
    """Threads of a process that run, or wait for nothing but a core; 0 where it ended."""
    with suppress(OSError):
        stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(stat.rpartition(")")[2].split()[0] == "R" for stat in stats)
    return 0


def figures(args: Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folders = []
        if args.minutes:
            folders.append(Path(name) / "long")
            make_long(folders[-1], args.minutes)
        if args.short:
            folders.append(Path(name) / "short")
            make_short(folders[-1], args.short)
        yield from map(watched, folders)


if __name__ == "__main__":
    measure(__doc__, figures, minutes=20, short=1000)
