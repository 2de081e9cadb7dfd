"""A connection to the lake: DuckDB with its extensions, the catalog attached, rows read, transactions committed.

It knows neither stages, nor the version of the tables (warehouse.lake.schema), nor what is written into them
(warehouse.lake.publication).
"""

import importlib.util
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa

from core.cores import cores
from core.files import room_in, sync_newest
from core.paths import Workspace
from core.tables import Table
from warehouse.lake.catalog import check_catalog, explained, note_committed
from warehouse.lake.place import (
    LOCK_TIMEOUT_S,
    LakeError,
    LakePlace,
    bucket_settings,
    committing_turn,
    holder,
    is_taken,
    lock_file,
    locked,
    place,
    reading_turn,
)
from warehouse.lake.words import SEARCH_PATH, Words, check_presence, literal, topics

CATALOG = "__ducklake_metadata_lake"  # DuckLake's own tables, beside the lake
# Behind a table: its rows of usable episodes. The view `episodes` reads three tables, each of which takes 2 ms
OF_USABLE = (
    "ANTI JOIN (FROM findings WHERE (severity, 0) = ('unusable', 0)) USING (dataset, episode_index)"
)
ROOM_FOR_A_COMMIT = 16 << 20  # bytes free that are more than any commit needs


def was_interrupted(e: BaseException) -> bool:
    """Is this how a library answers Ctrl-C: DuckDB in the middle of a query, or any that calls Python from C++?"""
    if isinstance(e, RuntimeError) and str(e) == "Query interrupted":
        return True
    return re.search(r"^(.*: )?KeyboardInterrupt\b", str(e), re.M) is not None


def quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{n}"' for n in names)


def row_by_row(column: str) -> str:
    """The condition that a column has a value, its one parameter, written so that it is evaluated
    row by row.

    For each plain condition DuckLake looks through the statistics of all files of all tables, for
    which it has no index in SQLite. Of a small table, or beside another condition that leaves few
    files, that costs more than it saves.
    """
    return f"({column}, 0) = (?, 0)"


def extension_path(name: str) -> str:
    """The extension file inside its installed package: loaded from disk, nothing is fetched. Raises LakeError."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    if spec is None or not spec.submodule_search_locations:
        raise LakeError(
            f"the package duckdb-extension-{name.replace('_', '-')} is not installed: run make setup"
        )
    folder = next(iter(spec.submodule_search_locations))
    path = os.path.join(folder, "extensions", f"v{duckdb.__version__}", f"{name}.duckdb_extension")
    if not os.path.isfile(path):
        versions = ", ".join(
            v.removeprefix("v") for v in sorted(os.listdir(os.path.join(folder, "extensions")))
        )
        raise LakeError(
            f"DuckDB {duckdb.__version__} is installed, and its extension {name} for DuckDB {versions}: install the "
            "versions of constraints.txt (docs/dependencies.md says what newer ones wait for)"
        )
    return path


def connect(
    workspace: Workspace,
    *,
    read_only: bool,
    snapshot: int | None = None,
    catalog: str | None = None,
    threads: int | None = None,
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the lake attached as `lake` and in use; `catalog`: a copy of its
    catalog.

    threads: of its queries; default: one for each core.

    DATA_PATH is always given anew: DuckLake stores it as first seen, so a moved workspace would
    read the old folder. A commit and a read of the SQLite catalog shut each other out for moments;
    the extension would give up after five seconds, which a slow disk or a long query exceeds. (A
    write-ahead log needs no such wait, but could not be read where the reader may not write.) One
    thread opens the lake: of several, DuckLake refused the second beside a commit.
    """
    if catalog is None and not check_catalog(workspace) and read_only:
        raise LakeError(workspace.absence)
    con = database(workspace, 1)
    if read_only and catalog is None:
        _take_back_torn_commit(workspace)
    attach(con, workspace, "lake", snapshot, read_only=read_only, catalog=catalog)
    con.execute("USE lake")
    if threads != 1:
        con.execute(f"SET threads = {threads or cores()}")
    return con


