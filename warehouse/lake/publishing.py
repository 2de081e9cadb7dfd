"""Write into the lake, each time in one transaction.

A stage replaces its own partition: rows, findings, key check and its stage_runs line together.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from core.files import room_in
from core.tables import TABLES, Table
from warehouse.lake import people
from warehouse.lake.catalog import back_up
from warehouse.lake.connection import LakeConnection, quoted, row_by_row
from warehouse.lake.place import LakeError, place

WHOLE_DATASET = -1  # stage_runs.chunk of a stage that works on a dataset as a whole
REWRITTEN_FROM = 0.25  # share of a file's rows that were deleted, from which on it is written anew without them


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
    outcomes_hash: str = ""  # of a chunk's listing: what stages that read outcomes depend on besides
    others_hash: str = ""  # of a chunk's listing: what stages that show runs of other chunks depend on besides
    references_hash: str = ""  # of transfer: the references that it was shown
    numbers: str = ""  # what the stage counted, for people, as JSON


class LakeWriter(LakeConnection):
    """The transactions that change a lake's rows."""

    def publish(
        self,
        run: StageRun,
        tables: Mapping[str, pa.Table],
        findings: pa.Table | None = None,
        upserts: Mapping[str, pa.Table] | None = None,
        parts: list[StageRun] | None = None,
        *,
        registered: Mapping[str, pa.Table] | None = None,
        absent_at: int | None = None,
    ) -> int:
        """Replace the partition of `run` by `tables`, in one transaction; returns the snapshot that holds it.

        `upserts` replace rows of the same key in unpartitioned tables, `registered` are added where those have none of
        the same key; `parts` are further stage_runs lines (the chunks that a dataset-wide stage registers).
        `absent_at`: a snapshot at which the lake had nothing of the stage on this partition, or nothing of the dataset
        where that is the partition; None: not known, so it is asked. Raises LakeError when a key is not unique or a row
        belongs to another partition; nothing is changed.
        """
        chunk = "" if run.chunk is None else run.chunk
        with self.lock(), self.transaction(f"{run.stage} {run.dataset}:{chunk}"):
            now = self.snapshot()
            snapshot = self._commits = now + 1
            # First the rows of the partition, which take the place of those that the same stage published before
            is_new = absent_at == now
            again = not is_new and self._was_published(run)
            for name, data in tables.items():
                self._replace(TABLES[name], data, run, again, ("label_run",))
            if findings is not None:
                self._replace(TABLES["findings"], findings, run, again, ("stage",))
            # Then rows that belong to no partition, such as the label run that made the labels
            for name, data in (upserts or {}).items():
                self._upsert(TABLES[name], data)
            for name, data in (registered or {}).items():
                self._register(TABLES[name], data)
            # At last the line that says so: a plan goes by it alone
            if run.chunk is None and not is_new:
                self._forget_chunks(run, parts or [])
            table = TABLES["stage_runs"]
            lines = table.rows([_stage_run_row(each, snapshot) for each in (run, *(parts or []))])
            (self._upsert if again else self._add)(table, lines)
        return snapshot

    def _was_published(self, run: StageRun) -> bool:
        """May the lake have rows of this stage on this partition? They come with their stage_runs line, and go with it.

        Where it has none there is nothing to delete: each DELETE costs some 15 ms, and a stage has up to five tables.
        """
        chunk = WHOLE_DATASET if run.chunk is None else run.chunk
        # Compared as rows: conditions of columns make DuckLake look through the statistics of all files of all tables,
        # ten times as slow as reading this small table
        sql = "SELECT 1 FROM stage_runs WHERE (stage, dataset, chunk) = (?, ?, ?) LIMIT 1"
        return bool(self.rows(sql, [run.stage, run.dataset, chunk]))

    def _forget_chunks(self, run: StageRun, parts: list[StageRun]) -> None:
        """Drop the stage's lines of its dataset, and all rows of chunks that are not among `parts`: the source lost
        them.
        """
        # A dataset that is new has nothing to be dropped: each DELETE costs some 15 ms
        if not self.rows("SELECT 1 FROM stage_runs WHERE dataset = ? LIMIT 1", [run.dataset]):
            return
        self.con.execute("DELETE FROM stage_runs WHERE stage = ? AND dataset = ?", [run.stage, run.dataset])
        present = ", ".join(str(p.chunk) for p in parts if p.chunk is not None)
        is_lost = f"chunk NOT IN ({present})" if present else "true"
        where = f"dataset = ? AND chunk <> {WHOLE_DATASET} AND {is_lost}"
        for table in TABLES.values():
            if {"dataset", "chunk"} <= set(table.schema.names):
                self.con.execute(f"DELETE FROM {table.name} WHERE {where}", [run.dataset])

    def upsert(self, message: str, **tables: pa.Table) -> None:
        """Replace rows of the same key in unpartitioned tables, in one transaction."""
        with self.lock(), self.transaction(message):
            for name, data in tables.items():
                self._upsert(TABLES[name], data)

    def append(self, message: str, name: str, settle: Callable[[], pa.Table]) -> None:
        """Add the rows that `settle` makes while nobody else can write: what it reads is so until they are added."""
        with self.lock(), self.transaction(message):
            self._add(TABLES[name], settle())

    def replace_where(self, message: str, column: str, **tables: pa.Table) -> None:
        """Replace, in each table, all rows whose `column` has a value that the new rows have; one transaction."""
        with self.lock(), self.transaction(message):
            for name, data in tables.items():
                values = data[column].unique().to_pylist()
                self.con.execute(f'DELETE FROM {name} WHERE list_contains(?, "{column}")', [values])
                self._add(TABLES[name], data)

    def remove(self, message: str, where: str, values: list[Any], *tables: str) -> int:
        """Delete the rows of some tables that fit a condition, in one transaction; returns how many of the first."""
        with self.lock(), self.transaction(message):
            count = self.rows(f"SELECT count(*) FROM {tables[0]} WHERE {where}", values)[0][0]
            for name in tables:
                self._say(TABLES[name], self.arrow(f"FROM {name} WHERE {where}", values), "gone")
                self.con.execute(f"DELETE FROM {name} WHERE {where}", values)
        return count

    def freeze(self, release: dict[str, Any], shards: pa.Table, write: Callable[[int], None] = lambda _: None) -> int:
        """Record a release and its shards in a snapshot of their own; returns that snapshot.

        `write` puts down, before the release is recorded, what belongs to it; where it raises there is no release.
        """
        with self.lock(), self.transaction(f"release {release['name']}"):
            snapshot = self.snapshot() + 1
            self.con.execute("DELETE FROM release_shards WHERE name = ?", [release["name"]])
            self._add(TABLES["release_shards"], shards)
            self._upsert(TABLES["releases"], TABLES["releases"].rows([release | {"snapshot": snapshot}]))
            write(snapshot)
        return snapshot

    def back_up(self) -> None:
        """Copy the catalog into backups/, if it has changed since the last time. Raises DiskFullError."""
        with self.lock(), room_in(self.workspace.root):
            if not self.workspace.people.exists():
                people.rewrite(self.workspace, self.arrow)
            back_up(self.workspace, self.snapshot())

    def rewrite(self, name: str, folders: Iterable[str]) -> None:
        """Write files of a table anew without rows that were deleted, where these are many; in one transaction.

        Files with such rows are not merged. `folders`: as for `merge`.
        """
        with self.lock(), self.transaction(f"drop deleted rows of {name}"):
            sql = f"CALL ducklake_rewrite_data_files('lake', ?, delete_threshold => {REWRITTEN_FROM})"
            self.con.execute(sql, [name])
            self._note_folders(TABLES[name], folders)

    def merge(self, name: str, folders: Iterable[str], max_bytes: int, at_most: int) -> tuple[int, int]:
        """Merge files of a table's partitions that are smaller than `max_bytes`, in one transaction.

        folders: of the partitions, within the table's own. at_most: how many partitions in one go. Returns how many
        files were merged, and into how many. Rows stay what they are, in former snapshots too. The merged files stay
        until what is scheduled for deletion is deleted: somebody may be reading them.
        """
        with self.lock(), self.transaction(f"merge small files of {name}"):
            options = f"max_file_size => {int(max_bytes)}, max_compacted_files => {int(at_most)}"
            merged = self.rows(f"CALL ducklake_merge_adjacent_files('lake', ?, {options})", [name])
            self._note_folders(TABLES[name], folders)
        return sum(files for *_, files, _ in merged), sum(made for *_, made in merged)

    def _replace(self, table: Table, data: pa.Table, run: StageRun, again: bool, more: tuple[str, ...]) -> None:
        """Replace the rows of the partition of a run that has also, where the table's key has those, its values of
        `more`; `again`: there may be former ones."""
        partition = _partition_of(table, run) | {name: getattr(run, name) for name in more if name in table.key}
        with self._new_rows(table, data, partition):
            if again:
                conditions = " AND ".join(self._condition(column, run) for column in partition)
                self.con.execute(f"DELETE FROM {table.name} WHERE {conditions}", [*partition.values()])
            self._insert(table, data, _partition(table, run))

    def _condition(self, column: str, run: StageRun) -> str:
        """SQL: a column of the partition that `run` replaces has a value, its one parameter."""
        if column == "label_run":
            return "coalesce(label_run, '') = ?"
        # In Postgres there is an index for it; and to open a file of each dataset in a bucket takes long
        is_plain = run.chunk is None or place(self.workspace).is_postgres
        by_row = {"stage"} if is_plain else {"stage", "dataset"}
        return row_by_row(column) if column in by_row else f"{column} = ?"

    def _upsert(self, table: Table, data: pa.Table) -> None:
        match, said = _same_key(table, "t"), data
        with self._new_rows(table, data):
            # To ask first costs a third of a DELETE, and most rows are new
            if data.num_rows and self.rows(f"SELECT 1 FROM {table.name} t SEMI JOIN new_rows n ON {match} LIMIT 1"):
                if table.name in people.KEPT:  # what is there as it is needs no further line
                    columns = quoted(tuple(data.column_names))
                    said = self.arrow(f"SELECT {columns} FROM new_rows EXCEPT SELECT {columns} FROM {table.name}")
                self.con.execute(f"DELETE FROM {table.name} t WHERE EXISTS (FROM new_rows n WHERE {match})")
            self._insert(table, data)
        self._say(table, said)

    def _register(self, table: Table, data: pa.Table) -> None:
        """Add the rows whose key the table has not."""
        with self._new_rows(table, data):
            self._insert(table, data, unless=_same_key(table, "t"))

    def _add(self, table: Table, data: pa.Table) -> None:
        with self._new_rows(table, data):
            self._insert(table, data)
        self._say(table, data)

    def _say(self, table: Table, rows: pa.Table, what: str = "row") -> None:
        """Lines of rows that are added, or `gone`, for the commit, where people's lines have the table."""
        if table.name in people.KEPT:
            self._said += people.lines_of(table.name, rows.to_pylist(), what)

    @contextmanager
    def _new_rows(
        self, table: Table, data: pa.Table, partition: Mapping[str, Any] = MappingProxyType({})
    ) -> Iterator[None]:
        """`data` as the relation new_rows, where it has rows at all: many tables of a small chunk have none.

        Raises LakeError when its keys are not unique, or a row has another value than `partition` says.
        """
        if not data.num_rows:
            yield
            return
        _check_keys(table, data)
        _check_partition(table, data, partition)
        self.con.register("new_rows", data)
        try:
            yield
        finally:
            self.con.unregister("new_rows")

    def _insert(self, table: Table, data: pa.Table, partition: tuple | None = None, unless: str = "") -> None:
        """Insert new_rows n, which is `data`; `partition`: the one that all of it belongs to, where that is known.

        unless: the condition by which a row of the table, t, keeps one of `data` out.
        """
        if not data.num_rows:
            return
        where = f" WHERE NOT EXISTS (FROM {table.name} t WHERE {unless})" if unless else ""
        order = quoted(table.key)
        self.con.execute(f"INSERT INTO {table.name} BY NAME SELECT * FROM new_rows n{where} ORDER BY {order}")
        partitions = {partition} if partition else set()
        if partition is None and table.partition:
            partitions = set(_rows_of(data, table.partition))
        folders = ([f"{column}={v}" for column, v in zip(table.partition, of, strict=True)] for of in partitions)
        self._note_folders(table, (os.path.join(*parts) for parts in folders))


