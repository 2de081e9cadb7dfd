"""User SQL in a process of its own, which can be killed and which the kernel keeps within memory and time.

Some statements end DuckDB by a signal, or hold memory that its own limit does not count, or cannot be interrupted. Here
they end a process that holds nothing else. Imports neither DuckDB nor Arrow: a process that has not begun any thread is
forked, which costs nothing.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from core.cores import cores
from core.errors import SqlError
from core.wall import Walled

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY_TEXT = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?B)", re.IGNORECASE)
UNITS = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
LATE_S = 5.0  # of every core's CPU, beside a query's time
OPEN_S = 60.0  # that opening the lake may take, of a query's process


@dataclass(frozen=True)
class LakeState:
    """The state that a query reads: a workspace now, at a snapshot, or as a release froze it.

    Scores and training runs of a release are those of now. `catalog`: a copy of the workspace's catalog, as DuckLake
    names it; with `release`, `snapshot` is what that froze. `statements`: number of the newest statement of people that
    is read; None: what was said when the snapshot was committed, or by now.
    """

    workspace: str
    snapshot: int | None = None
    release: str | None = None
    catalog: str | None = None
    statements: int | None = None


def memory_bytes(text: str) -> int:
    """Bytes of a size such as 500MB or 4GB. Raises SqlError."""
    text_match = MEMORY_TEXT.fullmatch(text)
    if text_match is None:
        raise SqlError(f"{text!r} is no size of memory: write it as 500MB or 4GB")
    return int(float(text_match[1]) * UNITS[text_match[2].upper()])


class SqlProcess(Walled):
    """A process that answers one query at a time, and is started anew after one that ended it.

    `memory`: all that the process may hold, such as 4GB. `niceness`: how far it lets others go first, as `nice` has it.
    Raises SqlError: no size. Not for several threads at once.
    """

    def __init__(self, memory: str, niceness: int = 0) -> None:
        self.memory = memory
        self._bytes = memory_bytes(memory)
        super().__init__(None, begin=partial(_begin, niceness))

    def query(
        self,
        lake_state: LakeState,
        sql: str,
        time_s: float,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        given_up: Callable[[], bool] = lambda: False,
    ) -> "pa.Table":
        """The rows of one user query, at most `max_rows`. The query is stopped as soon as
        `given_up` says so.

        Raises SqlError: refused, failed, longer than `time_s`, given up, or a result larger than
        `max_bytes`.
        """
        import pyarrow as pa  # while the process does so, too

        data = self.file(lake_state, sql, None, time_s, max_rows, max_bytes, given_up)
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            return reader.read_all()

    def file(
        self,
        lake_state: LakeState,
        sql: str,
        style: str | None,
        time_s: float,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        given_up: Callable[[], bool] = lambda: False,
    ) -> bytes:
        """As `query`, but a file with the rows, written by the process itself: csv, json or parquet; without a style
        an Arrow stream; rows: JSON of `rows`, `names` of columns and `num_rows` of all."""
        late = f"the lake took longer than {OPEN_S:g} s to open"
        cpu_s = (time_s + LATE_S) * cores()
        try:
            # Its time begins when the lake is open
            error = self(
                _in_lake,
                "open_state",
                astuple(lake_state),
                self._bytes,
                wall_s=OPEN_S,
                given_up=given_up,
            )
            late = f"the query took longer than {time_s:g} s and was stopped"
            data = b""
            is_last = False
            if not error:
                request = "answered", sql, style, max_rows, max_bytes
                error, data, is_last = self(
                    _in_lake, *request, wall_s=time_s, cpu_s=cpu_s, given_up=given_up
                )
        except TimeoutError as e:
            raise SqlError("the query was given up" if given_up() else late) from e
        except ChildProcessError as e:
            raise SqlError(
                f"the query {e}: it needs more than {self.memory}, or DuckDB cannot do it"
            ) from e
        if is_last:
            self.close()
        if error:
            raise SqlError(error)
        return data


# In the process


def _begin(niceness: int) -> None:
    os.nice(niceness)
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # its own pool would take a GB at a time
    # Arrow imports NumPy, where it is installed, for what no query asks for: 0.04 s
    sys.modules.setdefault("numpy", None)  # type: ignore[arg-type]
    import_module("warehouse.lake.sql")


def _in_lake(function: str, *args: Any) -> Any:
    return getattr(import_module("warehouse.lake.sql"), function)(*args)
