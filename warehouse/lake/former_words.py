"""What people said in lakes before version 20, in seven tables, people.jsonl and journal.jsonl, made statements."""

import json
from collections.abc import Sequence
from pathlib import Path

from core.files import queries_of
from warehouse.lake.connection import LakeConnection, literal
from warehouse.lake.words import TABLE, StatementStore

# By table its key, then its columns: texts, where no type is named
COMMON = "dataset author created_at:TIMESTAMPTZ"
OF_EPISODE = f"{COMMON} episode_index:BIGINT recording"
LABEL = "base_label_run base_content_hash follows rejects status segments comment"
ENDS = "plan:VARCHAR[] final_progress:DOUBLE catastrophic_frame:BIGINT"
FORMER_TABLES = {
    "corrections": (("correction_id",), f"correction_id {OF_EPISODE} {LABEL} {ENDS}"),
    "outcomes": (
        ("import_id", "episode_index"),
        f"import_id {OF_EPISODE} success:BOOLEAN note file undoes",
    ),
    "reference_marks": (("mark_id",), f"mark_id {OF_EPISODE} is_reference:BOOLEAN label_run"),
    "episode_marks": (("mark_id",), f"mark_id {OF_EPISODE} kind value is_on:BOOLEAN follows"),
    "acceptances": (
        ("acceptance_id",),
        f"acceptance_id {OF_EPISODE} check_name is_accepted:BOOLEAN why",
    ),
    "joined_tasks": (("join_id", "task"), f"join_id {COMMON} task same_as"),
    "takedowns": (("dataset", "episode_index", "recording"), f"{OF_EPISODE} reason"),
}
# What people said is of the recording that had the number
OF_RECORDINGS = tuple(
    f"UPDATE {table} SET recording = r.recording FROM recordings r WHERE {table}.recording IS NULL "
    f"AND r.dataset = {table}.dataset AND r.episode_index = {table}.episode_index"
    for table in FORMER_TABLES
    if table != "joined_tasks"
)

LINES_SQL = """
    INSERT INTO {name} BY NAME SELECT {fields} FROM (
      SELECT row, unnest(from_json(row, {form})) FROM (
        SELECT *, row_number() OVER () AS line FROM read_json(?, format = 'newline_delimited', ignore_errors = true,
          columns = {{'table': 'VARCHAR', 'row': 'JSON', 'gone': 'JSON'}}))
      WHERE "table" = '{name}' QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY line DESC) = 1) n
    WHERE row IS NOT NULL AND NOT EXISTS (FROM {name} t WHERE {same})"""
# Lines from before recordings were known name none
SAME = {"recording": "coalesce(n.recording, t.recording)"}


def former_types(name: str) -> dict[str, str]:
    """The columns of a former table with their types; none of another table."""
    if name not in FORMER_TABLES:
        return {}
    pairs = (column.partition(":") for column in FORMER_TABLES[name][1].split())
    return {column: kind or "VARCHAR" for column, _, kind in pairs}


def complete(lake: LakeConnection) -> None:
    """Give an earlier lake those of the tables and columns that it lacks: its steps work on them. In a transaction."""
    for name in FORMER_TABLES:
        columns = [f"{column} {kind}" for column, kind in former_types(name).items()]
        lake.con.execute(f"CREATE TABLE IF NOT EXISTS {name} ({', '.join(columns)})")
        for column in columns:
            lake.con.execute(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {column}")


def take_over(lake: LakeConnection) -> None:
    """Make statements of all that people said; those that are there stay, as after an interrupted upgrade."""
    for path in _files(lake):
        _take_in_lines(lake, path)
    _add(lake, queries_of(__file__)[:-1])


def renew(lake: LakeConnection) -> None:
    """Bring statements of lakes before version 22 to the kinds of today: rejections were corrections, and what people
    decided of recordings was among their changes."""
    _add(lake, queries_of(__file__)[-1:])
    store = StatementStore(lake.workspace)
    if store.newest():
        store.change(
            f"UPDATE {TABLE} SET batch = statement_id WHERE kind = 'correction'",
            f"UPDATE {TABLE} SET kind = 'rejection', value = '{{}}' "
            "WHERE kind = 'correction' AND subject IS NOT NULL",
        )
    store.close()


def _add(lake: LakeConnection, queries: Sequence[str]) -> None:
    """Add what queries give of a lake's tables to the statements, in the order of time."""
    statements = []
    for sql in queries:
        rows = lake.dicts(f"FROM ({sql}) ORDER BY created_at, statement_id")
        statements += [row | {"created_at": row["created_at"].isoformat()} for row in rows]
    if statements:
        store = StatementStore(lake.workspace)
        with store.exclusive() as add:
            add(sorted(statements, key=lambda row: row["created_at"]))
        store.close()


def drop(lake: LakeConnection) -> None:
    """Drop the tables, in a transaction; former snapshots keep them."""
    for name in FORMER_TABLES:
        lake.con.execute(f"DROP TABLE {name}")


def put_away(lake: LakeConnection) -> None:
    """Move the former files beside the backups: their lines are statements now."""
    for path in _files(lake):
        folder = lake.workspace.root / "backups"
        folder.mkdir(exist_ok=True)
        path.rename(folder / f"former-{path.name}")


def _files(lake: LakeConnection) -> list[Path]:
    root = lake.workspace.root
    return [path for path in (root / "people.jsonl", root / "journal.jsonl") if path.exists()]


def _take_in_lines(lake: LakeConnection, path: Path) -> None:
    """Add to the tables what a file's lines say and they lack; the newest line of a key counts. One that a power cut
    left half written was never answered."""
    with lake.transaction(f"what {path.name} has"):
        for name, (keys, _) in FORMER_TABLES.items():
            types = former_types(name)
            forms = {c: ["VARCHAR"] if kind.endswith("[]") else kind for c, kind in types.items()}
            sql = LINES_SQL.format(
                name=name,
                key=", ".join(f"coalesce(row, gone)->>'{column}'" for column in keys),
                form=literal(json.dumps(forms)),
                fields=", ".join(f"n.{column}" for column in types),
                same=" AND ".join(
                    f"t.{c} IS NOT DISTINCT FROM {SAME.get(c, f'n.{c}')}" for c in keys
                ),
            )
            lake.con.execute(sql, [str(path)])
        for sql in OF_RECORDINGS:
            lake.con.execute(sql)
