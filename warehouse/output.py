"""Results for people and for scripts: tables, JSON, CSV, Parquet."""

import json
import math
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from warehouse.lake import Lake

STATUS_COLUMNS = ("dataset", "episodes", "ok", "quarantined", "frames", "labelled_frames", "samples", "shards")
PIPE_WIDTH = 200  # columns of a table that goes to a file


def status_rows(lake: "Lake") -> list[dict]:
    """Per dataset: episodes, frames and labels of usable ones, samples, shards; chunks that people made stale."""
    from warehouse.corrections import pending  # imports pydantic, DuckDB: this module is every command's

    rows = lake.dicts(f"SELECT {', '.join(STATUS_COLUMNS)} FROM coverage ORDER BY dataset")
    stale = pending(lake)
    return [r | {"stale_chunks": stale.get(r["dataset"], 0)} for r in rows]


def print_json(value: Any) -> None:
    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


def show(rows: list[dict], style: str, *, empty: str = "No rows.", columns: list[str] | None = None) -> None:
    """Rows as a table, or as JSON when `style` says so."""
    if style == "json":
        print_json(rows)
        return
    if not rows:
        print(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns or list(rows[0]):
        number = any(isinstance(r[column], int | float) and not isinstance(r[column], bool) for r in rows)
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for r in rows:
        table.add_row(*("" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in r.values()))
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(width=width, markup=False, highlight=False).print(table)


def write_result(table: "pa.Table", style: str, out: Path | None) -> bool:
    """A query's result to a file or to standard output; False for Parquet on a terminal, which nobody wants."""
    if style == "table" and out is None:
        show(plain(table.to_pylist()), "table", columns=table.schema.names)
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


def encode(table: "pa.Table", style: str) -> bytes:
    """A table as json (also for `table`), csv or parquet."""
    import pyarrow.csv
    import pyarrow.parquet

    buffer = BytesIO()
    if style == "csv":
        pyarrow.csv.write_csv(_flat(table), buffer)
    elif style == "parquet":
        pyarrow.parquet.write_table(table, buffer)
    else:
        text = json.dumps(plain(table.to_pylist()), indent=1, ensure_ascii=False)
        buffer.write(text.encode() + b"\n")
    return buffer.getvalue()


def _flat(table: "pa.Table") -> "pa.Table":
    """Lists and structs as JSON text: CSV has no such things."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = [None if v is None else json.dumps(plain(v)) for v in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    return table


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN and infinities become null, what JSON does not know becomes text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
