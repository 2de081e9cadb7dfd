"""A lake with its catalog in Postgres and its data behind S3 holds what a local one does."""

import filecmp
import json
import multiprocessing
import re
import subprocess
import sys
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from core.errors import SqlError
from core.paths import ROOT, Workspace
from explorer.app import create_app
from tests.kits.cli_kit import proccorpus
from tests.kits.lake_kit import frames, query, segments, stage_run
from tests.kits.servers import Postgres
from warehouse.lake import Lake, digest
from warehouse.lake.gc import merge, sweep
from warehouse.lake.place import LakeError, postgres_session
from warehouse.lake.sql import open_for_users
from warehouse.lake.words import LOCK_KEY

pytestmark = pytest.mark.stack
IMPORTS = """
import sys, time
from pathlib import Path
from warehouse.lake.place import locked
from core.paths import Workspace
"""
names = count()


@pytest.fixture(autouse=True)
def _bucket(bucket: dict[str, str], monkeypatch) -> None:
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def space(database: Postgres, tmp_path) -> Workspace:
    """With its catalog in Postgres and its data in the bucket."""
    name = f"lake{next(names)}"
    database.execute(f"CREATE DATABASE {name}")
    place = ("--catalog", database.url(name), "--data", f"s3://corpora/{name}")
    run("workspace", "create", "--workspace", tmp_path / "team", *place)
    return Workspace(tmp_path / "team")


def run(*words: object, code: int = 0) -> str:
    result = proccorpus(*words, cwd=ROOT)
    assert result.code == code, result.err
    if code == 0:
        return result.out
    return result.err


@pytest.mark.long
def test_the_same_corpus_as_in_a_folder(space, tmp_path):
    spaces = {"team": space.root, "local": tmp_path / "local"}
    digests = {}
    for name, root in spaces.items():
        build = (
            "build",
            "--source",
            ROOT / "samples" / "sim_long",
            "--name",
            "long",
            "--episodes",
            "0-5",
        )
        run(*build, "--workers", 2 if name == "local" else 4, "--workspace", root)
        run("release", "create", "one", "--allow-licence", "unknown", "--workspace", root)
        run("release", "verify", "one", "--workspace", root)
        digests[name] = json.loads(run("show", "digest", "--format", "json", "--workspace", root))
    assert digests["team"] == digests["local"]
    names = []
    for root in spaces.values():
        names.append(sorted(p.relative_to(root) for p in (root / "shards").rglob("*.tar")))
    ours, theirs = names
    assert ours == theirs
    assert ours
    for tar in ours:
        assert filecmp.cmp(spaces["team"] / tar, spaces["local"] / tar, shallow=False)
    assert not list(spaces["team"].rglob("*.parquet")), "the data lies in the bucket"
    assert not (spaces["team"] / "catalog.sqlite").exists()

    second_output = run(*build, "--workspace", spaces["team"])
    assert "nothing was done again" in second_output
    run("gc", "--yes", "--workspace", spaces["team"])
    output = run("sql", "--release", "one", "SELECT count(*) AS n FROM active_segments", "--format", "json",
               "--workspace", spaces["team"])  # fmt: skip
    assert json.loads(output)[0]["n"] > 0

    with TestClient(create_app(Workspace(spaces["team"])), base_url="http://127.0.0.1") as client:
        for page, word in (
            ("/", "long"),
            ("/episode/long/3", ">active</span>"),
            ("/releases", "one"),
        ):
            answer = client.get(page)
            assert (answer.status_code, word in answer.text) == (200, True), answer.text
        (snapshot,) = re.findall(r'id="snapshot">(\d+)<', answer.text)
        run("release", "create", "two", "--allow-licence", "unknown", "--workspace", spaces["team"])
        later = client.get("/releases").text
        assert "two" in later
        (newer,) = re.findall(r'id="snapshot">(\d+)<', later)
        assert int(newer) > int(snapshot)


def test_people_reach_nothing_but_the_lake(database, space):
    Lake(space).publish(stage_run(), {"frames": frames(n=5)})
    con = open_for_users(space)
    assert query(con, "SELECT count(*) AS n FROM frames").to_pylist() == [{"n": 5}]
    for sql in (
        "FROM postgres_query('lake', 'SELECT 1')",
        f"FROM postgres_scan('{database.url()}', 'public', 'ducklake_table')",
        "SELECT * FROM __ducklake_metadata_lake.ducklake_table",
        "FROM read_parquet('s3://corpora/lake0/**')",
        "FROM 's3://corpora/other.parquet'",
        "DELETE FROM frames",
        "FROM duckdb_secrets()",
    ):
        with pytest.raises(SqlError):
            query(con, sql)
    for sql in (
        f"ATTACH '{database.url()}' AS p (TYPE postgres)",
        "FROM read_text('/etc/passwd')",
        "DELETE FROM frames",
    ):
        with pytest.raises(Exception, match=r"disabled|read-only|read only"):
            con.execute(sql)


