"""Runs that look unfinished: asked of once a dataset, found behind the link, told on the episode's page."""

import re
from pathlib import Path

import pytest

from tests.kits.made_corpus import Made
from tests.kits.visitor import visit
from warehouse.lake import Lake

QUESTION = "tiny: 2 of 5 runs look unfinished: look at them"


@pytest.fixture(scope="module")
def own(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Episodes 1 and 2 look unfinished, 3 may be."""
    own = made.copy(tmp_path_factory.mktemp("unfinished"))
    lake = Lake(own.space)
    lake.con.execute("UPDATE label_quality SET end_by = 'assumed', end_progress = 1, p_failure = NULL")
    lake.con.execute("UPDATE episode_labels SET confidence = 0.9")
    lake.con.execute(
        "UPDATE label_quality SET p_failure = CASE episode_index WHEN 1 THEN 0.6 WHEN 2 THEN 0.9 ELSE 0.3 END, "
        "failure_signs = ['the arm stops elsewhere'] WHERE episode_index BETWEEN 1 AND 3"
    )
    lake.con.close()
    return own


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


def test_nothing_is_asked_of_what_looks_finished(made: Made, tmp_path: Path):
    own = made.copy(tmp_path)
    lake = Lake(own.space)
    lake.con.execute("UPDATE label_quality SET end_by = 'assumed', end_progress = 1, p_failure = NULL")
    lake.con.close()
    with visit(own.space) as client:
        assert "unfinished" not in client.get("/").text


def test_an_episode_says_what_its_end_rests_on(own: Made):
    with visit(own.space) as client:
        page = client.get("/episode/tiny/2").text
        assert "assumed complete: nobody says how the run ended" in page
        assert "outcome unknown (assumed complete)" in page
        assert "probability that it failed 0.9 (the arm stops elsewhere)" in page
        assert "probability that it failed" not in client.get("/episode/tiny/0").text
        [run] = client.get("/api/episode/tiny/2").json()["runs"]
        assert (run["quality"]["end_by"], run["quality"]["p_failure"]) == ("assumed", 0.9)


def test_the_gallery_finds_them(own: Made):
    with visit(own.space) as client:
        page = client.get("/episodes", params={"quality": "looks unfinished", "end_by": "assumed"}).text
        assert sorted(set(re.findall(r"/episode/tiny/(\d)", page))) == ["1", "2"]


def test_a_lake_that_does_not_know_it_is_shown(made: Made, tmp_path: Path):
    own = made.copy(tmp_path)
    lake = Lake(own.space)
    for view in ("review_queue", "coverage"):
        lake.con.execute(f"DROP VIEW {view}")
    lake.con.execute("CREATE VIEW coverage AS SELECT dataset, 'motion: 5 of 5 episodes' AS labels FROM datasets")
    for column in ("end_by", "p_failure", "failure_signs"):
        lake.con.execute(f"ALTER TABLE label_quality DROP COLUMN {column}")
    lake.con.execute(
        "CREATE VIEW review_queue AS SELECT dataset, episode_index, f.task, label_run, 0.5 AS score, ['odd'] AS why "
        "FROM active_runs JOIN episode_facts f USING (dataset, episode_index)"
    )
    lake.con.close()
    with visit(own.space) as client:
        assert client.get("/").status_code == client.get("/episodes").status_code == 200
        assert client.get("/review").status_code == 200
        assert client.get("/episode/tiny/0").status_code == 200
