"""Profiles: counts as asked, from the train split alone, and no start state in both phases."""

import pytest

from tests.kits.made_corpus import Made
from warehouse.lake import Lake
from warehouse.releases import Release, create_release
from warehouse.shards.profiles import PROFILES

Frozen = tuple[Lake, Release]


@pytest.fixture(scope="module")
def frozen(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    lake = Lake(made.copy(tmp_path_factory.mktemp("drawn")).space)
    return lake, create_release(lake, "r", allow=("unknown",))


@pytest.mark.slow
def test_the_published_sizes():
    assert {name: sum(p.counts.values()) for name, p in PROFILES.items()} == {
        "progresslm_sft": 25_248,
        "progresslm_rl": 20_428,
    }
