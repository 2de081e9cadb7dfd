"""How far a build or a training is: lines that move on a terminal, a line a minute in a log."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.build import Moment
    from pipeline.plan import ChunkStep
    from training.loop import Point

LOG_EVERY_S = 60.0
type Size = tuple[int, int]  # episodes and frames of a chunk


@dataclass
class StageProgress:
    """One stage over all chunks that have it to do: what there is, what is done, and the seconds that took."""

    name: str
    episodes: int = 0
    frames: int = 0
    done_episodes: int = 0
    done_frames: int = 0
    busy_s: float = 0.0
    running: int = 0

    def text(self, workers: int) -> str:
        """Example: "frames  312 of 500 episodes  1,840 frames/s  0:41 left"."""
        parts = [self.name.ljust(14), f"{self.done_episodes:,} of {self.episodes:,} episodes"]
        if self.busy_s > 0 and self.done_frames:
            rate = self.done_frames / self.busy_s * workers
            parts.append(f"{rate:,.0f} frames/s")
            if self.done_frames < self.frames:
                parts.append(f"{clock((self.frames - self.done_frames) / rate)} left")
        if self.running:
            parts.append("now")
        return "  ".join(parts)


@dataclass
class BuildProgress:
    """The stages of a build, to do and done. Threads may report moments to it."""

    workers: int = 1
    stages: dict[str, StageProgress] = field(default_factory=dict)
    sizes: Mapping[tuple[str, int], Size] = field(default_factory=dict)
    began_s: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, steps: "Sequence[ChunkStep]", sizes: Mapping[tuple[str, int], Size]) -> None:
        with self.lock:
            self.sizes = sizes
            for step in steps:
                stage = self.stages.setdefault(step.stage.name, StageProgress(step.stage.name))
                episodes, frames = sizes.get((step.dataset, step.chunk), (0, 0))
                stage.episodes += episodes
                stage.frames += frames

    def note(self, moment: "Moment") -> None:
        with self.lock:
            stage = self.stages.setdefault(moment.stage, StageProgress(moment.stage))
            if moment.duration_s is None:
                stage.running += 1
                return
            episodes, frames = self.sizes.get((moment.dataset, moment.chunk), (0, 0))
            stage.running -= 1
            stage.done_episodes += episodes
            stage.done_frames += frames
            stage.busy_s += moment.duration_s

    def lines(self) -> list[str]:
        """A line for each stage that was begun and is not done, and one on how long it took so far."""
        with self.lock:
            shown = [s for s in self.stages.values() if s.running or 0 < s.done_episodes < s.episodes]
            done = sum(s.done_episodes >= s.episodes for s in self.stages.values())
            head = f"{done} of {len(self.stages)} stages done, {clock(time.monotonic() - self.began_s)}"
            return [*(stage.text(self.workers) for stage in shown), head]


def clock(seconds: float) -> str:
    """Minutes and seconds. Example: clock(61.4) == "1:01"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


@contextmanager
def shown(lines: Callable[[], list[str]]) -> Iterator[None]:
    """Show what `lines` gives: moving on a terminal, as one line a minute in a log; nothing is left at the end."""
    ended = threading.Event()
    moves = sys.stderr.isatty()
    thread = threading.Thread(target=_show_on_terminal if moves else _show_in_log, args=(lines, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show_in_log(lines: Callable[[], list[str]], ended: threading.Event) -> None:
    while not ended.wait(LOG_EVERY_S):
        print("; ".join(" ".join(line.split()) for line in lines()), file=sys.stderr, flush=True)


def _show_on_terminal(lines: Callable[[], list[str]], ended: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as live:
        live.update(Text("\n".join(lines()), no_wrap=True), refresh=True)
        while not ended.wait(0.25):
            live.update(Text("\n".join(lines()), no_wrap=True))


@contextmanager
def training_lines() -> "Iterator[Callable[[Point], None]]":
    """Shows how far a training is. Yields what to call after each step."""
    began_s = time.monotonic()
    newest: list[Point] = []

    def lines() -> list[str]:
        if not newest:
            return [f"training: its first step, {clock(time.monotonic() - began_s)}"]
        point, passed_s = newest[-1], time.monotonic() - began_s
        left = f", {clock(passed_s / point.done - passed_s)} left" if 0 < point.done < 1 else ""
        rate = f", {point.samples / passed_s:,.0f} samples/s" if passed_s > 0 else ""
        return [f"training: {100 * point.done:.0f} %, step {point.step:,}, loss {point.loss:.3f}{rate}{left}"]

    def on_step(point: "Point") -> None:
        newest[:] = [point]

    with shown(lines):
        yield on_step
