"""Snapshots: pages read one, follow the lake, and can be held at one; many at once; the command."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from fastapi.testclient import TestClient

from core.paths import Workspace
from explorer.access import CorpusView, PageError
from explorer.app import create_app
from explorer.site import Options
from tests.kits.explorer_kit import copy_furnished
from tests.kits.fault_kit import wait_for
from tests.kits.lake_kit import SLOW
from tests.kits.made_corpus import Made
from tests.kits.patience import PATIENCE_S
from tests.kits.sql_attacks import below
from tests.kits.visitor import serving, visit
from warehouse.lake import Lake, LakeError
from warehouse.lake.statements import mark


def shown(client: TestClient, url: str = "/") -> tuple[int, str]:
    text = client.get(url).text
    return int(re.findall(r'id="snapshot">(\d+)<', text)[0]), text


def test_pages_follow_the_lake_and_a_release_stays(furnished, made, tmp_path: Path):
    space = copy_furnished(furnished, made, tmp_path)
    lake = Lake(space)
    frozen = lake.rows("SELECT snapshot FROM releases")[0][0]
    with visit(space) as live, visit(space, Options(frozen, "first")) as release:
        snapshot_before, text = shown(live, "/episodes")
        assert "episodes</dt>" not in text
        assert ">5</span>" in text
        lake.con.execute("DELETE FROM episode_facts WHERE episode_index = 0")
        snapshot_after, text = shown(live, "/episodes")
        assert snapshot_after > snapshot_before
        assert ">4</span>" in text
        assert live.get("/episode/tiny/0").status_code == 404
        assert 'rel="prev"' not in live.get("/episode/tiny/1").text
        assert 'rel="prev" href="/episode/tiny/0"' in release.get("/episode/tiny/1").text
        held_snapshot, text = shown(release, "/episodes")
        assert held_snapshot == frozen
        assert ">5</span>" in text
        assert "release first, snapshot" in text
        assert release.get("/episode/tiny/0").status_code == 200
        assert "--release first" in text
    lake.con.close()


def test_words_are_seen_while_a_new_state_is_opened(own: Made, monkeypatch: pytest.MonkeyPatch):
    """A page waited for it: what others said was seen seconds later on a busy machine."""
    corpus = CorpusView(own.space)
    is_opened = Event()
    opening = corpus._open
    monkeypatch.setattr(corpus, "_open", lambda: is_opened.wait(PATIENCE_S) and opening())
    monkeypatch.setattr("explorer.access.NEWEST_S", 0.01)
    lake = Lake(corpus.space)
    lake.con.execute("DELETE FROM episode_facts WHERE episode_index = 0")
    mark(lake, [("tiny", 1)], "tag", "said meanwhile", author="ada")
    tagged = "SELECT episode_index FROM current_tags WHERE tag = 'said meanwhile'"
    with corpus.reading() as reader:
        former_snapshot = reader.snapshot.number
        assert reader.column(tagged) == [1]
    is_opened.set()
    monkeypatch.setattr("explorer.access.NEWEST_S", PATIENCE_S)
    with corpus.reading() as reader:
        assert reader.snapshot.number > former_snapshot
        assert reader.column(tagged) == [1]


def test_a_page_that_takes_too_long_is_stopped(furnished: Workspace):
    corpus = CorpusView(furnished)
    with pytest.raises(PageError, match=r"longer than 0\.1 s"), corpus.reading(0.1) as reader:
        reader.rows(SLOW)
    with corpus.reading() as reader:
        assert reader.row("SELECT 1") == (1,)


def test_no_workspace_no_snapshot(tmp_path: Path, furnished: Workspace):
    with pytest.raises(LakeError, match="no workspace"):
        create_app(Workspace(tmp_path))
    with pytest.raises(LakeError, match="at snapshot 9999"):
        create_app(furnished, Options(snapshot=9999))


def test_an_empty_corpus_has_pages(workspace: Workspace):
    with visit(workspace) as client:
        for url, expected_text in (
            ("/", "nothing in this corpus"),
            ("/episodes", "No episode fits"),
            ("/releases", "No release yet"),
            ("/leaderboard", "No model is evaluated"),
            ("/training", "Nothing is trained"),
            ("/review", "Nothing waits here"),
            ("/sql", "SQL"),
        ):
            answer = client.get(url)
            assert (answer.status_code, expected_text in answer.text) == (200, True), url


def test_told_to_end_while_queries_run(furnished: Workspace, tmp_path: Path):
    """Two of them blocked it: only SIGKILL ended it."""
    with (
        serving(furnished, TMPDIR=str(tmp_path)) as (client, server),
        ThreadPoolExecutor(2) as asking,
    ):
        futures = [asking.submit(client.get, "/sql", params={"q": SLOW}) for _ in range(2)]
        wait_for(lambda: len(below(server.pid)) >= 2, "the queries run")
        queries = below(server.pid)
        assert client.get("/episodes").status_code == 200
        start_s = time.monotonic()
        server.terminate()
        _, err = server.communicate(timeout=PATIENCE_S)
        assert time.monotonic() - start_s < 10
        assert err == "note: no token: every user of this machine may do everything here\n"
        assert all("given up" in a.result().text for a in futures)
        wait_for(
            lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in queries),
            "the queries have ended",
        )