def _partition_of(table: Table, run: StageRun) -> dict[str, Any]:
    """By column what the rows of a table have in common that a run publishes. Raises LakeError: it has no chunks."""
    if run.chunk is None:
        return {"dataset": run.dataset}
    if "chunk" not in table.schema.names:
        raise LakeError(f"table {table.name} has no chunks: publish it for a whole dataset")
    return {"dataset": run.dataset, "chunk": run.chunk}


def _same_key(table: Table, one: str) -> str:
    """SQL: row `one` of a table has the key of row n."""
    return " AND ".join(f'{one}."{k}" IS NOT DISTINCT FROM n."{k}"' for k in table.key)


def _rows_of(data: pa.Table, columns: Iterable[str]) -> Iterator[tuple]:
    return zip(*(data[column].to_pylist() for column in columns), strict=True)


def _check_keys(table: Table, data: pa.Table) -> None:
    """Raises LakeError when two rows have one key. Not by SQL, which takes 3 ms however few the rows are."""
    keys = list(_rows_of(data, table.key))
    if len(set(keys)) < len(keys):
        [(key, _)] = Counter(keys).most_common(1)
        raise LakeError(f"{table.name}: two rows with {dict(zip(table.key, key, strict=True))}")


def _check_partition(table: Table, data: pa.Table, partition: Mapping[str, Any]) -> None:
    for column, value in partition.items():
        # Rows of no label run have none, or an empty one
        none = {None} if column == "label_run" and not value else set()
        if set(data[column].to_pylist()) - none - {value}:
            raise LakeError(f"{table.name}: rows of another partition than the one published")


def _partition(table: Table, run: StageRun) -> tuple | None:
    """Where rows that a stage publishes of its partition are written; None: in more than one."""
    known = {"dataset": run.dataset, "chunk": run.chunk}
    values = tuple(known.get(column) for column in table.partition)
    return None if None in values else values


def _stage_run_row(run: StageRun, snapshot: int) -> dict:
    return {
        **run.__dict__,
        "chunk": WHOLE_DATASET if run.chunk is None else run.chunk,
        "snapshot": snapshot,
        "finished_at": datetime.now(UTC),
    }
