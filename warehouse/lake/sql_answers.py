"""What answers users' SQL in a process of its own (warehouse.sql_process): opened once, a query at a time."""

import resource
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from core.errors import SqlError, UserError, first_line
from core.paths import Workspace
from core.rows import write_as
from core.wall import held_bytes
from warehouse.lake.sql import answer, open_for_users, release_state

LEAST_ROOM = 64 << 20  # bytes for a query beside what Python and DuckDB take by themselves
BATCH_ROWS = 20_000  # that are made and sent at a time
WARMING = "SELECT range % 7 AS a, count(*), string_agg(range, ',') FROM range(200000) GROUP BY a ORDER BY a"

State = tuple[str, int | None, str | None, str | None]  # as the fields of warehouse.sql_process.LakeState
_opened: dict[State, tuple[duckdb.DuckDBPyConnection, int]] = {}  # at most one; and the bytes that it then held


def open_state(at: State, memory: int) -> str:
    """Why there is no lake; "" for one."""
    try:
        if at not in _opened:
            _opened.clear()
            _opened[at] = _connection(at, memory), held_bytes("RssAnon")
    except UserError as e:
        return str(e)
    except Exception as e:
        return _explained(e)
    return ""


def answered(sql: str, style: str | None, max_rows: int | None, max_bytes: int | None) -> tuple[str, bytes, bool]:
    """What is wrong, a file with the rows, and whether another process is to take the next query."""
    [(con, held)] = _opened.values()
    error, is_last, file = "", False, _Bounded(max_bytes)
    try:
        rows = answer(con, sql, BATCH_ROWS)
        if style is None:
            _write(rows, max_rows, file)
        else:
            write_as(style, _first(rows, max_rows), rows.schema, file)
    except UserError as e:
        error = str(e)
    except Exception as e:
        error, is_last = _explained(e), True
    data = b"" if error else file.getvalue()
    # What a query has left behind would be missing to the next one
    return error, data, is_last or held_bytes("RssAnon") > held + len(data) + LEAST_ROOM


def _connection(at: State, memory: int) -> duckdb.DuckDBPyConnection:
    """A locked connection to the lake, in a process that can hold no more than `memory` bytes from here on."""
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    root, snapshot, release, catalog = at
    workspace = Workspace(Path(root))
    # A copy of the catalog comes with the snapshot that is to be read in it
    if release is not None and catalog is None:
        release, snapshot = release_state(workspace, release)
    room = max(LEAST_ROOM, memory - held_bytes("VmRSS"))
    con = open_for_users(workspace, snapshot, f"{room // 1000}KB", catalog=catalog, release=release)
    # A first query begins every thread, and loads what is loaded once
    _write(answer(con, WARMING, BATCH_ROWS), None, BytesIO())
    room = max(LEAST_ROOM, memory - held_bytes("VmRSS"))
    resource.setrlimit(resource.RLIMIT_DATA, (held_bytes("VmData") + room, resource.RLIM_INFINITY))
    return con


def _write(reader: pa.RecordBatchReader, max_rows: int | None, file: Any) -> None:
    """Write a query's rows as an Arrow stream, a batch at a time; of them at most `max_rows`."""
    with pa.ipc.new_stream(pa.PythonFile(file, "w"), reader.schema) as stream:
        for batch in _first(reader, max_rows):
            stream.write_batch(batch)


def _first(reader: pa.RecordBatchReader, max_rows: int | None) -> Iterator[pa.RecordBatch]:
    """A query's rows, at most `max_rows`."""
    left = max_rows
    for batch in reader:
        yield batch if left is None else batch.slice(0, left)
        left = None if left is None else left - batch.num_rows
        if left is not None and left <= 0:
            break


class _Bounded(BytesIO):
    """A file of so many bytes at most. Raises SqlError."""

    def __init__(self, most: int | None) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any) -> int:
        if self._most is not None and self.tell() + len(data) > self._most:
            raise SqlError(f"the result is larger than {self._most / 1e6:.0f} MB: ask for fewer rows or columns")
        return super().write(data)


def _explained(e: Exception) -> str:
    first = first_line(e)
    if isinstance(e, duckdb.OutOfMemoryException | pa.ArrowMemoryError | MemoryError):
        return f"the query needs more memory than it may take: {first}"
    return f"the query cannot be answered: {first or type(e).__name__}"