def database(workspace: Workspace, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB database in memory that can attach the lake of a workspace.

    To check the signatures of the two extensions, of 36 MB each, would take 0.3 s of each
    connection. They come from the package index beside DuckDB itself, which nobody checks either;
    any other is refused unless it is signed.
    """
    # Without replacements a query cannot read Python's variables by their names
    con = duckdb.connect(
        config={
            "python_enable_replacements": "false",
            "allow_unsigned_extensions": "true",
            "threads": threads or cores(),
        }
    )
    lake_place = place(workspace)
    for name in lake_place.extensions:
        con.execute(f"LOAD {literal(extension_path(name))}")
    con.execute("SET allow_unsigned_extensions = false")
    con.execute("SET GLOBAL TimeZone = 'UTC'")  # of every cursor
    # Where a program has no file (`python -c`), DuckDB would draw a bar on standard output, amid a command's rows
    con.execute("SET enable_progress_bar = false")
    if lake_place.is_bucket:
        options = [
            f"{name} {value if isinstance(value, bool) else literal(value)}"
            for name, value in bucket_settings(lake_place.data).items()
        ]
        con.execute(f"CREATE SECRET (TYPE s3, {', '.join(options)})")
    return con


def _take_back_torn_commit(workspace: Workspace) -> None:
    """Let SQLite take back the commit that was under way at a power cut, which its journal says how
    to do.

    Whoever opens the catalog only to read may not do so, and is refused. SQLite does it by itself
    when a program that may write looks at the catalog. Only where nobody commits now: a journal is
    there during each commit, and to close a file gives up the locks that others in this process
    have on it.
    """
    journal = workspace.catalog.with_name(f"{workspace.catalog.name}-journal")
    if not journal.exists():
        return
    # Not worth waiting for: where somebody holds the lock, a commit is under way and the journal is theirs
    with suppress(OSError), lock_file(workspace.lock) as lock:
        if is_taken(lock) and journal.exists():
            with (
                suppress(sqlite3.OperationalError),
                closing(sqlite3.connect(workspace.catalog)) as catalog,
            ):
                catalog.execute("SELECT count(*) FROM sqlite_master").fetchone()


def attach(
    con: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    name: str,
    snapshot: int | None = None,
    *,
    read_only: bool = True,
    catalog: str | None = None,
) -> None:
    """Attach a workspace's lake, as it is or was, to a connection under a name; `catalog`: a copy
    of its catalog.

    Raises LakeError: no such snapshot.
    """
    lake_place = place(workspace)
    options = {
        f"DATA_PATH {literal(lake_place.data)}": True,
        "OVERRIDE_DATA_PATH true": True,
        f"META_BUSY_TIMEOUT {int(LOCK_TIMEOUT_S * 1000)}": catalog is None
        and not lake_place.is_postgres,  # who commits to it
        "READ_ONLY": read_only,
        f"SNAPSHOT_VERSION {int(snapshot or 0)}": snapshot is not None,
    }
    # Only what a person can act on is put in our words: a server out of reach, a snapshot that is not there
    try:
        con.execute(
            f"ATTACH {literal(catalog or lake_place.attached)} AS {name} ({', '.join(filter(options.get, options))})"
        )
    except duckdb.IOException as e:
        if not lake_place.is_postgres:
            raise
        raise LakeError(
            f"{lake_place.catalog}: the catalog cannot be opened: {' '.join(str(e).split())}"
        ) from e
    except duckdb.Error as e:
        if snapshot is not None and isinstance(e, duckdb.InvalidInputException):
            raise LakeError(
                f"the lake cannot be opened at snapshot {snapshot}: {str(e).splitlines()[0]}"
            ) from e
        if explanation := explained(workspace, e):
            raise explanation from e
        raise


def has(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Does the lake in use have a table or view? One that is only read may be of an earlier
    version.

    Asked for it alone: duckdb_views() and its kind look at everything there is, some 70 ms at
    first.
    """
    try:
        return bool(
            con.execute(f"SELECT 1 FROM pragma_table_info({literal(name)}) LIMIT 1").fetchall()
        )
    except duckdb.CatalogException:
        return False


def see_statements(
    workspace: Workspace,
    con: duckdb.DuckDBPyConnection,
    snapshot: int | None = None,
    last: float | None = None,
) -> Words:
    """Let a connection to the lake see what people said: all of it, up to the statement of the number `last`, or what
    was said when a snapshot was committed."""
    if snapshot is not None and last is None:
        # Lakes of before have what was said in tables of their own
        sql = "SELECT commit_extra_info FROM ducklake_snapshots('lake') WHERE snapshot_id = ?"
        last = int(con.execute(sql, [snapshot]).fetchall()[0][0] or 0)
    check_presence(workspace, con)
    words = Words(workspace, con, last)
    con.execute(f"SET search_path = {literal(SEARCH_PATH)}")
    return words


@contextmanager
def registered(con: duckdb.DuckDBPyConnection, **tables: pa.Table) -> Iterator[None]:
    """Arrow tables as relations of these names."""
    for name, table in tables.items():
        con.register(name, table)
    try:
        yield
    finally:
        for name in tables:
            con.unregister(name)


def temp_table(con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Make rows a temporary table of a connection, which queries join instead of carrying lists."""
    with registered(con, new_rows=rows):
        con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM new_rows")


class LakeConnection:
    """A lake that is attached to a DuckDB connection. Not for sharing between threads."""

    def __init__(
        self,
        workspace: Workspace,
        con: duckdb.DuckDBPyConnection,
        words: Words | None = None,
        snapshot: int | None = None,
    ) -> None:
        self.workspace = workspace
        self.con = con
        self.words = words or see_statements(workspace, con, snapshot)
        # Folders that the transaction under way may have written files into
        self._written: set[str] = set()
        self._is_in_transaction = False
        self._is_writing = False
        # The snapshot that the transaction under way makes; None: maybe none
        self._commits: int | None = None
        self._kept: dict[Hashable, Any] = {}  # of the state _kept_at: a snapshot, and what was said
        self._kept_at = (-1, -1)
        # By kind the datasets of which statements were made, up to the one of a number
        self._said: dict[str, list[str]] = {}
        self._said_at = -1
        self._seen: int | None = None  # the snapshot that a transaction under way reads

    @property
    def whole(self) -> "LakeConnection":
        """All of the lake, where this is a part of it."""
        return self

    @cached_property
    def place(self) -> LakePlace:
        """Where it lies."""
        return place(self.workspace)

    def lock(self) -> AbstractContextManager[None]:
        return locked(self.workspace)

    @contextmanager
    def transaction(self, message: str) -> Iterator[None]:
        """One commit, under the lock, with a message in DuckLake's history. Raises DiskFullError."""
        self._is_in_transaction = self._is_writing = True
        try:
            with room_in(self.workspace.root):
                yield from self._commit(message)
        finally:
            self._is_in_transaction = self._is_writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read within is of one state of the lake, and costs less: DuckLake looks for
        the newest snapshot once, not at each query (3 ms of CPU).

        For a few queries in a row, nothing between them: whoever commits to a SQLite catalog waits
        meanwhile.
        """
        if self._is_in_transaction:
            yield
            return
        self.words.sync(is_due=False)
        self._is_in_transaction = True
        try:
            with reading_turn(self.workspace):
                try:
                    self.con.execute("BEGIN")
                    yield
                    self.con.execute("COMMIT")
                except BaseException:
                    with suppress(duckdb.Error):  # what failed says more
                        self.con.execute("ROLLBACK")
                    raise
        finally:
            self._is_in_transaction = False
            self._seen = None

    def _commit(self, message: str) -> Iterator[None]:
        self._written.clear()
        self._commits = None
        self.con.execute("BEGIN")
        try:
            yield
            self.con.execute(
                f"CALL ducklake_set_commit_message('lake', 'proccorpus', {literal(message)}, "
                f"extra_info => '{self.words.newest}')"
            )
            # DuckDB does not sync the files it writes: a catalog that is on disk must not list one that is not
            for folder in () if self.place.is_bucket else sorted(self._written):
                sync_newest(folder)
            with committing_turn(self.workspace):
                self.con.execute("COMMIT")
        except BaseException as e:
            # A failed COMMIT has already ended the transaction
            with suppress(duckdb.TransactionException):
                self.con.execute("ROLLBACK")
            explanation = self._why(e)
            if explanation is not None:
                raise explanation from e
            raise
        note_committed(self.workspace, self._commits or self.snapshot())

    def _why(self, e: BaseException) -> LakeError | None:
        """The error of a failed commit in words for people, where DuckDB's own words do not say what happened."""
        if not isinstance(e, duckdb.Error):
            return None
        catalog = self.workspace.catalog
        # DuckDB says only that it waited: people need to know what program to end
        if "database is locked" in str(e):
            holder_name = holder(catalog) or "another program"
            return LakeError(
                f"{catalog}: {holder_name} has kept the catalog locked for {LOCK_TIMEOUT_S:.0f} s: end it, "
                "and run the same again"
            )
        if "cannot rollback - no transaction is active" in str(e):
            # SQLite has taken the transaction back by itself, and DuckDB has forgotten why
            free = shutil.disk_usage(self.workspace.root).free
            cause = "database or disk is full" if free < ROOM_FOR_A_COMMIT else "the disk fails"
            return LakeError(f"{catalog}: a commit could not be written: {cause}")
        return explained(self.workspace, e)

    # Reading

    def rows(self, sql: str, parameters: list[Any] | dict[str, Any] | None = None) -> list[tuple]:
        with self._turn():
            return self.holding(sql).execute(sql, parameters or []).fetchall()

    def column(self, sql: str, parameters: list[Any] | None = None) -> list[Any]:
        """The first value of each row."""
        return [row[0] for row in self.rows(sql, parameters)]

    def dicts(self, sql: str, parameters: list[Any] | None = None) -> list[dict]:
        return self.arrow(sql, parameters).to_pylist()

    def arrow(self, sql: str, parameters: list[Any] | None = None) -> pa.Table:
        with self._turn():
            return self.holding(sql).execute(sql, parameters or []).to_arrow_table()

    def holding(self, sql: str) -> duckdb.DuckDBPyConnection:
        """The connection, which has what a query names."""
        return self.con

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Raises LakeError where the catalog or files of rows turn out to be damaged."""
        if not self._is_in_transaction:
            self.words.sync(is_due=False)
        try:
            with nullcontext() if self._is_in_transaction else reading_turn(self.workspace):
                yield
        except duckdb.Error as e:
            if explanation := explained(self.workspace, e):
                raise explanation from e
            raise

    def recordings_at(
        self, places: Collection[tuple[str, int]]
    ) -> dict[tuple[str, int], tuple[str, str, str | None]]:
        """The recording that each place (dataset, episode_index) holds, or else held last, with its name in the source
        and content_hash; without unknown places."""
        if not places:
            return {}
        rows = self.rows(
            "SELECT dataset, episode_index, "
            "arg_max((recording, source_id, c.content_hash), (left_at IS NULL, left_at)) FROM recordings "
            "LEFT JOIN episode_content c USING (dataset, episode_index, recording) "
            "WHERE list_contains($1, dataset) AND list_contains($2, episode_index) GROUP BY 1, 2",
            [
                sorted({dataset for dataset, _ in places}),
                sorted({episode for _, episode in places}),
            ],
        )
        return {
            (dataset, episode): recording
            for dataset, episode, recording in rows
            if (dataset, episode) in places
        }

    def datasets_in(self, kind: str) -> frozenset[str]:
        """The datasets of which statements of a kind, or in one order with it, were made: a quick look."""
        if not self._is_in_transaction:
            self.words.sync(is_due=False)
        if self._said_at != self.words.newest:
            rows = self.rows("SELECT kind, list(DISTINCT dataset) FROM statements GROUP BY 1")
            self._said = dict(rows)
            self._said_at = self.words.newest
        return frozenset().union(*(self._said.get(name, ()) for name in topics(kind)))

    def snapshot(self) -> int:
        if self._seen is not None:
            return self._seen
        [newest] = self.column("SELECT id FROM ducklake_current_snapshot('lake')")
        if self._is_in_transaction and not self._is_writing:
            self._seen = newest
        return newest

    def once[T](self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gives, kept by `key` until anybody commits or says something: a question
        costs some 5 ms, a look at the snapshot 1.

        Never kept from within a transaction that writes: its rows may be taken back.
        """
        if self._is_writing:
            return compute()
        state = self.snapshot(), self.words.newest
        if state != self._kept_at:
            self._kept.clear()
            self._kept_at = state
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    def _note_folders(self, table: Table, folders: Iterable[str]) -> None:
        """Remember folders within a table's own that files are written into, until the commit."""
        root = os.path.join(self.place.data, "main", table.name)
        self._written.update([root, *(os.path.join(root, folder) for folder in folders)])
