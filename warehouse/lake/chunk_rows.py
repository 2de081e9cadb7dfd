"""What the lake holds of one chunk, in memory: each table is read once for all stages of the chunk, and kept as they
publish. A query of the lake costs some 4 ms for each table that it names, however few rows it has; one in memory 1 ms.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import lru_cache

import duckdb
import pyarrow as pa

from core.tables import STAGE_TABLES, STAGED_TABLES, TABLES
from warehouse.lake.connection import LakeConnection, literal
from warehouse.lake.publication import StageRun, database_in_memory
from warehouse.lake.views import VIEWS

NAMED = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)")  # a relation, in SQL
# Views that have rows of a chunk by its own rows alone
VIEW_SQL = {
    view.name: view.sql
    for view in VIEWS
    if view.name in ("episodes", "active_segments", "active_progress")
}
# What most stages need, read in one go
AT_FIRST = (
    "stage_runs",
    "findings",
    "label_runs",
    "datasets",
    "signals",
    *STAGE_TABLES["episodes"],
)


class ChunkRows(LakeConnection):
    """One chunk's part of the lake, to read: each table has the chunk's rows; a table without chunks has those of the
    dataset, and one without datasets has all. input_hashes: of the stages that published rows of the chunk.

    A table is read when the first query names it; not those of stages that published nothing of the chunk, by
    `stage_runs`. Of views there are those that need no other rows. Not for sharing between threads, nor for conditions
    on columns of floats in WHERE: Arrow's scan, which takes them, finds NaN greater than no number.
    """

    def __init__(self, lake: LakeConnection, dataset: str, chunk: int) -> None:
        super().__init__(lake.workspace, database_in_memory().cursor(), lake.words)
        self._is_in_transaction = True  # what is in memory changes for nobody else
        self._lake = lake
        self._place = {"dataset": dataset, "chunk": chunk}
        self._held = set[str]()
        self._empty = set[str]()
        self.holding(" ".join(f"FROM {name}" for name in AT_FIRST))
        self.input_hashes = dict(self.rows("SELECT stage, input_hash FROM stage_runs"))
        # Of a stage that is no build's, as an import, any table may have rows
        written = (STAGE_TABLES.get(stage, STAGED_TABLES) for stage in self.input_hashes)
        self._empty = set(STAGED_TABLES).difference(*written)

    @property
    def whole(self) -> LakeConnection:
        return self._lake

    def holding(self, sql: str) -> duckdb.DuckDBPyConnection:
        missing = [name for name in _named(sql) if name not in self._held]
        unread = [name for name in missing if name in TABLES and name not in self._empty]
        with self.whole.reading() if unread else nullcontext():
            stored = {name: self._stored(name) for name in unread}
        for name in missing:
            if name in VIEW_SQL:
                self.con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {VIEW_SQL[name]}")
                self._held.add(name)
            else:
                self._hold(name, stored.get(name, TABLES[name].empty()))
        return self.con

    def _stored(self, name: str) -> pa.Table:
        """The lake's rows of a table."""
        columns = [column for column in self._place if column in TABLES[name].schema.names]
        conditions = [f"{column} = {literal(self._place[column])}" for column in columns]
        return self.whole.arrow(f"FROM {name} WHERE {' AND '.join(conditions) or 'true'}")

    def _hold(self, name: str, rows: pa.Table) -> None:
        self.con.register(name, rows)
        self._held.add(name)
        self._empty.discard(name)

    def take(
        self, run: StageRun, tables: Mapping[str, pa.Table], registered: Mapping[str, pa.Table]
    ) -> None:
        """Have what a stage published, as `Lake.publish` puts it into the lake."""
        self.input_hashes[run.stage] = run.input_hash
        for name, rows in tables.items():
            # Rows of other label runs, or found by other stages, stay
            other_partitions = [
                f"coalesce({column}, '') <> {literal(value)}"
                for column, value in run.partition_of(TABLES[name]).items()
                if column not in self._place
            ]
            # Their columns may stand in another order
            parts = [TABLES[name].empty(), rows]
            if other_partitions and name in self._held:
                parts.append(self.arrow(f"FROM {name} WHERE {' OR '.join(other_partitions)}"))
            if not other_partitions or name in self._held | self._empty:
                self._hold(name, pa.concat_tables(parts, promote_options="default"))
        for name, rows in registered.items():
            [column] = TABLES[name].key
            present_keys = set(self.column(f"SELECT {column} FROM {name}"))
            keys = enumerate(rows[column].to_pylist())
            new = [rows.slice(number, 1) for number, key in keys if key not in present_keys]
            self._hold(name, pa.concat_tables([self.arrow(f"FROM {name}"), *new]))

    def forget(self, tables: Iterable[str] | None = None) -> None:
        """Read some tables again, as they are in the lake by then; None: all."""
        names = TABLES if tables is None else {*tables}
        self._held.difference_update(names)
        self._empty.difference_update(names)


@lru_cache
def _named(sql: str) -> tuple[str, ...]:
    """The tables and views that a query names, and those that these are made of, which come first."""
    names = dict[str, None]()
    for name in NAMED.findall(sql):
        names |= dict.fromkeys(_named(VIEW_SQL.get(name, "")))
        if name in VIEW_SQL or name in TABLES:
            names[name] = None
    return tuple(names)
