"""A workspace that Dagster never saw: what its UI shows is what the lake holds, and who made it when."""

import pytest

from assets.lib.report import instance_of, mirror
from pipeline.release import release_step
from tests.assets.lib.test_report import ALL, CHUNKS, counted
from tests.kits.made_corpus import Made
from warehouse.lake import Lake

pytestmark = pytest.mark.slow

NOBODY_MADE = [(name, None) for name in ("reward_model", "evaluation", "leaderboard")]
NOBODY_MADE += [("rewards", chunk) for chunk in CHUNKS]  # for want of a model


@pytest.fixture(scope="module")
def copied(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A workspace with a release, of another machine: Dagster has nothing of it before its UI opens."""
    own = made.copy(tmp_path_factory.mktemp("copied"))
    lake = Lake(own.space)
    release_step(lake, "first", allow=("unknown",))
    lake.con.close()
    mirror(own.space)
    return own


def test_opening_it_again_tells_nothing_twice(copied: Made) -> None:
    mirror(copied.space)
    assert set(counted(copied.space).values()) == {1}
    assert set(counted(copied.space)) == ALL
    with instance_of(copied.space) as instance:
        assert instance.get_runs() == []
