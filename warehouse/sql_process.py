"""User SQL in a process of its own, which can be killed and which the kernel keeps within memory and time.

Some statements end DuckDB by a signal, or hold memory that its own limit does not count, or cannot be interrupted. Here
they end a process that holds nothing else. Imports neither DuckDB nor Arrow: a process that has not begun any thread is
forked, which costs nothing.
"""

import os
import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cores import cores
from core.errors import SqlError, UserError, first_line
from core.wall import Walled, held_bytes

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY_TEXT = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?B)", re.IGNORECASE)
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
LEAST_ROOM = 64 << 20  # bytes for a query beside what Python and DuckDB take by themselves
BATCH_ROWS = 20_000  # that are made and sent at a time
LATE_S = 5.0  # of every core's CPU, beside a query's time
OPEN_S = 60.0  # that opening the lake may take, of a query's process
WARMING = "SELECT range % 7 AS a, count(*), string_agg(range, ',') FROM range(200000) GROUP BY a ORDER BY a"


@dataclass(frozen=True)
class LakeState:
    """The state that a query reads: a workspace now, at a snapshot, or as a release froze it.

    Scores and training runs of a release are those of now. `catalog`: a copy of the workspace's catalog, as DuckLake
    names it; with `release`, `snapshot` is what that froze.
    """

    workspace: str
    snapshot: int | None = None
    release: str | None = None
    catalog: str | None = None


def memory_bytes(text: str) -> int:
    """Bytes of a size such as 500MB or 4GB. Raises SqlError."""
    found = MEMORY_TEXT.fullmatch(text)
    if found is None:
        raise SqlError(f"{text!r} is no size of memory: write it as 500MB or 4GB")
    return int(float(found[1]) * UNITS[found[2].upper()])


class SqlProcess(Walled):
    """A process that answers one query at a time, and is started anew after one that ended it.

    `memory`: all that the process may hold, such as 4GB. `niceness`: how far it lets others go first, as `nice` has it.
    Raises SqlError: no size. Not for several threads at once.
    """

    def __init__(self, memory: str, niceness: int = 0) -> None:
        self.memory, self._bytes = memory, memory_bytes(memory)
        super().__init__(None, begin=partial(_begin, niceness))

    def query(
        self,
        at: LakeState,
        sql: str,
        time_s: float,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        given_up: Callable[[], bool] = lambda: False,
    ) -> "pa.Table":
        """The rows of one user query, at most `max_rows`. The query is stopped as soon as `given_up` says so.

        Raises SqlError: refused, failed, longer than `time_s`, given up, or a result larger than `max_bytes`.
        """
        import pyarrow as pa  # while the process does so, too

        data = self.file(at, sql, None, time_s, max_rows, max_bytes, given_up)
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            return reader.read_all()

    def file(
        self,
        at: LakeState,
        sql: str,
        style: str | None,
        time_s: float,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        given_up: Callable[[], bool] = lambda: False,
    ) -> bytes:
        """As `query`, but a file with the rows, written by the process itself: csv, json or parquet; without a style
        an Arrow stream."""
        late, cpu_s = f"the lake took longer than {OPEN_S:g} s to open", (time_s + LATE_S) * cores()
        try:
            # Its time begins when the lake is open
            error = self(_open, at, self._bytes, wall_s=OPEN_S, given_up=given_up)
            late, data, is_last = f"the query took longer than {time_s:g} s and was stopped", b"", False
            if not error:
                asked = sql, style, max_rows, max_bytes
                error, data, is_last = self(_answer, *asked, wall_s=time_s, cpu_s=cpu_s, given_up=given_up)
        except TimeoutError as e:
            raise SqlError("the query was given up" if given_up() else late) from e
        except ChildProcessError as e:
            raise SqlError(f"the query {e}: it needs more than {self.memory}, or DuckDB cannot do it") from e
        if is_last:
            self.close()
        if error:
            raise SqlError(error)
        return data


# In the process

_opened: dict[LakeState, tuple["duckdb.DuckDBPyConnection", int]] = {}  # at most one; and the bytes that it then held


def _begin(niceness: int) -> None:
    os.nice(niceness)
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # its own pool would take a GB at a time
    import_module("warehouse.lake.sql")


def _open(at: LakeState, memory: int) -> str:
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


def _answer(sql: str, style: str | None, max_rows: int | None, max_bytes: int | None) -> tuple[str, bytes, bool]:
    """What is wrong, a file with the rows, and whether another process is to take the next query."""
    from core.rows import write_as
    from warehouse.lake.sql import answer

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


def _connection(at: LakeState, memory: int) -> "duckdb.DuckDBPyConnection":
    """A locked connection to the lake, in a process that can hold no more than `memory` bytes from here on."""
    from core.paths import Workspace
    from warehouse.lake.sql import answer, open_for_users, release_state

    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    workspace = Workspace(Path(at.workspace))
    release, snapshot = at.release, at.snapshot
    # A copy of the catalog comes with the snapshot that is to be read in it
    if release is not None and at.catalog is None:
        release, snapshot = release_state(workspace, release)
    room = max(LEAST_ROOM, memory - held_bytes("VmRSS"))
    con = open_for_users(workspace, snapshot, f"{room // 1000}KB", catalog=at.catalog, release=release)
    # A first query begins every thread, and loads what is loaded once
    _write(answer(con, WARMING, BATCH_ROWS), None, BytesIO())
    room = max(LEAST_ROOM, memory - held_bytes("VmRSS"))
    resource.setrlimit(resource.RLIMIT_DATA, (held_bytes("VmData") + room, resource.RLIM_INFINITY))
    return con


def _write(reader: "pa.RecordBatchReader", max_rows: int | None, file: Any) -> None:
    """Write a query's rows as an Arrow stream, a batch at a time; of them at most `max_rows`."""
    import pyarrow as pa

    with pa.ipc.new_stream(pa.PythonFile(file, "w"), reader.schema) as stream:
        for batch in _first(reader, max_rows):
            stream.write_batch(batch)


def _first(reader: "pa.RecordBatchReader", max_rows: int | None) -> "Iterator[pa.RecordBatch]":
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
    import duckdb
    import pyarrow as pa

    first = first_line(e)
    if isinstance(e, duckdb.OutOfMemoryException | pa.ArrowMemoryError | MemoryError):
        return f"the query needs more memory than it may take: {first}"
    return f"the query cannot be answered: {first or type(e).__name__}"
