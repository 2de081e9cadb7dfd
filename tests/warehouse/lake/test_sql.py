"""SQL from users: what is answered, and every way out of the lake that we know of, refused."""

import inspect
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from core.errors import SqlError
from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import facts, frames, query, stage_run
from warehouse.lake import Lake, LakeError
from warehouse.lake.sql import check, open_for_users, release_state

SECRET = "the-secret"


@dataclass(frozen=True)
class Sandbox:
    con: duckdb.DuckDBPyConnection
    workspace: Workspace
    outside: Path  # a folder with secret.csv, secret.parquet and secret.sqlite (table t), and where nothing must appear
    snapshots: tuple[int, int]  # with 3 and with 5 frames

    def text(self, sql: str) -> str:
        """The statement with places filled in."""
        places = {
            "{out}": self.outside,
            "{data}": self.workspace.data,
            "{catalog}": self.workspace.catalog,
        }
        for mark, place in places.items():
            sql = sql.replace(mark, str(place))
        return sql

    def files(self) -> set[tuple[str, int]]:
        roots = (self.workspace.root, self.outside)
        paths = chain.from_iterable(root.rglob("*") for root in roots)
        return {(str(p), p.stat().st_mtime_ns) for p in paths if p.is_file()}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory, empty_corpus: Path) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("sql")
    shutil.copytree(empty_corpus, root / "corpus")
    workspace = Workspace(root / "corpus")
    outside_folder = root / "outside"
    outside_folder.mkdir()
    (outside_folder / "secret.csv").write_text(f"a\n{SECRET}\n")
    duckdb.sql(f"COPY (SELECT '{SECRET}' AS a) TO '{outside_folder}/secret.parquet'")
    with sqlite3.connect(outside_folder / "secret.sqlite") as connection:
        connection.execute(f"CREATE TABLE t AS SELECT '{SECRET}' AS a")
    connection.close()
    lake = Lake(workspace)
    lake.publish(
        stage_run(stage="episodes", chunk=None),
        {"episode_facts": facts(episodes=(0, 1))},
        parts=[stage_run(stage="episodes")],
    )
    first = lake.publish(stage_run(), {"frames": frames(n=3)})
    second = lake.publish(stage_run(), {"frames": frames(n=5)})
    line = {"name": "v1", "snapshot": first, "config_hash": "c", "created_at": datetime.now(UTC)}
    lake.upsert("release", releases=TABLES["releases"].rows([line]))
    for release, value in (("v1", 0.5), ("v0", 0.1)):
        lake.upsert(f"results of {release}", **results(release, value))
    lake.con.close()
    con = open_for_users(workspace)
    yield Sandbox(con, workspace, outside_folder, (first, second))
    con.close()


def results(release: str, value: float) -> dict[str, pa.Table]:
    """A training run on a release, and an evaluation on it with one score."""
    created = {"created_at": datetime.now(UTC)}
    rows = {
        "training_runs": {"training_run": f"of-{release}", "release": release} | created,
        "training_points": {"training_run": f"of-{release}", "step": 0},
        "eval_runs": {
            "eval_run": f"eval-{release}",
            "model": "clock",
            "benchmark": "held-out",
            "release": release,
        }
        | created,
        "eval_scores": {
            "eval_run": f"eval-{release}",
            "slice": "all",
            "metric": "voc",
            "value": value,
        },
    }
    return {table: TABLES[table].rows([row]) for table, row in rows.items()}


def test_of_a_release_scores_are_seen_that_came_after_it(sandbox):
    name, snapshot = release_state(sandbox.workspace, "latest")
    con = open_for_users(sandbox.workspace, snapshot, release=name)
    # Content as it was frozen, results as they are, and those of this release alone
    assert query(con, "SELECT count(*) AS n FROM frames").to_pylist() == [{"n": 3}]
    for table in ("eval_scores", "leaderboard"):
        scores = query(con, f"SELECT metric, value FROM {table}").to_pylist()
        assert scores == [{"metric": "voc", "value": 0.5}], table
    assert query(
        con, "SELECT training_run, count(*) AS n FROM training_points GROUP BY ALL"
    ).to_pylist() == [{"training_run": "of-v1", "n": 1}]
    assert query(con, "SELECT name FROM releases").to_pylist() == [{"name": "v1"}]
    con.close()
    # At its bare snapshot nothing of it is known yet
    con = open_for_users(sandbox.workspace, snapshot)
    assert query(con, "FROM leaderboard").num_rows == 0
    con.close()


