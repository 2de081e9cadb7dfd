"""Snapshots: pages read one, follow the lake, and can be held at one; many at once; the command.

Also: runs beside their references; what checks found, on the pages.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.paths import Workspace
from core.tables import TABLES
from explorer.access import CorpusView, PageError
from explorer.app import create_app
from explorer.beside import unsure_steps
from explorer.site import Options
from tests.explorer.test_correcting import listed
from tests.kits.explorer_kit import copy_furnished
from tests.kits.fault_kit import wait_for
from tests.kits.faulty import BLACK, FROZEN
from tests.kits.lake_kit import SLOW
from tests.kits.patience import PATIENCE_S
from tests.kits.sql_attacks import below
from tests.kits.visitor import post, serving, visit
from warehouse.lake import Lake, LakeError
from warehouse.lake.statements import mark


def shown(client: TestClient, url: str = "/") -> tuple[int, str]:
    text = client.get(url).text
    return int(re.findall(r'id="snapshot">(\d+)<', text)[0]), text


def test_pages_follow_the_lake_and_a_release_stays(furnished, made, tmp_path):
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


def test_words_are_seen_while_a_new_state_is_opened(own, monkeypatch):
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
        former_snapshot = reader.snapshot()
        assert reader.column(tagged) == [1]
    is_opened.set()
    monkeypatch.setattr("explorer.access.NEWEST_S", PATIENCE_S)
    with corpus.reading() as reader:
        assert reader.snapshot() > former_snapshot
        assert reader.column(tagged) == [1]


def test_a_page_that_takes_too_long_is_stopped(furnished):
    corpus = CorpusView(furnished)
    with pytest.raises(PageError, match=r"longer than 0\.1 s"), corpus.reading(0.1) as reader:
        reader.rows(SLOW)
    with corpus.reading() as reader:
        assert reader.row("SELECT 1") == (1,)


def test_a_state_that_cannot_be_opened_leaves_no_copy(furnished, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LakeError, match="no workspace"):
        create_app(Workspace(tmp_path))
    with pytest.raises(LakeError, match="at snapshot 9999"):
        create_app(furnished, Options(snapshot=9999))
    assert [*tmp_path.iterdir()] == []


def test_an_empty_corpus_has_pages(workspace):
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


def test_told_to_end_while_queries_run(furnished, tmp_path):
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


WORDS = "observation.images.front is black for 2.0 s from 3.6 s on"
EVERYWHERE = {
    "dataset": "tiny",
    "check": "camera_black",
    "author": "ada",
    "why": "the lamp was off",
}


def test_stretches_stand_under_the_video_and_are_filtered_by(made_faulty):
    with visit(made_faulty.space) as client:
        assert listed(client, "/episodes?check=camera_black") == ["0"]
        assert listed(client, "/episodes?check=camera_frozen&check=camera_black") == ["0", "2"]
        assert listed(client, "/episodes?check=nothing") == []
        assert '<span>camera_frozen</span><span class="n">1</span>' in client.get("/episodes").text
        assert "a check found a fault" in client.get("/episodes?check=camera_black").text
        page = client.get("/episode/tiny/0").text
        assert re.findall(
            r'class="seek stretch" href="(\S+)" data-frame="(\d+)" data-words="([^"]+)"', page
        ) == [("?t=3.60", str(BLACK.start), WORDS)]
        # On the axis of the label's strip: in percent of all frames
        assert 'class="span fault" x="25.0000%" width="13.8889%"' in page
        assert client.get("/episode/tiny/1").text.count("stretch") == 0
        faults = client.get("/api/episode/tiny/2").json()["faults"]
        assert [(f["start_frame"], f["end_frame"], f["check_name"]) for f in faults] == [
            (FROZEN.start, FROZEN.stop, "camera_frozen")
        ]


def test_the_queue_says_what_was_found(made_faulty):
    with visit(made_faulty.space) as client:
        text = client.get("/review?kind=checks").text
        rows = re.findall(
            r'data-episode="(\d)".*?<td>([^<]*)</td>\s*<td>[\d.]+</td>', text, re.DOTALL
        )
        assert rows[0] == ("0", f"{WORDS}; the annotator is unsure")
        assert [episode for episode, _ in rows] == ["0", "2"]
        assert "Faults found by checks" in text


def test_a_fault_is_accepted_on_its_page(faulty):
    with visit(faulty.space) as client:
        refused = post(client, "/api/acceptances", EVERYWHERE | {"episode_index": 1})
        assert (refused.status_code, "found nothing in episode 1" in refused.text) == (422, True)
        assert post(client, "/api/acceptances", EVERYWHERE | {"why": " "}).status_code == 422
        assert post(client, "/api/acceptances", EVERYWHERE | {"episode_index": 0}).json() == {
            "changed": 1
        }
        assert listed(client, "/episodes?check=camera_black") == []
        page = client.get("/episode/tiny/0").text
        assert "accepted by ada: the lamp was off" in page
        assert 'class="span fault accepted"' in page
        assert "is black" not in client.get("/review").text
        withdrawal = EVERYWHERE | {"episode_index": 0, "on": False, "why": ""}
        assert post(client, "/api/acceptances", withdrawal).json() == {"changed": 1}
        assert post(client, "/api/acceptances", EVERYWHERE).json() == {"changed": 1}
        assert (
            "accepted by ada for all of tiny: the lamp was off"
            in client.get("/episode/tiny/0").text
        )


RUN = "0123456789abcdef"  # a label run of transfer
REFERENCE = 2


def segments(*spans: tuple[str, int, int]) -> list[dict[str, Any]]:
    facts = {"kind": "step", "completed": True, "confidence": None}
    return [
        facts | {"name": name, "start_frame": a, "end_frame": b, "step": k}
        for k, (name, a, b) in enumerate(spans)
    ]


def test_the_least_sure_steps_are_named_in_order_of_time():
    steps = segments(("a", 0, 1), ("b", 1, 2), ("c", 2, 3), ("d", 3, 4), ("e", 4, 5))
    for step, confidence in zip(steps, (0.6, 0.9, 0.2, 0.5, 0.4), strict=True):
        step["confidence"] = confidence
    assert [s["name"] for s in unsure_steps(steps)] == ["c", "d", "e"]
    assert unsure_steps(segments(("a", 0, 1))) == []


@pytest.fixture
def followed(own):
    """Episodes 0 and 4 of tiny are labelled like episode 2, as far as the lake says."""
    lake = Lake(own.space)
    run = {"label_run": RUN, "annotator": "transfer", "code_version": "t", "params": "{}"}
    lake.upsert("a run", label_runs=TABLES["label_runs"].rows([run]))
    for table in ("segments", "progress", "episode_labels", "label_quality", "active_runs"):
        lake.con.execute(f"UPDATE {table} SET label_run = '{RUN}' WHERE episode_index IN (0, 4)")
    lake.con.execute(
        "UPDATE episode_labels SET confidence = 0.9 - episode_index / 10 WHERE episode_index IN (0, 4)"
    )
    rows = [
        {
            "dataset": "tiny",
            "episode_index": episode,
            "chunk": episode // 2,
            "label_run": RUN,
            "frame_index": frame,
        }
        | {
            "reference_episode": REFERENCE,
            "reference_frame": frame,
            "distance": 0.5,
            "follows": frame < 8,
        }
        for episode, frame in product((0, 4), range(0, 24, 2))
    ]
    lake.con.register("aligned", TABLES["alignments"].rows(rows))
    lake.con.execute("INSERT INTO alignments BY NAME FROM aligned")
    lake.con.close()
    return own


def test_the_doubtful_come_first_and_each_leads_to_the_next(followed):
    with visit(followed.space) as client:
        first = client.get("/review/beside/tiny", follow_redirects=False)
        assert (first.status_code, first.headers["location"]) == (
            303,
            "/episode/tiny/4?queue=follows&of=tiny",
        )
        page = client.get("/review/beside/tiny/4?camera=observation.images.front").text
        assert '<b id="place">1 of 2</b>' in page
        query = "queue=follows&amp;of=tiny&amp;camera=observation.images.front"
        assert f'data-after="/episode/tiny/0?{query}"' in page
        assert "not in the reference" in page
        assert 'src="/media/tiny/4/video/0"' in page
        assert 'src="/media/tiny/2/video/0"' in page
        end = "/review?kind=follows&amp;dataset=tiny"
        assert f'data-after="{end}"' in client.get("/review/beside/tiny/0").text
        queue_page = client.get("/review?kind=follows&dataset=tiny").text
        assert re.findall(r"queue=follows[^#]*#editor", queue_page)
        assert "2 left" in queue_page
        assert "Beside its reference" in client.get("/episode/tiny/4").text


def test_at_a_release_one_may_look_and_not_judge(followed):
    snapshot = Lake(followed.space, read_only=True).snapshot()
    with visit(followed.space, Options(snapshot=snapshot, release="v1")) as client:
        page = client.get("/review/beside/tiny/4").text
        assert "You cannot judge labels here" in page
        assert 'data-act="accept"' not in page
        assert 'rel="next"' in page