def _write(root: str, chunk: int, rounds: int) -> None:
    lake = Lake(Workspace(Path(root)))
    for k in range(rounds):
        run = stage_run(chunk=chunk, input_hash=f"{k}")
        lake.publish(
            run,
            {
                "frames": frames(
                    chunk=chunk, episodes=(chunk * 10, chunk * 10 + 1), n=20, value=k / 100
                )
            },
        )


def test_four_write_while_others_read(space):
    rounds = 5
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(space.root), k, rounds)) for k in range(4)]
    for w in writers:
        w.start()
    reads = 0
    while any(w.is_alive() for w in writers):
        con = Lake(space, read_only=True).con
        sql = "SELECT chunk, count(*), count(DISTINCT visual_change) FROM frames GROUP BY 1"
        for _ in range(5):
            for chunk, rows, values in con.execute(sql).fetchall():
                assert (rows, values) == (40, 1), f"chunk {chunk} is seen half written"
            reads += 1
        con.close()
    assert [w.exitcode for w in writers] == [0] * 4
    assert reads > 5
    lake = Lake(space, read_only=True)
    assert lake.rows("SELECT count(*), min(visual_change) FROM frames") == [
        (160, pytest.approx(0.04))
    ]
    assert lake.rows("SELECT count(*) FROM stage_runs") == [(4,)]


def test_a_server_that_is_away_is_one_line(database, space, monkeypatch):
    database.kill()
    try:
        error_text = run("status", "--workspace", space.root, code=2)
    finally:
        database.start()
    assert re.fullmatch(r"error: .*: the catalog cannot be opened: .*\n", error_text)
    run("status", "--workspace", space.root)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    error_text = run("status", "--workspace", space.root, code=2)
    assert "no AWS credentials" in error_text


def test_a_dead_writer_leaves_no_lock(space):
    holding_code = (
        "with locked(Workspace(Path(sys.argv[1]))): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{IMPORTS}\n{holding_code}", str(space.root)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    Lake(space).publish(stage_run(), {"frames": frames(n=5)})


def test_who_says_something_is_alone_with_it(space):
    lake = Lake(space)
    with lake.words.saying(), closing(postgres_session(lake.place.catalog)) as session:
        cursor = session.cursor()
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK_KEY])
        assert cursor.fetchone() == (False,)


def test_a_place_that_cannot_be_leaves_no_workspace(database, tmp_path):
    root = tmp_path / "team"
    error_text = run(
        "workspace", "create", "--catalog", database.url("nosuch"), "--workspace", root, code=2
    )
    assert "nosuch" in error_text
    assert not root.exists()
    with pytest.raises(LakeError, match="no workspace at"):
        Lake(Workspace(root), read_only=True)


def test_small_files_are_merged_and_their_statistics_indexed(database, tmp_path):
    name = f"lake{next(names)}"
    database.execute(f"CREATE DATABASE {name}")
    space = Workspace(tmp_path / "team")
    run("workspace", "create", "--workspace", space.root, "--catalog", database.url(name))
    lake = Lake(space)
    for label_run in ("run1", "run2", "run3", "run2"):
        lake.publish(
            stage_run(stage="segments", label_run=label_run),
            {"segments": segments(label_run=label_run, episodes=range(10))},
        )
    digest_before = digest(lake)
    snapshot = lake.snapshot()
    indexed = "SELECT indexname FROM pg_indexes WHERE tablename = 'ducklake_file_column_stats'"
    in_postgres = "SELECT * FROM postgres_query('__ducklake_metadata_lake', ?)"
    assert lake.column(in_postgres, [indexed]) == ["proccorpus_statistics"]
    # One of an earlier version has no index: it is made with the next merge
    lake.con.execute(
        "CALL postgres_execute('__ducklake_metadata_lake', 'DROP INDEX proccorpus_statistics')"
    )
    assert merge(lake) == (3, 1)
    assert lake.column(in_postgres, [indexed]) == ["proccorpus_statistics"]
    files = len(list(space.data.rglob("*.parquet")))
    sweep(lake)
    assert len(list(space.data.rglob("*.parquet"))) == files, (
        "somebody may be reading what was merged"
    )
    sweep(lake, grace_s=-5.0)
    assert len(list(space.data.rglob("*.parquet"))) == files - 3
    assert digest(lake) == digest(Lake(space, read_only=True, snapshot=snapshot)) == digest_before
