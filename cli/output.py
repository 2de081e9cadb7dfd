"""Results for people and for scripts: tables, records, JSON, CSV, Parquet."""

import io
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cli.terminal import AS_RECORDS, has_colours, shown
from core.values import encode, plain, python_rows

if TYPE_CHECKING:
    import pyarrow as pa

PIPE_WIDTH = 200  # characters of a table's lines in a file or a pipe, which have no width of their own
NARROWEST = 16  # characters to which a column of long texts is narrowed, before rows become records
# What a cell says by itself, wherever it stands
COLOURS = {
    "unusable": "red", "error": "red", "failed": "red", "blocking": "red", "warning": "yellow", "stale": "yellow",
    "ok": "green", "up to date": "green",
}  # fmt: skip


def share_known(known: int, episodes: int) -> str:
    """The number of usable episodes with a known outcome."""
    return f"{known} of {episodes} known"


def print_json(value: Any) -> None:
    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


def show(rows: list[dict], style: str, *, empty: str = "No rows.") -> None:
    """Rows as a table, with units, or as JSON when `style` says so."""
    if style == "json":
        print_json(rows)
        return
    if not rows:
        print(empty)
        return
    with_units = [
        {name: decimal(value) if name == "bytes" and isinstance(value, int) else value for name, value in row.items()}
        for row in rows
    ]
    print(table_text(with_units, list(rows[0]), width_here()))


def width_here() -> int:
    """Characters of a line of standard output."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def table_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int) -> str:
    """Rows as a table of at most `width` characters a line; as records if -x asks for them, or they have no room."""
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    numbers = [
        any(isinstance(r[name], int | float) and not isinstance(r[name], bool) for r in rows) for name in columns
    ]
    gaps = 3 * (len(columns) - 1)
    widths = [max(map(cell_len, (name, *(row[i].plain for row in cells)))) for i, name in enumerate(columns)]
    heads = list(columns) if sum(widths) + gaps <= width else [name.replace("_", "_\n") for name in columns]
    # Numbers are never cut; long texts go on in a second line
    least = []
    for i, (head, is_number) in enumerate(zip(heads, numbers, strict=True)):
        needed = max(cell_len(line) for text in (head, *(row[i].plain for row in cells)) for line in text.split("\n"))
        least.append(needed if is_number else min(needed, NARROWEST))
    if AS_RECORDS.get() or sum(least) + gaps > width:
        return _printed(*_records(cells, columns, width), width=width)
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="bold", width=None)
    for head, is_number in zip(heads, numbers, strict=True):
        table.add_column(Text(head), justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in cells:
        table.add_row(*row)
    return _printed(table, width=width)


def pairs_text(pairs: Mapping[str, Any], width: int) -> str:
    """Names, and beside each its value."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    for name, value in pairs.items():
        grid.add_row(Text(name, style="bold"), _cell(value))
    return _printed(grid, width=width)


def _records(cells: list[list[Text]], columns: Sequence[str], width: int) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for i, row in enumerate(cells):
        if len(cells) > 1:
            parts.append(Rule(str(i + 1), align="left", style="dim"))
        grid = Table.grid(padding=(0, 3, 0, 0))
        for name, cell in zip(columns, row, strict=True):
            grid.add_row(Text(name, style="bold"), cell)
        parts.append(grid)
    return parts


def _printed(*parts: RenderableType, width: int) -> str:
    """As text, with colours where standard output shows them."""
    text = io.StringIO()
    coloured = has_colours(sys.stdout)
    console = Console(file=text, width=width, force_terminal=coloured, no_color=not coloured, highlight=False)
    console.print(*parts, sep="\n")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> Text:
    if isinstance(value, list):
        return Text(", ".join(_cell(item).plain for item in value))
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else shown(str(value)).replace("\t", " ")
    return Text(text, style=COLOURS.get(text, ""))


def show_facts(facts: dict, style: str) -> None:
    """One result: as a table of one row, or as a JSON object when `style` says so."""
    if style == "json":
        print_json(facts)
    else:
        show([facts], "table")


def write_result(table: "pa.Table", style: str, out: Path | None) -> bool:
    """A query's result to a file or to standard output; False for Parquet on a terminal, which nobody wants."""
    if style == "table" and out is None:
        # As they are: a query's numbers are what its author asked for
        rows = plain(python_rows(table))
        print(table_text(rows, table.schema.names, width_here()) if rows else "No rows.")
        return True
    data = encode(table, style)
    if out:
        out.write_bytes(data)
    elif style == "parquet" and sys.stdout.isatty():
        return False
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return True
