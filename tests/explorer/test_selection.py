"""The gallery's facets, counts and words, beside what SQL says over the lake."""

import re
import shlex
import tarfile
from urllib.parse import parse_qsl

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import QueryParams

from core.paths import Workspace
from explorer import index as index_module
from explorer.access import CorpusView
from explorer.facets import FACETS, SORTS
from explorer.index import CorpusIndex, Indexed
from explorer.selection import EpisodeSelection, count, episodes_of, facets
from tests.kits.explorer_kit import OTHER
from tests.kits.lake_kit import query
from warehouse.lake.sql import open_for_users


@pytest.fixture(scope="module")
def index(furnished: Workspace) -> Indexed:
    corpus = CorpusView(furnished)
    with corpus.reading() as reader:
        return CorpusIndex(corpus).at(reader)


def chosen(text: str) -> EpisodeSelection:
    return EpisodeSelection.of(QueryParams(parse_qsl(text, keep_blank_values=True)))


SELECTIONS = [
    "",
    "split=train",
    "split=train&split=val",
    "success=unknown&robot=tiny_arm",
    "reason=undecodable_video",
    "annotator=no label",
    "annotator=motion&length=under 5 s",
    "quality=no sign",
    "chunk=1",
    "task=&chunk=1&chunk=2",
    "quality=no label&reason=ok",
    "license=Apache-2.0",
    "label_run=",
    f"label_run={OTHER}",
    "q=drawer",
    "q=DRAWER open",
    "q=cube&split=train",
    "q=reach",
    "q=it's 100%_",
    "dataset=none",
    "dataset=o'clock",
]


@pytest.mark.parametrize("text", SELECTIONS)
def test_the_sql_of_a_selection_gives_the_gallerys_episodes(index: Indexed, furnished: Workspace, text: str):
    selection = chosen(text)
    shown = [(e["dataset"], e["episode_index"]) for e in episodes_of(index, selection)]
    rows = query(open_for_users(furnished), selection.lake_sql()).to_pylist()
    assert sorted((r["dataset"], r["episode_index"]) for r in rows) == sorted(shown)
    assert count(index, selection) == len(shown)


def test_the_gallerys_signs_are_the_review_queues(index: Indexed, furnished: Workspace):
    queue = index.rows("SELECT why[1], count(*) FROM review GROUP BY 1 ORDER BY 1")
    assert queue, "the furnished corpus has labels with a sign"
    (shown,) = [values for facet, values in facets(index, EpisodeSelection()) if facet.name == "quality"]
    assert sorted((v.value, v.count) for v in shown if v.value not in ("no sign", "no label")) == queue
    for why, number in queue:
        selection = EpisodeSelection((("quality", (why,)),))
        assert query(open_for_users(furnished), selection.lake_sql()).num_rows == number, why


def test_words_are_looked_for_in_tasks_and_steps(index: Indexed):
    tasks = {e["episode_index"] for e in episodes_of(index, chosen("q=drawer"))}
    assert tasks == {1, 3}
    (name,) = index.rows("SELECT name FROM steps ORDER BY length(name) DESC LIMIT 1")[0]
    word = max(name.split(), key=len).lower()
    assert count(index, chosen(f"q={word}")) > 0


def test_counts_of_a_facet_are_those_under_all_other_facets(index: Indexed):
    selection = chosen("split=train&reason=ok")
    for facet, values in facets(index, selection):
        for v in values:
            only = dict(selection.chosen) | {facet.name: (v.value,)}
            assert v.count == count(index, EpisodeSelection(tuple(only.items()))), (facet.name, v.value)
            assert v.chosen == selection.has(facet.name, v.value)


def test_every_facet_is_a_column_and_a_url(index: Indexed):
    for facet, values in facets(index, EpisodeSelection()):
        assert sum(v.count for v in values) == 5
        for v in values:
            _, _, text = v.url.partition("?")
            assert chosen(text).chosen == ((facet.name, (v.value,)),)
    assert {f.name for f in FACETS if f.listed} == set(index_module.WORDS)


