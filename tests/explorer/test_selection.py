"""The gallery's facets, counts and words, beside what SQL says over the lake."""

from urllib.parse import parse_qsl

import pytest
from starlette.datastructures import QueryParams

from core.paths import Workspace
from explorer import index as index_module
from explorer.access import CorpusView
from explorer.facets import SORTS
from explorer.index import CorpusIndex, Indexed
from explorer.selection import EpisodeSelection, count, episodes_of, facets


@pytest.fixture(scope="module")
def index(furnished: Workspace) -> Indexed:
    corpus = CorpusView(furnished)
    with corpus.reading() as reader:
        return CorpusIndex(corpus).at(reader)


def chosen(text: str) -> EpisodeSelection:
    return EpisodeSelection.of(QueryParams(parse_qsl(text, keep_blank_values=True)))


def test_counts_of_a_facet_are_those_under_all_other_facets(index: Indexed):
    selection = chosen("split=train&reason=ok")
    for facet, values in facets(index, selection):
        for v in values:
            only = dict(selection.chosen) | {facet.name: (v.value,)}
            assert v.count == count(index, EpisodeSelection(tuple(only.items()))), (
                facet.name,
                v.value,
            )
            assert v.chosen == (v.value in dict(selection.chosen).get(facet.name, ()))


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_lists_each_episode_once(index: Indexed, sort: str):
    listed_indices = [e["episode_index"] for e in episodes_of(index, chosen(f"sort={sort}"))]
    assert sorted(listed_indices) == [0, 1, 2, 3, 4]


def test_orders_are_what_they_say(index: Indexed):
    lengths = [e["num_frames"] for e in episodes_of(index, chosen("sort=longest"))]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[::-1] == [e["num_frames"] for e in episodes_of(index, chosen("sort=shortest"))]


def test_the_index_of_a_large_corpus_is_kept_in_a_file(
    furnished: Workspace, index: Indexed, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index_module, "LARGE", 2)
    corpus = CorpusView(furnished)
    with corpus.reading() as reader:
        first = CorpusIndex(corpus).at(reader)
        path = (
            furnished.root
            / "explorer"
            / f"index-{index_module.VERSION}-{reader.snapshot.number}-{reader.words.newest}.duckdb"
        )
        modified_ns = path.stat().st_mtime_ns
        second_index = CorpusIndex(corpus).at(reader)
    assert path.stat().st_mtime_ns == modified_ns
    assert second_index.made_in_s >= index_module.QUICK_S  # no page waits for the one after it
    everything = "FROM episodes ORDER BY row"
    assert first.rows(everything) == second_index.rows(everything) == index.rows(everything)
    assert not list(path.parent.glob(".tmp-*"))
