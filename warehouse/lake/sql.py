"""SQL from users: read-only, over the lake's tables and views, with no way to the file system or the network.

DuckDB's own locks do not refuse everything (COPY into the lake's folder, a second writable ATTACH, sqlite_scan), so a
query must also be one SELECT (or EXPLAIN of one) whose parsed tree names only what is listed here.
"""

import json
import re
from concurrent.futures import Future
from threading import Thread
from typing import Any

import duckdb
import pyarrow as pa

from core.errors import UserError
from core.paths import Workspace
from core.tables import TABLES
from core.views import VIEWS
from warehouse.lake.connection import connect, literal
from warehouse.lake.migrations import checked_version
from warehouse.lake.place import LakeError, place

RELATIONS = {*TABLES, *(v.name for v in VIEWS)}
PLACES = {("", ""), ("", "main"), ("", "lake"), ("lake", "main")}  # catalog and schema before a relation's name
TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "duckdb_tables", "duckdb_columns", "duckdb_views"}
# Of the scalar functions, those that plan SQL of their own, tell of this machine, or do something
FORBIDDEN_FUNCTIONS = {
    "json_serialize_plan",
    "current_setting",
    "getenv",
    "write_log",
    "sleep_ms",
    "pg_sleep",
    "nextval",
    "currval",
}
SHOWN = {'"tables"', "__show_tables_expanded", ""}  # SHOW TABLES, SHOW ALL TABLES, DESCRIBE and SUMMARIZE of a query
EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?(.*)", re.IGNORECASE | re.DOTALL)
MEMORY_TEXT = re.compile(r"\d+(\.\d+)? ?[KMGT]i?B", re.IGNORECASE)


class SqlError(UserError):
    """A query that is refused or fails; one sentence for people."""


