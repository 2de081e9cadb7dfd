"""Results for people and for scripts, as tables, records or JSON; and how far something is.

That is shown by bars on a terminal, by a line every ten seconds in a log; nothing is left of it at the end.
"""

import io
import json
import shutil
import sys
import threading
import time
from collections.abc import (
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cli.options import (
    AS_JSON,
    AS_RECORDS,
    QUIET,
    Facts,
    Result,
    Rows,
    has_colours,
    note,
    say,
    say_next,
)
from core.logs import TOLD
from core.values import plain, shown

# Characters of a table's lines in a file or a pipe, which have no width of their own
PIPE_WIDTH = 200
NARROWEST = 16  # characters to which a column of long texts is narrowed, before rows become records
# What a cell says by itself, wherever it stands
COLOURS = {
    "unusable": "red", "error": "red", "failed": "red", "blocking": "red", "warning": "yellow", "stale": "yellow",
    "ok": "green", "up to date": "green",
}  # fmt: skip
FIRST_S = 0.5
LOG_EVERY_S = 10.0
SPEED_S = 600.0  # how fast something is, is told from this long


def print_json(value: Any) -> None:
    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


def show(
    content: Rows | Facts,
    *,
    empty: str = "No rows.",
    hidden: Collection[str] = (),
    whole: Any = None,
) -> None:
    """Print rows, or the facts of one thing, as a Result has them: as a table with units, or as
    JSON."""
    rows = [content] if isinstance(content, dict) else content
    if AS_JSON.get():
        print_json(content if whole is None else whole)
    elif not rows:
        print(empty)
    else:
        columns = [name for name in rows[0] if name not in hidden]
        print(table_text(list(map(_with_units, rows)), columns, width_here()))


def print_result(result: Result | Rows | Facts | int | None) -> int | None:
    """Print what a command returned, and say how to go on; returns the exit code."""
    if result is None or isinstance(result, int):
        return result
    if not isinstance(result, Result):
        result = Result(result)
    if result.rows is not None:
        show(result.rows, empty=result.empty, hidden=result.hidden, whole=result.whole)
    for line in result.lines:
        say(line)
    if result.steps:
        say_next(result.steps)
    return result.code


def _with_units(row: dict) -> dict:
    if isinstance(row.get("bytes"), int):
        return row | {"bytes": decimal(row["bytes"])}
    return row


def width_here() -> int:
    """Characters of a line of standard output."""
    if sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return PIPE_WIDTH


def table_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int) -> str:
    """Rows as a table of at most `width` characters a line; as records if asked, or without room."""
    cells: list[list[Text]] = []
    for row in rows:
        cells.append([_cell(row[name]) for name in columns])
    numbers: list[bool] = []
    for name in columns:
        numbers.append(any(type(row[name]) in (int, float) for row in rows))
    room = width - 3 * (len(columns) - 1)
    heads = list(columns)
    if sum(_widths(heads, cells)) > room:
        heads = [name.replace("_", "_\n") for name in columns]
    # Numbers are never cut; long texts go on in a second line
    narrowest = [
        w if number else min(w, NARROWEST)
        for w, number in zip(_widths(heads, cells), numbers, strict=True)
    ]
    if AS_RECORDS.get() or sum(narrowest) > room:
        return _printed(*_records(columns, cells), width=width)
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="bold")
    for head, is_number in zip(heads, numbers, strict=True):
        table.add_column(
            Text(head), justify="right" if is_number else "left", no_wrap=is_number, overflow="fold"
        )
    for row in cells:
        table.add_row(*row)
    return _printed(table, width=width)


def _records(columns: Sequence[str], cells: Sequence[Sequence[Text]]) -> Iterator[RenderableType]:
    for i, row in enumerate(cells):
        if len(cells) > 1:
            yield Rule(str(i + 1), align="left", style="dim")
        yield _pairs(dict(zip(columns, row, strict=True)))


def _widths(heads: Sequence[str], cells: Sequence[Sequence[Text]]) -> list[int]:
    """The longest line of each column."""
    widths = []
    for i, head in enumerate(heads):
        text = "\n".join([head, *(row[i].plain for row in cells)])
        widths.append(max(map(cell_len, text.split("\n"))))
    return widths


def pairs_text(pairs: Mapping[str, Any], width: int) -> str:
    """Names, and beside each its value."""
    return _printed(_pairs({name: _cell(value) for name, value in pairs.items()}), width=width)


def _pairs(pairs: Mapping[str, Text]) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0))
    for name, cell in pairs.items():
        grid.add_row(Text(name, style="bold"), cell)
    return grid


def _printed(*parts: RenderableType, width: int) -> str:
    """As text, with colours where standard output shows them."""
    text = io.StringIO()
    coloured = has_colours(sys.stdout)
    console = Console(
        file=text, width=width, force_terminal=coloured, no_color=not coloured, highlight=False
    )
    console.print(*parts, sep="\n")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _cell(value: Any) -> Text:
    if isinstance(value, list | tuple):
        return Text(", ".join(_cell(item).plain for item in value))
    if value is None:
        text = ""
    elif isinstance(value, float):
        text = f"{value:.4g}"
    else:
        text = shown(str(value)).replace("\t", " ")
    return Text(text, style=COLOURS.get(text, ""))


def _words(task: Any) -> Text:
    """How much of a task of rich's is done, how fast, and how long the rest takes."""
    total = task.total
    rate = (task.speed or 0) * task.fields["frames"]
    counted = f"{task.completed:,.0f} of {total:,.0f} " if total and total > 1 else ""
    fast = f", {rate:,.0f} frames/s" if rate else ""
    time_left = f", {clock(task.time_remaining)} left" if task.time_remaining else ""
    return Text(counted + task.fields["detail"] + fast + time_left)


@contextmanager
def progress() -> Iterator[Callable[..., None]]:
    """Show how far tasks are; nothing where -q asks for quiet.

    Yields what threads may call with a task's name, how much of it is done, of how much (None:
    unknown), a word on it, and how many frames each of these has (0: none).
    """
    # Not by who shows none: 0.015 s
    from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn

    class Words(ProgressColumn):
        def render(self, task: Any) -> Text:
            return _words(task)

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), Words())
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
                # A slow start: there is nothing to say yet
                if not bars.tasks:
                    continue
                running = [
                    task
                    for task in bars.tasks
                    if not task.finished and (task.completed or task.fields["detail"])
                ]
                parts = [f"{t.description} {_words(t)}" for t in running]
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
    """Show that a source is looked at which lies elsewhere: that may take long, or it may not
    answer."""
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
