"""Correcting and reviewing over HTTP; tags, assignments, picks, sliders, kept views."""

import re
from operator import itemgetter
from typing import Any

import pytest

from explorer import index
from explorer.access import CorpusView
from explorer.index import CorpusIndex
from explorer.site import Options
from tests.kits.lake_kit import change, query
from tests.kits.made_corpus import Made
from tests.kits.visitor import delete, post, visit
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.lake.statements import mark

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
    values = itemgetter(*segment_fields)
    return {
        "plan": run["plan"],
        "segments": [dict(zip(segment_fields, values(s), strict=True)) for s in run["segments"]],
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
    assert client.get("/api/corrections/tiny/2").json()["pending"] == ["corrected"]
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
    assert own.rows("SELECT author, status FROM corrections") == [("ada", "accepted")]


def test_undo_is_a_row_that_says_so(client, own):
    saved = post(client, "/api/corrections/tiny/2", label(client)).json()["saved"]
    undo = "/api/corrections/tiny/{}/undo"
    body = {"correction_id": saved, "author": "ada", "follows": saved}
    assert post(client, undo.format(1), body).status_code == 422, "not of that episode"
    answer = post(client, undo.format(2), body)
    facts = client.get("/api/corrections/tiny/2").json()
    assert (answer.status_code, facts["current"], facts["pending"]) == (200, [], [])
    assert [r["status"] for r in facts["history"]] == ["accepted", "rejected"]
    body["follows"] = facts["newest"]
    assert post(client, undo.format(2), body).status_code == 422


def test_a_rejected_label_does_not_count_any_more(client):
    run = label(client)["base_label_run"]
    body = {"base_label_run": run, "author": "ada"}
    answer = post(client, "/api/corrections/tiny/2/reject", body)
    assert answer.status_code == 200
    assert [r["active"] for r in client.get("/api/episode/tiny/2").json()["runs"]] == [False]
    assert client.get("/api/corrections/tiny/2").json()["pending"] == ["rejected"]
    body = {"base_label_run": "nobody's", "author": "ada", "follows": answer.json()["saved"]}
    assert post(client, "/api/corrections/tiny/2/reject", body).status_code == 422


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
    body["author"] = "ada"
    assert post(client, "/api/corrections/tiny/2/accept", body).status_code == 200


def test_counts_are_of_now_while_the_index_is_older(client, own, monkeypatch):
    change(own.space, "UPDATE label_quality SET jump = 0.9")
    # An index takes too long to be made before each page
    monkeypatch.setattr(index, "QUICK_S", 0.0)
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


def marked(
    client, kind: str, value: str, *episodes: int, on: bool = True, seen_version: str | None = None
):
    body = {
        "kind": kind,
        "value": value,
        "on": on,
        "author": "ada",
        "episodes": [["tiny", e, seen_version] for e in episodes],
    }
    return post(client, "/api/marks", body)


def listed(client, address: str) -> list[str]:
    """The episodes of a page of the gallery, as their links name them."""
    text = client.get(address).text
    return [part.split('"')[0] for part in text.split('<a href="/episode/tiny/')[1:]]


def test_what_is_tagged_is_found_counted_and_said_in_sql(own):
    with visit(own.space) as client:
        assert marked(client, "tag", "hard <b>", 1, 3).json() == {"changed": 2}
        assert listed(client, "/episodes?tag=hard+%3Cb%3E") == ["1", "3"]
        assert listed(client, "/episodes?tag=hard+%3Cb%3E&chunk=0") == ["1"]
        assert listed(client, "/episodes?tag=none") == []
        page = client.get("/episodes").text
        assert "hard &lt;b&gt;" in page
        assert "<b>hard <b>" not in page
        assert '<span>hard &lt;b&gt;</span><span class="n">2</span>' in page
        assert (
            '<span>hard &lt;b&gt;</span><span class="n">1</span>'
            in client.get("/episodes?chunk=0").text
        )
        assert "hard &lt;b&gt;" in client.get("/episode/tiny/3").text
        # taken off again
        assert marked(client, "tag", "hard <b>", 1, on=False).json() == {"changed": 1}
        assert listed(client, "/episodes?tag=hard+%3Cb%3E") == ["3"]
        # nothing else of the lake is touched
        assert own.rows("SELECT count(*) FROM corrections") == [(0,)]


@pytest.fixture(scope="module")
def tagged(made: Made, tmp_path_factory) -> tuple[CorpusView, CorpusIndex]:
    """Of a corpus whose episodes 1 and 2 are hard, 2 is for bob, 4 is dark."""
    space = made.copy(tmp_path_factory.mktemp("tagged")).space
    lake = Lake(space)
    mark(lake, [("tiny", 1), ("tiny", 2)], "tag", "hard", author="ada")
    mark(lake, [("tiny", 4)], "tag", "dark", author="ada")
    mark(lake, [("tiny", 2)], "assigned", "bob", author="ada")
    lake.con.close()
    corpus = CorpusView(space)
    return corpus, CorpusIndex(corpus)


@pytest.mark.parametrize(
    "address",
    [
        "tag=hard",
        "tag=hard&tag=dark",
        "tag=hard&assigned=bob",
        "pick=tiny+1&pick=tiny+4",
        "pick=tiny+1&tag=hard",
        "seconds_from=2.9",
        "seconds_to=2.5&seconds_from=1",
        "confidence_from=0.1&confidence_to=0.9",
        "seconds_from=1&q=drawer&tag=hard",
    ],
)
def test_the_sql_of_a_selection_gives_its_episodes(tagged, address):
    from starlette.datastructures import QueryParams

    from explorer.selection import EpisodeSelection, count, episodes_of, facets

    selected = EpisodeSelection.of(QueryParams(address))
    assert EpisodeSelection.of(QueryParams(selected.url().partition("?")[2])) == selected
    corpus, of_corpus = tagged
    with corpus.reading() as reader:
        index = of_corpus.at(reader)
        selection = selected.at(reader, index)
        listed_episodes = [
            (e["dataset"], e["episode_index"]) for e in episodes_of(index, selection)
        ]
        assert count(index, selection) == len(listed_episodes)
        values = {facet.name: values for facet, values in facets(index, selection)}
        assert sum(v.count for v in values["dataset"]) == len(listed_episodes)
    con = open_for_users(corpus.space)
    rows = query(con, selection.lake_sql()).to_pylist()
    con.close()
    assert sorted((r["dataset"], r["episode_index"]) for r in rows) == sorted(listed_episodes)


def test_a_view_is_kept_by_name(own):
    with visit(own.space) as client:
        query = "?split=train&seconds_from=2&page=1"
        assert post(client, "/api/views", {"name": "<long>", "query": query}).status_code == 200
        assert (
            '<a href="/episodes?split=train&amp;seconds_from=2">&lt;long&gt;</a>'
            in client.get("/episodes").text
        )
        assert (
            post(client, "/api/views", {"name": "no", "query": "?sort=colour"}).status_code == 400
        )
        assert delete(client, "/api/views/%3Clong%3E").status_code == 200
        assert "&lt;long&gt;" not in client.get("/episodes").text