def test_a_facet_counts_its_commonest_values_and_every_chosen_one(index: Indexed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("explorer.selection.MAX_VALUES", 1)
    (rare,) = index.rows("SELECT task::VARCHAR FROM episodes GROUP BY 1 ORDER BY count(*), 1 LIMIT 1")[0]
    selection = EpisodeSelection((("task", (rare,)), ("chunk", ("0", "1", "2"))))
    shown = {f.name: values for f, values in facets(index, selection)}
    assert (shown["task"][0].value, shown["task"][0].chosen) == (rare, True)
    assert shown["task"][0].count == count(index, selection)
    assert len(shown["dataset"]) == 1
    assert {v.value for v in shown["chunk"]} == {"0", "1", "2"}
    assert count(index, selection) == len(episodes_of(index, selection)) > 0


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_lists_each_episode_once(index: Indexed, sort: str):
    found = [e["episode_index"] for e in episodes_of(index, chosen(f"sort={sort}"))]
    assert sorted(found) == [0, 1, 2, 3, 4]


def test_orders_are_what_they_say(index: Indexed):
    lengths = [e["num_frames"] for e in episodes_of(index, chosen("sort=longest"))]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[::-1] == [e["num_frames"] for e in episodes_of(index, chosen("sort=shortest"))]


def test_pages_hold_each_episode_once(index: Indexed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("explorer.selection.PAGE", 2)
    found = [e["episode_index"] for page in (1, 2, 3) for e in episodes_of(index, chosen(f"page={page}&sort=longest"))]
    assert sorted(found) == [0, 1, 2, 3, 4]


def test_totals_are_those_of_the_view_coverage(client: TestClient, furnished: Workspace):
    (c,) = query(open_for_users(furnished), "FROM coverage").to_pylist()
    text = client.get("/").text
    totals = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", text))
    assert totals["episodes"] == f"{c['ok']:,}"
    assert totals["frames"] == f"{c['frames']:,}"
    assert totals["samples"] == f"{c['samples']:,}"
    assert totals["left out"] == str(c["quarantined"])
    assert totals["labelled"] == f"{100 * c['labelled_frames'] / c['frames']:.1f} %"
    assert totals["spent on models"] == "$0.04"


def test_a_selections_commands_are_those_of_the_command_line(client: TestClient):
    text = client.get("/episodes?split=train").text
    commands = [c.replace("&#39;", "'") for c in re.findall(r'data-copy="(proccorpus [^"]*)"', text)]
    assert len(commands) == 4
    listed = shlex.split(commands[0])
    assert listed[:2] == ["proccorpus", "sql"]
    assert "--snapshot" in listed
    assert shlex.split(commands[1])[:4] == ["proccorpus", "export", "lerobot", "--where"]


def test_shards_of_a_selection_and_its_keys_in_them(furnished: Workspace):
    rows = query(open_for_users(furnished), chosen("chunk=0").shards_sql()).to_pylist()
    assert {r["key"] for r in rows} == {"tiny-000000", "tiny-000001"}
    for row in rows:
        with tarfile.open(furnished.root / "shards" / row["shard"]) as tar:
            assert any(name.startswith(f"{row['key']}.") for name in tar.getnames())


def test_the_index_of_a_large_corpus_is_kept_in_a_file(
    furnished: Workspace, index: Indexed, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index_module, "LARGE", 2)
    corpus = CorpusView(furnished)
    with corpus.reading() as reader:
        first = CorpusIndex(corpus).at(reader)
        path = furnished.root / "explorer" / f"index-{index_module.VERSION}-{reader.snapshot.number}.duckdb"
        made = path.stat().st_mtime_ns
        again = CorpusIndex(corpus).at(reader)
    assert path.stat().st_mtime_ns == made
    everything = "FROM episodes ORDER BY row"
    assert first.rows(everything) == again.rows(everything) == index.rows(everything)
    assert not list(path.parent.glob(".tmp-*"))
