"""Snapshots: pages read one, follow the lake, and can be held at one; many at once; the command."""

import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from annotate.model_client.responses import decode, encode
from core.paths import ROOT, Workspace
from core.tables import TABLES
from explorer.access import CorpusView, PageError
from explorer.app import create_app
from explorer.site import Options
from tests.kits.explorer_kit import copy_furnished
from tests.kits.fault_kit import wait_for
from tests.kits.lake_kit import FOREVER
from tests.kits.sql_attacks import below
from tests.kits.visitor import visit
from warehouse.lake import Lake, LakeError


def shown(client: TestClient, url: str = "/") -> tuple[int, str]:
    text = client.get(url).text
    return int(re.findall(r'id="snapshot">(\d+)<', text)[0]), text


def test_pages_follow_the_lake_and_a_release_stays(furnished, made, tmp_path: Path):
    space = copy_furnished(furnished, made, tmp_path)
    lake = Lake(space)
    frozen = lake.rows("SELECT snapshot FROM releases")[0][0]
    with visit(space) as live, visit(space, Options(frozen, "first")) as release:
        before, text = shown(live, "/episodes")
        assert "episodes</dt>" not in text
        assert ">5</span>" in text
        lake.con.execute("DELETE FROM episode_facts WHERE episode_index = 0")
        after, text = shown(live, "/episodes")
        assert after > before
        assert ">4</span>" in text
        assert live.get("/episode/tiny/0").status_code == 404
        assert 'rel="prev"' not in live.get("/episode/tiny/1").text
        assert 'rel="prev" href="/episode/tiny/0"' in release.get("/episode/tiny/1").text
        held, text = shown(release, "/episodes")
        assert held == frozen
        assert ">5</span>" in text
        assert "release first, snapshot" in text
        assert release.get("/episode/tiny/0").status_code == 200
        assert "--release first" in text
    lake.con.close()


def test_many_pages_at_once(client: TestClient):
    urls = ["/", "/episodes", "/episode/tiny/0", "/sql?q=FROM coverage", "/media/tiny/1/thumb.jpg", "/why/tiny/0"] * 4
    with ThreadPoolExecutor(8) as threads:
        assert {r.status_code for r in threads.map(client.get, urls)} == {200}


def test_the_copied_catalog_reads_every_table_as_the_lake_does(furnished: Workspace):
    lake = Lake(furnished, read_only=True)
    with CorpusView(furnished).reading() as reader:
        for table in TABLES:
            rows = [sorted(map(str, found)) for found in (reader.rows(f"FROM {table}"), lake.rows(f"FROM {table}"))]
            assert rows[0] == rows[1], table
    lake.con.close()


def test_a_copy_leaves_the_locks_of_this_process_alone(made, tmp_path: Path):
    """Another process stays shut out while this one is in the catalog, whatever is copied meanwhile."""
    space = made.copy(tmp_path).space
    lake = Lake(space)
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN EXCLUSIVE')"
    other = [sys.executable, "-c", code, str(space.catalog)]
    with lake.reading():
        lake.rows("FROM datasets")
        CorpusView(space)
        shut_out = subprocess.run(other, capture_output=True, text=True)
    assert "database is locked" in shut_out.stderr
    assert subprocess.run(other).returncode == 0
    lake.con.close()


def test_a_catalog_that_is_damaged(made, tmp_path: Path):
    space = made.copy(tmp_path).space
    space.catalog.write_bytes(b"no database" * 99)
    with pytest.raises(LakeError, match=r"catalog.sqlite: the catalog is no file of SQLite's"):
        CorpusView(space)


