"""Profiles: counts as asked, from the train split alone, and no start state in both phases."""

from collections import Counter

import pytest

from tests.kits.made_corpus import Made
from warehouse.lake import Lake
from warehouse.releases import Release, create_release
from warehouse.shards.profiles import PHASES, PROFILES, Profile, draw

Frozen = tuple[Lake, Release]


@pytest.fixture(scope="module")
def frozen(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    lake = Lake(made.copy(tmp_path_factory.mktemp("drawn")).space)
    return lake, create_release(lake, "r", allow=("unknown",))


def test_the_published_sizes():
    assert {name: sum(p.counts.values()) for name, p in PROFILES.items()} == {
        "progresslm_sft": 25_248,
        "progresslm_rl": 20_428,
    }


def test_both_phases_together_are_the_train_samples_in_think_form(frozen: Frozen):
    lake, release = frozen
    drawn = [draw(lake.workspace, release, name) for name in PROFILES]
    wanted = lake.rows(
        "SELECT sample_id FROM samples WHERE split = 'train' AND form = 'think' AND family LIKE 'progresslm%'"
    )
    assert sorted(s for d in drawn for s in d.samples["sample_id"].to_pylist()) == sorted(r[0] for r in wanted)
    group = dict(lake.rows('SELECT episode_index, "group" FROM splits'))
    sft, rl = ({group[e] for e in d.samples["episode_index"].to_pylist()} for d in drawn)
    assert sft.isdisjoint(rl)
    places = {r[0]: r[1:] for r in lake.rows('SELECT sample_id, shard, "offset" FROM sample_location')}
    for d in drawn:
        assert Counter(d.samples["kind"].to_pylist()) == {k["kind"]: k["drawn"] for k in d.kinds if k["drawn"]}
        assert all(k["drawn"] == min(int(k["wanted"]), int(k["there"])) for k in d.kinds)
        rows = d.samples.to_pylist()
        assert all((r["split"], places[r["sample_id"]]) == ("train", (r["shard"], r["offset"])) for r in rows)


def test_each_run_gives_one_before_any_gives_two(frozen: Frozen, monkeypatch: pytest.MonkeyPatch):
    lake, release = frozen
    compared = 0
    for phase in PHASES:
        monkeypatch.setitem(PROFILES, "all", Profile(phase, {"progresslm_text": 100}))
        runs = set(draw(lake.workspace, release, "all").samples["episode_index"].to_pylist())
        monkeypatch.setitem(PROFILES, "few", Profile(phase, {"progresslm_text": len(runs)}))
        for seed in (0, 1):
            few = draw(lake.workspace, release, "few", seed).samples
            assert few.num_rows == len(set(few["episode_index"].to_pylist()))
            assert few.equals(draw(lake.workspace, release, "few", seed).samples)
            compared += few.num_rows
    assert compared
