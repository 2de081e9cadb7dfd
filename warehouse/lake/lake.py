"""The lake: DuckLake over Parquet with a SQL catalog, opened, published to and read.

A stage replaces its own partition in one transaction: rows, findings, key check and its stage_runs line together.
Commits are serialised by one lock (`place`); readers need none. For a team: a Postgres catalog, data in a
bucket.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import duckdb
import filelock
import pyarrow as pa

from core.files import room_in, sync_newest
from core.paths import Workspace
from core.tables import TABLES, Table
from warehouse.lake.place import LOCK_TIMEOUT_S, LakeError, bucket_settings, holder, locked, place

ROOM_FOR_A_COMMIT = 16 << 20  # bytes free that are more than any commit needs
WHOLE_DATASET = -1  # stage_runs.chunk of a stage that works on a dataset as a whole

SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.int16(): "SMALLINT",
    pa.uint64(): "UBIGINT",
    pa.float32(): "REAL",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}


def was_interrupted(e: BaseException) -> bool:
    """Is this how a library answers Ctrl-C: DuckDB in the middle of a query, or any that calls Python from C++?"""
    if isinstance(e, RuntimeError) and str(e) == "Query interrupted":
        return True
    return re.search(r"^(.*: )?KeyboardInterrupt\b", str(e), re.M) is not None


@dataclass(frozen=True)
class StageRun:
    """What one run of a stage on one partition published; `chunk` None means the dataset as a whole."""

    stage: str
    dataset: str
    chunk: int | None
    label_run: str
    input_hash: str
    code_version: str
    rows: int
    output_hash: str
    duration_s: float
    cache_hits: int = 0


def sql_type(t: pa.DataType) -> str:
    if pa.types.is_list(t):
        return f"{sql_type(t.value_type)}[]"
    if pa.types.is_struct(t):
        return "STRUCT(" + ", ".join(f'"{f.name}" {sql_type(f.type)}' for f in t) + ")"
    return SQL_TYPES[t]


def quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{n}"' for n in names)


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def extension_path(name: str) -> str:
    """The extension file inside its installed package: loaded from disk, nothing is fetched."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    if spec is None or not spec.submodule_search_locations:
        raise LakeError(f"the package duckdb-extension-{name.replace('_', '-')} is not installed: run make setup")
    folder = next(iter(spec.submodule_search_locations))
    return os.path.join(folder, "extensions", f"v{duckdb.__version__}", f"{name}.duckdb_extension")


