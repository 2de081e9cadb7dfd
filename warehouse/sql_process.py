"""User SQL in a process of its own, which can be killed and which the kernel keeps within memory and time.

Some statements end DuckDB by a signal, or hold memory that its own limit does not count, or cannot be interrupted. Here
they end a process that holds nothing else. Imports neither DuckDB nor Arrow: a process that has not begun any thread is
forked, which costs nothing.
"""

import json
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cores import cores
from core.errors import SqlError, UserError, first_line
from core.wall import held_bytes

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY_TEXT = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?B)", re.IGNORECASE)
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
LEAST_ROOM = 64 << 20  # bytes for a query beside what Python and DuckDB take by themselves
BATCH_ROWS = 20_000  # that are made and sent at a time
MESSAGE_BYTES = 1 << 20
LATE_S = 5.0  # after its time is over, the kernel ends a process that nobody has ended
POLL_S = 0.1
OPEN_S = 60.0  # that opening the lake may take, of a query's process
BEGUN = b"begun"
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


class SqlProcess:
    """A process that answers one query at a time, and is started anew after one that ended it.

    `memory`: all that the process may hold, such as 4GB. `niceness`: how far it lets others go first, as `nice` has it.
    Raises SqlError: no size. Not for several threads at once.
    """

    def __init__(self, memory: str, niceness: int = 0) -> None:
        self.memory, self._bytes, self._niceness = memory, memory_bytes(memory), niceness
        self._start()

    def _start(self) -> None:
        # Only a process with one thread may be forked: what the others hold would stay locked in the copy
        tasks = Path("/proc/self/task")
        may_fork = tasks.is_dir() and len(os.listdir(tasks)) == 1
        context: ForkContext | SpawnContext = get_context("fork") if may_fork else get_context("spawn")
        ours, theirs = context.Pipe()
        self._channel: Connection = ours  # type: ignore[assignment]  # on Linux a pipe's ends are Connections
        args = (theirs, ours if may_fork else None, self._bytes, self._niceness)
        self._process: BaseProcess = context.Process(target=_work, args=args, daemon=True)
        self._process.start()
        theirs.close()

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
        data = self.file(at, sql, None, time_s, max_rows, max_bytes, given_up)
        import pyarrow as pa

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
        if not self._process.is_alive():
            self.close()
            self._start()
        try:
            request = {"at": asdict(at), "sql": sql, "style": style, "time_s": time_s, "max_rows": max_rows}
            self._channel.send_bytes(json.dumps(request).encode())
            import pyarrow  # noqa: F401  # while the process opens the lake

            # Its time begins when the lake is open
            self._await(OPEN_S, f"the lake took longer than {OPEN_S:g} s to open", given_up)
            self._channel.recv_bytes()
            parts = list(self._parts(time_s, max_bytes, given_up))
            said = json.loads(self._channel.recv_bytes())
        except (EOFError, ConnectionError) as e:
            raise SqlError(self._how_it_ended()) from e
        # What was not read to its end, or Ctrl-C: a new process takes the next query
        except BaseException:
            self.close()
            raise
        if said["is_last"]:
            self.close()
        if said["error"] is not None:
            raise SqlError(said["error"])
        return b"".join(parts)

    def _parts(self, time_s: float, max_bytes: int | None, given_up: Callable[[], bool]) -> Iterator[bytes]:
        """The pieces of an Arrow stream, until the empty one that ends it."""
        size, deadline = 0, time.monotonic() + time_s
        while True:
            late = f"the query took longer than {time_s:g} s and was stopped"
            self._await(deadline - time.monotonic(), late, given_up)
            part = self._channel.recv_bytes(MESSAGE_BYTES)
            if not part:
                return
            size += len(part)
            if max_bytes is not None and size > max_bytes:
                raise SqlError(f"the result is larger than {max_bytes / 1e6:.0f} MB: ask for fewer rows or columns")
            yield part

    def _await(self, time_s: float, late: str, given_up: Callable[[], bool]) -> None:
        """Wait for a message. Raises SqlError: it is `late`, or given up."""
        deadline = time.monotonic() + time_s
        while not self._channel.poll(min(POLL_S, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise SqlError(late)
            if given_up():
                raise SqlError("the query was given up")

    def _how_it_ended(self) -> str:
        """Why the process is gone, for people."""
        self._process.join(LATE_S)
        code = self._process.exitcode
        self.close()
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return f"the query ended its process ({name}): it needs more than {self.memory}, or DuckDB cannot do it"

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._channel.close()

    def __enter__(self) -> "SqlProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SqlProcesses:
    """Processes that answer queries, as many as are asked at once; each is kept for the next query."""

    def __init__(self, memory: str, niceness: int = 0) -> None:
        self.memory, self._niceness = memory, niceness
        self._idle: list[SqlProcess] = []

    @contextmanager
    def one(self) -> Iterator[SqlProcess]:
        """A process of one's own."""
        try:
            process = self._idle.pop()
        except IndexError:
            process = SqlProcess(self.memory, self._niceness)
        try:
            yield process
        finally:
            self._idle.append(process)

    def close(self) -> None:
        """End those that are idle."""
        while self._idle:
            self._idle.pop().close()


# In the process


def _work(channel: Connection, others: Connection | None, memory: int, niceness: int) -> None:
    """Answer queries until nobody is there to ask. `others`: the asker's end, which a forked process has, too."""
    os.nice(niceness)
    if others is not None:
        others.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to the asker as well, who ends this process
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # its own pool would take a GB at a time

    from core.rows import write_as
    from warehouse.lake.sql import answer

    opened, con, held = None, None, 0
    while True:
        try:
            request = json.loads(channel.recv_bytes())
        except EOFError:
            return
        _limit_time(OPEN_S)
        error, is_last, has_begun = None, False, False
        try:
            if con is None or request["at"] != opened:
                con, opened = _opened(LakeState(**request["at"]), memory), request["at"]
                held = held_bytes("RssAnon")
            _limit_time(request["time_s"])
            channel.send_bytes(BEGUN)
            has_begun = True
            rows = answer(con, request["sql"], BATCH_ROWS)
            if request["style"] is None:
                _write(rows, request["max_rows"], _Pieces(channel))
            else:
                batches = _first(rows, request["max_rows"])
                write_as(request["style"], batches, rows.schema, _Pieces(channel))
        except UserError as e:
            error = str(e)
        except Exception as e:
            error, is_last = _explained(e), True
        # What a query has left behind would be missing to the next one
        is_last = is_last or held_bytes("RssAnon") > held + LEAST_ROOM
        if not has_begun:
            channel.send_bytes(BEGUN)
        channel.send_bytes(b"")
        channel.send_bytes(json.dumps({"error": error, "is_last": is_last}).encode())
        if is_last:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_time(time_s: float) -> None:
    """The kernel ends this process late after the time, should the asker be gone."""
    signal.setitimer(signal.ITIMER_REAL, time_s + LATE_S)
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = (time_s + LATE_S) * cores()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + allowed) + 1, hard))


def _opened(at: LakeState, memory: int) -> "duckdb.DuckDBPyConnection":
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


class _Pieces:
    """A file whose bytes are sent in messages of bounded size."""

    closed = False

    def __init__(self, channel: Connection) -> None:
        self._channel = channel

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), MESSAGE_BYTES):
            self._channel.send_bytes(view[start : start + MESSAGE_BYTES])
        return len(view)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The channel goes on."""


def _explained(e: Exception) -> str:
    import duckdb
    import pyarrow as pa

    first = first_line(e)
    if isinstance(e, duckdb.OutOfMemoryException | pa.ArrowMemoryError | MemoryError):
        return f"the query needs more memory than it may take: {first}"
    return f"the query cannot be answered: {first or type(e).__name__}"
