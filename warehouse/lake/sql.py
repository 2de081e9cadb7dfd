"""SQL from users: read-only, over the lake's tables and views, with no way to the file system or the network.

DuckDB's own locks do not refuse everything (COPY into the lake's folder, a second writable ATTACH, sqlite_scan), so a
query must also be one SELECT (or EXPLAIN of one) whose parsed tree names only what is listed here.
"""

import json
import re
import resource
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from core.errors import SqlError, UserError, first_line
from core.names import LATEST, did_you_mean
from core.paths import Workspace
from core.rows import python_rows, write_as
from core.tables import STATEMENTS, TABLES
from core.tables.definition import sql_type
from core.values import plain
from core.wall import held_bytes
from warehouse.lake.connection import (
    attach,
    connect,
    extension_path,
    literal,
    quoted,
    see_statements,
)
from warehouse.lake.place import LakeError, place
from warehouse.lake.schema import SCHEMA_VERSION, checked_version
from warehouse.lake.views import VIEWS
from warehouse.lake.words import DATABASE, Words

RELATIONS = {*TABLES, STATEMENTS.name, *(v.name for v in VIEWS)}
# Catalog and schema before a relation's name
PLACES = {("", ""), ("", "main"), ("", "lake"), ("lake", "main")}
TABLE_FUNCTIONS = {
    "range",
    "generate_series",
    "unnest",
    "duckdb_tables",
    "duckdb_columns",
    "duckdb_views",
}
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
# SHOW TABLES, SHOW ALL TABLES, DESCRIBE and SUMMARIZE of a query
SHOWN = {'"tables"', "__show_tables_expanded", ""}
# The lake as it is now, and views of what belongs to a release
RESULTS, OF_RELEASE = ("results", "of_release")
# A release is scored after it was frozen: what is known of it is read in the lake as it is now
OF_TRAINING = "WHERE training_run IN (SELECT training_run FROM {lake}.training_runs WHERE release = {release})"
OF_EVALUATION = (
    "WHERE eval_run IN (SELECT eval_run FROM {lake}.eval_runs WHERE release = {release})"
)
RESULTS_SQL = {
    **dict.fromkeys(("releases", "release_shards"), "WHERE name = {release}"),
    **dict.fromkeys(("training_runs", "eval_runs", "leaderboard"), "WHERE release = {release}"),
    **dict.fromkeys(("training_points", "checkpoints"), OF_TRAINING),
    **dict.fromkeys(("eval_predictions", "eval_scores"), OF_EVALUATION),
}
WRONG_AS_WRITTEN = (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError)
WRONG_COLUMN = re.compile(r'column "?([^"\s]+)"? not found|does not have a column named "([^"]+)"')
CANDIDATES = re.compile(r"Candidate bindings:(.*)")
EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?(.*)", re.IGNORECASE | re.DOTALL)
LEAST_ROOM = 64 << 20  # bytes for a query beside what Python and DuckDB take by themselves
BATCH_ROWS = 20_000  # that are made and sent at a time
WARMING = "SELECT range % 7 AS a, count(*), string_agg(range, ',') FROM range(200000) GROUP BY a ORDER BY a"

# As the fields of warehouse.sql_process.LakeState
State = tuple[str, int | None, str | None, str | None, int | None]
# At most one; and the bytes that it then held
_opened: dict[State, tuple[duckdb.DuckDBPyConnection, int]] = {}


def open_for_users(
    workspace: Workspace,
    snapshot: int | None = None,
    memory: str | None = None,
    catalog: str | None = None,
    release: str | None = None,
    statements: int | None = None,
) -> duckdb.DuckDBPyConnection:
    """The connection of `open_locked`."""
    return open_locked(workspace, snapshot, memory, catalog, release, statements)[0]