def connect(workspace: Workspace, *, read_only: bool, snapshot: int | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the lake attached as `lake` and in use.

    DATA_PATH is always given anew: DuckLake stores it as first seen, so a moved workspace would read the old folder.
    A commit and a read of the SQLite catalog shut each other out for moments; the extension would give up after five
    seconds, which a slow disk or a long query exceeds. (A write-ahead log needs no such wait, but could not be read
    where the reader may not write.)
    """
    con = database(workspace)
    if read_only:
        _take_back_torn_commit(workspace)
    attach(con, workspace, "lake", snapshot, read_only=read_only)
    con.execute("USE lake")
    return con


def database(workspace: Workspace) -> duckdb.DuckDBPyConnection:
    """A DuckDB database in memory that can attach the lake of a workspace.

    To check the signatures of the two extensions, of 36 MB each, would take 0.3 s of each connection. They come from
    the package index beside DuckDB itself, which nobody checks either; any other is refused unless it is signed.
    """
    con = duckdb.connect(config={"python_enable_replacements": "false", "allow_unsigned_extensions": "true"})
    at = place(workspace)
    for name in at.extensions:
        con.execute(f"LOAD {literal(extension_path(name))}")
    con.execute("SET allow_unsigned_extensions = false")
    con.execute("SET TimeZone = 'UTC'")
    if at.is_bucket:
        said = (f"{k} {v if isinstance(v, bool) else literal(v)}" for k, v in bucket_settings(at.data).items())
        con.execute(f"CREATE SECRET (TYPE s3, {', '.join(said)})")
    return con


def _take_back_torn_commit(workspace: Workspace) -> None:
    """After a power cut SQLite's journal says how to take back the commit that was under way; whoever opens the catalog
    only to read may not, and is refused. SQLite does it itself when a program that may write looks at it.

    Only where nobody commits now: a journal is there during each commit, and to close a file gives up the locks that
    others in this process have on it.
    """
    journal = workspace.catalog.with_name(f"{workspace.catalog.name}-journal")
    if not journal.exists():
        return
    with suppress(filelock.Timeout, OSError), filelock.FileLock(workspace.lock, timeout=0):
        if journal.exists():
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(workspace.catalog)) as catalog:
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
    """Attach a workspace's lake, as it is or was, to a connection under a name; `catalog`: a copy of its catalog.

    Raises LakeError: no such snapshot.
    """
    at = place(workspace)
    options = [f"DATA_PATH {literal(at.data)}", "OVERRIDE_DATA_PATH true"]
    if not at.is_postgres and catalog is None:
        options.append(f"META_BUSY_TIMEOUT {int(LOCK_TIMEOUT_S * 1000)}")
    if read_only:
        options.append("READ_ONLY")
    if snapshot is not None:
        options.append(f"SNAPSHOT_VERSION {int(snapshot)}")
    try:
        con.execute(f"ATTACH {literal(catalog or at.attached)} AS {name} ({', '.join(options)})")
    except duckdb.IOException as e:
        if not at.is_postgres:
            raise
        raise LakeError(f"{at.catalog}: the catalog cannot be opened: {' '.join(str(e).split())}") from e
    except duckdb.InvalidInputException as e:
        if snapshot is None:
            raise
        raise LakeError(f"the lake cannot be opened at snapshot {snapshot}: {str(e).splitlines()[0]}") from e


class Lake:
    """One process's connection to a workspace's lake. Not for sharing between threads."""

    def __init__(self, workspace: Workspace, *, read_only: bool = False, snapshot: int | None = None) -> None:
        self.workspace = workspace
        self._written: set[str] = set()  # folders that the transaction under way may have written files into
        if read_only and not workspace.exists():
            raise LakeError(f"no workspace at {workspace.root}: build one first (proccorpus build, or make demo)")
        if not read_only:
            workspace.root.mkdir(parents=True, exist_ok=True)
            if not (at := place(workspace)).is_bucket:
                os.makedirs(at.data, exist_ok=True)
        with room_in(workspace.root), self.lock() if not read_only else _no_lock():
            self.con = connect(workspace, read_only=read_only, snapshot=snapshot)
            # One thread: builds are parallel by processes, and with several a query was seen to spin for ever on a
            # crowded machine, waiting for a worker that had missed its wake-up (DuckDB 1.5.5)
            self.con.execute("SET threads = 1")
            from warehouse.lake.migrations import checked_version, migrate

            if read_only:
                checked_version(self.con, str(workspace.root))
            else:
                migrate(self)

    def lock(self) -> AbstractContextManager[None]:
        return locked(self.workspace)

    @contextmanager
    def transaction(self, message: str) -> Iterator[None]:
        """One commit, under the lock, with a message in DuckLake's history. Raises DiskFullError."""
        with room_in(self.workspace.root):
            yield from self._committed(message)

    def _committed(self, message: str) -> Iterator[None]:
        self._written.clear()
        self.con.execute("BEGIN")
        try:
            yield
            self.con.execute(f"CALL ducklake_set_commit_message('lake', 'proccorpus', {literal(message)})")
            self._sync()
            self.con.execute("COMMIT")
        except BaseException as e:
            with suppress(duckdb.TransactionException):  # a failed COMMIT has already ended the transaction
                self.con.execute("ROLLBACK")
            if isinstance(e, duckdb.Error) and "database is locked" in str(e):
                who = holder(self.workspace.catalog) or "another program"
                raise LakeError(
                    f"{self.workspace.catalog}: {who} has kept the catalog locked for {LOCK_TIMEOUT_S:.0f} s: end it, "
                    "and run the same again"
                ) from e
            if isinstance(e, duckdb.Error) and "cannot rollback - no transaction is active" in str(e):
                # SQLite has taken the transaction back by itself, and DuckDB has forgotten why
                free = shutil.disk_usage(self.workspace.root).free
                why = "database or disk is full" if free < ROOM_FOR_A_COMMIT else "the disk fails"
                raise LakeError(f"{self.workspace.catalog}: a commit could not be written: {why}") from e
            raise
        _note_committed(self.workspace, self.snapshot())

    # Reading

    def rows(self, sql: str, parameters: list[Any] | None = None) -> list[tuple]:
        return self.con.execute(sql, parameters or []).fetchall()

    def dicts(self, sql: str, parameters: list[Any] | None = None) -> list[dict]:
        return self.arrow(sql, parameters).to_pylist()

    def arrow(self, sql: str, parameters: list[Any] | None = None) -> pa.Table:
        return self.con.execute(sql, parameters or []).to_arrow_table()

    def snapshot(self) -> int:
        return self.rows("SELECT id FROM ducklake_current_snapshot('lake')")[0][0]

    # Writing

    def publish(
        self,
        run: StageRun,
        tables: Mapping[str, pa.Table],
        findings: pa.Table | None = None,
        upserts: Mapping[str, pa.Table] | None = None,
        parts: list[StageRun] | None = None,
    ) -> int:
        """Replace the partition of `run` by `tables`, in one transaction; returns the snapshot that holds it.

        `upserts` replace rows of the same key in unpartitioned tables; `parts` are further stage_runs lines (the
        chunks that a dataset-wide stage registers). Raises LakeError when a key is not unique or a row belongs to
        another partition; nothing is changed.
        """
        with self.lock(), self.transaction(f"{run.stage} {run.dataset}:{'' if run.chunk is None else run.chunk}"):
            snapshot = self.snapshot() + 1
            again = self._was_published(run)
            for name, data in tables.items():
                self._replace_partition(TABLES[name], data, run, again)
            if findings is not None:
                where, values = _partition_filter(TABLES["findings"], run)
                self._replace(
                    TABLES["findings"], findings, f"{where} AND {_one_by_one('stage')}", [*values, run.stage], again
                )
            for name, data in (upserts or {}).items():
                self._upsert(TABLES[name], data)
            lines = [_stage_run_row(r, snapshot) for r in (run, *(parts or []))]
            # a dataset that is new has nothing to be dropped: each DELETE costs some 15 ms
            if run.chunk is None and self.rows("SELECT 1 FROM stage_runs WHERE dataset = ? LIMIT 1", [run.dataset]):
                self.con.execute("DELETE FROM stage_runs WHERE stage = ? AND dataset = ?", [run.stage, run.dataset])
                self._drop_other_chunks(run.dataset, [p.chunk for p in parts or [] if p.chunk is not None])
            if again:
                self._upsert(TABLES["stage_runs"], TABLES["stage_runs"].rows(lines))
            else:
                with self._new_rows(TABLES["stage_runs"], data := TABLES["stage_runs"].rows(lines)):
                    self._insert(TABLES["stage_runs"], data)
        return snapshot

    def _was_published(self, run: StageRun) -> bool:
        """May the lake have rows of this stage on this partition? They come with their stage_runs line, and go with it.

        Where it has none there is nothing to delete: each DELETE costs some 15 ms, and a stage has up to five tables.
        """
        chunk = WHOLE_DATASET if run.chunk is None else run.chunk
        return bool(
            self.rows(
                # as rows: conditions of columns make DuckLake look through the statistics of all files of all tables,
                # ten times as slow as reading this small table
                "SELECT 1 FROM stage_runs WHERE (stage, dataset, chunk) = (?, ?, ?) LIMIT 1",
                [run.stage, run.dataset, chunk],
            )
        )

    def _drop_other_chunks(self, dataset: str, chunks: list[int]) -> None:
        """Rows of chunks that a dataset no longer has: its source lost them."""
        kept = f"chunk NOT IN ({', '.join(map(str, chunks))})" if chunks else "true"
        for table in TABLES.values():
            if {"dataset", "chunk"} <= set(table.schema.names):
                self.con.execute(
                    f"DELETE FROM {table.name} WHERE dataset = ? AND chunk <> {WHOLE_DATASET} AND {kept}", [dataset]
                )

    def upsert(self, message: str, **tables: pa.Table) -> None:
        """Replace rows of the same key in unpartitioned tables, in one transaction."""
        with self.lock(), self.transaction(message):
            for name, data in tables.items():
                self._upsert(TABLES[name], data)

    def append(self, message: str, name: str, settle: Callable[[], pa.Table]) -> None:
        """Add the rows that `settle` makes while nobody else can write: what it reads is so until they are added."""
        with self.lock(), self.transaction(message):
            data = settle()
            with self._new_rows(TABLES[name], data):
                self._insert(TABLES[name], data)

    def replace_where(self, message: str, column: str, **tables: pa.Table) -> None:
        """Replace, in each table, all rows whose `column` has a value that the new rows have; one transaction."""
        with self.lock(), self.transaction(message):
            for name, data in tables.items():
                values = data[column].unique().to_pylist()
                self.con.execute(f'DELETE FROM {name} WHERE list_contains(?, "{column}")', [values])
                with self._new_rows(TABLES[name], data):
                    self._insert(TABLES[name], data)

    def remove(self, message: str, where: str, values: list[Any], *tables: str) -> int:
        """Delete the rows of some tables that fit a condition, in one transaction; returns how many of the first."""
        with self.lock(), self.transaction(message):
            count = self.rows(f"SELECT count(*) FROM {tables[0]} WHERE {where}", values)[0][0]
            for name in tables:
                self.con.execute(f"DELETE FROM {name} WHERE {where}", values)
        return count

    def freeze(
        self, release: dict[str, Any], shards: pa.Table, write: Callable[[int], None] = lambda snapshot: None
    ) -> int:
        """Record a release and its shards in a snapshot of their own; returns that snapshot.

        `write` puts down, before the release is recorded, what belongs to it; where it raises there is no release.
        """
        message = f"release {release['name']}"
        with self.lock(), self.transaction(message):
            snapshot = self.snapshot() + 1
            self.con.execute("DELETE FROM release_shards WHERE name = ?", [release["name"]])
            with self._new_rows(TABLES["release_shards"], shards):
                self._insert(TABLES["release_shards"], shards)
            self._upsert(TABLES["releases"], TABLES["releases"].rows([release | {"snapshot": snapshot}]))
            write(snapshot)
        return snapshot

    def _replace_partition(self, table: Table, data: pa.Table, run: StageRun, again: bool) -> None:
        where, values = _partition_filter(table, run)
        if "label_run" in table.key:
            where, values = f"{where} AND coalesce(label_run, '') = ?", [*values, run.label_run]
        self._replace(table, data, where, values, again)

    def _replace(self, table: Table, data: pa.Table, where: str, values: list[Any], again: bool) -> None:
        with self._new_rows(table, data):
            if self.rows(f"SELECT count(*) FROM new_rows WHERE {where}", values)[0][0] != data.num_rows:
                raise LakeError(f"{table.name}: rows of another partition than the one published")
            if again:
                self.con.execute(f"DELETE FROM {table.name} WHERE {where}", values)
            self._insert(table, data)

    def _upsert(self, table: Table, data: pa.Table) -> None:
        match = " AND ".join(f't."{k}" IS NOT DISTINCT FROM n."{k}"' for k in table.key)
        with self._new_rows(table, data):
            self.con.execute(f"DELETE FROM {table.name} t WHERE EXISTS (FROM new_rows n WHERE {match})")
            self._insert(table, data)

    @contextmanager
    def _new_rows(self, table: Table, data: pa.Table) -> Iterator[None]:
        """`data` as the relation new_rows; raises LakeError when its keys are not unique."""
        self.con.register("new_rows", data)
        try:
            key = quoted(table.key)
            twice = self.rows(f"SELECT {key} FROM new_rows GROUP BY ALL HAVING count(*) > 1 LIMIT 1")
            if twice:
                raise LakeError(f"{table.name}: two rows with {dict(zip(table.key, twice[0], strict=True))}")
            yield
        finally:
            self.con.unregister("new_rows")

    def _insert(self, table: Table, data: pa.Table) -> None:
        if data.num_rows:
            self.con.execute(f"INSERT INTO {table.name} BY NAME SELECT * FROM new_rows ORDER BY {quoted(table.key)}")
            root = os.path.join(place(self.workspace).data, "main", table.name)
            self._written.add(root)
            if table.partition:
                parts = self.rows(f"SELECT DISTINCT {quoted(table.partition)} FROM new_rows")
                named = ([f"{k}={v}" for k, v in zip(table.partition, p, strict=True)] for p in parts)
                self._written |= {os.path.join(root, *names) for names in named}

    def _sync(self) -> None:
        """DuckDB does not sync the files it writes: a catalog that is on disk must not list one that is not."""
        if not place(self.workspace).is_bucket:
            for folder in sorted(self._written):
                sync_newest(folder)
        self._written.clear()


def newest_committed(workspace: Workspace) -> int | None:
    """The newest snapshot that was committed to this workspace, as noted beside the catalog: newer than the catalog's
    own where an older copy of that was put in its place. None: never noted.
    """
    try:
        return int(workspace.committed.read_text())
    except (OSError, ValueError):
        return None


def _note_committed(workspace: Workspace, snapshot: int) -> None:
    """Whole or not at all, but not synced: what is lost of it is a warning, not data."""
    with suppress(OSError):  # a disk that is full now: the commit stands
        half = workspace.committed.with_suffix(".tmp")
        half.write_text(str(snapshot))
        half.replace(workspace.committed)


@contextmanager
def _no_lock() -> Iterator[None]:
    yield


def _partition_filter(table: Table, run: StageRun) -> tuple[str, list[Any]]:
    names = table.schema.names
    if run.chunk is None:
        return "dataset = ?", [run.dataset]
    if "chunk" not in names:
        raise LakeError(f"table {table.name} has no chunks: publish it for a whole dataset")
    return f"{_one_by_one('dataset')} AND chunk = ?", [run.dataset, run.chunk]


def _one_by_one(column: str) -> str:
    """The condition that a column has a value, told of each row: for each plain one DuckLake looks through the
    statistics of all files, which SQLite has no index for. Beside a chunk's, which leaves few files, it costs more than
    it saves.
    """
    return f"({column}, 0) = (?, 0)"


def _stage_run_row(run: StageRun, snapshot: int) -> dict:
    return {
        **run.__dict__,
        "chunk": WHOLE_DATASET if run.chunk is None else run.chunk,
        "snapshot": snapshot,
        "finished_at": datetime.now(UTC),
    }


@cache
def _cached(root: str, process: int) -> Lake:
    from pathlib import Path

    return Lake(Workspace(Path(root)))


def open_lake(workspace: Workspace) -> Lake:
    """This process's writable lake: opening costs 0.1 s of CPU, so it is kept."""
    return _cached(os.path.abspath(workspace.root), os.getpid())


def forget_lakes() -> None:
    """Open anew what open_lake keeps: connections that a server has dropped are of no more use."""
    _cached.cache_clear()


@cache
def _scratch() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"python_enable_replacements": "false", "threads": 1})