def open_for_users(
    workspace: Workspace, snapshot: int | None = None, memory: str | None = None
) -> duckdb.DuckDBPyConnection:
    """A locked, read-only connection; `memory` (such as 2GB) is what its queries may hold, with nothing spilt to disk.

    Raises LakeError when there is no workspace or no such snapshot, SqlError when `memory` is no size.
    """
    if memory is not None and not MEMORY_TEXT.fullmatch(memory):
        raise SqlError(f"{memory!r} is no size of memory: write it as 500MB or 4GB")
    if not workspace.exists():
        raise LakeError(f"no workspace at {workspace.root}: build one first (proccorpus build, or make demo)")
    try:
        con = connect(workspace, read_only=True, snapshot=snapshot)
    except duckdb.Error as e:
        where = "" if snapshot is None else f" at snapshot {snapshot}"
        raise LakeError(f"the lake cannot be opened{where}: {_first_line(e)}") from e
    checked_version(con, str(workspace.root))
    if memory is not None:
        con.execute(f"SET memory_limit = {literal(memory)}")
        con.execute("SET temp_directory = ''")
    con.execute(f"SET allowed_directories = [{literal(place(workspace).data)}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
    return con


def attach_lines(workspace: Workspace, snapshot: int | None = None) -> str:
    """What a user of DuckDB's own shell or library types to read this lake."""
    at = place(workspace)
    options = [f"DATA_PATH {literal(at.data)}", "OVERRIDE_DATA_PATH true", "READ_ONLY"]
    if snapshot is not None:
        options.append(f"SNAPSHOT_VERSION {snapshot}")
    lines = [f"INSTALL {name.removesuffix('_scanner')};" for name in at.extensions]
    if at.is_bucket:
        lines += ["INSTALL aws;", f"CREATE SECRET (TYPE s3, PROVIDER credential_chain, SCOPE {literal(at.data)});"]
    return "\n".join((*lines, f"ATTACH {literal(at.attached)} AS lake ({', '.join(options)});", "USE lake;"))


def release_snapshot(workspace: Workspace, release: str) -> int:
    """The snapshot that a release froze. Raises SqlError for an unknown name."""
    con = open_for_users(workspace)
    row = con.execute("SELECT snapshot FROM releases WHERE name = ?", [release]).fetchone()
    if row is None:
        names = ", ".join(r[0] for r in con.execute("SELECT name FROM releases ORDER BY 1").fetchall()) or "none yet"
        raise SqlError(f"there is no release {release!r}; releases: {names}")
    return row[0]


def query(
    con: duckdb.DuckDBPyConnection, sql: str, time_s: float | None = None, max_rows: int | None = None
) -> pa.Table:
    """Run one user query; of its rows at most `max_rows`. Raises SqlError: refused, failed or longer than `time_s`.

    Ctrl-C stops it and leaves the connection of use. It works in a thread of its own for that: where a signal meets
    DuckDB in the main thread, the query goes on behind the exception, and the connection's next one waits for it.
    """
    text = check(con, sql)
    answer: Future[pa.Table] = Future()

    def run() -> None:
        try:
            answer.set_result(_fetch(con.execute(text), max_rows))
        except Exception as e:
            answer.set_exception(e)

    thread = Thread(target=run)
    try:
        thread.start()
        return answer.result(time_s)
    except TimeoutError as e:
        _stop(con, thread)
        raise SqlError(f"the query took longer than {time_s:g} s and was stopped") from e
    except KeyboardInterrupt:
        _stop(con, thread)
        raise
    except duckdb.OutOfMemoryException as e:
        raise SqlError(f"the query needs more memory than it may take: {_first_line(e)}") from e
    except duckdb.Error as e:
        raise SqlError(_first_line(e)) from e


def _fetch(con: duckdb.DuckDBPyConnection, max_rows: int | None) -> pa.Table:
    if max_rows is None:
        return con.to_arrow_table()
    reader, parts, rows = con.to_arrow_reader(), [], 0
    for part in reader:
        parts.append(part)
        rows += part.num_rows
        if rows >= max_rows:
            break
    return pa.Table.from_batches(parts, reader.schema).slice(0, max_rows)


def _stop(con: duckdb.DuckDBPyConnection, thread: Thread) -> None:
    while thread.is_alive():
        con.interrupt()  # again and again: one before the query has begun is lost
        thread.join(0.05)


def _first_line(e: Exception) -> str:
    return str(e).strip().split("\n", 1)[0]


def check(con: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The text to run; raises SqlError unless `sql` is one SELECT, or EXPLAIN of one, over the lake's relations.

    Parsed by json_serialize_sql alone: DuckDB's extract_statements would already evaluate the arguments of a PRAGMA.
    """
    words = EXPLAIN.fullmatch(sql)
    prefix, select = (f"EXPLAIN {words[1] or ''}", words[2]) if words else ("", sql)
    try:
        row = con.execute("SELECT json_serialize_sql(?)", [select]).fetchone()
        tree = json.loads(row[0]) if row else {}
        if "Only SELECT" in tree.get("error_message", ""):
            raise SqlError("only SELECT is allowed here, one statement at a time (PIVOT without IN is several)")
        if "statements" not in tree:
            raise SqlError(f"Parser Error: {tree.get('error_message')}")
        if len(tree["statements"]) != 1:
            raise SqlError(f"one statement at a time, please; this has {len(tree['statements'])}")
        _check_tree(tree["statements"], frozenset())
    except duckdb.Error as e:
        raise SqlError(_first_line(e)) from e
    except RecursionError as e:
        raise SqlError("the query is nested too deeply") from e
    return prefix + select


def _check_tree(tree: Any, ctes: frozenset[str]) -> None:
    """Raise SqlError unless every relation and function in the tree is allowed; `ctes` are the names in scope.

    A name that is no common table expression where it stands could be a file or a system view.
    """
    if isinstance(tree, list):
        for value in tree:
            _check_tree(value, ctes)
    if not isinstance(tree, dict):
        return
    for entry in (tree.get("cte_map") or {}).get("map", []):
        _check_tree(entry["value"], ctes)
        ctes |= {entry["key"].lower()}
    _check_node(tree, ctes)
    for key, value in tree.items():
        if key == "right" and tree.get("type") == "RECURSIVE_CTE_NODE":
            _check_tree(value, ctes | {tree["cte_name"].lower()})
        elif key != "cte_map":
            _check_tree(value, ctes)


def _check_node(n: dict, ctes: frozenset[str]) -> None:
    kind, place = n.get("type"), (n.get("catalog_name", "").lower(), n.get("schema_name", "").lower())
    if kind == "BASE_TABLE":
        name = n["table_name"].lower()
        if not (place == ("", "") and name in ctes) and not (place in PLACES and name in RELATIONS):
            raise SqlError(f"there is no table {n['table_name']!r} in the lake (SHOW TABLES lists them)")
    elif kind == "TABLE_FUNCTION":
        function = n["function"].get("function_name", "").lower()
        if function not in TABLE_FUNCTIONS:
            raise SqlError(f"the table function {function} is not allowed here")
    elif kind == "FUNCTION" and n["function_name"].lower() in FORBIDDEN_FUNCTIONS:
        raise SqlError(f"the function {n['function_name']} is not allowed here")
    elif kind == "SHOW_REF" and (n.get("table_name", "") not in SHOWN or place not in PLACES):
        raise SqlError(f"SHOW {'.'.join(p for p in (*place, n.get('table_name', '')) if p)} is not allowed here")
