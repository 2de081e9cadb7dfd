"""Correcting and reviewing over HTTP: what counts at once, who is told, what is refused."""

import re
from contextlib import closing
from operator import itemgetter
from typing import Any

import pytest

from explorer import index
from explorer.site import Options
from tests.kits.lake_kit import change
from tests.kits.visitor import post, visit
from warehouse.lake import Lake
from warehouse.lake.lake import lake_to_read

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&\"'"


@pytest.fixture
def client(own):
    with visit(own.space) as client:
        yield client


def label(client, episode: int = 2) -> dict[str, Any]:
    """What the editor would send of the label that counts."""
    state = client.get(f"/api/corrections/tiny/{episode}").json()
    run = client.get(f"/api/episode/tiny/{episode}").json()["runs"][0]
    segment_fields = ("name", "start_frame", "end_frame", "kind", "completed", "step")
    return {
        "plan": run["plan"],
        "segments": [
            dict(zip(segment_fields, itemgetter(*segment_fields)(s), strict=True))
            for s in run["segments"]
        ],
        "base_label_run": run["label_run"],
        "base_content_hash": state["content_hash"],
        "follows": state["newest"],
        "author": "ada",
    }


def test_a_saved_correction_is_seen_at_once(client, own):
    label_before = label(client)
    end = label_before["segments"][0]["end_frame"]
    label_before["segments"][0] |= {"end_frame": end + 1, "name": HOSTILE}
    label_before["segments"][1]["start_frame"] = end + 1
    answer = post(client, "/api/corrections/tiny/2", label_before | {"comment": HOSTILE})
    assert answer.status_code == 200, answer.text
    assert answer.json()["pending"] is True
    runs = client.get("/api/episode/tiny/2").json()["runs"]
    assert (runs[0]["label_run"], runs[0]["active"]) == ("human/tiny", True)
    assert [r["active"] for r in runs].count(True) == 1
    assert runs[0]["segments"][0]["end_frame"] == end + 1
    page = client.get("/episode/tiny/2").text
    assert HOSTILE not in page
    assert "<script>alert" not in page
    assert "human" in page
    # the lake's own rows are as they were: only a row was added
    assert own.rows("SELECT count(*) FROM segments WHERE label_run = 'human/tiny'") == [(0,)]
    with closing(lake_to_read(own.space).con) as con:
        assert con.execute("SELECT author, status FROM corrections").fetchall() == [
            ("ada", "accepted")
        ]


def test_undo_is_a_row_that_says_so(client, own):
    saved = post(client, "/api/corrections/tiny/2", label(client)).json()["saved"]
    body = {"correction_id": saved, "author": "ada", "follows": saved}
    assert (
        post(client, "/api/corrections/tiny/1/undo", body).status_code == 422
    )  # not of that episode
    answer = post(client, "/api/corrections/tiny/2/undo", body)
    assert (answer.status_code, answer.json()["current"], answer.json()["pending"]) == (
        200,
        [],
        False,
    )
    assert [r["status"] for r in answer.json()["history"]] == ["accepted", "rejected"]
    assert (
        post(
            client, "/api/corrections/tiny/2/undo", body | {"follows": answer.json()["newest"]}
        ).status_code
        == 422
    )


def test_a_rejected_label_does_not_count_any_more(client):
    run = label(client)["base_label_run"]
    answer = post(
        client, "/api/corrections/tiny/2/reject", {"base_label_run": run, "author": "ada"}
    )
    assert answer.status_code == 200
    assert [r["active"] for r in client.get("/api/episode/tiny/2").json()["runs"]] == [False]
    second_body = {
        "base_label_run": "nobody's",
        "author": "ada",
        "follows": answer.json()["newest"],
    }
    assert post(client, "/api/corrections/tiny/2/reject", second_body).status_code == 422


def queue(client, kind: str = "all") -> list[int]:
    answer = client.get("/review", params={"kind": kind})
    assert answer.status_code == 200
    return [int(e) for e in re.findall(r'data-dataset="tiny" data-episode="(\d+)"', answer.text)]


