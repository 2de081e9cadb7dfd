"""Recordings in review, and what a person decides.

Also: an episode as a recording for Rerun; facets, counts and words of the gallery beside SQL over the lake; runs that
look unfinished; labelling others like a run that was shown.
"""

import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
from starlette.datastructures import QueryParams

from core.errors import UserError
from core.paths import Workspace
from explorer import index as index_module
from explorer import site as explorer_site
from explorer.access import CorpusView
from explorer.index import SORTS, CorpusIndex, Indexed
from explorer.selection import EpisodeSelection, count, episodes_of, facets
from explorer.site import Options
from tests.explorer.test_correcting import label
from tests.kits.changed_sources import JUDGED, V2, WITHDRAWN, trimmed
from tests.kits.lake_kit import change, opened
from tests.kits.made_corpus import Made
from tests.kits.small_sources import RECORDINGS, write_v2
from tests.kits.tiny_lerobot import CAMERA, LENGTHS
from tests.kits.visitor import picture, post, visit
from tests.kits.words_kit import DATASET, TAG, Case, checked
from warehouse.lake.statements import mark

SERIALS = (1, 2, 3, WITHDRAWN, JUDGED)
WITHHELD = SERIALS.index(WITHDRAWN)
TAGGED = SERIALS.index(JUDGED)


@pytest.fixture(scope="module")
def trimmed_corpus(tmp_path_factory) -> Case:
    """A run with a tag and one that was taken down, of which 20 rows each are gone since."""
    folder = tmp_path_factory.mktemp("recordings")
    case = Case(V2, folder, folder / "source", chunk_size=len(SERIALS))
    write_v2(case.source, [r for r in RECORDINGS if r.serial in SERIALS])
    checked(case.build())
    checked(case.run("takedown", DATASET, "--episodes", WITHHELD, "--reason", "withdrawn"))
    with opened(Workspace(case.workspace)) as lake:
        mark(lake, [(DATASET, TAGGED)], "tag", TAG, author="anna")
    checked(case.build())
    write_v2(case.source, [r for r in trimmed() if r.serial in SERIALS])
    checked(case.build())
    return case


@pytest.mark.slow
def test_both_are_shown_and_a_person_decides(trimmed_corpus):
    with visit(Workspace(trimmed_corpus.workspace)) as client:
        words = "SELECT episode_index FROM words_in_review WHERE kind = '{}'"
        [[tagged]] = trimmed_corpus.rows(words.format("tag"))
        [[withheld_run]] = trimmed_corpus.rows(words.format("takedown"))
        assert "2 words of people wait" in client.get("/review").text
        page = client.get("/recordings").text
        assert f"tag: {TAG}" in page
        assert "of the rows are equal" in page
        assert page.count("eight moments") == 2, (
            "none of the run that may be one that was taken down"
        )
        strips = [
            picture(client, f"/recordings/{DATASET}/{tagged}/{side}.png")
            for side in ("former", "present")
        ]
        assert [strip.shape for strip in strips] == [(128, 1024, 3)] * 2
        # The same scene, some frames later
        assert 0 < np.abs(strips[0] - strips[1]).mean() < 20
        for side in ("former", "present"):
            withheld = client.get(f"/recordings/{DATASET}/{withheld_run}/{side}.png")
            assert withheld.status_code == 404, (
                "pictures of a run that may be one that was taken down"
            )
        address = f"/api/recordings/{DATASET}/{tagged}"
        assert post(client, address, {"is_same": True, "author": "dora"}).status_code == 200
        second_reply = post(client, address, {"is_same": True, "author": "dora"})
        assert second_reply.status_code == 422
        assert "has no episode" in second_reply.json()["error"]
        assert f"tag: {TAG}" not in client.get("/recordings").text
    checked(trimmed_corpus.build())
    assert trimmed_corpus.rows("SELECT episode_index, tag FROM current_tags") == [(TAGGED, TAG)]
    count_query = "SELECT count(*) FROM fingerprints WHERE len(pictures) > 0"
    assert trimmed_corpus.rows(count_query) == [(0,)], (
        "the pictures of both stay where the episode is"
    )


