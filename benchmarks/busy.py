"""How busy two workers are while chunks differ in size, and whether memory grows with a dataset.

    python -m benchmarks.busy [--minutes 20] [--short 10000] [--check]

Builds by two workers, labels by `motion`, of plain videos (h264, 640x480): one episode of so many minutes, which is one
chunk, made of the shipped samples again and again; and so many short episodes of 20 frames, and a tenth of them.

Twenty times a second it is asked how many threads of the build run, or would if a core were free: 2 of 2 is busy. Time
counts from the first stage of a chunk to the end of the last one. Memory is the largest of any process. `--check` exits
1 where two workers are busy for less than 85 %, or ten times as many episodes take more than a quarter more memory,
both by more than 15 %.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.decoding import repeat_video
from benchmarks.harness import is_missed, table
from benchmarks.pipeline import FPS, encode
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.build import run_build
from pipeline.chunk import StageMoment
from pipeline.config import DatasetBuild, StageConfigs

WORKERS, CLIP, SHORT, CLIPS = 2, 600, 20, 8
EVERY_S = 0.05
BUSY_GOAL, MOST_GROWTH = 0.85, 1.25


@dataclass(frozen=True)
class Found:
    episodes: int
    frames: int
    chunks_s: float
    whole_s: float
    busy: float
    mb: float


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


def build(folder: Path, space: Path) -> None:
    """Run in a process of its own: says when the work on chunks began and ended, and how many frames there are."""
    times: list[float] = []

    def tell(moment: StageMoment) -> None:
        times.append(time.monotonic())

    configured = DatasetBuild(dataset=DatasetConfig(name="videos", source=str(folder)), stages=StageConfigs())
    report = run_build(Workspace(space), [configured], WORKERS, on_moment=tell)
    if report.failed:
        sys.exit(report.failed[0].trace)
    frames = sum(int(done.numbers["decoded_frames"]) for done in report.done if done.run.stage == "frames")
    print(json.dumps([times[0], times[-1], frames]))


def watched(folder: Path) -> Found:
    """Build in a process of its own, and look at it meanwhile."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as space:
        command = [sys.executable, "-m", "benchmarks.busy", "--build", str(folder), space]
        begun = time.monotonic()
        looks: list[tuple[float, int]] = []
        most = 0.0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                looks.append((time.monotonic(), running(process.pid)))
                most = max(most, memory_mb(process.pid)) if len(looks) % 10 == 0 else most
                time.sleep(EVERY_S)
            said = process.stdout.read() if process.stdout else ""
        if process.returncode:
            sys.exit(f"the build of {folder.name} failed")
    start, end, frames = json.loads(said.splitlines()[-1])
    busy = statistics.mean(min(count, WORKERS) / WORKERS for at, count in looks if start <= at <= end)
    return Found(len(list(folder.glob("*.mp4"))), frames, end - start, time.monotonic() - begun, busy, most)


def tree(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    with suppress(OSError):  # it ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def running(pid: int) -> int:
    """Threads of a process and all that it started that run, or wait for nothing but a core."""
    count = 0
    for process in tree(pid):
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                count += (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    return count


def memory_mb(pid: int) -> float:
    """The most that any process of a tree has had in memory so far."""
    most = 0.0
    for process in tree(pid):
        with suppress(OSError):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            most = max(most, *(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
    return most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=20, help="of the long episode; 0: leave it out")
    parser.add_argument("--short", type=int, default=10_000, help="short episodes; 0: leave them out")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed by more than 15 %%")
    parser.add_argument("--build", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        build(*args.build)
        return 0
    rows, missed, memory = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folders = []
        if args.minutes:
            folders.append(Path(name) / "long")
            make_long(folders[-1], args.minutes)
        for episodes in (args.short // 10, args.short) if args.short else ():
            folders.append(Path(name) / f"short-{episodes}")
            make_short(folders[-1], episodes)
        for folder in folders:
            found = watched(folder)
            rows.append(
                [
                    f"{found.episodes:,}",
                    f"{found.frames:,}",
                    f"{found.chunks_s:.0f} of {found.whole_s:.0f}",
                    f"{100 * found.busy:.0f} %",
                    f"{found.mb:.0f}",
                ]
            )
            print(rows[-1], file=sys.stderr, flush=True)
            if folder.name.startswith("short"):
                memory.append(found.mb)
            if is_missed(found.busy, BUSY_GOAL) and found.episodes in (1, args.short):
                missed.append(f"{found.episodes:,} episodes keep two workers {100 * found.busy:.0f} % busy")
    table(["episodes", "frames", "seconds of chunks, of all", f"busy (goal {100 * BUSY_GOAL:.0f} %)", "most MB"], rows)
    if len(memory) == 2 and is_missed(memory[1] / memory[0], MOST_GROWTH, smaller_is_better=True):
        missed.append(f"ten times as many episodes take {memory[1]:.0f} instead of {memory[0]:.0f} MB")
    for line in missed:
        print(f"Missed: {line}")
    return int(args.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
