"""Write into the lake, each time in one transaction.

A stage replaces its own partition: rows, findings, key check and its stage_runs line together.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from core.files import room_in
from core.tables import TABLES, Table
from warehouse.lake import people
from warehouse.lake.catalog import back_up
from warehouse.lake.connection import LakeConnection, quoted, row_by_row
from warehouse.lake.place import place
from warehouse.lake.publication import WHOLE_DATASET, Draft, Publication, StageRun, check_keys, joined, same_key

REWRITTEN_FROM = 0.25  # share of a file's rows that were deleted, from which on it is written anew without them


class LakeWriter(LakeConnection):
    """The transactions that change a lake's rows."""

    _draft: Draft | None = None  # what is published `together` now

    def publish(
        self,
        run: StageRun,
        tables: Mapping[str, pa.Table],
        findings: pa.Table | None = None,
        upserts: Mapping[str, pa.Table] | None = None,
        parts: Sequence[StageRun] | None = None,
        *,
        registered: Mapping[str, pa.Table] | None = None,
    ) -> None:
        """Replace the partition of `run` by `tables`, in one transaction, which may be that of more (`together`).

        `upserts` replace rows of the same key in unpartitioned tables, `registered` are added where those have none of
        the same key; `parts` are further stage_runs lines (the chunks that a dataset-wide stage registers).
        Raises LakeError when a key is not unique or a row belongs to another partition; nothing is changed.
        """
        staged = tables if findings is None else {**tables, "findings": findings}
        one = Publication(run, staged, registered or {}, upserts or {}, parts or ())
        one.check()
        if self._draft is None:
            self._commit_made([one])
            return
        with self.reading():
            self._draft.add(one)

    @contextmanager
    def together(self, dataset: str, chunk: int) -> Iterator[None]:
        """What is published of a chunk within is seen by this connection at once, and committed in one transaction.

        Raises LakeError where that commit fails.
        """
        self._draft = Draft(self.con, self._stages_of(dataset, chunk))
        try:
            yield
        finally:
            try:
                self.commit_draft()
            finally:
                self._draft = None

    def commit_draft(self, most_s: float = 0.0) -> None:
        """Commit what was published `together`, where it took so long to make: a kill would cost as much work."""
        if self._draft and (made := self._draft.taken(most_s)):
            self._commit_made(made)

    def _stages_of(self, dataset: str, chunk: int) -> list[str]:
        """Of which stages may the lake have rows of a chunk? They come with their stage_runs line, and go with it.

        Where it has none there is nothing to delete: each DELETE costs some 15 ms, and a stage has up to five tables.
        """
        # Compared as rows: conditions of columns make DuckLake look through the statistics of all files of all tables,
        # ten times as slow as reading this small table
        sql = "SELECT DISTINCT stage FROM stage_runs WHERE (dataset, chunk) = (?, ?)"
        return self.column(sql, [dataset, chunk])

    def _commit_made(self, made: Sequence[Publication]) -> None:
        """Publish stages of one partition in one transaction: each table is written once."""
        stages, (_, dataset, chunk) = " ".join(each.run.stage for each in made), made[0].run.key
        with self.lock(), self.transaction(f"{stages} {dataset}:{'' if chunk == WHOLE_DATASET else chunk}"):
            snapshot = self._commits = self.snapshot() + 1
            # First what the same stages published before of the partition goes
            before = self._stages_of(dataset, chunk)
            again = [each for each in made if each.run.stage in before]
            for each in again:
                self._delete(each)
            # Then rows of the partition, and those that belong to none, such as the label run that made the labels
            for name, data in joined(each.tables for each in made).items():
                with self._new_rows(data):
                    self._insert(TABLES[name], data)
            for each in made:
                for name, data in each.upserts.items():
                    self._upsert(TABLES[name], data)
                for name, data in each.registered.items():
                    self._register(TABLES[name], data)
            # At last the lines that say so: a plan goes by them alone
            if chunk == WHOLE_DATASET:
                self._forget_chunks(made[0].run, made[0].parts)
            table = TABLES["stage_runs"]
            runs = [run for each in made for run in (each.run, *each.parts)]
            (self._upsert if again else self._add)(table, table.rows([run.row(snapshot) for run in runs]))

    def _delete(self, former: Publication) -> None:
        """Delete the rows that a publication replaces."""
        for name in former.tables:
            partition = former.run.partition_of(TABLES[name])
            conditions = " AND ".join(self._condition(column, former.run) for column in partition)
            self.con.execute(f"DELETE FROM {name} WHERE {conditions}", [*partition.values()])

    def _forget_chunks(self, run: StageRun, parts: Sequence[StageRun]) -> None:
        """Drop the stage's lines of its dataset, and all rows of chunks that are not among `parts`: the source lost
        them.
        """
        # A dataset that is new has nothing to be dropped: each DELETE costs some 15 ms
        if not self.rows("SELECT 1 FROM stage_runs WHERE dataset = ? LIMIT 1", [run.dataset]):
            return
        self.con.execute("DELETE FROM stage_runs WHERE stage = ? AND dataset = ?", [run.stage, run.dataset])
        present = ", ".join(str(p.chunk) for p in parts)
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

    def _condition(self, column: str, run: StageRun) -> str:
        """SQL: a column of the partition that `run` replaces has a value, its one parameter."""
        if column == "label_run":
            return "coalesce(label_run, '') = ?"
        # In Postgres there is an index for it; and to open a file of each dataset in a bucket takes long
        is_plain = run.chunk is None or place(self.workspace).is_postgres
        by_row = {"stage"} if is_plain else {"stage", "dataset"}
        return row_by_row(column) if column in by_row else f"{column} = ?"

    def _upsert(self, table: Table, data: pa.Table) -> None:
        match, said = same_key(table, "t"), data
        check_keys(table, data)
        with self._new_rows(data):
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
        with self._new_rows(data):
            self._insert(table, data, unless=same_key(table, "t"))

    def _add(self, table: Table, data: pa.Table) -> None:
        check_keys(table, data)
        with self._new_rows(data):
            self._insert(table, data)
        self._say(table, data)

    def _say(self, table: Table, rows: pa.Table, what: str = "row") -> None:
        """Lines of rows that are added, or `gone`, for the commit, where people's lines have the table."""
        if table.name in people.KEPT:
            self._said += people.lines_of(table.name, rows.to_pylist(), what)

    @contextmanager
    def _new_rows(self, data: pa.Table) -> Iterator[None]:
        """`data` as the relation new_rows, where it has rows at all: many tables of a small chunk have none."""
        if not data.num_rows:
            yield
            return
        self.con.register("new_rows", data)
        try:
            yield
        finally:
            self.con.unregister("new_rows")

    def _insert(self, table: Table, data: pa.Table, unless: str = "") -> None:
        """Insert new_rows n, which is `data`; unless: the condition by which a row of the table, t, keeps one out."""
        if not data.num_rows:
            return
        where = f" WHERE NOT EXISTS (FROM {table.name} t WHERE {unless})" if unless else ""
        order = quoted(table.key)
        self.con.execute(f"INSERT INTO {table.name} BY NAME SELECT * FROM new_rows n{where} ORDER BY {order}")
        partitions = data.group_by(list(table.partition)).aggregate([]).to_pylist() if table.partition else []
        self._note_folders(table, (os.path.join(*(f"{k}={v}" for k, v in of.items())) for of in partitions))