def test_a_page_keeps_its_state_while_others_are_published(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    space = made.copy(tmp_path).space
    corpus, lake = CorpusView(space), Lake(space)
    with corpus.reading() as page:
        before = page.rows("SELECT DISTINCT notes FROM datasets")
        for k in range(3):
            lake.con.execute("UPDATE datasets SET notes = ?", [f"state {k}"])
            with corpus.reading() as later:
                assert later.snapshot.number == page.snapshot.number + k + 1
                assert later.rows("SELECT DISTINCT notes FROM datasets") == [(f"state {k}",)]
        assert page.rows("SELECT DISTINCT notes FROM datasets") == before
        assert len(list(folder.iterdir())) == 2  # the page's, and the newest
    assert len(list(folder.iterdir())) == 1
    lake.con.close()
    del corpus, page, later
    gc.collect()
    assert not list(folder.iterdir())


def test_a_page_that_takes_too_long_is_stopped(furnished: Workspace):
    corpus = CorpusView(furnished)
    with pytest.raises(PageError, match=r"longer than 0\.1 s"), corpus.reading(0.1) as reader:
        reader.rows("SELECT count(*) FROM range(100000000000) a, range(100) b")
    with corpus.reading() as reader:
        assert reader.row("SELECT 1") == (1,)


def test_no_page_can_write_or_leave_the_lake(furnished: Workspace, tmp_path: Path):
    import duckdb

    with CorpusView(furnished).reading() as reader:
        for sql in (
            "DELETE FROM episode_facts",
            f"COPY (SELECT 1) TO '{tmp_path}/x.csv'",
            "FROM read_text('/etc/hostname')",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                reader.con.execute(sql)
    assert not list(tmp_path.iterdir())


def test_no_workspace_no_snapshot(tmp_path: Path, furnished: Workspace):
    with pytest.raises(LakeError, match="no workspace"):
        create_app(Workspace(tmp_path))
    with pytest.raises(LakeError, match="at snapshot 9999"):
        create_app(furnished, Options(snapshot=9999))


def test_an_empty_corpus_has_pages(workspace: Workspace):
    with visit(workspace) as client:
        for url, says in (
            ("/", "nothing in this corpus"),
            ("/episodes", "No episode fits"),
            ("/releases", "Nothing is released"),
            ("/leaderboard", "No model is evaluated"),
            ("/training", "Nothing is trained"),
            ("/review", "Nothing waits here"),
            ("/sql", "SQL"),
        ):
            answer = client.get(url)
            assert (answer.status_code, says in answer.text) == (200, True), url


def test_a_reply_of_an_older_version_is_read_without_what_was_asked(furnished: Workspace):
    from annotate.model_client.responses import ResponseStore

    key, reply = next(iter(ResponseStore(furnished.responses).replies()))
    import hashlib
    import json
    import zlib

    body = json.loads(zlib.decompress(encode(key, reply)).partition(b"\n")[2])
    del body["system"], body["content"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    old = decode(key, zlib.compress(hashlib.sha256(text).hexdigest().encode() + b"\n" + text))
    assert (old.system, old.content, old.text) == ("", (), reply.text)


def command(workspace: Workspace) -> list[str]:
    return [sys.executable, str(ROOT / "proccorpus.py"), "explore", "--no-open", "--workspace", str(workspace.root)]


def started(workspace: Workspace, folder: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    """An explorer on a free port, whose temporary files go to a folder, and the address that it printed."""
    environment = os.environ | {"TMPDIR": str(folder)}
    asked = [*command(workspace), "--port", "0", *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    server = subprocess.Popen(asked, cwd=ROOT, env=environment, text=True, **pipes)
    assert server.stdout is not None
    line = server.stdout.readline()
    url = re.search(r"http://127\.0\.0\.1:\S+", line)
    assert url is not None, line
    return server, url[0]


def test_told_to_end_while_queries_run_for_ever(furnished: Workspace, tmp_path: Path):
    """Two of them blocked it: only SIGKILL ended it."""
    server, url = started(furnished, tmp_path, "--no-token")
    try:
        with ThreadPoolExecutor(2) as asking:
            asked = [asking.submit(httpx.get, f"{url}/sql", params={"q": FOREVER}, timeout=60) for _ in range(2)]
            wait_for(lambda: len(below(server.pid)) >= 2, "the queries run")
            queries = below(server.pid)
            assert httpx.get(f"{url}/releases", timeout=30).status_code == 200
            began = time.monotonic()
            server.terminate()
            _, err = server.communicate(timeout=20)
            assert time.monotonic() - began < 5
            assert err == "note: no token: every user of this machine may do everything here\n"
            assert all("given up" in a.result().text for a in asked)
        wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in queries), "the queries have ended")
    finally:
        server.kill()


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_address_and_leaves_nothing_behind(
    furnished: Workspace, tmp_path: Path, ended_by: signal.Signals
):
    server, link = started(furnished, tmp_path)
    url, _, token = link.partition("/?token=")
    try:
        assert token == furnished.token("explore").read_text()
        # Another user of this machine has no link
        assert httpx.get(f"{url}/releases", timeout=30).status_code == 401
        with httpx.Client(follow_redirects=True, timeout=30) as visitor:
            assert (visitor.get(link).status_code, visitor.get(f"{url}/releases").status_code) == (200, 200)
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text() + Path(f"/proc/{server.pid}/environ").read_text()
        assert token not in arguments
        assert list(tmp_path.glob("proccorpus-*/catalog.duckdb"))
        if ended_by == signal.SIGINT:
            port = url.rpartition(":")[2]
            second = subprocess.run(
                [*command(furnished), "--port", port], cwd=ROOT, capture_output=True, text=True, timeout=60
            )
            assert (second.returncode, "Address already in use" in second.stderr) == (2, True)
    finally:
        server.send_signal(ended_by)
        out, err = server.communicate(timeout=20)
    assert (server.returncode, out.strip(), err) == (0, "stopped", "")
    assert not list(tmp_path.iterdir())