@pytest.mark.slow
def test_a_copy_that_cannot_be_changed_shows_it(trimmed_corpus):
    with visit(Workspace(trimmed_corpus.workspace), Options(snapshot=1)) as client:
        assert "You cannot decide here" in client.get("/recordings").text


def test_a_recording_has_pictures_labels_and_curves(client, tmp_path):
    from rerun.chunk import RrdReader

    def writers() -> int:
        """Threads of Rerun's in this process."""
        return sum(
            "Recording" in name.read_text() for name in Path("/proc/self/task").glob("*/comm")
        )

    writers_before = writers()  # other tests' exports
    answer = client.get("/media/tiny/1/episode.rrd")
    assert answer.status_code == 200, answer.text
    assert writers() == writers_before
    assert 'filename="tiny-000001.rrd"' in answer.headers["content-disposition"]
    path = tmp_path / "one.rrd"
    path.write_bytes(answer.content)
    rows: dict[str, int] = {}
    for chunk in RrdReader(path).store().stream():
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
    assert sum(name.startswith("/segments/") for name in rows) == 2  # of both label runs
    assert [rows[name] for name in rows if name.endswith("/ours")] == [LENGTHS[1]] * 2
    assert rows[f"/cameras/{CAMERA}"] == LENGTHS[1]
    # What was made is kept, among the converted videos
    assert client.get("/media/tiny/1/episode.rrd").content == answer.content


@pytest.fixture(scope="module")
def index(furnished: Workspace) -> Indexed:
    corpus = CorpusView(furnished)
    with corpus.reading() as reader:
        return CorpusIndex(corpus).at(reader)


def chosen(text: str) -> EpisodeSelection:
    return EpisodeSelection.of(QueryParams(parse_qsl(text, keep_blank_values=True)))


def test_counts_of_a_facet_are_those_under_all_other_facets(index):
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
def test_every_order_lists_each_episode_once(index, sort):
    listed_indices = [e["episode_index"] for e in episodes_of(index, chosen(f"sort={sort}"))]
    assert sorted(listed_indices) == [0, 1, 2, 3, 4]


def test_orders_are_what_they_say(index):
    lengths = [e["num_frames"] for e in episodes_of(index, chosen("sort=longest"))]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[::-1] == [e["num_frames"] for e in episodes_of(index, chosen("sort=shortest"))]


def test_the_index_of_a_large_corpus_is_kept_in_a_file(furnished, index, monkeypatch):
    monkeypatch.setattr(index_module, "LARGE", 2)
    corpus = CorpusView(furnished)
    with corpus.reading() as reader:
        first = CorpusIndex(corpus).at(reader)
        path = (
            furnished.root
            / "explorer"
            / f"index-{index_module.VERSION}-{reader.snapshot()}-{reader.words.newest}.duckdb"
        )
        modified_ns = path.stat().st_mtime_ns
        second_index = CorpusIndex(corpus).at(reader)
    assert path.stat().st_mtime_ns == modified_ns
    assert second_index.made_in_s >= index_module.QUICK_S  # no page waits for the one after it
    everything = "FROM episodes ORDER BY row"
    assert first.rows(everything) == second_index.rows(everything) == index.rows(everything)
    assert not list(path.parent.glob(".tmp-*"))


QUESTION = "tiny: 2 of 5 runs look unfinished: look at them"


@pytest.fixture(scope="module")
def own(made: Made, tmp_path_factory) -> Made:
    """Episodes 1 and 2 look unfinished, 3 may be."""
    own_corpus = made.copy(tmp_path_factory.mktemp("unfinished"))
    change(
        own_corpus.space,
        "UPDATE label_quality SET end_by = 'assumed', end_progress = 1, p_failure = NULL",
    )
    change(own_corpus.space, "UPDATE episode_labels SET confidence = 0.9")
    change(
        own_corpus.space,
        "UPDATE label_quality SET p_failure = CASE episode_index WHEN 1 THEN 0.6 WHEN 2 THEN 0.9 ELSE 0.3 END, "
        "failure_signs = ['the arm stops elsewhere'] WHERE episode_index BETWEEN 1 AND 3",
    )
    return own_corpus


def queue(page: str) -> list[int]:
    return [int(e) for e in re.findall(r'data-dataset="tiny" data-episode="(\d+)"', page)]


