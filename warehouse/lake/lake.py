"""The lake: DuckLake over Parquet with a SQL catalog, opened, published to and read.

A stage replaces its own partition in one transaction: rows, findings, key check and its stage_runs line together.
Commits are serialised by one lock (`place`); readers need none. For a team: a Postgres catalog, data in a bucket.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from itertools import chain
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from core.files import room_in
from core.paths import Workspace
from core.tables import TABLES, Table
from warehouse.lake.catalog import back_up
from warehouse.lake.connection import (
    LakeConnection,
    connect,
    quoted,
    registered,
    row_by_row,
    was_interrupted,
)
from warehouse.lake.outdated import forget_labels, make_shards_stale
from warehouse.lake.place import LakeError, kept_backups, locked, place
from warehouse.lake.publication import (
    WHOLE_DATASET,
    StageOutput,
    StageRun,
    check_keys,
    joined,
    tell_committed,
    turn,
    waiting,
)
from warehouse.lake.schema import SCHEMA_VERSION, checked_version, migrate, upgrade

# After a commit that others shared the next one waits for them so long
SHARED_S, PAUSE_S = (2.0, 0.03)
# Share of a file's rows that were deleted, from which on it is written anew without them
REWRITTEN_FROM = 0.25


class StandIns(NamedTuple):
    """Shards of the corpus that are `replaced` in the snapshot of a release; `rows`: those of `shards` and
    `sample_location` in their place, by table."""

    replaced: tuple[str, ...] = ()
    rows: Mapping[str, pa.Table] = MappingProxyType({})


NO_STAND_INS = StandIns()


class Lake(LakeConnection):
    """One process's connection to a workspace's lake. Not for sharing between threads.

    One of an earlier version is upgraded where it is opened to write, after a copy of its catalog. Raises LakeError: no
    workspace, a catalog that is not usable, a lake of a later version.
    """

    # When others shared a commit of this connection's, by the monotonic clock
    _shared_at = -SHARED_S

    def __init__(
        self,
        workspace: Workspace,
        *,
        read_only: bool = False,
        snapshot: int | None = None,
        may_be_older: bool = True,
    ) -> None:
        if not read_only:
            _make_folders(workspace)
        # A writer holds the lock while it opens, so that two processes never migrate at once
        with room_in(workspace.root), nullcontext() if read_only else locked(workspace):
            # One thread: builds are parallel by processes, and with several a query was seen to spin for ever on a
            # crowded machine, waiting for a worker that had missed its wake-up (DuckDB 1.5.5)
            con = connect(workspace, read_only=read_only, snapshot=snapshot, threads=1)
            super().__init__(workspace, con, snapshot=snapshot)
            version = checked_version(
                self.con, workspace, snapshot=snapshot, may_be_older=may_be_older
            )
            if version is None and read_only:
                raise LakeError(workspace.absence)
            if version is None:
                migrate(self)
            elif version < SCHEMA_VERSION and not read_only:
                upgrade(self)

    def publish(
        self,
        run: StageRun,
        tables: Mapping[str, pa.Table],
        findings: pa.Table | None = None,
        upserts: Mapping[str, pa.Table] | None = None,
        parts: Sequence[StageRun] = (),
        *,
        registered: Mapping[str, pa.Table] | None = None,
        outdated: Collection[int] = (),
    ) -> int:
        """Replace the partition of `run` by `tables`, in one transaction; returns the snapshot that holds it.

        `upserts` replace rows of the same key in unpartitioned tables, `registered` are added where those have none of
        the same key; `parts` are further stage_runs lines (the chunks that a dataset-wide stage registers). `outdated`:
        episodes that hold other contents now, or none: the rows of all labels of the former contents go. What other
        processes wait to publish goes into the same transaction, as this may go into theirs. Raises LakeError when a
        key is not unique or a row belongs to another partition; nothing is changed.
        """
        staged = tables if findings is None else {**tables, "findings": findings}
        output = StageOutput(
            run, staged, registered or {}, upserts or {}, parts, frozenset(outdated)
        )
        output.check()
        with turn(self.workspace, output) as snapshot:
            if snapshot:
                self._shared_at = time.monotonic()
                return snapshot
            if time.monotonic() - self._shared_at < SHARED_S:
                time.sleep(PAUSE_S)  # they come again in a moment
            other_outputs = waiting(self.workspace, output)
            try:
                snapshot = self._write_all([output, *other_outputs.values()])
            except (LakeError, duckdb.Error, pa.ArrowException) as e:
                if not other_outputs or was_interrupted(e):
                    raise
                # Another one's rows may be the reason: who offers them hears of it at its own turn
                return self._write_all([output])
            if other_outputs:
                self._shared_at = time.monotonic()
                tell_committed(other_outputs, snapshot)
        return snapshot

    def _write_all(self, outputs: Sequence[StageOutput]) -> int:
        """Publish some partitions, no two of them the same, in one transaction: each table is written once."""
        message = ", ".join(
            f"{r.stage} {r.dataset}:{'' if r.chunk is None else r.chunk}" for r, *_ in outputs
        )
        with self.transaction(message):
            snapshot = self._commits = self.snapshot() + 1
            # First what the same stages published before of these partitions goes, and labels of contents that are gone
            for output in outputs:
                if output.outdated:
                    forget_labels(self, output.run.dataset, output.outdated)
            is_repeated = self._delete_former(outputs)
            # Then rows of the partitions, and those that belong to none, such as the label run that made the labels
            for write, kind in (
                (self._insert, "tables"),
                (self._upsert, "upserts"),
                (self._register, "registered"),
            ):
                for name, data in joined(map(attrgetter(kind), outputs)).items():
                    write(TABLES[name], data)
            # At last the lines that say so: a plan goes by them alone
            for output in outputs:
                self._forget_chunks(output.run, output.parts)
            table = TABLES["stage_runs"]
            runs = chain.from_iterable((output.run, *output.parts) for output in outputs)
            lines = table.rows([run.row(snapshot) for run in runs])
            (self._upsert if is_repeated else self._add)(table, lines)
        return snapshot

    def _delete_former(self, outputs: Sequence[StageOutput]) -> bool:
        """Delete what was published before of the same partitions; was there any? Raises LakeError: a chunk is not
        listed any more.

        It came with a stage_runs line. Where there is none nothing is deleted: each DELETE costs some 15 ms, and a
        stage has up to five tables.
        """
        # Compared as rows: conditions of columns make DuckLake look through the statistics of all files of all tables,
        # ten times as slow as reading this small table
        keys = {output.run.key for output in outputs}
        # Beside them the lines by which a listing says that it was made, and which chunks there are
        listing_keys = {
            ("episodes", dataset, number)
            for _, dataset, chunk in keys
            for number in (chunk, WHOLE_DATASET)
        }
        all_keys = keys | listing_keys
        placeholders = ", ".join(["(?, ?, ?)"] * len(all_keys))
        sql = f"SELECT stage, dataset, chunk FROM stage_runs WHERE (stage, dataset, chunk) IN ({placeholders})"
        present_keys = set(self.rows(sql, [*chain.from_iterable(all_keys)]))
        listed = {key[1:] for key in listing_keys & present_keys}
        for _, dataset, chunk in keys:
            # No build would delete its rows, or make them anew
            if (dataset, WHOLE_DATASET) in listed and (dataset, chunk) not in listed:
                raise LakeError(
                    f"the source of {dataset} has lost chunk {chunk} meanwhile: build again"
                )
        for output in (output for output in outputs if output.run.key in present_keys):
            for name in output.tables:
                partition = output.run.partition_of(TABLES[name])
                conditions = " AND ".join(self._condition(c, output.run) for c in partition)
                self.con.execute(f"DELETE FROM {name} WHERE {conditions}", [*partition.values()])
        return not keys.isdisjoint(present_keys)

    def _forget_chunks(self, run: StageRun, parts: Sequence[StageRun]) -> None:
        """Of a listing: drop its lines of the dataset, and all rows of chunks that are not among `parts`: the source
        lost them.
        """
        if run.chunk is not None:
            return
        # Of each chunk with rows there is a line: each DELETE costs some 15 ms, and few listings lose a chunk
        former_chunks = set(
            self.column("SELECT DISTINCT chunk FROM stage_runs WHERE dataset = ?", [run.dataset])
        )
        if former_chunks:
            self.con.execute(
                "DELETE FROM stage_runs WHERE stage = ? AND dataset = ?", [run.stage, run.dataset]
            )
        lost_chunks = former_chunks - {part.chunk for part in parts} - {WHOLE_DATASET}
        if not lost_chunks:
            return
        for table in TABLES.values():
            if {"dataset", "chunk"} <= set(table.schema.names):
                condition = "dataset = ? AND list_contains(?, chunk)"
                self.con.execute(
                    f"DELETE FROM {table.name} WHERE {condition}",
                    [run.dataset, sorted(lost_chunks)],
                )

    def upsert(self, message: str, **tables: pa.Table) -> None:
        """Replace rows of the same key in unpartitioned tables, in one transaction."""
        with self.lock(), self.transaction(message):
            for name, data in tables.items():
                self._upsert(TABLES[name], data)

    def replace_where(self, message: str, column: str, **tables: pa.Table) -> None:
        """Replace, in each table, all rows whose `column` has a value that the new rows have; one transaction."""
        with self.lock(), self.transaction(message):
            for name, data in tables.items():
                values = data[column].unique().to_pylist()
                self.con.execute(f'DELETE FROM {name} WHERE list_contains(?, "{column}")', [values])
                self._add(TABLES[name], data)

    def remove(self, message: str, condition: str, values: list[Any], *tables: str) -> int:
        """Delete the rows of some tables that fit a condition, in one transaction; returns how many of the first."""
        with self.lock(), self.transaction(message):
            count = self.rows(f"SELECT count(*) FROM {tables[0]} WHERE {condition}", values)[0][0]
            for name in tables:
                self.con.execute(f"DELETE FROM {name} WHERE {condition}", values)
        return count

    def carry(
        self,
        message: str,
        dataset: str,
        name: str,
        carried: Sequence[str],
        dropped: Sequence[str],
        upserts: Mapping[str, pa.Table],
    ) -> None:
        """Give a dataset's rows of some tables another dataset's name, and delete those of others, in one transaction;
        first `upserts` replace rows of the same key."""
        with self.lock(), self.transaction(message):
            for table, data in upserts.items():
                self._upsert(TABLES[table], data)
            for table in (*carried, *dropped):
                rows = self.arrow(f"FROM {table} WHERE dataset = ?", [dataset])
                if not rows.num_rows:
                    continue
                self.con.execute(f"DELETE FROM {table} WHERE dataset = ?", [dataset])
                if table in carried:
                    column = pa.array([name] * rows.num_rows, pa.string())
                    self._add(
                        TABLES[table],
                        rows.set_column(rows.schema.get_field_index("dataset"), "dataset", column),
                    )

    def freeze(
        self,
        release: dict[str, Any],
        shards: pa.Table,
        write: Callable[[int], dict[str, Any]] = lambda _: {},
        stand_ins: StandIns = NO_STAND_INS,
    ) -> int:
        """Record a release and its shards in a snapshot of their own; returns that snapshot.

        `write` puts down, before the release is recorded, what belongs to it, and returns further columns of its row;
        where it raises there is no release. `stand_ins`: what that snapshot, and no later one, has in the place of
        shards of the corpus.
        """
        with self.lock():
            corpus_rows = self._rows_of_shards(stand_ins.replaced) if stand_ins.replaced else {}
            with self.transaction(f"release {release['name']}"):
                snapshot = self.snapshot() + 1
                if stand_ins.replaced:
                    self._exchange_shards(stand_ins.replaced, stand_ins.rows)
                    # Where the process ends before the second commit, the next build makes these shards anew
                    make_shards_stale(self, corpus_rows["stage_runs"])
                self.con.execute("DELETE FROM release_shards WHERE name = ?", [release["name"]])
                self._add(TABLES["release_shards"], shards)
                row = release | {"snapshot": snapshot} | write(snapshot)
                self._upsert(TABLES["releases"], TABLES["releases"].rows([row]))
            if stand_ins.replaced:
                names = stand_ins.rows["shards"]["shard"].to_pylist()
                with self.transaction(f"shards of the corpus after release {release['name']}"):
                    self._exchange_shards(names, corpus_rows)
        return snapshot

    def _rows_of_shards(self, names: Sequence[str]) -> dict[str, pa.Table]:
        """The rows that record some shards, and those of the stage that made them."""
        listed = [list(names)]
        rows = {
            table: self.arrow(f"FROM {table} WHERE list_contains(?, shard)", listed)
            for table in ("shards", "sample_location")
        }
        sql = (
            "FROM stage_runs WHERE stage = 'shards' AND (dataset, chunk) IN "
            "(SELECT (dataset, chunk) FROM shards WHERE list_contains(?, shard))"
        )
        return rows | {"stage_runs": self.arrow(sql, listed)}

    def _exchange_shards(self, names: Sequence[str], rows: Mapping[str, pa.Table]) -> None:
        """Put rows in the place of those of some shards. Within a transaction."""
        for table in ("shards", "sample_location"):
            if names:
                self.con.execute(
                    f"DELETE FROM {table} WHERE list_contains(?, shard)", [list(names)]
                )
        for table, new_rows in rows.items():
            self._upsert(TABLES[table], new_rows)

    def back_up(self) -> None:
        """Copy the catalog and the statements into backups/, if they have changed since. Raises DiskFullError."""
        with self.lock(), room_in(self.workspace.root):
            back_up(self.workspace, self.snapshot())
            self.back_up_statements()

    def back_up_statements(self) -> None:
        """Copy what people said into backups/, if there is anything new."""
        self.words.store.back_up(kept_backups(self.workspace))

    def rewrite(self, name: str, folders: Iterable[str]) -> None:
        """Write files of a table anew without rows that were deleted, where these are many; in one
        transaction.

        Files with such rows are not merged. `folders`: as for `merge`.
        """
        with self.lock(), self.transaction(f"drop deleted rows of {name}"):
            sql = (
                f"CALL ducklake_rewrite_data_files('lake', ?, delete_threshold => {REWRITTEN_FROM})"
            )
            self.con.execute(sql, [name])
            self._note_folders(TABLES[name], folders)

    def merge(
        self, name: str, folders: Iterable[str], max_bytes: int, at_most: int
    ) -> tuple[int, int]:
        """Merge files of a table's partitions that are smaller than `max_bytes`, in one
        transaction.

        folders: of the partitions, within the table's own. at_most: how many partitions in one go.
        Returns how many files were merged, and into how many. Rows stay what they are, in former
        snapshots too. The merged files stay until what is scheduled for deletion is deleted:
        somebody may be reading them.
        """
        with self.lock(), self.transaction(f"merge small files of {name}"):
            options = f"max_file_size => {int(max_bytes)}, max_compacted_files => {int(at_most)}"
            merged = self.rows(f"CALL ducklake_merge_adjacent_files('lake', ?, {options})", [name])
            self._note_folders(TABLES[name], folders)
        return sum(files for *_, files, _ in merged), sum(num_made for *_, num_made in merged)

    def _condition(self, column: str, run: StageRun) -> str:
        """SQL: a column of the partition that `run` replaces has a value, its one parameter."""
        if column == "label_run":
            return "coalesce(label_run, '') = ?"
        # In Postgres there is an index for it; and to open a file of each dataset in a bucket takes long
        is_plain = run.chunk is None or self.place.is_postgres
        by_row = {"stage"} if is_plain else {"stage", "dataset"}
        if column in by_row:
            return row_by_row(column)
        return f"{column} = ?"

    def _upsert(self, table: Table, data: pa.Table) -> None:
        match = _same_key(table)
        check_keys(table, data)
        with registered(self.con, new_rows=data):
            # To ask first costs a third of a DELETE, and most rows are new
            if data.num_rows and self.rows(
                f"SELECT 1 FROM {table.name} t SEMI JOIN new_rows n ON {match} LIMIT 1"
            ):
                self.con.execute(
                    f"DELETE FROM {table.name} t WHERE EXISTS (FROM new_rows n WHERE {match})"
                )
        self._insert(table, data)

    def _add(self, table: Table, data: pa.Table) -> None:
        check_keys(table, data)
        self._insert(table, data)

    def _register(self, table: Table, data: pa.Table) -> None:
        self._insert(table, data, only_new=True)

    def _insert(self, table: Table, data: pa.Table, *, only_new: bool = False) -> None:
        """only_new: of each key one row, and none whose key the table has."""
        if not data.num_rows:  # as of many tables of a small chunk
            return
        key = quoted(table.key)
        once = unless = ""
        if only_new:
            once = f"DISTINCT ON ({key}) "
            unless = f" WHERE NOT EXISTS (FROM {table.name} t WHERE {_same_key(table)})"
        with registered(self.con, new_rows=data):
            self.con.execute(
                f"INSERT INTO {table.name} BY NAME SELECT {once}* FROM new_rows n{unless} ORDER BY {key}"
            )
        self._note_partitions(table, data)

    def _note_partitions(self, table: Table, data: pa.Table) -> None:
        # Not by Arrow's own functions, which take 0.3 s to import
        columns = (data[column].to_pylist() for column in table.partition)
        pattern = "/".join(f"{column}={{}}" for column in table.partition)
        folders = {pattern.format(*values) for values in set(zip(*columns, strict=True))}
        self._note_folders(table, folders)


def _make_folders(workspace: Workspace) -> None:
    workspace.root.mkdir(parents=True, exist_ok=True)
    lake_place = place(workspace)
    if not lake_place.is_bucket:
        os.makedirs(lake_place.data, exist_ok=True)


@cache
def _cached(root: str, process: int) -> Lake:
    return Lake(Workspace(Path(root)))


def open_lake(workspace: Workspace) -> Lake:
    """This process's writable lake: opening costs 0.1 s of CPU, so it is kept."""
    return _cached(os.path.abspath(workspace.root), os.getpid())


def lake_to_read(workspace: Workspace) -> Lake:
    """The lake of an existing workspace, for people's questions. Raises LakeError: of another version, among others."""
    return Lake(workspace, read_only=True, may_be_older=False)


def forget_lakes() -> None:
    """Open anew what open_lake keeps: connections that a server has dropped are of no more use."""
    _cached.cache_clear()


def _same_key(table: Table) -> str:
    """SQL: row t of a table has the key of row n."""
    return " AND ".join(f't."{k}" IS NOT DISTINCT FROM n."{k}"' for k in table.key)
