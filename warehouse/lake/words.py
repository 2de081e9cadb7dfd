"""What people say, stored: one table of statements, only ever added to, in a small database beside the lake.

It is SQLite's in the workspace, or a table of the catalog's database in Postgres. A statement is durable when `add`
returns. Each DuckDB connection to the lake sees the statements as the table `statements` of a database in memory, and
takes in those that came since before it reads (`Words.sync`).
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import batched
from pathlib import Path
from typing import Any

import duckdb

from core.errors import first_line
from core.files import whole_file
from core.paths import Workspace
from core.tables import STATEMENTS
from core.tables.definition import sql_type
from warehouse.lake.place import LOCK_TIMEOUT_S, LakeError, place, postgres_session

DATABASE = "words"  # of the connection
SEARCH_PATH = f"lake.main,{DATABASE}.main"
COLUMNS = tuple(STATEMENTS.schema.names)
ADDED = COLUMNS[1:]  # the number is the database's to give
RENAMED = "renamed"  # the kind of a dataset's new name
LOCK_KEY = 0x73746174  # of the advisory lock in Postgres
ROWS_AT_ONCE = 500  # into DuckDB
LOOK_S = 0.2  # between two looks at Postgres
DEFINITIONS = ", ".join(
    f"{name} {'BIGINT' if name == 'episode_index' else 'TEXT'}" for name in ADDED
).replace("statement_id TEXT", "statement_id TEXT UNIQUE")
TABLE = "proccorpus_statements"
# Of the label of a recording: who says either has to have seen the newest of both
OF_LABELS = ("correction", "rejection")
NEWER_SQL = f"SELECT number, {', '.join(ADDED)} FROM {TABLE} WHERE number > {{0}} ORDER BY number"

# The highest number that a commit to the lake notes
NOTED_SQL = "SELECT max(try_cast(commit_extra_info AS BIGINT)) FROM ducklake_snapshots('lake')"


# DuckDB imports pandas, where it is installed, for the first value it is given as a parameter (0.2 s): queries of
# commands that are given again and again have their values written out
def literal(value: str | int | None) -> str:
    """A value as SQL."""
    if isinstance(value, str):
        # DuckDB takes a query to end at its first NUL
        return "'" + value.replace("'", "''").replace("\0", "' || chr(0) || '") + "'"
    return "NULL" if value is None else str(value)


def topics(kind: str) -> tuple[str, ...]:
    """A kind, and those whose statements are in one order with its own."""
    if kind in OF_LABELS:
        return OF_LABELS
    return (kind,)


class StatementStore:
    """The statements of a workspace. Its connection is opened when there is something to read or write.

    `lock`: for use by several threads.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.path = workspace.statements
        self.is_postgres = place(workspace).is_postgres
        self._address = place(workspace).catalog
        self._session: Any = None
        self._is_adding = False
        self.lock = threading.RLock()

    def newest(self) -> int:
        """The highest number; 0: nobody said anything."""
        rows = self._query(f"SELECT coalesce(max(number), 0) FROM {TABLE}")
        return rows[0][0] if rows else 0

    def newer(self, number: int, last: float | None = None) -> list[tuple]:
        """The statements after a number, up to `last`, in their order, with the columns COLUMNS."""
        rows = self._query(NEWER_SQL.format(int(number)))
        return [row for row in rows if last is None or row[0] <= last]

    @contextmanager
    def exclusive(self) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
        """While nobody else can add: gives what adds statements, all of them or, where anything fails, none."""
        with self.lock, self._transaction() as cursor:
            marks = ", ".join(["%s" if self.is_postgres else "?"] * len(ADDED))
            sql = (
                f"INSERT INTO {TABLE} ({', '.join(ADDED)}) VALUES ({marks}) ON CONFLICT DO NOTHING"
            )

            def add(statements: Sequence[Mapping[str, Any]]) -> None:
                for statement in statements:
                    cursor.execute(sql, [statement.get(name) for name in ADDED])

            yield add

    def make(self) -> None:
        """Make the table where it is not there: who may only read finds it later."""
        self._opened(makes=True)

    def skip_to(self, number: int) -> None:
        """Give the next statement a number beyond this one. Of a file: a server keeps count by itself."""
        if not self.is_postgres and self.path.exists():
            self.change(
                f"UPDATE sqlite_sequence SET seq = max(seq, {int(number)}) WHERE name = '{TABLE}'"
            )

    def change(self, *commands: str) -> None:
        """Change what is stored by commands of SQL, all or none of them."""
        with self.lock, self._transaction() as cursor:
            for command in commands:
                cursor.execute(command)

    def back_up(self, num_kept: int) -> None:
        """Copy the file into backups/, where there are new statements; of the copies `num_kept` stay.

        A server's are in the dumps of its database."""
        if self.is_postgres or not self.path.exists() or not num_kept:
            return
        copy = self._workspace.root / "backups" / f"statements-{self.newest():012d}.sqlite"
        if not copy.exists():
            with whole_file(copy) as half, closing(sqlite3.connect(half)) as target:
                self._opened().backup(target)
        for old in backups_of_statements(self._workspace)[num_kept:]:
            old.unlink()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Raises LakeError: the statements cannot be written."""
        self.newest()  # a server may have dropped the connection meanwhile
        with self._explained("nothing was saved"):
            session = self._opened(makes=True)
            try:
                cursor = session.cursor()
                if self.is_postgres:
                    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
                else:
                    cursor.execute("BEGIN IMMEDIATE")
                self._is_adding = True
                yield cursor
                session.commit()
            except BaseException:
                session.rollback()
                raise
            finally:
                self._is_adding = False

    def _query(self, sql: str) -> list[tuple]:
        """Raises LakeError: the statements cannot be read, or their server is away."""
        remedy = "" if self.is_postgres else "; proccorpus recover puts its newest backup there"
        with self.lock:
            was_open = self._session is not None
            try:
                with self._explained("what people said cannot be read", remedy):
                    session = self._opened()
                    if session is None:
                        return []
                    cursor = session.cursor()
                    cursor.execute(sql)
                    rows = cursor.fetchall()
                    # It would give back the lock of who adds something
                    if self.is_postgres and not self._is_adding:
                        session.rollback()
                    return rows
            except LakeError:
                # A server that was started anew has dropped its connections
                if not was_open:
                    raise
                return self._query(sql)

    @contextmanager
    def _explained(self, problem: str, remedy: str = "") -> Iterator[None]:
        """Raises LakeError for errors of the database."""
        try:
            yield
        except Exception as e:
            if not isinstance(e, sqlite3.Error if self._session is None else self._session.Error):
                raise
            self.close()
            location = self._address if self.is_postgres else self.path
            raise LakeError(f"{location}: {problem}: {first_line(e)}{remedy}") from e

    def _opened(self, *, makes: bool = False) -> Any:
        """The connection; None where nothing was ever said, unless it `makes` the table."""
        if self._session is None:
            opened = self._postgres if self.is_postgres else self._sqlite
            self._session = opened(makes=makes)
        return self._session

    def _postgres(self, *, makes: bool) -> Any:
        session = postgres_session(self._address)
        cursor = session.cursor()
        # Who may only read makes no table
        cursor.execute("SELECT to_regclass(%s)", [TABLE])
        is_there = cursor.fetchone()[0] is not None
        if makes and not is_there:
            cursor.execute(f"CREATE TABLE {TABLE} (number BIGSERIAL PRIMARY KEY, {DEFINITIONS})")
        session.commit()
        if is_there or makes:
            return session
        session.close()
        return None

    def _sqlite(self, *, makes: bool) -> sqlite3.Connection | None:
        if not self.path.exists() and not makes:
            return None
        # A file that may not be written is read all the same
        may_write = os.access(self.path.parent, os.W_OK) and os.access(self.path, os.W_OK)
        mode = "rwc" if makes else "rw" if may_write else "ro"
        session = sqlite3.connect(
            f"{self.path.resolve().as_uri()}?mode={mode}",
            uri=True,
            timeout=LOCK_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        session.execute("PRAGMA synchronous = EXTRA")
        if makes:
            session.execute(
                f"CREATE TABLE IF NOT EXISTS {TABLE} "
                f"(number INTEGER PRIMARY KEY AUTOINCREMENT, {DEFINITIONS})"
            )
        return session


class Words:
    """The statements of a workspace in one DuckDB connection, up to the number `last` (None: all), as they come in.

    For use by several threads, one of which says something at a time.
    """

    def __init__(
        self, workspace: Workspace, con: duckdb.DuckDBPyConnection, last: float | None = None
    ) -> None:
        self.store = StatementStore(workspace)
        self.newest = 0  # number of the newest statement that the connection sees
        self._con = con
        self._last = last
        self._looked_at = 0.0
        self._changed_at = 0.0  # both by the monotonic clock
        self._waiting: list[dict[str, Any]] | None = None  # to be added by the act under way
        columns = ", ".join(f'"{c.name}" {sql_type(c.type)}' for c in STATEMENTS.columns)
        con.execute(f"ATTACH ':memory:' AS {DATABASE}")
        con.execute(f"CREATE TABLE {DATABASE}.main.statements ({columns})")
        self.sync()

    def sync(self, *, is_due: bool = True) -> None:
        """Take in what was said since. is_due: also where Postgres was asked a moment ago. Outside of transactions."""
        if self._last is not None and self.newest >= self._last:
            return
        now_s = time.monotonic()
        if self.store.is_postgres and not is_due and now_s - self._looked_at < LOOK_S:
            return
        self._looked_at = now_s
        if self.store.newest() == self.newest:
            return
        with self.store.lock:
            rows = self.store.newer(self.newest, self._last)
            if rows:
                self._take_in([dict(zip(COLUMNS, row, strict=True)) for row in rows])

    @property
    def rested_s(self) -> float:
        """Seconds since the newest statement came in."""
        return time.monotonic() - self._changed_at

    @contextmanager
    def saying(self) -> Iterator[list[dict[str, Any]]]:
        """While nobody else says anything, and with all that was said: gives the list of statements to add, which are
        durable after it; none of them is where it fails. Within another one of this thread it is part of that."""
        with self.store.lock:
            if self._waiting is not None:
                yield self._waiting
                return
            try:
                with self.store.exclusive() as add:
                    self.sync()
                    self._waiting = []
                    yield self._waiting
                    add(self._waiting)
            finally:
                self._waiting = None
            self.sync()

    def _take_in(self, rows: list[dict[str, Any]]) -> None:
        statements = f"{DATABASE}.main.statements"
        with self._con.cursor() as con:
            for part in batched(rows, ROWS_AT_ONCE):
                values = ", ".join(f"({', '.join(map(literal, row.values()))})" for row in part)
                con.execute(f"INSERT INTO {statements} VALUES {values}")
            for row in rows:
                if row["kind"] == RENAMED:
                    new_name = literal(json.loads(row["value"])["new_name"])
                    con.execute(
                        f"UPDATE {statements} SET dataset = {new_name} "
                        f"WHERE dataset = {literal(row['dataset'])} AND number < {row['number']}"
                    )
        self.newest = rows[-1]["number"]
        self._changed_at = time.monotonic()


def check_presence(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> None:
    """Raises LakeError: there is no file of statements, but commits to the lake say that there was one."""
    if place(workspace).is_postgres or workspace.statements.exists():
        return
    [(noted,)] = con.execute(NOTED_SQL).fetchall()
    if noted:
        has_backup = bool(backups_of_statements(workspace))
        remedy = {True: "puts its newest backup there", False: "goes on without it"}[has_backup]
        raise LakeError(
            f"{workspace.statements}: what people said is missing ({noted} statements); proccorpus recover {remedy}"
        )


def is_sound(workspace: Workspace) -> bool:
    """Can the file of statements be read, or was there never one? One in Postgres is its server's matter."""
    if place(workspace).is_postgres:
        return True
    if not workspace.statements.exists():
        return not backups_of_statements(workspace)
    try:
        with closing(
            sqlite3.connect(f"{workspace.statements.resolve().as_uri()}?mode=ro", uri=True)
        ) as file:
            return file.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
    except sqlite3.Error:
        return False


def backups_of_statements(workspace: Workspace) -> list[Path]:
    """The newest first."""
    return sorted((workspace.root / "backups").glob("statements-*.sqlite"), reverse=True)
