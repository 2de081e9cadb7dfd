"""How far something is: bars on a terminal, a line a minute in a log; nothing is left at the end."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_EVERY_S = 60.0


class Report(Protocol):
    """Called with a task's name, how much of it is done, of how much (None: unknown), and a word on it."""

    def __call__(self, name: str, done: float = 0, of: float | None = None, detail: str = "") -> None: ...


@contextmanager
def progress() -> Iterator[Report]:
    """Show how far tasks are. Threads may report."""
    console = Console(stderr=True)
    words = TextColumn("{task.fields[counted]} {task.fields[detail]}", markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), words, TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    lock, ended = threading.Lock(), threading.Event()
    hidden = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as bars:

        def report(name: str, done: float = 0, of: float | None = None, detail: str = "") -> None:
            with lock:
                if name not in tasks:
                    tasks[name] = bars.add_task(name, counted="", detail="")
                counted = f"{done:,.0f} of {of:,.0f}" if of and of > 1 else ""
                bars.update(tasks[name], completed=done, total=of, counted=counted, detail=detail)

        def log() -> None:
            began_s = time.monotonic()
            while not ended.wait(LOG_EVERY_S):
                going = [task for task in bars.tasks if not task.finished and (task.completed or task.fields["detail"])]
                parts = [" ".join(f"{t.description} {t.fields['counted']} {t.fields['detail']}".split()) for t in going]
                done = sum(task.finished for task in bars.tasks)
                parts.append(f"{done} of {len(bars.tasks)} done, {clock(time.monotonic() - began_s)}")
                print("; ".join(parts), file=sys.stderr, flush=True)

        logger = threading.Thread(target=log, daemon=True)
        if hidden:
            logger.start()
        try:
            yield report
        finally:
            ended.set()
            if hidden:
                logger.join()


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
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