def test_what_is_not_there_is_said_so(sandbox, tmp_path):
    with pytest.raises(SqlError, match="there is no release 'v2'; releases: v1"):
        release_state(sandbox.workspace, "v2")
    with pytest.raises(LakeError, match="cannot be opened at snapshot 9999"):
        open_for_users(sandbox.workspace, 9999)
    with pytest.raises(LakeError, match="no workspace at"):
        open_for_users(Workspace(tmp_path / "none"))
    with pytest.raises(
        SqlError, match=r"^there is no table 'nosuch' in the lake \(SHOW TABLES lists them\)$"
    ):
        query(sandbox.con, "FROM nosuch")
    with pytest.raises(
        SqlError, match=r'^Binder Error: Referenced column "nosuch" not found[^\n]*$'
    ):
        query(sandbox.con, "SELECT nosuch FROM frames")
    # What was meant, where a name is like one
    with pytest.raises(
        SqlError, match=r"^there is no table 'episode' in the lake; did you mean episodes, "
    ):
        query(sandbox.con, "FROM episode")
    with pytest.raises(
        SqlError, match=r'column "frame_idx" not found in FROM clause; did you mean frame_index'
    ):
        query(sandbox.con, "SELECT frame_idx FROM frames")
    with pytest.raises(SqlError, match=r'"frame_idx"; did you mean frame_index\?$'):
        query(sandbox.con, "SELECT f.frame_idx FROM frames f")
    with pytest.raises(SqlError, match=r"named? summ does not exist; did you mean sum\?$"):
        query(sandbox.con, "SELECT summ(frame_index) FROM frames")
    with pytest.raises(SqlError, match=r'^Parser Error: syntax error at or near "SELEC"$'):
        query(sandbox.con, "SELEC 1")


# One on each line: whole statements, tables and files, tricks with common table expressions, functions, EXPLAIN
REFUSED = [
    line.replace("\\n", "\n")
    for line in Path(__file__, "../../../kits/sql_refused.txt").resolve().read_text().splitlines()
]
REFUSED += [
    "",
    "   ",
    ";",
    "-- nothing",
    "SELECT",
    "nonsense",
    "SELECT $1; SELECT 2",
    "DROP TABLE frames --\0 SELECT 1",
]


def refusal(
    run_query: Callable[[duckdb.DuckDBPyConnection, str], object], sandbox: Sandbox, sql: str
) -> str:
    """What is said; nothing where it is answered."""
    local_variable = [1]  # which DuckDB's replacement scan would find by its name
    assert local_variable
    try:
        run_query(sandbox.con, sandbox.text(sql))
    except SqlError as e:
        return str(e)
    return ""


def test_what_is_refused_is_so_by_the_check_already_and_leaves_no_trace(sandbox):
    files = sandbox.files()
    for run_query in (check, query):
        messages = {sql: refusal(run_query, sandbox, sql) for sql in REFUSED}
        assert [
            sql for sql, words in messages.items() if not words or "\n" in words or SECRET in words
        ] == []
    assert sandbox.files() == files
    assert query(sandbox.con, "SELECT count(*) AS n FROM frames").to_pylist() == [{"n": 5}]
    databases = sandbox.con.execute(
        "SELECT database_name FROM duckdb_databases() WHERE NOT internal"
    ).fetchall()
    assert {d[0] for d in databases} == {"lake", "memory", "words"}
    tables = sandbox.con.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE database_name IN ('memory', 'temp')"
    )
    assert tables.fetchall() == [(0,)]


DEEP = 30  # levels


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "abs(" * DEEP + "1" + ")" * DEEP,
        "SELECT " + "[" * DEEP + "1" + "]" * DEEP,
        "SELECT * FROM " + "(SELECT * FROM " * DEEP + "frames" + ")" * DEEP,
    ],
    ids=lambda sql: sql[:20],
)
def test_what_is_nested_deeply_is_answered_or_refused(sandbox, sql):
    check(sandbox.con, sql)
    former_limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + DEEP)
    try:
        with pytest.raises(SqlError, match=r"^the query is nested too deeply$"):
            check(sandbox.con, sql)
    finally:
        sys.setrecursionlimit(former_limit)
    assert query(sandbox.con, "SELECT 1 AS a").to_pylist() == [{"a": 1}]


def test_what_is_not_allowed_is_found_in_any_depth(sandbox):
    with pytest.raises(SqlError, match="table function glob is not allowed"):
        check(sandbox.con, "SELECT * FROM " + "(SELECT * FROM " * DEEP + "glob('/*')" + ")" * DEEP)
