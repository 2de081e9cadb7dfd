"""Demonstrations that are unlike the others of their task: a facet, an order, words on the page of an episode."""

import re
from pathlib import Path

import pytest

from explorer.access import CorpusView
from explorer.index import CorpusIndex
from explorer.selection import EpisodeSelection, episodes_of
from tests.kits.made_corpus import Made
from tests.kits.visitor import visit
from warehouse.lake import Lake


@pytest.fixture(scope="module")
def own(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All five runs are of one task and alike, but 1 and 3 stand still, 3 the longest."""
    own = made.copy(tmp_path_factory.mktemp("demonstrations"))
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET task = 'pick'")
    lake.con.execute(
        "UPDATE demonstration_measures SET duration_s = 10, pauses = 0, reversals = 0, jerk = 20, gripper_moves = 2,"
        " end_state = [1.0], state_spread = [1.0], end_phash = 0,"
        " rest_s = CASE episode_index WHEN 1 THEN 1.5 WHEN 3 THEN 6.0 ELSE 0.4 END"
    )
    lake.con.close()
    return own


def listed(page: str) -> list[int]:
    """Episodes of the gallery, in its order."""
    return [int(e) for e in re.findall(r'<a href="/episode/tiny/(\d+)">', page)]


def test_a_lake_that_measured_none_is_shown(made: Made, tmp_path: Path):
    own = made.copy(tmp_path)
    lake = Lake(own.space)
    lake.con.execute("DROP VIEW demonstration_quality")
    lake.con.execute("DROP TABLE demonstration_measures")
    lake.con.close()
    with visit(own.space) as client:
        assert 'id="demonstration"' not in client.get("/episode/tiny/0").text
        assert len(listed(client.get("/episodes", params={"sort": "demonstration"}).text)) == 5
    corpus = CorpusView(own.space)
    with corpus.reading() as reader:
        rows = episodes_of(CorpusIndex(corpus).at(reader), EpisodeSelection())
    assert {row["demonstration"] for row in rows} == {"not measured"}
