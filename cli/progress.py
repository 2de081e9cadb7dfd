"""How far something is: by bars on a terminal, by a line every ten seconds in a log; nothing is left of it at the end.

Apart from other output: to import bars costs a command that shows none 0.015 s.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from cli.terminal import QUIET, note
from core.logs import TOLD

FIRST_S = 0.5
LOG_EVERY_S = 10.0
SPEED_S = 600.0  # how fast something is, is told from this long


class _Words(ProgressColumn):
    """How much of a task is done, how fast, and how long the rest takes."""

    def render(self, task: Task) -> Text:
        total = task.total
        rate = (task.speed or 0) * task.fields["frames"]
        counted = f"{task.completed:,.0f} of {total:,.0f} " if total and total > 1 else ""
        fast = f", {rate:,.0f} frames/s" if rate else ""
        time_left = f", {clock(task.time_remaining)} left" if task.time_remaining else ""
        return Text(counted + task.fields["detail"] + fast + time_left)


@contextmanager
def progress() -> Iterator[Callable[..., None]]:
    """Show how far tasks are; nothing where -q asks for quiet.

    Yields what threads may call with a task's name, how much of it is done, of how much (None: unknown), a word on it,
    and how many frames each of these has (0: none).
    """
    console = Console(stderr=True)
    words = _Words()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), words)
    tasks: dict[str, TaskID] = {}
    lock, ended = threading.Lock(), threading.Event()
    is_log = not console.is_terminal
    hidden = is_log or QUIET.get()
    with Progress(
        *columns, console=console, transient=True, disable=hidden, speed_estimate_period=SPEED_S
    ) as bars:

        def report(
            name: str,
            completed: float = 0,
            total: float | None = None,
            detail: str = "",
            frames: float = 0,
        ) -> None:
            with lock:
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=None, detail="", frames=0)
                bars.update(
                    tasks[name], completed=completed, total=total, detail=detail, frames=frames
                )

        def log() -> None:
            began_s = time.monotonic()
            wait_s = FIRST_S
            while not ended.wait(wait_s):
                running = [
                    task
                    for task in bars.tasks
                    if not task.finished and (task.completed or task.fields["detail"])
                ]
                parts = [f"{t.description} {words.render(t)}" for t in running]
                num_finished = sum(task.finished for task in bars.tasks)
                parts.append(
                    f"{num_finished} of {len(bars.tasks)} done, {clock(time.monotonic() - began_s)}"
                )
                note("; ".join(parts))
                wait_s = LOG_EVERY_S

        logger = threading.Thread(target=log, daemon=True)
        if is_log and not QUIET.get():
            logger.start()
        listening = TOLD.set(report)
        try:
            yield report
        finally:
            TOLD.reset(listening)
            ended.set()
            if logger.is_alive():
                logger.join()


@contextmanager
def looking_at(source: str) -> Iterator[None]:
    """Show that a source is looked at which lies elsewhere: that may take long, or it may not answer."""
    if "://" not in source:
        yield
        return
    with progress() as report:
        report(source, detail="looked at")
        yield


@contextmanager
def training_progress() -> Iterator[Callable[[Any], None]]:
    """How far a training is. Yields what to call with the `Point` of each step."""
    began_s = time.monotonic()
    with progress() as report:
        report("training", 0, 1, "its first step")

        def on_step(point: Any) -> None:
            rate = point.samples / max(time.monotonic() - began_s, 1e-9)
            text = f"{100 * point.done:.0f} %, step {point.step:,}, loss {point.loss:.3f}, {rate:,.0f} samples/s"
            report("training", point.done, 1, text)

        yield on_step


def clock(seconds: float) -> str:
    """Minutes and seconds. Example: clock(61.4) == "1:01"."""
    minutes, left_s = divmod(round(seconds), 60)
    return f"{minutes}:{left_s:02d}"
