"""Reading the lake for many requests at once: one DuckDB database for each snapshot, a
cursor for each request.

A catalog in SQLite is copied into a DuckDB file: to find the files of one episode then
takes a tenth of the time, which is most of a page's where there are many chunks. A page
reads one snapshot and never mixes two states of the corpus. Every query has a time limit.
"""

import math
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from core.errors import UserError
from core.files import ScratchFolder, queries_of
from core.paths import Workspace
from core.tables import TABLES
from core.tables.definition import sql_type
from warehouse.lake.catalog import check_catalog, copy_catalog
from warehouse.lake.connection import LakeConnection, connect, database, literal, quoted
from warehouse.lake.former_words import former_types
from warehouse.lake.place import LakeError, place
from warehouse.lake.sql import open_locked
from warehouse.lake.statements import ConflictError, Place
from warehouse.lake.words import Words, topics
from warehouse.sql_process import LakeState

MEMORY = "450MB"  # of all pages together, without the index of episodes
PAGE_S = 20.0  # that the queries of one page may take
NEWEST_S = 0.5  # that a page waits for the newest state of a busy machine
NOT_ASKED = object()  # instead of an answer, which may be None
MOST_KEPT = 256  # answers; those of a chunk take up to some MB
CURRENT_SQL, INLINED_SQL, EMPTY_SQL, SPOKEN_SQL, SHOWN_SQL = queries_of(__file__)


class PageError(UserError):
    """Why a page cannot be shown, in a sentence for people; `status` is that of HTTP."""

    def __init__(self, message: str, status: int = 404) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Snapshot:
    """A state of the lake: its number, and when it was committed."""

    number: int
    time: datetime


class KeptAnswers:
    """What was asked of one state of the corpus, kept for those who ask it again; nobody
    may change an answer.

    limit: of more answers the oldest is forgotten. For use by several threads.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._answers: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, key: Any, find: Callable[[], Any]) -> Any:
        """What `find` gives, which is called where the question `key` was not asked yet."""
        answer = self._answers.get(key, NOT_ASKED)
        if answer is NOT_ASKED:
            answer = find()
            with self._lock:
                self._answers[key] = answer
                while len(self._answers) > self._limit:
                    del self._answers[next(iter(self._answers))]
        return answer


class LakeReader(LakeConnection):
    """One request's view of the lake; all its queries read the same snapshot.

    kept: answers that are the same for all pages: to look at one table costs some 10 ms of CPU.
    """

    def __init__(
        self, space: Workspace, con: duckdb.DuckDBPyConnection, opened: "OpenSnapshot"
    ) -> None:
        super().__init__(space, con, opened.words)
        self.state = opened.snapshot
        self.kept = opened.kept

    def _turn(self) -> AbstractContextManager[None]:
        """Nothing is waited for: nobody commits to what is read here."""
        return nullcontext()

    def snapshot(self) -> int:
        return self.state.number

    def row(self, sql: str, parameters: list[Any] | None = None) -> tuple | None:
        """The first row; None: there is none."""
        return next(iter(self.rows(sql, parameters)), None)

    def episode_rows(
        self, name: str, sql: str, dataset: str, chunk: int, episode_index: int
    ) -> list[dict]:
        """The rows of an episode among those that a query gives of its chunk ($1 dataset,
        $2 chunk).

        For tables with few rows of each episode. A chunk is asked for once: one reviews
        runs of the same ones, and to read one row of a file costs as much as reading all.
        """
        rows = self.chunk_rows(name, sql, dataset, chunk)
        numbers = rows["episode_index"].to_numpy()
        return rows.take(np.flatnonzero(numbers == episode_index)).to_pylist()

    def chunk_rows(self, name: str, sql: str, dataset: str, chunk: int) -> pa.Table:
        """What a query gives of a chunk ($1 dataset, $2 chunk), asked for once."""
        return self.kept(
            (name, dataset, chunk), lambda: self.con.execute(sql, [dataset, chunk]).to_arrow_table()
        )

    def places_said_since(self, kind: str, number: int) -> set[tuple[str, int]]:
        """The episodes of which people said something of a kind after the statement of a number."""
        if number >= self.words.newest:
            return set()
        return {*self.rows(SPOKEN_SQL, [topics(kind), number])}

    def recordings_shown(self, places: Collection[Place], snapshot: int | None) -> dict[Any, str]:
        """The recordings that a page of an earlier snapshot shows at some places; of this snapshot none is asked for.

        Raises ConflictError: nobody knows any more.
        """
        if not places or snapshot in (None, self.snapshot()):
            return {}
        sql = SHOWN_SQL.format(snapshot=int(snapshot))
        try:
            rows = self.rows(sql, [*map(list, zip(*places, strict=True))])
        except duckdb.Error as e:
            raise ConflictError(
                f"this page is of snapshot {snapshot}, which is gone by now: reload it and look"
            ) from e
        return {(dataset, episode): recording for dataset, episode, recording in rows}

    def while_nothing_is_said(self, key: Any, find: Callable[[], Any]) -> Any:
        """What `find` gives, asked for once until somebody says something."""
        return self.kept((key, self.words.newest), find)

    def has_rows(self, table: str) -> bool:
        return self.kept(
            ("rows", table), lambda: self.row(f"SELECT 1 FROM {table} LIMIT 1") is not None
        )

    def licences(self) -> list[str | None]:
        """What each dataset says of its licence."""
        return self.column("SELECT license FROM datasets ORDER BY dataset")


@dataclass(frozen=True)
class OpenSnapshot:
    """One snapshot of the lake in a database of its own; `stamp` tells whether the
    catalog has changed since.

    `path`: where names are looked for. `catalog`: the copy that it reads, which is
    deleted with the connection; None: a server's.
    """

    con: duckdb.DuckDBPyConnection
    snapshot: Snapshot
    stamp: tuple[int, ...]
    path: str
    catalog: str | None
    words: Words
    kept: KeptAnswers = field(default_factory=lambda: KeptAnswers(MOST_KEPT), repr=False)
    idle: list[duckdb.DuckDBPyConnection] = field(default_factory=list, repr=False)

    @contextmanager
    def cursor(self, time_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for one request, which is kept for the next: to tell a new one where
        names are looked for costs more than some pages. Raises duckdb.InterruptException
        where its queries take longer than `time_s` in all.
        """
        try:
            con = self.idle.pop()
        except IndexError:
            con = self.con.cursor()
            con.execute(f"SET search_path = {literal(self.path)}")
        overdue = threading.Event()

        def interrupt() -> None:
            overdue.set()
            con.interrupt()

        alarm = threading.Timer(time_s, interrupt)
        alarm.daemon = True
        alarm.start()
        try:
            yield con
        finally:
            alarm.cancel()
            alarm.join()
            # What was interrupted may be so once more
            if overdue.is_set():
                con.close()
            else:
                self.idle.append(con)