def test_the_corpus_page_asks_once_and_leads_to_the_runs(own):
    with visit(own.space) as client:
        page = client.get("/").text
        assert page.count(QUESTION) == 1
        [link] = re.findall(rf'href="([^"]*)">{QUESTION}', page)
        assert queue(client.get(link.replace("&amp;", "&")).text) == [2, 1]
        assert "5 assumed complete" in page
        assert "(the arm stops elsewhere)" in client.get("/review?kind=unfinished").text
        assert queue(client.get("/review?kind=doubtful").text) == [3]
        assert queue(client.get("/review?kind=unfinished&dataset=other").text) == []


def test_an_episode_says_what_its_end_rests_on(own):
    with visit(own.space) as client:
        page = client.get("/episode/tiny/2").text
        assert "assumed complete: nobody says how the run ended" in page
        assert "<b>outcome unknown</b> (assumed complete)" in page
        assert "unlike the task's other runs: the arm stops elsewhere" in page
        assert "probability that it failed" not in client.get("/episode/tiny/0").text
        [run] = client.get("/api/episode/tiny/2").json()["runs"]
        assert (run["quality"]["end_by"], run["quality"]["p_failure"]) == ("assumed", 0.9)


URL = "/labelling/tiny"
START = "/api/running/label"
SLOW = "import time; time.sleep(60)"


def show(client, episode: int = 2) -> None:
    """Save the label of an episode as it is: by that it is a reference."""
    assert (
        post(client, f"/api/corrections/tiny/{episode}", label(client, episode)).status_code == 200
    )


def ended(client, limit_s: float = 60) -> str:
    until = time.monotonic() + limit_s
    while "<progress" in (page_text := client.get(URL).text):
        assert time.monotonic() < until, page_text
        time.sleep(0.1)
    return page_text


def instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Start this Python program, which is given the job's arguments,
    and not proccorpus."""
    monkeypatch.setattr(explorer_site, "program", lambda: [sys.executable, "-c", program])


@pytest.mark.slow
def test_it_is_one_at_a_time_in_a_workspace_and_ends_with_its_explorer(own, monkeypatch):
    instead(monkeypatch, SLOW)
    with visit(own.space) as other_client:
        with visit(own.space) as client:
            show(client)
            assert post(client, START, {"dataset": "tiny"}).status_code == 202
            process = client.app.state.explorer.jobs["label"].process  # type: ignore[attr-defined]
            assert "Planning the build of tiny." in other_client.get(URL).text
            answer = post(other_client, START, {"dataset": "tiny"})
            assert answer.status_code == 409
            assert "one label at a time: proccorpus build --dataset=tiny" in answer.json()["error"]
        assert process.poll() is not None
        assert "The build failed: it was stopped before it finished." in ended(other_client)
        assert post(other_client, START, {"dataset": "tiny"}).status_code == 202


def test_suggestions_are_asked_once_for_each_state_of_the_lake(own, monkeypatch):
    asked_datasets: list[str] = []

    def suggest(dataset: str) -> list[dict[str, Any]]:
        asked_datasets.append(dataset)
        if len(asked_datasets) == 2:
            raise UserError("no frames are measured: build it first")
        suggestion_text = {"why": "it is like the others", "expected": [], "ask_outcome": [2]}
        return [{"task": "put the cube on the plate", "label_next": 4} | suggestion_text]

    with visit(own.space, Options(suggest=suggest)) as client:
        assert "Show it once" in client.get("/review").text
        assert asked_datasets == []  # no page waits for them
        for _ in range(2):
            page = client.get(f"{URL}/suggestions").text
            assert "Episode 4</a>\nit is like the others." in page
            assert "First say how" in page
        assert asked_datasets == ["tiny"]
        assert client.get("/labelling/nobody/suggestions").status_code == 404
        show(client)
        suggestion_text = "no run can be suggested: no frames are measured: build it first"
        assert suggestion_text in client.get(f"{URL}/suggestions").text
        assert suggestion_text not in client.get(f"{URL}/suggestions").text
        assert asked_datasets == ["tiny"] * 3
    with visit(own.space) as without:
        assert "any run" in without.get(f"{URL}/suggestions").text