def test_a_day_counts_episodes_and_nobody_replaces_another_by_accepting(client, own):
    run = label(client)["base_label_run"]
    for name in ("Reach", "Reach for it", "Reach for the cube"):
        label_body = label(client)
        label_body["segments"][0]["name"] = label_body["plan"][0] = name
        assert post(client, "/api/corrections/tiny/2", label_body).status_code == 200
    assert re.search(
        r"Episodes judged in the last day: ada 1 \(median \d+ s\)", client.get("/review").text
    )
    newest = client.get("/api/corrections/tiny/2").json()["newest"]
    body = {"base_label_run": run, "author": "grace", "follows": newest}
    answer = post(client, "/api/corrections/tiny/2/accept", body)
    assert answer.status_code == 409
    assert "ada has saved a label of episode 2 of tiny" in answer.json()["error"]
    # Whoever wants that opens it and saves, or accepts what was saved
    assert (
        post(client, "/api/corrections/tiny/2/accept", body | {"author": "ada"}).status_code == 200
    )


def test_counts_are_of_now_while_the_index_is_older(client, own, monkeypatch):
    change(own.space, "UPDATE label_quality SET jump = 0.9")
    monkeypatch.setattr(
        index, "QUICK_S", 0.0
    )  # an index takes too long to be made before each page
    monkeypatch.setattr(index, "REST", 10**6)
    queue_before = queue(client)
    assert queue_before
    old = client.app.state.explorer.index._newest
    judged = queue_before[0]
    assert post(client, f"/api/corrections/tiny/{judged}", label(client, judged)).status_code == 200
    # Whatever is made in the background now, the page goes on with the old index
    client.app.state.explorer.index._not_before = float("inf")
    assert client.app.state.explorer.index._newest is old
    page = client.get("/review").text
    assert f'All signs <span class="n">{len(queue_before) - 1}</span>' in page
    assert f"{len(queue_before) - 1} left" in page
    assert "newer counts are on their way" not in page
    assert "min at" not in page  # one judgement tells nothing of the time that is left
    change(own.space, "UPDATE label_quality SET jump = 0.8")
    assert "newer counts are on their way" in client.get("/review").text


def test_what_is_assigned_to_a_person_waits_in_their_queue_until_it_is_judged(client, own):
    def theirs() -> list[str]:
        return sorted(
            re.findall(r'data-episode="(\d+)" data-follows', client.get("/review?person=ana").text)
        )

    body = {
        "kind": "assigned",
        "value": "ana",
        "author": "ada",
        "episodes": [["tiny", 2, None], ["tiny", 4, None]],
    }
    assert post(client, "/api/marks", body).status_code == 200
    assert theirs() == ["2", "4"]  # no sign stands against them
    assert " of 2<" in client.get("/episode/tiny/2?queue=all&for=ana").text
    assert (
        post(client, "/api/corrections/tiny/2", label(client) | {"author": "ana"}).status_code
        == 200
    )
    assert theirs() == ["4"]
    assert 'ana <span class="n">1</span>' in client.get("/review").text


def test_the_small_picture_has_the_curve_and_the_segments(client, own):
    picture = client.get("/episode/tiny/2/curve.svg").text
    rects = own.rows("SELECT count(*) FROM active_segments WHERE episode_index = 2")[0][0]
    assert (picture.count("<rect"), picture.count("<path")) == (rects, 1)


def test_a_correction_of_other_contents_waits(own):
    with visit(own.space) as client:
        saved = post(client, "/api/corrections/tiny/2", label(client)).json()["saved"]
    change(
        own.space,
        "UPDATE episode_content SET content_hash = 'other', former_hashes = [] WHERE episode_index = 2",
    )
    with visit(own.space) as client:
        assert queue(client, "corrections") == [2]
        assert client.get("/api/corrections/tiny/2").json()["current"][0]["status"] == "review"
        body = {"correction_id": saved, "author": "grace", "follows": saved}
        assert post(client, "/api/corrections/tiny/2/accept", body).status_code == 200
        assert queue(client, "corrections") == []


def test_a_frozen_corpus_cannot_be_corrected(own):
    snapshot = Lake(own.space, read_only=True).snapshot()
    with visit(own.space, Options(snapshot=snapshot, release="v1")) as client:
        answer = post(client, "/api/corrections/tiny/2", label(client))
        assert answer.status_code == 403
        assert "the release v1" in answer.json()["error"]
        assert "Accept" not in client.get("/review").text
