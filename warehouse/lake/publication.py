"""What a stage publishes; and how processes that wait to publish offer it to the one that commits.

An offer is a file in the workspace that its process holds locked: the kernel gives up what a dead one offered. It
begins with a number: none while it is written, 0 while it waits, then the snapshot that has it, as who committed says.
Where that one is killed before it says so, the rows are published once more, in place of themselves. Machines that
share a catalog but no disk see no offers of each other.
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple
from uuid import uuid4

import duckdb
import pyarrow as pa

from core.paths import Workspace
from core.tables import TABLES, Table
from core.values import grouped
from warehouse.lake.connection import LakeConnection, quoted, registered
from warehouse.lake.place import LakeError, locked
from warehouse.lake.views import SAID

NO_ROWS = hashlib.sha256(b"").hexdigest()


@cache
def database_in_memory() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"python_enable_replacements": "false", "threads": 1})
    return con.execute("SET GLOBAL TimeZone = 'UTC'")  # of every cursor


@contextmanager
def in_memory(**tables: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which Arrow tables are relations of these names, to a database of this process: a relation of
    the lake's own connection costs 7 ms."""
    # Threads share no cursor
    with closing(database_in_memory().cursor()) as con, registered(con, **tables):
        yield con


def table_hash(table: Table, data: pa.Table) -> str:
    """sha256 over the rows as JSON in key order: equal rows, equal hash, whatever wrote or ordered them."""
    columns = quoted(tuple(c.name for c in table.columns if c.digest))
    # Many tables of a small chunk have no rows; to ask DuckDB costs 3 ms
    if columns and not data.num_rows:
        return NO_ROWS
    # DuckDB writes JSON alike for all types: the same text of the same rows, whatever library made the table
    with in_memory(hashed=data) as con:
        row = con.execute(
            f"SELECT sha256(coalesce(string_agg(j, chr(10) ORDER BY {quoted(table.key)}), '')) FROM "
            f"(SELECT {_row_text(table)} AS j, {quoted(table.key)} FROM hashed)"
            if columns
            else "SELECT ''"
        ).fetchone()
    assert row is not None
    return row[0]


def chunk_hashes(table: Table, data: pa.Table, columns: Sequence[str] = ()) -> dict[int, str]:
    """By chunk what `table_hash` says of its rows, of those that have one; `columns`: these and the key alone."""
    if not data.num_rows:
        return {}
    if columns:
        names = {*table.key, *table.partition, *columns}
        table = replace(table, columns=tuple(c for c in table.columns if c.name in names))
    with in_memory(hashed=data) as con:
        rows = con.execute(
            f"SELECT chunk, sha256(string_agg(j, chr(10) ORDER BY {quoted(table.key)})) FROM "
            f"(SELECT {_row_text(table)} AS j, chunk, {quoted(table.key)} FROM hashed) "
            "WHERE chunk IS NOT NULL GROUP BY chunk"
        ).fetchall()
    return dict(rows)


def _row_text(table: Table) -> str:
    """SQL: what a row is hashed by. Of a table with long rows their hashes, which need not stand in memory together."""
    text = _json([c.name for c in table.columns if c.digest])
    if table.compact:
        return f"sha256({text})"
    return text


def _json(columns: Sequence[str]) -> str:
    pack = ", ".join(f'"{name}" := "{name}"' for name in columns)
    return f"to_json(struct_pack({pack}))::VARCHAR"


def output_hash(tables: Mapping[str, pa.Table]) -> str:
    """One hash over what a stage publishes."""
    named_hashes = ((name, table_hash(TABLES[name], tables[name])) for name in sorted(tables))
    return content_key(*chain.from_iterable(named_hashes))