def table_hash(table: Table, data: pa.Table) -> str:
    """sha256 over the rows as JSON in key order: equal rows, equal hash, whatever wrote or ordered them."""
    con = _scratch()
    con.register("hashed", data)
    columns = quoted(tuple(c.name for c in table.columns if c.digest))
    row = con.execute(
        f"SELECT sha256(coalesce(string_agg(j, chr(10) ORDER BY {quoted(table.key)}), '')) FROM "
        f"(SELECT to_json(struct_pack({_pack(table)}))::VARCHAR AS j, {quoted(table.key)} FROM hashed)"
        if columns
        else "SELECT ''"
    ).fetchone()
    con.unregister("hashed")
    assert row is not None
    return row[0]


def _pack(table: Table) -> str:
    return ", ".join(f'"{c.name}" := "{c.name}"' for c in table.columns if c.digest)


def output_hash(tables: Mapping[str, pa.Table]) -> str:
    """One hash over what a stage publishes."""
    return content_key(*(part for name in sorted(tables) for part in (name, table_hash(TABLES[name], tables[name]))))


def content_key(*parts: str) -> str:
    """sha256 over strings, unambiguous in where each ends."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode()
        h.update(len(data).to_bytes(8, "big") + data)
    return h.hexdigest()


def digest(lake: Lake) -> dict[str, str]:
    """One hash per content table, and one for the view `episodes`, over rows ordered by key.

    Hashed per chunk first, so 60 M rows never stand in memory together.
    """
    hashes = {t.name: _digest(lake, t.name, t.key, _pack(t), t.schema.names) for t in TABLES.values() if t.content}
    names = tuple(r[0] for r in lake.rows("SELECT column_name FROM (DESCRIBE episodes)"))
    pack = ", ".join(f'"{n}" := "{n}"' for n in names)
    hashes["episodes"] = _digest(lake, "episodes", ("dataset", "episode_index"), pack, list(names))
    return dict(sorted(hashes.items()))


def _digest(lake: Lake, name: str, key: tuple[str, ...], pack: str, columns: list[str]) -> str:
    by = [c for c in ("dataset", "chunk") if c in columns]
    group = f"GROUP BY {', '.join(by)} ORDER BY {', '.join(by)}" if by else ""
    sql = (
        f"SELECT sha256(string_agg(to_json(struct_pack({pack}))::VARCHAR, chr(10) ORDER BY {quoted(key)})) "
        f"FROM {name} {group}"
    )
    return content_key(*(r[0] or "" for r in lake.rows(sql)))
