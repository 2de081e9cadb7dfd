"""SQL on the corpus.

The process that answers is forked from this one, which may have begun no thread by then: what brings numpy along, such
as DuckDB, is imported after that.
"""

import json
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from cli.options import Space, command, note
from cli.output import table_text, width_here
from core.errors import UserError
from core.values import plain, shown
from warehouse.sql_process import LakeState, SqlProcess

MAX_ROWS = 100  # of a query's result, in a table for people


@command("sql")
def sql(
    space: Space,
    query: Annotated[
        str | None, Argument(help="One SELECT; default: read standard input, or open a shell.")
    ] = None,
    format: Literal["table", "records", "json", "csv", "parquet"] = "table",
    release: Annotated[str | None, Option(help="Read the corpus as a release froze it.")] = None,
    snapshot: Annotated[
        int | None, Option(min=0, help="Read the corpus at this lake snapshot.")
    ] = None,
    limit: Annotated[
        int | None, Option(min=0, help="Maximum number of rows; tables show 100 by default.")
    ] = None,
    out: Annotated[
        Path | None, Option(help="File to write; needed for parquet on a terminal.")
    ] = None,
    time_limit: Annotated[float, Option(min=0.001, help="Maximum seconds per query.")] = 600,
    memory: Annotated[str, Option(help="Maximum memory of a query.")] = "4GB",
    attach: Annotated[
        bool, Option(help="Print the commands that open the corpus in DuckDB itself.")
    ] = False,
) -> None:
    """Run a read-only SQL query on the corpus; without a query, open a shell."""
    if release and snapshot is not None:
        raise UserError("--release and --snapshot exclude each other")
    if attach:
        from warehouse.lake.sql import attach_lines, release_state

        print(attach_lines(space, release_state(space, release)[1] if release else snapshot))
        return
    # Before a question is waited for
    if not space.exists():
        raise UserError(space.absence)

    state = LakeState(str(space.root), snapshot, release)
    with SqlProcess(memory) as process:
        # On a terminal without a question: a shell. What is piped in is one question
        if query is None and sys.stdin.isatty():
            from cli.sql_shell import describe, shell

            title = f"{space.root} ({release or ('now' if snapshot is None else f'snapshot {snapshot}')})"
            ask = partial(process.query, state, time_s=time_limit)
            shell(ask, partial(describe, space, release, snapshot), title, partial(show, limit))
            return
        text = sys.stdin.read() if query is None else query
        if format == "table" and out is None:
            max_rows = MAX_ROWS if limit is None else limit
            show_rows(**json.loads(process.file(state, text, "rows", time_limit, max_rows)))
            return
        write_result(process.file(state, text, format, time_limit, limit), format, out)


def show(limit: int | None, table: Any, style: str) -> None:
    """Write the rows of a shell's query: in a table for people the first 100, unless `limit` says
    otherwise."""
    formats = import_module("core.rows")  # Arrow, which begins threads
    part = table.slice(0, MAX_ROWS if limit is None and style == "table" else limit)
    if style == "table":
        show_rows(plain(formats.python_rows(part)), table.schema.names, table.num_rows)
    else:
        write_result(formats.encode(part, style), style, None)


def show_rows(rows: list[dict], names: list[str], num_rows: int) -> None:
    """The first of some rows as a table for people; numbers as they are, since the query asked for
    them so."""
    print(table_text(rows, names, width_here()) if rows else "No rows.")
    if num_rows > len(rows):
        remedy = "--limit N, or --format csv for all"
        note(f"({num_rows} rows, the first {len(rows)} shown; {remedy})")


def write_result(data: bytes, style: str, out: Path | None) -> None:
    """A query's result to a file or to standard output. Raises UserError: Parquet on a terminal,
    which nobody wants."""
    if out:
        out.write_bytes(data)
    elif style == "parquet" and sys.stdout.isatty():
        raise UserError("Parquet is not for a terminal: add --out FILE")
    elif sys.stdout.isatty():
        print(shown(data.decode()), end="")
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
