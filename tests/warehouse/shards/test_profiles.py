"""Profiles: counts as asked, from the train split alone, and no start state in both phases."""

import pytest

from warehouse.shards.profiles import PROFILES


@pytest.mark.slow
def test_the_published_sizes():
    assert {name: sum(p.counts.values()) for name, p in PROFILES.items()} == {
        "progresslm_sft": 25_248,
        "progresslm_rl": 20_428,
    }
