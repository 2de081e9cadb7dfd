"""The lake's schema: what tables and views there are, for people; and its version: one of an earlier is refused until
it is upgraded, one of a later for good.

Every change of core/tables or warehouse/lake/views/ has a version of its own: a new column names it (`since=15`), for
others `OTHER_CHANGES` is raised. The upgrade makes tables, columns and views that are new; what rows of an earlier
lake need besides is a step in `STEPS`. Versions are never skipped and never go back: to open a lake with an earlier
proccorpus, put back the backup that the upgrade made.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import batched, chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import duckdb

from core.errors import UserError
from core.files import queries_of
from core.names import PLACEHOLDER
from core.paths import Workspace
from core.tables import STATEMENTS, TABLES, Column, Table
from core.tables.definition import sql_type
from core.version import VERSION
from warehouse.lake import former_words
from warehouse.lake.catalog import back_up, lost, remains
from warehouse.lake.connection import CATALOG, LakeConnection, connect, literal, quoted
from warehouse.lake.outdated import delete_outdated_sql
from warehouse.lake.place import LakeError, locked
from warehouse.lake.views import VIEWS, View

OTHER_CHANGES = 24  # version of the last change that is no new column
_COLUMNS = chain.from_iterable(table.columns for table in TABLES.values())
SCHEMA_VERSION = max(OTHER_CHANGES, *(column.since for column in _COLUMNS))
WITH_STATEMENTS = 20  # from this version on what people said is in statements beside the lake
UPGRADED_A_S = 20 << 20  # bytes of rows, roughly
OF_MOTION = "SELECT label_run FROM label_runs WHERE annotator IN ('motion', 'native')"  # native falls back on it
# Of each version, what rows that were there before need: SQL on the lake, after tables and columns were added. One with
# a parameter is run for each dataset by itself, so that it need not hold the rows of all.
# Version 0 is all lakes from before versions were counted.
RECORDINGS, PRINTS, OUTDATED_CORRECTIONS, FALLS, NUMBERS, FORMER_CHECKS, STRETCHES = queries_of(
    __file__
)
FORMER_ID = "left(sha256(o.dataset || chr(0) || o.episode_index || chr(0) || 'former'), 16)"
STEPS: Mapping[int, Sequence[str]] = {
    # Its key has had label_run since frames-4
    1: ("UPDATE keyframes SET label_run = '' WHERE label_run IS NULL",),
    2: (FALLS,),
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
    15: (
        # What people said is of recordings; those before their contents changed have one of their own
        "CREATE TABLE IF NOT EXISTS episode_ids (dataset VARCHAR, episode_index BIGINT, source_id VARCHAR)",
        RECORDINGS,
        PRINTS,
        *former_words.OF_RECORDINGS,
        f"UPDATE corrections SET recording = {FORMER_ID} FROM ({OUTDATED_CORRECTIONS}) o "
        "WHERE corrections.correction_id = o.correction_id",
        f"UPDATE recordings SET resembles = {FORMER_ID}, why = 'its contents changed before recordings were known' "
        f"FROM (SELECT DISTINCT dataset, episode_index FROM ({OUTDATED_CORRECTIONS})) o "
        "WHERE recordings.dataset = o.dataset AND recordings.episode_index = o.episode_index",
        "INSERT INTO recordings BY NAME SELECT r.resembles AS recording, r.dataset, r.episode_index, r.source_id, "
        "now() AS left_at FROM recordings r WHERE r.resembles IS NOT NULL",
        # Labels of contents that are gone, which kept a release from being made
        *delete_outdated_sql(),
    ),
    # Stages in which a model did not answer about some episodes counted as done
    19: (
        "UPDATE stage_runs SET input_hash = 'unanswered ' || input_hash "
        "WHERE (stage, dataset, chunk) IN "
        "(SELECT (stage, dataset, chunk) FROM findings "
        "WHERE stage IN ('segments', 'reasoning') AND reason IN "
        "('bad_reply', 'cut', 'refusal', 'filtered', 'wrong_request', 'refused'))",
    ),
    # A number is one recording's for good: those that left, whose numbers others have by now, get new ones
    20: (
        NUMBERS,
        "DROP TABLE IF EXISTS episode_ids",
    ),
    # Stretches were a table beside the findings
    23: (FORMER_CHECKS, STRETCHES, "DROP TABLE run_checks"),
}


def schema_version(con: duckdb.DuckDBPyConnection) -> int:
    """Version of the lake in use; 0 for one from before versions were counted, or without any tables yet."""
    try:
        # all of the answer: what is left of one keeps the catalog open, and writers out
        return con.execute("SELECT coalesce(max(version), 0) FROM schema_versions").fetchall()[0][0]
    except duckdb.CatalogException:
        return 0


def checked_version(
    con: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    snapshot: int | None = None,
    *,
    may_be_older: bool = False,
) -> int | None:
    """The version of the lake in use, which is ours, or at a snapshot an earlier one; None: nothing
    is there yet.

    Raises LakeError: a lake of another version, or one without tables beside what is left of a
    corpus.
    """
    version = schema_version(con)
    if not version and not has_tables(con):
        if remains(workspace):
            raise lost(workspace, "has no tables")
        return None
    problem = f"{workspace.root}: its lake is of version {version}, this proccorpus works with version {SCHEMA_VERSION}"
    if version > SCHEMA_VERSION:
        raise LakeError(
            f"{problem}: update proccorpus, or put back a backup of the catalog made before"
        )
    if version < SCHEMA_VERSION and snapshot is None and not may_be_older:
        raise LakeError(
            f"{problem}: proccorpus upgrade says what it will do, and brings it there with --yes"
        )
    return version


def has_tables(con: duckdb.DuckDBPyConnection) -> bool:
    return bool(
        con.execute("SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' LIMIT 1").fetchall()
    )


def migrate(lake: LakeConnection) -> None:
    """Bring a lake of an earlier version forward, or make a new one's tables. An interrupted upgrade goes on
    the next time. The caller holds the lock.
    """
    version = schema_version(lake.con)
    if version == SCHEMA_VERSION:
        return
    columns = set(
        lake.rows(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'lake'"
        )
    )
    is_former = bool(columns) and version < WITH_STATEMENTS
    last = WITH_STATEMENTS - 1 if is_former else SCHEMA_VERSION
    with lake.transaction(f"schema {last}"):
        if is_former:
            former_words.complete(lake)
        for table in TABLES.values():
            _add_missing(lake, table, columns)
        _take_steps(lake, version, last, is_new=not columns)
        if not is_former:
            former_words.renew(lake)
            _make_views(lake)
    if is_former:
        former_words.take_over(lake)
        former_words.renew(lake)
        with lake.transaction(f"schema {SCHEMA_VERSION}"):
            former_words.drop(lake)
            _take_steps(lake, last, SCHEMA_VERSION)
            _make_views(lake)
        former_words.put_away(lake)
    # A table can be told how its files are written only once it is there
    with lake.transaction("how files are written"):
        for table in filter(attrgetter("compact"), TABLES.values()):
            lake.con.execute(
                f"CALL lake.set_option('parquet_compression', 'zstd', table_name => '{table.name}')"
            )
            lake.con.execute(
                f"CALL lake.set_option('parquet_version', '2', table_name => '{table.name}')"
            )
    index_statistics(lake)
    if lake.place.is_postgres:
        lake.words.store.make()


def _take_steps(lake: LakeConnection, version: int, last: int, *, is_new: bool = False) -> None:
    """What rows of an earlier version need, up to the version `last`, and the lines that say so; within a transaction.

    A lake that was just created (`is_new`) has the tables of today, and needs no step of old versions.
    """
    later_versions = range(version + 1, last + 1)
    steps = chain.from_iterable(STEPS.get(later, ()) for later in later_versions)
    for sql in () if is_new else steps:
        for dataset in lake.rows("SELECT dataset FROM datasets") if "$1" in sql else [()]:
            lake.con.execute(sql, [*dataset])
    # Each INSERT costs some 10 ms, however many rows it has; of more than ten rows DuckLake would make a file
    for later in batched(later_versions, 10):
        versions = ", ".join(f"({number}, now(), {literal(VERSION)})" for number in later)
        lake.con.execute(f"INSERT INTO schema_versions VALUES {versions}")


def _make_views(lake: LakeConnection) -> None:
    """Make all views anew, within a transaction: they hold no rows, and may read what was added to the tables."""
    for view in VIEWS:
        lake.con.execute(f"CREATE OR REPLACE VIEW {view.name} AS {view.sql}")
        lake.con.execute(f"COMMENT ON VIEW {view.name} IS {literal(view.comment)}")


def upgrade(lake: LakeConnection) -> Path | None:
    """Bring a lake of an earlier version to ours; returns the copy of its catalog before. The caller holds the lock."""
    backup = back_up(lake.workspace, lake.snapshot())
    migrate(lake)
    return backup


def upgraded(workspace: Workspace, *, dry: bool) -> dict[str, Any]:
    """Bring a lake of an earlier version to ours, after a backup of its catalog; `dry`: only say
    what is to be done.

    Returns version, to, tables (to be made), steps (that change rows), bytes (of rows that they may
    write anew), backup and `said`, all of it in a sentence. Raises LakeError: no workspace, a
    catalog that is not usable, a later version.
    """
    with nullcontext() if dry else locked(workspace):
        lake = LakeConnection(workspace, connect(workspace, read_only=dry, threads=1))
        with closing(lake.con):
            version = schema_version(lake.con)
            facts = {
                "version": version,
                "to": SCHEMA_VERSION,
                "tables": [],
                "steps": 0,
                "bytes": 0,
                "backup": None,
            }
            if version >= SCHEMA_VERSION or not has_tables(lake.con):
                checked_version(lake.con, workspace)
                return facts | {
                    "said": f"{workspace.root}: its lake is of version {version}: nothing to do"
                }
            facts |= _to_do(lake, version)
            if dry:
                message = (
                    f"{workspace.root}: an upgrade brings its lake from version {version} to {SCHEMA_VERSION}: it "
                    f"copies the catalog into backups/, makes {len(facts['tables'])} tables and all views, and takes "
                    f"{facts['steps']} steps that may write {facts['bytes'] >> 20} MB of rows anew, in about "
                    f"{1 + facts['bytes'] // UPGRADED_A_S} s and one transaction; --yes does it"
                )
                return facts | {"said": message}
            backup = upgrade(lake)
    backup_note = f"; the catalog before is {backup}" if backup else ""
    message = f"{workspace.root}: its lake is of version {SCHEMA_VERSION} now, before {version}{backup_note}"
    return facts | {"backup": str(backup) if backup else None, "said": message}


def _to_do(lake: LakeConnection, version: int) -> dict[str, Any]:
    later_versions = range(version + 1, SCHEMA_VERSION + 1)
    steps = list(chain.from_iterable(STEPS.get(later, ()) for later in later_versions))
    sizes = dict(lake.rows("SELECT table_name, file_size_bytes FROM ducklake_table_info('lake')"))
    all_sql = "\n".join(steps)
    changed = sum(size for name, size in sizes.items() if f" {name} " in all_sql)
    return {"tables": sorted({*TABLES} - sizes.keys()), "steps": len(steps), "bytes": int(changed)}


def index_statistics(lake: LakeConnection) -> None:
    """Make the index of the files' statistics in Postgres, where it is not there.

    DuckLake uses it where there is one, and looks through the statistics of all files of all tables where there is
    none.
    """
    if lake.place.is_postgres:
        sql = "CREATE INDEX IF NOT EXISTS proccorpus_statistics ON ducklake_file_column_stats (table_id, column_id)"
        lake.con.execute(f"CALL postgres_execute('{CATALOG}', '{sql}')")


def _add_missing(lake: LakeConnection, table: Table, columns: set[tuple]) -> None:
    """Make a table, or those of its columns that are not among `columns`, (table, column) pairs that the lake has."""
    if table.name not in {name for name, _ in columns}:
        _create(lake, table)
        return
    for column in table.columns:
        if (table.name, column.name) not in columns:
            lake.con.execute(
                f'ALTER TABLE {table.name} ADD COLUMN "{column.name}" {sql_type(column.type)}'
            )
            lake.con.execute(_comment(table, column))


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


UNITS = {
    "_s": "seconds",
    "_px": "pixels",
    "_bytes": "bytes",
    "_usd": "US dollars",
    "_tokens": "tokens",
}
UNIT_OF = {
    "fps": "frames per second",
    "hours": "hours",
    "bytes": "bytes",
    "num_frames": "frames",
    "frames": "frames",
    **dict.fromkeys(("frame_index", "start_frame", "end_frame", "other_frame"), "frame from 0"),
    **dict.fromkeys(
        ("progress", "progress_procvlm", "confidence", "coverage", "end_progress"), "0..1"
    ),
}
WITH_COLUMNS = TABLES | {STATEMENTS.name: STATEMENTS}
LOOKED_AT = 50  # rows of a table, for an example of each column


@dataclass(frozen=True)
class Described:
    """One column of a table or view; `example` is a value of this corpus, "" where there is none."""

    relation: str
    column: str
    type: str
    unit: str
    comment: str
    example: str


def relations() -> list[dict]:
    """Every table and view: name, kind (content, events, view), key, comment."""
    tables = [
        {
            "name": t.name,
            "kind": "content" if t.content else "events",
            "key": ", ".join(t.key),
            "comment": t.comment,
        }
        for t in (*TABLES.values(), STATEMENTS)
    ]
    return tables + [
        {"name": v.name, "kind": "view", "key": "", "comment": v.comment} for v in VIEWS
    ]


def columns(
    names: list[str] | None = None, con: duckdb.DuckDBPyConnection | None = None
) -> list[Described]:
    """Columns of some relations (default: all), with values out of `con`'s lake as examples. Raises UserError."""
    # Values out of the tables that the columns come from: views may be slow, and show the same
    examples = cache(partial(_examples, con)) if con else lambda table: {}
    types_of_view = _view_types()
    described = []
    for name in _chosen(names):
        for column, kind, comment, table in _columns_of(name, types_of_view):
            example = examples(table).get(column, "") if table else ""
            described.append(Described(name, column, kind, unit(column), comment, example))
    return described


