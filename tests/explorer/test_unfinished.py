"""Runs that look unfinished: asked of once a dataset, found behind the link, told on the episode's page."""

import re

import pytest

from tests.kits.lake_kit import change
from tests.kits.made_corpus import Made
from tests.kits.visitor import visit

QUESTION = "tiny: 2 of 5 runs look unfinished: look at them"


@pytest.fixture(scope="module")
def own(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
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


def test_the_corpus_page_asks_once_and_leads_to_the_runs(own: Made):
    with visit(own.space) as client:
        page = client.get("/").text
        assert page.count(QUESTION) == 1
        [link] = re.findall(rf'href="([^"]*)">{QUESTION}', page)
        assert queue(client.get(link.replace("&amp;", "&")).text) == [2, 1]
        assert "5 assumed complete" in page
        assert "(the arm stops elsewhere)" in client.get("/review?kind=unfinished").text
        assert queue(client.get("/review?kind=doubtful").text) == [3]
        assert queue(client.get("/review?kind=unfinished&dataset=other").text) == []


def test_an_episode_says_what_its_end_rests_on(own: Made):
    with visit(own.space) as client:
        page = client.get("/episode/tiny/2").text
        assert "assumed complete: nobody says how the run ended" in page
        assert "<b>outcome unknown</b> (assumed complete)" in page
        assert "unlike the task's other runs: the arm stops elsewhere" in page
        assert "probability that it failed" not in client.get("/episode/tiny/0").text
        [run] = client.get("/api/episode/tiny/2").json()["runs"]
        assert (run["quality"]["end_by"], run["quality"]["p_failure"]) == ("assumed", 0.9)
