"""SQL from users: read-only, over the lake's tables and views, with no way to the file system or the network.

DuckDB's own locks do not refuse everything (COPY into the lake's folder, a second writable ATTACH, sqlite_scan), so a
query must also be one SELECT (or EXPLAIN of one) whose parsed tree names only what is listed here.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

from warehouse.lake import LakeError, connect, literal
from warehouse.tables import TABLES, VIEWS
from warehouse.workspace import Workspace

RELATIONS = {*TABLES, *(v.name for v in VIEWS)}
TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "duckdb_tables", "duckdb_columns", "duckdb_views"}
SHOWN = {'"tables"', "__show_tables_expanded", ""}  # SHOW TABLES, SHOW ALL TABLES, DESCRIBE and SUMMARIZE of a query


class SqlError(Exception):
    """A query that is refused or fails; one sentence for people."""


def open_for_users(workspace: Workspace, snapshot: int | None = None) -> duckdb.DuckDBPyConnection:
    """A locked, read-only connection. Raises LakeError when there is no workspace or no such snapshot."""
    if not workspace.exists():
        raise LakeError(f"no workspace at {workspace.root}: build one first (proccorpus build, or make demo)")
    try:
        con = connect(workspace, read_only=True, snapshot=snapshot)
    except duckdb.Error as e:
        raise LakeError(f"the lake cannot be opened at snapshot {snapshot}: {_first_line(e)}") from e
    con.execute(f"SET allowed_directories = [{literal(str(workspace.data) + '/')}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
    return con


def release_snapshot(workspace: Workspace, release: str) -> int:
    """The snapshot that a release froze. Raises SqlError for an unknown name."""
    con = open_for_users(workspace)
    row = con.execute("SELECT snapshot FROM releases WHERE name = ?", [release]).fetchone()
    if row is None:
        names = ", ".join(r[0] for r in con.execute("SELECT name FROM releases ORDER BY 1").fetchall()) or "none yet"
        raise SqlError(f"there is no release {release!r}; releases: {names}")
    return row[0]


def query(con: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Run one user query. Raises SqlError when it is refused or fails."""
    check(con, sql)
    try:
        return con.execute(sql).to_arrow_table()
    except duckdb.Error as e:
        raise SqlError(_first_line(e)) from e


def _first_line(e: Exception) -> str:
    return str(e).strip().split("\n", 1)[0]


def check(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise SqlError unless `sql` is one SELECT, or EXPLAIN of one, over the lake's tables and views."""
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as e:
        raise SqlError(_first_line(e)) from e
    if len(statements) != 1:
        raise SqlError(f"one statement at a time, please; this has {len(statements)} (PIVOT counts as two)")
    statement = statements[0]
    text = statement.query
    if statement.type == duckdb.StatementType.EXPLAIN:
        words = text.strip().split(None, 2)
        text = text.strip()[len(words[0]) :].strip()
        if words[1:2] and words[1].upper() == "ANALYZE":
            text = text[len(words[1]) :]
    elif statement.type != duckdb.StatementType.SELECT:
        raise SqlError(f"only SELECT is allowed here, not {statement.type.name}")
    row = con.execute("SELECT json_serialize_sql(?)", [text]).fetchone()
    tree = json.loads(row[0]) if row else {"error": True}
    if tree.get("error"):
        raise SqlError(f"only SELECT is allowed here ({tree.get('error_message', 'it could not be parsed')})")
    _check_tree(tree["statements"])


def _check_tree(tree: Any) -> None:
    nodes = list(_nodes(tree))
    names = {entry["key"] for n in nodes for entry in (n.get("cte_map") or {}).get("map", [])}
    for n in nodes:
        kind = n.get("type")
        if kind == "BASE_TABLE":
            known = n["table_name"] in RELATIONS | names
            if not known or n.get("catalog_name") not in ("", "lake") or n.get("schema_name") not in ("", "main"):
                raise SqlError(f"there is no table {n['table_name']!r} in the lake (SHOW TABLES lists them)")
        elif kind == "TABLE_FUNCTION":
            function = n["function"].get("function_name", "").lower()
            if function not in TABLE_FUNCTIONS:
                raise SqlError(f"the table function {function} is not allowed here")
        elif (
            kind == "SHOW_REF" and n.get("table_name", "") not in SHOWN and n["table_name"].strip('"') not in RELATIONS
        ):
            raise SqlError(f"SHOW {n['table_name']} is not allowed here")


def _nodes(tree: Any) -> Iterator[dict]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def plain(value: Any) -> Any:
    """A value as JSON has it: NaN and infinities become null, what JSON does not know becomes text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