def content_key(*parts: str) -> str:
    """sha256 over strings, unambiguous in where each ends."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode()
        h.update(len(data).to_bytes(8, "big") + data)
    return h.hexdigest()


def digest(lake: LakeConnection) -> dict[str, str]:
    """One hash per content table, view of what people said, and one for the view `episodes`, over rows ordered by key.

    Hashed per chunk first, so 60 M rows never stand in memory together.
    """
    hashes = {
        t.name: _digest(lake, t.name, t.key, _row_text(t), t.schema.names)
        for t in TABLES.values()
        if t.content
    }
    for view, key in {**SAID, **WITH_KEYS}.items():
        names = [r[0] for r in lake.rows(f"SELECT column_name FROM (DESCRIBE {view})")]
        hashed = [name for name in names if view not in SAID or name not in NOT_HASHED]
        hashes[view] = _digest(lake, view, key, _json(hashed), names)
    return dict(sorted(hashes.items()))


def _digest(
    lake: LakeConnection, name: str, key: tuple[str, ...], row_text: str, columns: list[str]
) -> str:
    group_columns = [c for c in ("dataset", "chunk") if c in columns]
    if group_columns:
        group = f"GROUP BY {', '.join(group_columns)} ORDER BY {', '.join(group_columns)}"
    else:
        group = ""
    sql = (
        f"SELECT sha256(string_agg(row_text, chr(10) ORDER BY {quoted(key)})) "
        f"FROM (SELECT *, {row_text} AS row_text FROM {name}) {group}"
    )
    return content_key(*(r[0] or "" for r in lake.rows(sql)))


# Views of findings by the columns that order them
WITH_KEYS = {
    "episodes": ("dataset", "episode_index"),
    "run_checks": ("dataset", "episode_index", "check_name", "camera", "signal", "start_frame"),
}
NOT_HASHED = ("recording", "created_at")  # of views of what people said
WHOLE_DATASET = -1  # stage_runs.chunk of a stage that works on a dataset as a whole
OFFERS, DIGITS = ".offers", 20  # folder in the workspace; of the number that an offer begins with
MOST_BYTES = 64 << 20  # of others' offers in one commit


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
    inputs: str = (
        ""  # JSON of names and hashes: what input_hash is over; of a chunk's listing its fields
    )
    references_hash: str = ""  # of transfer: the references that it was shown
    numbers: str = ""  # what the stage counted, for people, as JSON

    @property
    def key(self) -> tuple[str, str, int]:
        return self.stage, self.dataset, WHOLE_DATASET if self.chunk is None else self.chunk

    def partition_of(self, table: Table) -> dict[str, Any]:
        """By column what the rows of a table have in common that it publishes. Raises LakeError: it has no chunks."""
        if self.chunk is not None and "chunk" not in table.schema.names:
            raise LakeError(f"table {table.name} has no chunks: publish it for a whole dataset")
        chunk = {} if self.chunk is None else {"chunk": self.chunk}
        return (
            {"dataset": self.dataset}
            | chunk
            | {k: vars(self)[k] for k in ("label_run", "stage") if k in table.key}
        )

    def row(self, snapshot: int) -> dict[str, Any]:
        """Its line in stage_runs."""
        return {
            **vars(self),
            "chunk": self.key[2],
            "snapshot": snapshot,
            "finished_at": datetime.now(UTC),
        }


class StageOutput(NamedTuple):
    """What `Lake.publish` is given; findings are one of the tables."""

    run: StageRun
    tables: Mapping[str, pa.Table]
    registered: Mapping[str, pa.Table] = {}
    upserts: Mapping[str, pa.Table] = {}
    parts: Sequence[StageRun] = ()
    # Episodes whose former contents are gone, with all labels of them
    outdated: frozenset[int] = frozenset()

    @property
    def goes_together(self) -> bool:
        """With others in one commit? Not a listing, which drops what its dataset has lost; nor what is large."""
        of_chunk = (
            self.run.chunk is not None and not self.upserts and not self.parts and not self.outdated
        )
        return of_chunk and sum(data.nbytes for data in self.tables.values()) <= MOST_BYTES

    def check(self) -> None:
        """Raises LakeError: a key twice, or a row of another partition."""
        for name, data in self.tables.items():
            check_keys(TABLES[name], data)
            for column, value in self.run.partition_of(TABLES[name]).items():
                # Rows of no label run have none, or an empty one
                if set(data[column].to_pylist()) - {value, None if value == "" else value}:
                    raise LakeError(f"{name}: rows of another partition than the one published")


def check_keys(table: Table, data: pa.Table) -> None:
    """Raises LakeError when two rows have one key. Not by SQL, which takes 3 ms however few the rows are."""
    keys = list(zip(*(data[column].to_pylist() for column in table.key), strict=True))
    if len(set(keys)) < len(keys):
        [(key, _)] = Counter(keys).most_common(1)
        raise LakeError(f"{table.name}: two rows with {dict(zip(table.key, key, strict=True))}")


def joined(of_each: Iterable[Mapping[str, pa.Table]]) -> dict[str, pa.Table]:
    """By table the rows of all, whose columns may stand in another order."""
    parts = grouped(chain.from_iterable(tables.items() for tables in of_each))
    return {
        name: pa.concat_tables(table_parts, promote_options="default")
        for name, table_parts in parts.items()
    }


@contextmanager
def turn(workspace: Workspace, output: StageOutput) -> Iterator[int]:
    """The right to commit, and 0; or the snapshot that has `output` already, which another process
    committed meanwhile.

    Nothing is offered while nobody else commits.
    """
    with ExitStack() as stack:
        offer = _CommitOffer(workspace, output, stack)
        with locked(workspace, offer.is_committed):
            snapshot = offer.snapshot()
            stack.close()  # before the next one's turn, who would take it once more
            yield snapshot


class _CommitOffer:
    """What a process offers to the one that commits, once it has to wait; withdrawn when `stack` is closed."""

    def __init__(self, workspace: Workspace, output: StageOutput, stack: ExitStack) -> None:
        self._workspace = workspace
        self._output = output
        self._stack = stack
        self._has_waited = False
        self._file: int | None = None

    def is_committed(self) -> bool:
        """Has another process committed it? Asked while this one waits; the first time, the offer is made."""
        if not self._has_waited and self._output.goes_together:
            with suppress(OSError):  # without room, or such locks, nobody takes it
                self._file = self._stack.enter_context(_offered(self._workspace, self._output))
        self._has_waited = True
        return self.snapshot() > 0

    def snapshot(self) -> int:
        """The snapshot that has the output; 0: none, as far as this process knows."""
        if self._file is None:
            return 0
        return int(os.pread(self._file, DIGITS, 0))


@contextmanager
def _offered(workspace: Workspace, output: StageOutput) -> Iterator[int]:
    path = workspace.root / OFFERS / uuid4().hex
    path.parent.mkdir(exist_ok=True)
    try:
        with path.open("xb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b" " * DIGITS + b"\n")
            file.write(
                json.dumps([vars(output.run), [*output.tables], [*output.registered]]).encode()
                + b"\n"
            )
            for data in (*output.tables.values(), *output.registered.values()):
                with pa.ipc.new_stream(file, data.schema) as stream:
                    stream.write_table(data)
            file.flush()
            os.pwrite(file.fileno(), b"%*d" % (DIGITS, 0), 0)
            yield file.fileno()
    finally:
        path.unlink(missing_ok=True)


def waiting(workspace: Workspace, output: StageOutput) -> dict[Path, StageOutput]:
    """What living processes of this user offer, as far as it goes together with `output`; by the offers' files."""
    keys = {output.run.key}
    room = MOST_BYTES
    outputs = dict[Path, StageOutput]()
    for path in (workspace.root / OFFERS).glob("*") if output.goes_together else ():
        # What is gone meanwhile, not whole yet, or of other code than ours, its own process publishes
        with suppress(OSError, ValueError, TypeError), path.open("rb") as file:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink()  # its process is dead
                continue
            about = os.fstat(file.fileno())
            if about.st_uid == os.geteuid() and about.st_size <= room and not int(file.readline()):
                theirs = _read(file)
                if theirs.run.key not in keys:
                    room -= about.st_size
                    keys.add(theirs.run.key)
                    outputs[path] = theirs
    return outputs


def _read(file: IO[bytes]) -> StageOutput:
    run, names, registered_names = json.loads(file.readline())
    tables = {name: pa.ipc.open_stream(file).read_all() for name in names}
    registered = {name: pa.ipc.open_stream(file).read_all() for name in registered_names}
    return StageOutput(StageRun(**run), tables, registered)


def tell_committed(offers: Iterable[Path], snapshot: int) -> None:
    for path in offers:
        with suppress(OSError), path.open("rb+") as file:  # who offered it waits no more
            file.write(b"%*d" % (DIGITS, snapshot))