class CorpusView:
    """The lake of a workspace, as it is now or at one snapshot. For use by several threads.

    `release`: what froze the snapshot; its scores and training runs are seen as they are now.
    Raises LakeError: no workspace, or no such snapshot.
    """

    def __init__(
        self, space: Workspace, snapshot: int | None = None, release: str | None = None
    ) -> None:
        self.space = space
        self.fixed = snapshot
        self.release = release
        self._opening = threading.Lock()
        self._opener = ThreadPoolExecutor(1)
        self._renewing: Future[None] | None = None
        self._server = connect(space, read_only=True) if place(space).is_postgres else None
        self._state = self._open()

    @contextmanager
    def reading(self, time_s: float = PAGE_S, *, may_be_older: bool = True) -> Iterator[LakeReader]:
        """A reader of the lake as it is; `may_be_older`: than a commit of just now, on a busy
        machine. Raises PageError (503) when its queries take longer than `time_s` in all.
        """
        state = self._current(NEWEST_S if may_be_older else None)
        state.words.sync(is_due=False)
        try:
            with state.cursor(time_s) as con:
                yield LakeReader(self.space, con, state)
        except duckdb.InterruptException as e:
            raise PageError(
                f"this took longer than {time_s:g} s and was stopped; narrow it down", 503
            ) from e

    def say[T](self, act: Callable[[LakeReader], T]) -> T:
        """What `act` gives, which says something by the reader that it is given: all of it is
        durable after it, or nothing is said where it fails.

        Raises LakeError: nothing can be written here; and what `act` raises.
        """
        with self.reading(may_be_older=False) as reader, reader.words.saying():
            return act(reader)

    @contextmanager
    def state(self) -> Iterator[LakeState]:
        """The newest state of the lake for another process to read, which stays there for as long."""
        # Held until then: the copy of the catalog is deleted with it
        opened = self._current()
        opened.words.sync()
        yield LakeState(
            str(self.space.root),
            opened.snapshot.number,
            self.release,
            opened.catalog,
            opened.words.newest,
        )

    def _stamp(self) -> tuple[int, ...]:
        """What the catalog's file is like; of a server, its newest snapshot."""
        if self._server is not None:
            with self._server.cursor() as con:
                return con.execute(CURRENT_SQL).fetchall()[0]
        try:
            status = self.space.catalog.stat()
        except OSError as e:
            check_catalog(self.space)
            raise LakeError(self.space.absence) from e
        return status.st_mtime_ns, status.st_size

    def _current(self, patience_s: float | None = None) -> OpenSnapshot:
        """The newest state. A new one is opened where the catalog has changed; whoever reads waits
        that long for it (None: until it is there), and reads the former one where it takes longer,
        with all that was said since.
        """
        may_change = self.fixed is None or self.release is not None
        # What was begun before may not have the newest commit
        for _ in range(2):
            if not may_change or self._stamp() == self._state.stamp:
                break
            with self._opening:
                renewing = self._renewing = self._renewing or self._opener.submit(self._renew)
            wait([renewing], patience_s)
            if not renewing.done():
                break
            renewing.result()
        return self._state

    def _renew(self) -> None:
        try:
            self._state = self._open()
        finally:
            with self._opening:
                self._renewing = None

    def _open(self) -> OpenSnapshot:
        """A database of its own that has the lake attached, locked."""
        check_catalog(self.space)
        stamp = self._stamp()
        # A Postgres catalog serves many readers by itself; one in SQLite is copied to be read quickly
        snapshot = self.fixed
        catalog = None
        with ExitStack() as copies:
            if self._server is None:
                folder = copies.enter_context(ScratchFolder())
                catalog = f"ducklake:{_copied_catalog(self.space, folder)}"
            elif snapshot is None:
                snapshot = stamp[0]
            # Few threads and little memory for each query: many pages read at once
            con, words = open_locked(
                self.space,
                snapshot,
                MEMORY,
                catalog=catalog,
                release=self.release,
                statements=math.inf if self.fixed is None else None,
                threads=1,
            )
            # The copy is deleted with the connection that reads it
            weakref.finalize(con, copies.pop_all().close)
        # The number is read from the attached lake: the catalog may have moved on since the stamp was taken
        number = self.fixed
        if number is None:
            number = con.execute(CURRENT_SQL).fetchall()[0][0]
        sql = "SELECT snapshot_time FROM ducklake_snapshots('lake') WHERE snapshot_id = ?"
        row = con.execute(sql, [number]).fetchone()
        if row is None:
            raise LakeError(f"the lake has no snapshot {number}")
        [(path,)] = con.execute("SELECT current_setting('search_path')").fetchall()
        return OpenSnapshot(con, Snapshot(number, row[0]), stamp, path, catalog, words)


