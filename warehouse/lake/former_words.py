"""What people said in lakes before version 20, in seven tables, people.jsonl and journal.jsonl, made statements."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from warehouse.lake.connection import LakeConnection, literal
from warehouse.lake.words import StatementStore

# By table its key, then its columns with their types
COMMON = "dataset VARCHAR, author VARCHAR, created_at TIMESTAMPTZ"
OF_EPISODE = f"{COMMON}, episode_index BIGINT, recording VARCHAR"
FORMER_TABLES = {
    "corrections": (
        ("correction_id",),
        f"correction_id VARCHAR, {OF_EPISODE}, base_label_run VARCHAR, base_content_hash VARCHAR, follows VARCHAR, "
        "rejects VARCHAR, status VARCHAR, plan VARCHAR[], segments VARCHAR, comment VARCHAR, final_progress DOUBLE, "
        "catastrophic_frame BIGINT",
    ),
    "outcomes": (
        ("import_id", "episode_index"),
        f"import_id VARCHAR, {OF_EPISODE}, success BOOLEAN, note VARCHAR, file VARCHAR, undoes VARCHAR",
    ),
    "reference_marks": (
        ("mark_id",),
        f"mark_id VARCHAR, {OF_EPISODE}, is_reference BOOLEAN, label_run VARCHAR",
    ),
    "episode_marks": (
        ("mark_id",),
        f"mark_id VARCHAR, {OF_EPISODE}, kind VARCHAR, value VARCHAR, is_on BOOLEAN, follows VARCHAR",
    ),
    "acceptances": (
        ("acceptance_id",),
        f"acceptance_id VARCHAR, {OF_EPISODE}, check_name VARCHAR, is_accepted BOOLEAN, why VARCHAR",
    ),
    "joined_tasks": (
        ("join_id", "task"),
        f"join_id VARCHAR, {COMMON}, task VARCHAR, same_as VARCHAR",
    ),
    "takedowns": (
        ("dataset", "episode_index", "recording"),
        "dataset VARCHAR, episode_index BIGINT, recording VARCHAR, reason VARCHAR, created_at TIMESTAMPTZ",
    ),
}
# By table its rows as statements
OWN_ID = "{0} AS statement_id, {0} AS batch, dataset, episode_index, recording, author, created_at"
STATEMENTS_SQL = {
    "corrections": f"""
        SELECT {OWN_ID.format("correction_id")}, 'correction' AS kind, base_content_hash AS content_hash, comment,
               follows,
               rejects AS undoes, CASE WHEN status = 'rejected' AND rejects IS NULL THEN base_label_run END AS subject,
               to_json(struct_pack(status, base_label_run, plan, segments, final_progress, catastrophic_frame)) AS value
        FROM corrections""",
    "outcomes": """
        SELECT left(sha256(concat_ws(' ', import_id, dataset, episode_index)), 16) AS statement_id, import_id AS batch,
               dataset, episode_index, recording, author, created_at, 'outcome' AS kind, note AS comment, undoes,
               to_json(struct_pack(success, file)) AS value FROM outcomes""",
    "reference_marks": f"""
        SELECT {OWN_ID.format("mark_id")}, 'reference' AS kind, to_json(struct_pack(is_reference, label_run)) AS value
        FROM reference_marks""",
    "episode_marks": f"""
        SELECT {OWN_ID.format("mark_id")}, kind, follows, CASE WHEN kind = 'tag' THEN value END AS subject,
               to_json(struct_pack(value, is_on)) AS value FROM episode_marks""",
    "acceptances": f"""
        SELECT {OWN_ID.format("acceptance_id")}, 'acceptance' AS kind, check_name AS subject, why AS comment,
               to_json(struct_pack(is_accepted)) AS value FROM acceptances""",
    "joined_tasks": """
        SELECT left(sha256(join_id || ' ' || task), 16) AS statement_id, join_id AS batch, dataset, author, created_at,
               'joined_task' AS kind, task AS subject, to_json(struct_pack(same_as)) AS value FROM joined_tasks""",
    "takedowns": """
        SELECT left(sha256(concat_ws(' ', 'takedown', dataset, coalesce(episode_index, -1), recording, created_at)), 16)
               AS statement_id, statement_id AS batch, dataset, episode_index, recording, created_at,
               'takedown' AS kind, reason AS comment, '{}' AS value FROM takedowns""",
}


def complete(lake: LakeConnection) -> None:
    """Give an earlier lake those of the tables and columns that it lacks: its steps work on them. In a transaction."""
    for name, (_, definition) in FORMER_TABLES.items():
        lake.con.execute(f"CREATE TABLE IF NOT EXISTS {name} ({definition})")
        for column in definition.split(", "):
            lake.con.execute(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {column}")


def take_over(lake: LakeConnection) -> None:
    """Make statements of all that people said; those that are there stay, as after an interrupted upgrade."""
    for path in _files(lake):
        _take_in_lines(lake, path)
    statements = []
    for sql in STATEMENTS_SQL.values():
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
    """Add to the tables what a file's lines say and they lack; the newest line of a key counts."""
    newest: dict[str, dict[tuple, dict[str, Any]]] = {name: {} for name in FORMER_TABLES}
    for entry in _entries(path):
        name = entry["table"]
        if name not in FORMER_TABLES:
            continue
        row = entry.get("row")
        key = tuple((row or entry["gone"]).get(column) for column in FORMER_TABLES[name][0])
        newest[name][key] = row or {}
    for name, rows in newest.items():
        present = [row for row in rows.values() if row]
        if not present:
            continue
        same = " AND ".join(f"t.{c} IS NOT DISTINCT FROM n.{c}" for c in FORMER_TABLES[name][0])
        text = pa.table({"row": [json.dumps(row) for row in present]})
        lake.con.register("new_lines", text)
        types = dict(column.split() for column in FORMER_TABLES[name][1].split(", "))
        types = {c: [kind[:-2]] if kind.endswith("[]") else kind for c, kind in types.items()}
        fields = ", ".join(f"n.{column}" for column in types)
        with lake.transaction(f"what {path.name} has of {name}"):
            lake.con.execute(
                f"INSERT INTO {name} BY NAME SELECT {fields} FROM "
                f"(SELECT unnest(from_json(row, {literal(json.dumps(types))})) FROM new_lines) n "
                f"WHERE NOT EXISTS (FROM {name} t WHERE {same})"
            )
        lake.con.unregister("new_lines")


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that can be read: one that a power cut left half written was never answered."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and "table" in entry and ("row" in entry or "gone" in entry):
                yield entry
