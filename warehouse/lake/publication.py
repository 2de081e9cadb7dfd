"""What stages publish, and what a connection sees of it before it is committed."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from core.tables import TABLES, Table
from warehouse.lake.connection import literal
from warehouse.lake.place import LakeError

WHOLE_DATASET = -1  # stage_runs.chunk of a stage that works on a dataset as a whole

type Key = tuple[str, str, int]  # stage, dataset, chunk


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

    @property
    def key(self) -> Key:
        return self.stage, self.dataset, WHOLE_DATASET if self.chunk is None else self.chunk

    def partition_of(self, table: Table) -> dict[str, Any]:
        """By column what the rows of a table have in common that it publishes. Raises LakeError: it has no chunks."""
        if self.chunk is not None and "chunk" not in table.schema.names:
            raise LakeError(f"table {table.name} has no chunks: publish it for a whole dataset")
        chunk = {} if self.chunk is None else {"chunk": self.chunk}
        beside = {name: getattr(self, name) for name in ("label_run", "stage") if name in table.key}
        return {"dataset": self.dataset} | chunk | beside

    def row(self, snapshot: int) -> dict[str, Any]:
        """Its line in stage_runs."""
        return {**self.__dict__, "chunk": self.key[2], "snapshot": snapshot, "finished_at": datetime.now(UTC)}


class Publication(NamedTuple):
    """What a run publishes, as `LakeWriter.publish` says; findings are one of its tables."""

    run: StageRun
    tables: Mapping[str, pa.Table]
    registered: Mapping[str, pa.Table]
    upserts: Mapping[str, pa.Table]
    parts: Sequence[StageRun]

    def check(self) -> None:
        """Raises LakeError: a key twice, or a row of another partition."""
        for name, data in self.tables.items():
            check_keys(TABLES[name], data)
            for column, value in self.run.partition_of(TABLES[name]).items():
                # Rows of no label run have none, or an empty one
                if set(data[column].to_pylist()) - {value, None if value == "" else value}:
                    raise LakeError(f"{name}: rows of another partition than the one published")


class Draft:
    """Publications of one chunk that wait for their commit. The connection that makes them sees them: before a table
    stands a temporary view of its name, with their rows and without those that they replace.

    before: stages of which the lake has something.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, before: Collection[str]) -> None:
        self.con, self.before = con, before
        self.made: list[Publication] = []
        self._rows: dict[str, pa.Table] = {}
        self._views: dict[str, str] = {}

    def add(self, one: Publication) -> None:
        self.made.append(one)
        run, lines = one.run, TABLES["stage_runs"].rows([one.run.row(0)])
        for name, data in {**one.tables, "stage_runs": lines}.items():
            if run.stage in self.before:
                partition = run.partition_of(TABLES[name]).items()
                where = " AND ".join(f"coalesce({n}::VARCHAR, '') = {literal(str(v))}" for n, v in partition)
                self._show(name, data, f" AND ({where}) IS NOT TRUE")
            elif data.num_rows:
                self._show(name, data)
        # A label run is registered once, with the time of its first labels
        for name, data in one.registered.items():
            self._show(name, data, f" AND NOT EXISTS (FROM draft_{name} n WHERE {same_key(TABLES[name], 't')})")

    def _show(self, name: str, data: pa.Table, hidden: str = "") -> None:
        """`hidden`: SQL, which rows of the lake stay."""
        self._rows |= joined([{name: self._rows.get(name, TABLES[name].empty())}, {name: data}])
        # In a table of DuckDB's own: of rows of Arrow's not every query can be answered
        self.con.register("draft_rows", self._rows[name])
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE draft_{name} AS FROM draft_rows")
        former = self._views.get(name, f"FROM draft_{name} UNION ALL BY NAME FROM lake.main.{name} t WHERE true")
        view = former.removesuffix(hidden) + hidden
        if self._views.get(name) != view:
            self.con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {view}")
            self._views[name] = view

    def taken(self, most_s: float) -> list[Publication]:
        """All of them, which nobody sees any more; none where they took less to make."""
        if sum(each.run.duration_s for each in self.made) < most_s:
            return []
        for name in self._rows:
            self.con.execute(f"DROP VIEW temp.main.{name}; DROP TABLE draft_{name}")
        made, self.made, self._rows, self._views = self.made, [], {}, {}
        return made


def joined(of_each: Iterable[Mapping[str, pa.Table]]) -> dict[str, pa.Table]:
    """By table the rows of all, which may have their columns in another order."""
    parts: dict[str, list[pa.Table]] = {}
    for name, data in chain.from_iterable(tables.items() for tables in of_each):
        parts.setdefault(name, []).append(data)
    return {name: pa.concat_tables(of, promote_options="default") for name, of in parts.items()}


def same_key(table: Table, one: str) -> str:
    """SQL: row `one` of a table has the key of row n."""
    return " AND ".join(f'{one}."{k}" IS NOT DISTINCT FROM n."{k}"' for k in table.key)


def check_keys(table: Table, data: pa.Table) -> None:
    """Raises LakeError when two rows have one key. Not by SQL, which takes 3 ms however few the rows are."""
    keys = list(zip(*(data[column].to_pylist() for column in table.key), strict=True))
    if len(set(keys)) < len(keys):
        [(key, _)] = Counter(keys).most_common(1)
        raise LakeError(f"{table.name}: two rows with {dict(zip(table.key, key, strict=True))}")
