"""How busy two workers are while chunks differ in size.

    python -m benchmarks.busy [--minutes 20] [--short 1000] [--check]

Builds by two workers, labels by `motion`, of plain videos (h264, 640x480): one episode of so many minutes, which is one
chunk, made of the shipped samples again and again; and so many short episodes of 20 frames.

Twenty times a second it is asked how many threads of the build run, or would if a core were free: 2 of 2 is busy. Time
counts from the first stage of a chunk to the end of the last one. `--check` exits 1 where two workers are busy for less
than 85 %, by more than 15 %. Whether memory grows is measured by benchmarks.memory.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.decoding import repeat_video
from benchmarks.harness import Figure, apart, arguments, exit_code, table
from benchmarks.pipeline import FPS, encode
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.build import BuildListener, run_build
from pipeline.config import DatasetBuild, StageConfigs
from pipeline.stage import StageMoment

WORKERS = 2
CLIP = 600
SHORT = 20
CLIPS = 8
EVERY_S = 0.05
BUSY_GOAL = 0.85


@dataclass(frozen=True)
class Found:
    episodes: int
    frames: int
    chunks_s: float
    whole_s: float
    busy: float


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


def watched(folder: Path) -> Found:
    """Build in a process of its own, and look at it meanwhile."""
    start_time = time.monotonic()
    looks = list[tuple[float, int]]()
    with tempfile.TemporaryDirectory(dir=folder.parent) as space, ThreadPoolExecutor(1) as pool:
        building = pool.submit(apart, build, str(folder), space)
        while not building.done():
            looks.append((time.monotonic(), sum(map(running_threads, started(os.getpid())))))
            time.sleep(EVERY_S)
    start, end, frames = building.result()
    busy = statistics.mean(
        min(count, WORKERS) / WORKERS for time_s, count in looks if start <= time_s <= end
    )
    return Found(
        len(list(folder.glob("*.mp4"))),
        frames,
        end - start,
        time.monotonic() - start_time,
        busy,
    )


def started(pid: int) -> Iterator[int]:
    """All processes that a process started, and those that they did."""
    with suppress(OSError):  # it ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from started(int(child))


def running_threads(pid: int) -> int:
    """Threads of a process that run, or wait for nothing but a core; 0 where it ended."""
    with suppress(OSError):
        stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(stat.rpartition(")")[2].split()[0] == "R" for stat in stats)
    return 0


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument(
        "--minutes", type=int, default=20, help="of the long episode; 0: leave it out"
    )
    parser.add_argument("--short", type=int, default=1000, help="short episodes; 0: leave them out")
    args = parser.parse_args()
    rows = []
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folders = []
        if args.minutes:
            folders.append(Path(name) / "long")
            make_long(folders[-1], args.minutes)
        if args.short:
            folders.append(Path(name) / "short")
            make_short(folders[-1], args.short)
        for folder in folders:
            result = watched(folder)
            seconds = f"{result.chunks_s:.0f} of {result.whole_s:.0f}"
            busy = f"{result.busy:.0%}"
            rows.append((f"{result.episodes:,}", f"{result.frames:,}", seconds, busy))
            print(rows[-1], file=sys.stderr, flush=True)
            title = f"{result.episodes:,} episodes keep two workers busy"
            figures.append(Figure(title, result.busy, BUSY_GOAL))
    table(
        (
            "episodes",
            "frames",
            "seconds of chunks, of all",
            f"busy (goal {BUSY_GOAL:.0%})",
        ),
        rows,
    )
    return exit_code(figures, args.check)


if __name__ == "__main__":
    sys.exit(main())