# DuckLake looks up the files of a table by these; sorted, in small groups of rows, a look-up reads one or two of them
SORTED = {
    "ducklake_file_column_stats": "table_id, column_id, data_file_id",
    "ducklake_data_file": "table_id, data_file_id",
}


def _typed_columns(con: duckdb.DuckDBPyConnection, table: str, name: str) -> str:
    """The columns of one of these tables, with the types that a lake in DuckDB has for them."""
    types = former_types(table)
    if table in TABLES:
        types = {c.name: sql_type(c.type) for c in TABLES[table].columns}
    columns = [column for column, *_ in con.execute(f"DESCRIBE still.{quoted((name,))}").fetchall()]
    cast = {c: f"CAST({quoted((c,))} AS {types[c]}) AS " for c in columns if c in types}
    return ", ".join(cast.get(c, "") + quoted((c,)) for c in columns)


def _copied_catalog(space: Workspace, folder: Path) -> Path:
    """The SQLite catalog as a DuckDB file; as it was at one moment, whatever is published meanwhile."""
    still = folder / "catalog.sqlite"
    copied = folder / "catalog.duckdb"
    copy_catalog(space.catalog, still)
    with database(space, 1) as con:
        _copy(con, still, copied)
    still.unlink()
    return copied


def _copy(con: duckdb.DuckDBPyConnection, still: Path, copied: Path) -> None:
    """Copy a catalog from SQLite to DuckDB."""
    con.execute(f"ATTACH {literal(str(still))} AS still (TYPE sqlite, READ_ONLY)")
    # Many small tables: in one transaction and small blocks it takes half the CPU
    con.execute(f"ATTACH {literal(str(copied))} AS copied (ROW_GROUP_SIZE 2048, BLOCK_SIZE 16384)")
    con.execute("BEGIN")
    con.execute("COPY FROM DATABASE still TO copied")
    for name, order in SORTED.items():
        con.execute(f"CREATE OR REPLACE TABLE copied.{name} AS FROM still.{name} ORDER BY {order}")
    con.execute(EMPTY_SQL)
    for table, name in con.execute(INLINED_SQL).fetchall():
        con.execute(
            f"CREATE OR REPLACE TABLE copied.{quoted((name,))} AS SELECT {_typed_columns(con, table, name)} FROM"
            f" still.{quoted((name,))}"
        )
    con.execute("COMMIT")
    con.execute("DETACH copied")
    con.execute("DETACH still")