def _chosen(names: list[str] | None) -> list[str]:
    """Some relations, or all, in the order of the schema. Raises UserError."""
    relation_names = [relation["name"] for relation in relations()]
    for name in sorted(set(names or ()) - set(relation_names)):
        raise UserError(
            f"there is no table or view {name!r}; there are: {', '.join(sorted(relation_names))}"
        )
    return [name for name in relation_names if not names or name in names]


def _columns_of(
    name: str, types_of_view: dict[str, dict[str, str]]
) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, comment and table of a relation's columns. One that a view does not describe is the table's of the
    same name; of one that it makes up itself the table is ""."""
    if name in WITH_COLUMNS:
        yield from ((c.name, sql_type(c.type), c.comment, name) for c in WITH_COLUMNS[name].columns)
        return
    view = next(v for v in VIEWS if v.name == name)
    words = set(view.sql.split())
    # Those that the view names come first
    tables = sorted(WITH_COLUMNS.values(), key=lambda t: t.name not in words)
    for column, kind in types_of_view[name].items():
        # What the view says, or a view that it reads, counts before the comment of a table's column of the same name
        comments = [("", text) for text in [_described(view, column)] if text]
        for t in tables:
            comments += [(t.name, c.comment) for c in t.columns if c.name == column]
        table, comment = [*comments, ("", "")][0]
        yield column, kind, comment, table


def _described(view: View, column: str) -> str:
    """What a view's file says of a column, or that of a view that it reads; empty: none does."""
    if column in view.columns:
        return view.columns[column]
    words = set(view.sql.split())
    read_views = (v for v in VIEWS if v.name in words and v.name != view.name)
    return next(filter(None, (_described(v, column) for v in read_views)), "")


