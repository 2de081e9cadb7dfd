"""What people said, once more in plain lines beside the lake: no loss of the catalog loses a person's work.

people.jsonl gets a line for each row of the tables in KEPT that a commit adds or takes away, synced before the commit:
{"table": "corrections", "row": {...}}, or "gone" instead of "row". The newest line of a key counts. Beside what people
said stands what it needs to find its episodes again: how datasets were built, and the numbers of their episodes.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.files import sync, write_file
from core.paths import Workspace
from core.tables import TABLES, Table
from warehouse.lake.views import STATEMENTS

SAID = (*STATEMENTS, "joined_tasks")
KEPT = (*SAID, "build_configs", "recordings")
# json.dumps makes one for each line
ENCODER = json.JSONEncoder(ensure_ascii=False, default=datetime.isoformat)
type Key = tuple[Any, ...]


def key_of(table: Table, row: Mapping[str, Any]) -> Key:
    return tuple(row[column] for column in table.key)


def lines_of(name: str, rows: Iterable[Mapping[str, Any]], kind: str = "row") -> list[str]:
    """Rows of a table as lines; kind: `row`, or `gone` for rows that are deleted."""
    return [f"{ENCODER.encode({'table': name, kind: row})}\n" for row in rows]


def all_lines(query_table: Callable[[str], pa.Table]) -> list[str]:
    """Lines of all rows that the lake has; query_table: what it answers to a query."""
    lines: list[str] = []
    for name in KEPT:
        order = ", ".join(f'"{column}"' for column in TABLES[name].key)
        lines += lines_of(name, query_table(f"FROM {name} ORDER BY {order}").to_pylist())
    return lines


def append(path: Path, lines: Sequence[str]) -> None:
    """Add lines, durably; one that a power cut left half written stays one of its own."""
    is_new = not path.exists()
    with path.open("a+b") as f:
        size = f.seek(0, os.SEEK_END)
        if size:
            f.seek(size - 1)
        begin = "\n" if size and f.read(1) != b"\n" else ""
        f.write((begin + "".join(lines)).encode())
        f.flush()
        os.fsync(f.fileno())
    if is_new:
        sync(path.parent)


def rewrite(workspace: Workspace, query_table: Callable[[str], pa.Table]) -> None:
    """Write all lines anew."""
    write_file(workspace.people, "".join(all_lines(query_table)).encode())


def read(workspace: Workspace) -> tuple[dict[str, dict[Key, dict | None]], int]:
    """By table the newest row of each key, None of one that is gone; and how many lines cannot be read."""
    newest: dict[str, dict[Key, dict | None]] = {name: {} for name in KEPT}
    bad = 0
    if not workspace.people.exists():
        return newest, bad
    with workspace.people.open("rb") as f:
        for entry in read_lines(f):
            if entry is None:
                bad += 1
                continue
            name, row, is_gone = entry
            newest[name][key_of(TABLES[name], row)] = None if is_gone else row
    return newest, bad


def read_lines(lines: Iterable[bytes]) -> Iterator[tuple[str, dict, bool] | None]:
    """Of each line its table and row, and whether that is gone; None: it cannot be read."""
    for line in lines:
        try:
            yield _parsed(line)
        except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
            yield None


def _parsed(line: bytes) -> tuple[str, dict, bool]:
    """As `read_lines`, of one. Raises what json, Arrow and Python do of a damaged line."""
    entry = json.loads(line)
    name = entry["table"]
    field = "gone" if "gone" in entry else "row"
    if name not in KEPT:
        raise KeyError(name)
    row = {column: entry[field].get(column) for column in TABLES[name].schema.names}
    times = [column.name for column in TABLES[name].schema if pa.types.is_timestamp(column.type)]
    return name, row | {c: datetime.fromisoformat(row[c]) for c in times if row[c]}, field == "gone"


def missing(
    workspace: Workspace, query_table: Callable[[str], pa.Table]
) -> tuple[dict[str, pa.Table], dict[str, list], int]:
    """What the lines say and the lake does not: rows to add by table, keys of rows to delete; and unreadable lines."""
    people_rows, bad = read(workspace)
    rows: dict[str, pa.Table] = {}
    removed_keys: dict[str, list] = {}
    for name, by_key in people_rows.items():
        table = TABLES[name]
        stored_rows = {key_of(table, row): row for row in query_table(f"FROM {name}").to_pylist()}
        rows[name] = table.rows(
            [row for key, row in by_key.items() if row and stored_rows.get(key) != row]
        )
        removed_keys[name] = [
            key for key, row in by_key.items() if row is None and key in stored_rows
        ]
    return rows, removed_keys, bad
