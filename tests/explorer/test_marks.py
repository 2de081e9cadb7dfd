"""Tags, assignments, picks, sliders and kept views: in the gallery, in the queue, as SQL."""

import pytest

from explorer.access import CorpusView
from explorer.index import CorpusIndex
from tests.kits.lake_kit import query
from tests.kits.made_corpus import Made
from tests.kits.visitor import delete, post, visit
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.lake.statements import mark


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