def unit(column: str) -> str:
    if column in UNIT_OF:
        return UNIT_OF[column]
    return next((name for suffix, name in UNITS.items() if column.endswith(suffix)), "")


def _view_types() -> dict[str, dict[str, str]]:
    """Column types of the views, from an empty corpus in memory."""
    with duckdb.connect() as con:
        for table in WITH_COLUMNS.values():
            definitions = ", ".join(f'"{c.name}" {sql_type(c.type)}' for c in table.columns)
            con.execute(f"CREATE TABLE {table.name} ({definitions})")
        types: dict[str, dict[str, str]] = {}
        for view in VIEWS:
            con.execute(f"CREATE VIEW {view.name} AS {view.sql}")
            described = con.execute(f"DESCRIBE {view.name}").fetchall()
            types[view.name] = {column: type_ for column, type_, *_ in described}
        return types


def _examples(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """A value of each of a table's columns, by column, out of its first rows."""
    rows = con.execute(f"FROM {table} LIMIT {LOOKED_AT}").to_arrow_table().to_pylist()
    values: dict[str, object] = {}
    # Of each column the first that says something counts
    for row in reversed(rows):
        values |= {c: value for c, value in row.items() if value not in (None, "", [])}
    return {column: _short(value) for column, value in values.items()}


def _short(value: object, length: int = 40) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    if len(text) <= length:
        return text
    return text[: length - 1] + "…"
