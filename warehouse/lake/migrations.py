"""The lake's schema has a version: one of an earlier is refused until it is upgraded, one of a later for good.

Every change of core/tables or core/views.py has a version of its own: a new column names it (`since=15`), for others
`OTHER_CHANGES` is raised. The upgrade makes tables, columns and views that are new; what rows of an earlier lake need
besides is a step in `STEPS`. Versions are never skipped and never go back: to open a lake with an earlier proccorpus,
put back the backup that the upgrade made.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from itertools import batched, chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import duckdb

from core.names import PLACEHOLDER
from core.paths import Workspace
from core.tables import TABLES, Column, Table
from core.version import VERSION
from core.views import VIEWS
from warehouse.lake import people
from warehouse.lake.catalog import back_up, lost, remains
from warehouse.lake.connection import CATALOG, LakeConnection, connect, literal, quoted, sql_type
from warehouse.lake.place import LakeError, locked, place

OTHER_CHANGES = 14  # version of the last change that is no new column
SCHEMA_VERSION = max(OTHER_CHANGES, *(column.since for table in TABLES.values() for column in table.columns))
UPGRADED_A_S = 20 << 20  # bytes of rows, roughly
OF_MOTION = "SELECT label_run FROM label_runs WHERE annotator IN ('motion', 'native')"  # native falls back on it
# Of each version, what rows that were there before need: SQL on the lake, after tables and columns were added. One with
# a parameter is run for each dataset by itself, so that it need not hold the rows of all.
# Version 0 is all lakes from before versions were counted.
STEPS: Mapping[int, Sequence[str]] = {
    1: ("UPDATE keyframes SET label_run = '' WHERE label_run IS NULL",),  # its key has had label_run since frames-4
    2: (
        """
        UPDATE label_quality q SET falls = p.falls, worst_fall = p.worst_fall FROM (
          SELECT dataset, episode_index, label_run, count(*) FILTER (fall > 0.01) AS falls,
                 greatest(coalesce(max(fall), 0), 0) AS worst_fall
          FROM (SELECT *, lag(progress::DOUBLE) OVER w - progress::DOUBLE AS fall FROM progress WHERE dataset = $1
                WINDOW w AS (PARTITION BY episode_index, label_run ORDER BY frame_index)) GROUP BY ALL) p
        WHERE q.dataset = p.dataset AND q.episode_index = p.episode_index AND q.label_run = p.label_run""",
    ),
    3: (
        # What few sources say of their steps
        "ALTER TABLE episode_facts ADD COLUMN IF NOT EXISTS steps.element.kind VARCHAR",
        "ALTER TABLE episode_facts ADD COLUMN IF NOT EXISTS steps.element.completed BOOLEAN",
        "ALTER TABLE episode_facts ADD COLUMN IF NOT EXISTS steps.element.step SMALLINT",
        "ALTER TABLE episode_facts ADD COLUMN IF NOT EXISTS steps.element.confidence FLOAT",
        "ALTER TABLE episode_facts ADD COLUMN IF NOT EXISTS steps.element.notes VARCHAR",
        # Only the source's own steps made a label of the native annotator
        "UPDATE episode_labels SET steps_from = 'source' WHERE label_run IN "
        "(SELECT label_run FROM label_runs WHERE annotator = 'native')",
    ),
    4: (
        # Motion called steps of which it knew nothing "Move", or numbered them: those labels name nothing
        f"UPDATE segments SET named = NOT (regexp_full_match(name, '{PLACEHOLDER}') OR name = 'Move' AND label_run IN "
        f"({OF_MOTION}))",
        "UPDATE episode_labels SET named = true",
        "UPDATE episode_labels l SET named = false FROM (SELECT dataset, episode_index, label_run FROM segments "
        "WHERE NOT named) s WHERE l.dataset = s.dataset AND l.episode_index = s.episode_index AND "
        "l.label_run = s.label_run",
        # A planned step that was never attempted was numbered as well
        f"UPDATE episode_labels SET named = false WHERE label_run IN ({OF_MOTION}) AND "
        "len(list_filter(plan, lambda name: regexp_full_match(name, 'Step \\d+'))) > 0",
    ),
}


def schema_version(con: duckdb.DuckDBPyConnection) -> int:
    """Version of the lake in use; 0 for one from before versions were counted, or without any tables yet."""
    try:
        # all of the answer: what is left of one keeps the catalog open, and writers out
        return con.execute("SELECT coalesce(max(version), 0) FROM schema_versions").fetchall()[0][0]
    except duckdb.CatalogException:
        return 0


def checked_version(
    con: duckdb.DuckDBPyConnection, workspace: Workspace, at: int | None = None, *, may_be_older: bool = False
) -> int | None:
    """The version of the lake in use, which is ours, or at a snapshot an earlier one; None: nothing is there yet.

    Raises LakeError: a lake of another version, or one without tables beside what is left of a corpus.
    """
    version = schema_version(con)
    if not version and not has_tables(con):
        if remains(workspace):
            raise lost(workspace, "has no tables")
        return None
    where = f"{workspace.root}: its lake is of version {version}, this proccorpus works with version {SCHEMA_VERSION}"
    if version > SCHEMA_VERSION:
        raise LakeError(f"{where}: update proccorpus, or put back a backup of the catalog made before")
    if version < SCHEMA_VERSION and at is None and not may_be_older:
        raise LakeError(f"{where}: proccorpus upgrade says what it will do, and brings it there with --yes")
    return version


def has_tables(con: duckdb.DuckDBPyConnection) -> bool:
    return bool(con.execute("SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' LIMIT 1").fetchall())


def migrate(lake: LakeConnection) -> None:
    """Bring a lake of an earlier version forward, or make a new one's tables, in one transaction.

    The caller holds the lock.
    """
    version = schema_version(lake.con)
    if version == SCHEMA_VERSION:
        return
    columns = set(lake.rows("SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'lake'"))
    # A lake without any column was just created: it gets the tables of today, and no step of old versions
    former = [] if not columns else range(version + 1, SCHEMA_VERSION + 1)
    with lake.transaction(f"schema {SCHEMA_VERSION}"):
        for table in TABLES.values():
            _add_missing(lake, table, columns)
        # Views hold no rows, so they are made anew whatever they were: they may read what was added to the tables
        for view in VIEWS:
            lake.con.execute(f"CREATE OR REPLACE VIEW {view.name} AS {view.sql}")
            lake.con.execute(f"COMMENT ON VIEW {view.name} IS {literal(view.comment)}")
        for sql in chain.from_iterable(STEPS.get(later, ()) for later in former):
            _take_step(lake, sql)
        # Each INSERT costs some 10 ms, however many rows it has; of more than ten rows DuckLake would make a file
        for later in batched(range(version + 1, SCHEMA_VERSION + 1), 10):
            versions = ", ".join(f"({number}, now(), {literal(VERSION)})" for number in later)
            lake.con.execute(f"INSERT INTO schema_versions VALUES {versions}")
    # A table can be told how its files are written only once it is there
    with lake.transaction("how files are written"):
        for table in filter(attrgetter("compact"), TABLES.values()):
            lake.con.execute(f"CALL lake.set_option('parquet_compression', 'zstd', table_name => '{table.name}')")
            lake.con.execute(f"CALL lake.set_option('parquet_version', '2', table_name => '{table.name}')")
    index_statistics(lake)


def upgrade(lake: LakeConnection) -> Path | None:
    """Bring a lake of an earlier version to ours; returns the copy of its catalog before. The caller holds the lock."""
    backup = back_up(lake.workspace, lake.snapshot())
    migrate(lake)
    people.rewrite(lake.workspace, lake.arrow)
    return backup


def upgraded(workspace: Workspace, *, dry: bool) -> dict[str, Any]:
    """Bring a lake of an earlier version to ours, after a backup of its catalog; `dry`: only say what is to be done.

    Returns version, to, tables (to be made), steps (that change rows), bytes (of rows that they may write anew), backup
    and `said`, all of it in a sentence. Raises LakeError: no workspace, a catalog that is not usable, a later version.
    """
    with nullcontext() if dry else locked(workspace):
        lake = LakeConnection(workspace, connect(workspace, read_only=dry, threads=1))
        with closing(lake.con):
            version = schema_version(lake.con)
            facts = {"version": version, "to": SCHEMA_VERSION, "tables": [], "steps": 0, "bytes": 0, "backup": None}
            if version >= SCHEMA_VERSION or not has_tables(lake.con):
                checked_version(lake.con, workspace)
                return facts | {"said": f"{workspace.root}: its lake is of version {version}: nothing to do"}
            facts |= _to_do(lake, version)
            if dry:
                said = (
                    f"{workspace.root}: an upgrade brings its lake from version {version} to {SCHEMA_VERSION}: it "
                    f"copies the catalog into backups/, makes {len(facts['tables'])} tables and all views, and takes "
                    f"{facts['steps']} steps that may write {facts['bytes'] >> 20} MB of rows anew, in about "
                    f"{1 + facts['bytes'] // UPGRADED_A_S} s and one transaction; --yes does it"
                )
                return facts | {"said": said}
            backup = upgrade(lake)
    back = f"; the catalog before is {backup}" if backup else ""
    said = f"{workspace.root}: its lake is of version {SCHEMA_VERSION} now, before {version}{back}"
    return facts | {"backup": str(backup) if backup else None, "said": said}


def _to_do(lake: LakeConnection, version: int) -> dict[str, Any]:
    steps = [sql for later in range(version + 1, SCHEMA_VERSION + 1) for sql in STEPS.get(later, ())]
    sizes = dict(lake.rows("SELECT table_name, file_size_bytes FROM ducklake_table_info('lake')"))
    changed = sum(size for name, size in sizes.items() if any(f" {name} " in sql for sql in steps))
    return {"tables": sorted({*TABLES} - sizes.keys()), "steps": len(steps), "bytes": int(changed)}


def index_statistics(lake: LakeConnection) -> None:
    """Make the index of the files' statistics in Postgres, where it is not there.

    DuckLake uses it where there is one, and looks through the statistics of all files of all tables where there is
    none.
    """
    if place(lake.workspace).is_postgres:
        sql = "CREATE INDEX IF NOT EXISTS proccorpus_statistics ON ducklake_file_column_stats (table_id, column_id)"
        lake.con.execute(f"CALL postgres_execute('{CATALOG}', '{sql}')")


def _add_missing(lake: LakeConnection, table: Table, columns: set[tuple]) -> None:
    """Make a table, or those of its columns that are not among `columns`, (table, column) pairs that the lake has."""
    if table.name not in {name for name, _ in columns}:
        _create(lake, table)
        return
    for column in table.columns:
        if (table.name, column.name) not in columns:
            lake.con.execute(f'ALTER TABLE {table.name} ADD COLUMN "{column.name}" {sql_type(column.type)}')
            lake.con.execute(_comment(table, column))


def _take_step(lake: LakeConnection, sql: str) -> None:
    for dataset in lake.rows("SELECT dataset FROM datasets") if "$1" in sql else [()]:
        lake.con.execute(sql, [*dataset])


def _create(lake: LakeConnection, table: Table) -> None:
    columns = ", ".join(f'"{c.name}" {sql_type(c.type)}' for c in table.columns)
    lake.con.execute(f"CREATE TABLE {table.name} ({columns})")
    if table.partition:
        lake.con.execute(f"ALTER TABLE {table.name} SET PARTITIONED BY ({quoted(table.partition)})")
    key = f"{table.comment}. Key: {', '.join(table.key)}"
    lake.con.execute(f"COMMENT ON TABLE {table.name} IS {literal(key)}")
    for c in table.columns:
        lake.con.execute(_comment(table, c))
    # A table that never had a row has no statistics; DuckLake looks for those of each column in every query then: 3 ms
    # for each, and tables like findings are often empty
    lake.con.execute(f"INSERT INTO {table.name} ({quoted(table.key[:1])}) VALUES (NULL)")
    lake.con.execute(f"DELETE FROM {table.name}")


def _comment(table: Table, column: Column) -> str:
    return f'COMMENT ON COLUMN {table.name}."{column.name}" IS {literal(column.comment)}'
