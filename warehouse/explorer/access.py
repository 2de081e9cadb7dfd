"""Reading the lake for many requests at once: one DuckDB database, a cursor and one transaction for each request.

A transaction sees one snapshot, so a page never mixes two states of the corpus. Every query has a time limit.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import duckdb

from warehouse.lake import LakeError, connect, literal
from warehouse.workspace import Workspace

MEMORY = "450MB"  # of all pages together, the index of episodes included
PAGE_S = 20.0  # that the queries of one page may take


class PageError(Exception):
    """What a page cannot show, in a sentence for people; `status` is that of HTTP."""

    def __init__(self, message: str, status: int = 404) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Snapshot:
    """A state of the lake: its number, and when it was committed."""

    number: int
    time: datetime


@dataclass(frozen=True)
class Reader:
    """One request's view of the lake; all its queries read the same snapshot."""

    con: duckdb.DuckDBPyConnection
    snapshot: Snapshot

    def rows(self, sql: str, *values: Any) -> list[tuple]:
        return self.con.execute(sql, list(values)).fetchall()

    def dicts(self, sql: str, *values: Any) -> list[dict]:
        return self.con.execute(sql, list(values)).to_arrow_table().to_pylist()

    def has_view(self, name: str) -> bool:
        """Does the lake have a view by then? Snapshots, and workspaces that no build has touched since, may be older."""
        sql = "SELECT 1 FROM duckdb_views() WHERE database_name = 'lake' AND view_name = ?"
        return bool(self.rows(sql, name))

    def row(self, sql: str, *values: Any) -> tuple | None:
        return self.con.execute(sql, list(values)).fetchone()


class Corpus:
    """The lake of a workspace, as it is now or at one snapshot. For use by several threads.

    Raises LakeError: no workspace, or no such snapshot.
    """

    def __init__(self, space: Workspace, snapshot: int | None = None) -> None:
        if not space.exists():
            raise LakeError(f"no workspace at {space.root}: build one first (proccorpus build, or make demo)")
        self.space = space
        self.fixed = snapshot
        self._con = connect(space, read_only=True, snapshot=snapshot)
        # One thread a query: see warehouse.lake.Lake
        for setting in ("threads = 1", f"memory_limit = {literal(MEMORY)}", "temp_directory = ''"):
            self._con.execute(f"SET {setting}")
        self._con.execute(f"SET allowed_directories = [{literal(str(space.data) + '/')}]")
        self._con.execute("SET enable_external_access = false")
        self._con.execute("SET lock_configuration = true")
        self._time_of = lru_cache(maxsize=64)(self._snapshot_time)

    @contextmanager
    def reading(self, time_s: float = PAGE_S) -> Iterator[Reader]:
        """A cursor in a transaction. Raises PageError (503) when its queries take longer than `time_s` in all."""
        with self._con.cursor() as con:
            con.execute("USE lake")
            con.execute("BEGIN")
            alarm = threading.Timer(time_s, con.interrupt)
            alarm.daemon = True
            alarm.start()
            try:
                number = self.fixed
                if number is None:
                    number = con.execute("SELECT id FROM ducklake_current_snapshot('lake')").fetchall()[0][0]
                yield Reader(con, Snapshot(number, self._time_of(number)))
            except duckdb.InterruptException as e:
                raise PageError(f"this took longer than {time_s:g} s and was stopped; narrow it down", 503) from e
            finally:
                alarm.cancel()

    def _snapshot_time(self, number: int) -> datetime:
        with self._con.cursor() as con:
            sql = "SELECT snapshot_time FROM ducklake_snapshots('lake') WHERE snapshot_id = ?"
            row = con.execute(sql, [number]).fetchone()
        if row is None:
            raise LakeError(f"the lake has no snapshot {number}")
        return row[0]

    def close(self) -> None:
        self._con.close()