def open_locked(
    workspace: Workspace,
    snapshot: int | None = None,
    memory: str | None = None,
    catalog: str | None = None,
    release: str | None = None,
    statements: float | None = None,
    threads: int | None = None,
) -> tuple[duckdb.DuckDBPyConnection, Words]:
    """A locked, read-only connection, and what people said as it sees it. `catalog`: a copy of the workspace's catalog
    that is read in its place.

    `release`: whose scores and training runs are shown, which came after its `snapshot`; with `catalog` as that has
    them. `statements`: see LakeState; infinity: all that come. `threads`: of a query; default: one for each core.

    `memory` (such as 2GB) is what DuckDB's own limit allows its queries, with nothing spilt to disk. That counts not
    all they take: `warehouse.sql_process` keeps them within a size. Raises LakeError: no workspace, no such snapshot.
    """
    try:
        con = connect(
            workspace, read_only=True, snapshot=snapshot, catalog=catalog, threads=threads
        )
    except duckdb.Error as e:
        snapshot_note = "" if snapshot is None else f" at snapshot {snapshot}"
        raise LakeError(f"the lake cannot be opened{snapshot_note}: {first_line(e)}") from e
    version = checked_version(con, workspace, snapshot=snapshot)
    if version is None:
        raise LakeError(workspace.absence)
    words = see_statements(workspace, con, snapshot, statements)
    if version < SCHEMA_VERSION:
        _see_former(con)
    if release is not None:
        attach(con, workspace, RESULTS, catalog=catalog)
        see_results(con, release)
    # With nothing spilt to disk the limit holds for all that the query takes
    if memory is not None:
        con.execute(f"SET memory_limit = {literal(memory)}")
        con.execute("SET temp_directory = ''")
    # Nothing but the lake's own files can be read from here on, and no setting changed back
    con.execute(f"SET allowed_directories = [{literal(place(workspace).data)}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
    return con, words


def attach_lines(workspace: Workspace, snapshot: int | None = None) -> str:
    """The statements that open this lake in DuckDB's own shell or library, by the extensions installed here."""
    lake_place = place(workspace)
    options = [f"DATA_PATH {literal(lake_place.data)}", "OVERRIDE_DATA_PATH true", "READ_ONLY"]
    if snapshot is not None:
        options.append(f"SNAPSHOT_VERSION {snapshot}")
    lines = [
        f"-- for DuckDB {duckdb.__version__}; for another one: INSTALL and LOAD by name, which needs the network"
    ]
    lines += [f"LOAD {literal(extension_path(name))};" for name in lake_place.extensions]
    if lake_place.is_bucket:
        lines += [
            "INSTALL aws;",
            f"CREATE SECRET (TYPE s3, PROVIDER credential_chain, SCOPE {literal(lake_place.data)});",
        ]
    return "\n".join(
        (
            *lines,
            f"ATTACH {literal(lake_place.attached)} AS lake ({', '.join(options)});",
            "USE lake;",
        )
    )


def see_results(con: duckdb.DuckDBPyConnection, release: str) -> None:
    """Let queries see what is known by now of a release, in the place of what was when it was
    frozen.

    The lake as it is now must be attached as RESULTS.
    """
    con.execute(f"ATTACH ':memory:' AS {OF_RELEASE}")
    lake = f"{RESULTS}.main"
    for name, condition_template in RESULTS_SQL.items():
        condition = condition_template.format(lake=lake, release=literal(release))
        con.execute(f"CREATE VIEW {OF_RELEASE}.{name} AS FROM {lake}.{name} {condition}")
    [(path,)] = con.execute("SELECT current_setting('search_path')").fetchall()
    con.execute(f"SET search_path = {literal(f'{OF_RELEASE}.main,{path}')}")


def _see_former(con: duckdb.DuckDBPyConnection) -> None:
    """Let queries of an earlier version's snapshot find all that this one knows, empty where it has nothing of it."""
    former_sql = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'"
    former = {name for (name,) in con.execute(former_sql).fetchall()}
    con.execute("ATTACH ':memory:' AS today")
    con.execute("USE today")
    for table in TABLES.values():
        columns = (f"NULL::{sql_type(c.type)} AS {quoted((c.name,))}" for c in table.columns)
        sql = f"(SELECT {', '.join(columns)} LIMIT 0)"
        if table.name in former:
            sql = f"FROM lake.main.{table.name} UNION ALL BY NAME {sql}"
        con.execute(f"CREATE VIEW {table.name} AS {sql}")
    con.execute(f"SET search_path = 'today.main,{DATABASE}.main'")
    for view in VIEWS:
        sql = view.sql
        if view.name in former:
            # What people said was in tables of these names, without columns that have come since
            sql = f"FROM lake.main.{view.name} UNION ALL BY NAME (FROM ({sql}) LIMIT 0)"
        con.execute(f"CREATE VIEW {view.name} AS {sql}")


def release_state(workspace: Workspace, release: str) -> tuple[str, int]:
    """A release's name and the snapshot that it froze; `latest` is the newest. Raises SqlError for an unknown name."""
    con = open_for_users(workspace)
    releases = con.execute(
        "SELECT name, snapshot FROM releases ORDER BY created_at DESC"
    ).fetchall()
    for name, snapshot in releases:
        if release in (name, LATEST):
            return name, snapshot
    names = sorted(name for name, _ in releases)
    raise SqlError(
        f"there is no release {release!r}; releases: {', '.join(names) or 'none yet'}{did_you_mean(release, names)}"
    )


def answer(
    con: duckdb.DuckDBPyConnection, sql: str, batch_rows: int = 100_000
) -> pa.RecordBatchReader:
    """The rows of one user query as they are found, in batches of `batch_rows`.

    Raises SqlError: refused, or wrong as it is written. What else DuckDB raises, now or in a later batch, may leave it
    without memory, or of no use.
    """
    text = check(con, sql)
    try:
        return con.execute(text).to_arrow_reader(batch_rows)
    except WRONG_AS_WRITTEN as e:
        raise SqlError(_wrong(e)) from e


def _wrong(e: duckdb.Error) -> str:
    """What is wrong with a query as it is written, in one line, with what may have been meant."""
    error_text = str(e)
    message = first_line(e)
    if function := re.search(r'Did you mean "([^"]+)"', error_text):
        return f"{message.rstrip('!')}; did you mean {function[1]}?"
    column_match = WRONG_COLUMN.search(error_text)
    candidates = CANDIDATES.search(error_text)
    if column_match is None or candidates is None:
        return message
    # DuckDB names the columns that are most alike, however little that is
    columns = [name.rpartition(".")[2] for name in re.findall(r'"([^"]+)"', candidates[1])]
    wrong = column_match[1] or column_match[2]
    return f"{message.rstrip('!')}{did_you_mean(wrong, columns) or f'; there are columns such as {columns[0]}'}"


def check(con: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The text to run; raises SqlError unless `sql` is one SELECT, or EXPLAIN of one, over the
    lake's relations.

    Parsed by json_serialize_sql alone: DuckDB's extract_statements would already evaluate the
    arguments of a PRAGMA.
    """
    explain = EXPLAIN.fullmatch(sql)
    # Only the SELECT is parsed into a tree; EXPLAIN is put back in front of what was found harmless
    prefix, select = (f"EXPLAIN {explain[1] or ''}", explain[2]) if explain else ("", sql)
    try:
        row = con.execute("SELECT json_serialize_sql(?)", [select]).fetchone()
        tree = json.loads(row[0]) if row else {}
        _check_statement(tree)
    except WRONG_AS_WRITTEN as e:
        raise SqlError(first_line(e)) from e
    except RecursionError as e:
        raise SqlError("the query is nested too deeply") from e
    return prefix + select


def _check_statement(tree: dict) -> None:
    """Raise SqlError unless DuckDB has parsed one SELECT that names only what is allowed."""
    error = tree.get("error_message")
    if "Only SELECT" in (error or ""):
        raise SqlError(
            "the lake is read only here: one SELECT at a time (PIVOT without IN is several)"
        )
    if "statements" not in tree:
        raise SqlError(f"Parser Error: {error}")
    if len(tree["statements"]) != 1:
        raise SqlError(f"one statement at a time, please; this has {len(tree['statements'])}")
    _check_tree(tree["statements"], frozenset())


def _check_tree(tree: Any, ctes: frozenset[str]) -> None:
    """Raise SqlError unless every relation and function in the tree is allowed; `ctes` are the
    names in scope.

    A name that is no common table expression where it stands could be a file or a system view.
    """
    if isinstance(tree, list):
        for value in tree:
            _check_tree(value, ctes)
    if isinstance(tree, dict):
        _check_branch(tree, ctes)


def _check_branch(tree: dict, ctes: frozenset[str]) -> None:
    """`_check_tree` of a node with what it holds."""
    # A common table expression is in scope for those after it, and for the node that it belongs to
    for entry in (tree.get("cte_map") or {}).get("map", []):
        _check_tree(entry["value"], ctes)
        ctes |= {entry["key"].lower()}
    _check_node(tree, ctes)
    for key, value in tree.items():
        if key != "cte_map":
            # This part may name itself
            is_recursive = key == "right" and tree.get("type") == "RECURSIVE_CTE_NODE"
            _check_tree(value, ctes | {tree["cte_name"].lower()} if is_recursive else ctes)


def _check_node(node: dict, ctes: frozenset[str]) -> None:
    """Raise SqlError unless a node of the tree names only what is allowed."""
    kind = node.get("type")
    if kind in ("BASE_TABLE", "SHOW_REF"):
        _check_relation(node, ctes)
    elif kind == "TABLE_FUNCTION":
        function = node["function"].get("function_name", "").lower()
        if function not in TABLE_FUNCTIONS:
            raise SqlError(f"the table function {function} is not allowed here")
    elif kind == "FUNCTION" and node["function_name"].lower() in FORBIDDEN_FUNCTIONS:
        raise SqlError(f"the function {node['function_name']} is not allowed here")


def _check_relation(node: dict, ctes: frozenset[str]) -> None:
    """Raise SqlError for a table, or something to be shown, that is not the lake's."""
    relation_name = node.get("table_name", "")
    place = node.get("catalog_name", "").lower(), node.get("schema_name", "").lower()
    if node["type"] == "SHOW_REF":
        if relation_name not in SHOWN or place not in PLACES:
            raise SqlError(
                f"SHOW {'.'.join(filter(None, (*place, relation_name)))} is not allowed here"
            )
        return
    is_cte = place == ("", "") and relation_name.lower() in ctes
    is_ours = place in PLACES and relation_name.lower() in RELATIONS
    if not is_cte and not is_ours:
        near = did_you_mean(relation_name.lower(), RELATIONS) or " (SHOW TABLES lists them)"
        raise SqlError(f"there is no table {relation_name!r} in the lake{near}")


# In a process of its own (warehouse.sql_process): opened once, a query at a time


def open_state(state: State, memory: int) -> str:
    """Why there is no lake; "" for one."""
    try:
        if state not in _opened:
            _opened.clear()
            _opened[state] = _connection(state, memory), held_bytes("RssAnon")
    except UserError as e:
        return str(e)
    except Exception as e:
        return _explained(e)
    return ""


def answered(
    sql: str, style: str | None, max_rows: int | None, max_bytes: int | None
) -> tuple[str, bytes, bool]:
    """What is wrong, a file with the rows, and whether another process is to take the next query."""
    [(con, former_bytes)] = _opened.values()
    error = ""
    is_last = False
    file = _Bounded(max_bytes)
    try:
        rows = answer(con, sql, BATCH_ROWS)
        if style is None:
            _write(rows, max_rows, file)
        elif style == "rows":
            _write_table(rows, max_rows, file)
        else:
            write_as(style, _first(rows, max_rows), rows.schema, file)
    except UserError as e:
        error = str(e)
    except Exception as e:
        error = _explained(e)
        is_last = True
    data = b"" if error else file.getvalue()
    # What a query has left behind would be missing to the next one
    return error, data, is_last or held_bytes("RssAnon") > former_bytes + len(data) + LEAST_ROOM


def _connection(state: State, memory: int) -> duckdb.DuckDBPyConnection:
    """A locked connection to the lake, in a process that can hold no more than `memory` bytes from here on."""
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    root, snapshot, release, catalog, statements = state
    workspace = Workspace(Path(root))
    # A copy of the catalog comes with the snapshot that is to be read in it
    if release is not None and catalog is None:
        release, snapshot = release_state(workspace, release)
    room = max(LEAST_ROOM, memory - held_bytes("VmRSS"))
    con = open_for_users(
        workspace,
        snapshot,
        f"{room // 1000}KB",
        catalog=catalog,
        release=release,
        statements=statements,
    )
    # A first query begins every thread, and loads what is loaded once
    _write(answer(con, WARMING, BATCH_ROWS), None, BytesIO())
    room = max(LEAST_ROOM, memory - held_bytes("VmRSS"))
    resource.setrlimit(resource.RLIMIT_DATA, (held_bytes("VmData") + room, resource.RLIM_INFINITY))
    return con


def _write(reader: pa.RecordBatchReader, max_rows: int | None, file: Any) -> None:
    """Write a query's rows as an Arrow stream, a batch at a time; of them at most `max_rows`."""
    with pa.ipc.new_stream(pa.PythonFile(file, "w"), reader.schema) as stream:
        for batch in _first(reader, max_rows):
            stream.write_batch(batch)


def _write_table(reader: pa.RecordBatchReader, max_rows: int | None, file: Any) -> None:
    """Write a query's first rows as JSON, with the names of columns, and how many rows there are."""
    table = reader.read_all()
    rows = plain(python_rows(table.slice(0, max_rows)))
    facts = {"rows": rows, "names": table.schema.names, "num_rows": table.num_rows}
    file.write(json.dumps(facts).encode())


def _first(reader: pa.RecordBatchReader, max_rows: int | None) -> Iterator[pa.RecordBatch]:
    """A query's rows, at most `max_rows`."""
    remaining = max_rows
    for batch in reader:
        yield batch if remaining is None else batch.slice(0, remaining)
        remaining = None if remaining is None else remaining - batch.num_rows
        if remaining is not None and remaining <= 0:
            break


class _Bounded(BytesIO):
    """A file of so many bytes at most. Raises SqlError."""

    def __init__(self, most: int | None) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any) -> int:
        if self._most is not None and self.tell() + len(data) > self._most:
            raise SqlError(
                f"the result is larger than {self._most / 1e6:.0f} MB: ask for fewer rows or columns"
            )
        return super().write(data)


def _explained(e: Exception) -> str:
    first = first_line(e)
    if isinstance(e, duckdb.OutOfMemoryException | pa.ArrowMemoryError | MemoryError):
        return f"the query needs more memory than it may take: {first}"
    return f"the query cannot be answered: {first or type(e).__name__}"
