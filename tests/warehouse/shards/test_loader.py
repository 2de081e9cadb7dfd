"""The loader: each sample once however work is divided, the same order always, and resumed as if never stopped."""

import gc
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, combinations, islice, pairwise
from math import ceil, floor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import warehouse.shards.loader
from core.paths import ROOT
from tests.kits.shard_kit import episode, write
from warehouse.shards import Entry, Sample, ShardError, index_path, read_index
from warehouse.shards.loader import Loader, LoaderConfig
from warehouse.shards.shares import with_shares

SHARDS = 7
EPISODES = 5  # of a shard
SAMPLES = 3  # of an episode
COUNT = SHARDS * EPISODES * SAMPLES
TOKENS = (900, 30, 31, 400, 7, 33, 1200)

careful = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of three datasets."""
    folder = tmp_path_factory.mktemp("tars")
    return [
        write(
            folder,
            (episode(s * EPISODES + i, SAMPLES, "abc"[s % 3], tokens=TOKENS[s:] + TOKENS[:s]) for i in range(EPISODES)),
            f"s{s}.tar",
        )
        for s in range(SHARDS)
    ]


def ids(samples: Iterable[Sample]) -> list[str]:
    return [s.row["sample_id"] for s in samples]


def every(tars: Iterable[Path]) -> list[str]:
    return [i for tar in tars for e in read_index(tar).entries for i in e.sample_id]


# An epoch


@careful
@given(
    nodes=st.integers(1, 3),
    workers=st.integers(1, 2),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
    buffer=st.integers(1, 70),
    interleave=st.integers(1, 8),
)
def test_each_sample_once_over_any_division(
    tars: list[Path], nodes: int, workers: int, seed: int, epoch: int, buffer: int, interleave: int
):
    config = LoaderConfig(seed=seed, buffer=buffer, interleave=interleave)
    parts = [
        ids(Loader(tars, config, node=n, num_nodes=nodes, worker=w, num_workers=workers, epoch=epoch))
        for n in range(nodes)
        for w in range(workers)
    ]
    assert sorted(chain(*parts)) == sorted(every(tars))
    sizes = [len(p) for p in parts]
    assert max(sizes) - min(sizes) <= EPISODES * SAMPLES  # a shard


def test_the_pictures_are_those_of_the_sample(tars: list[Path]):
    for s in Loader(tars):
        index, k = s.row["episode_index"], int(s.row["sample_id"].split(".")[1])
        pictures = list(episode(index, SAMPLES).pictures.values())
        assert s.pictures == (pictures[k], pictures[k + 1])


def test_more_consumers_than_shards_is_an_error(tars: list[Path]):
    assert ids(Loader(tars, num_nodes=1, worker=6, num_workers=7))
    with pytest.raises(ShardError, match=r"2 nodes x 4 workers are 8 consumers, too many for 7 shards"):
        Loader(tars, node=0, num_nodes=2, worker=1, num_workers=4)
    with pytest.raises(ShardError, match="1 consumers, too many for 0 shards"):
        Loader([])
    with pytest.raises(ShardError, match="no worker 2 of 2 on node 0 of 1"):
        Loader(tars, worker=2, num_workers=2)
    with pytest.raises(ShardError, match=r"shard s0\.tar is given twice"):
        Loader([*tars, tars[0]])


def test_the_order_hangs_on_the_seed_the_epoch_and_the_shards_alone(tars: list[Path], tmp_path: Path):
    orders = [ids(Loader(tars, LoaderConfig(seed=s), epoch=e)) for s in (0, 1) for e in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4
    loader = Loader(tars)
    assert [ids(loader), ids(loader)] == orders[:2]  # one epoch after another
    moved = [Path(shutil.copy(p, tmp_path)) for p in reversed(tars)]
    for tar, there in zip(reversed(tars), moved, strict=True):
        shutil.copy(index_path(tar), index_path(there))
    assert ids(Loader(moved)) == orders[0]
    assert ids(Loader(tars, ahead=5)) == orders[0]


def test_the_order_is_the_same_on_every_machine(tars: list[Path]):
    """Another order needs another PLAN, or states of before would be resumed wrongly."""
    config = LoaderConfig(seed=3, buffer=8, interleave=2, per_visit=2, dataset_rates={"a": 0.3, "b": 2.5})
    loader = Loader(tars, config, worker=1, num_workers=2, epoch=4)
    order = [ids(b) for b in loader.batches(4, max_tokens=3000, window=16)]
    digest = hashlib.sha256(json.dumps(order).encode()).hexdigest()
    assert (warehouse.shards.loader.PLAN, digest[:16]) == (1, "e164d38f052cc0a1")


def test_shards_are_interleaved(tars: list[Path]):
    """With a buffer of one, neighbours are of one episode; the next episode is seldom of the same shard."""
    for interleave, few, many in ((1, 0, SHARDS), (7, SHARDS, 1000)):
        order = list(Loader(tars, LoaderConfig(buffer=1, interleave=interleave)))
        shard = [s.row["episode_index"] // EPISODES for s in order]
        changes = sum(a != b for a, b in pairwise(shard))
        assert few < changes < many
    datasets = [s.row["sample_id"][0] for s in Loader(tars)]
    assert all(len(set(datasets[i : i + 12])) > 1 for i in range(0, COUNT - 12, 12))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of entries, as they are read."""
    found: list[str] = []
    read = warehouse.shards.loader.read_entry

    def noted(path: Path, entry: Entry) -> Any:
        found.append(entry.key)
        return read(path, entry)

    monkeypatch.setattr(warehouse.shards.loader, "read_entry", noted)
    return found


@pytest.mark.parametrize("start", [0, 31])
def test_an_entry_is_read_once_and_let_go_after_its_last_sample(tars: list[Path], reads: list[str], start: int):
    config = LoaderConfig(buffer=6, dataset_rates={"a": 2, "b": 0})
    loader, before = Loader(tars, config), Loader(tars, config)
    seen = Counter(s.row["episode_index"] for s in islice(before, start))
    loader.load_state_dict(before.state_dict())
    reads.clear()
    due, held = set(), set()
    for k, s in enumerate(loader):
        dataset, index = s.row["sample_id"][0], s.row["episode_index"]
        due.add(f"{dataset}-{index:06d}")
        assert set(reads) == due  # nothing before
        seen[index] += 1
        (held.add if seen[index] < SAMPLES * (2 if dataset == "a" else 1) else held.discard)(index)
        if k % 10 == 0:
            gc.collect()  # among this file's objects, or it took a second each time (tests/conftest.py)
            visits = [v for v in gc.get_objects() if type(v) is warehouse.shards.loader._Visit and v.content]
            assert {int(v.entry.key.split("-")[1]) for v in visits} == held
            assert len(visits) <= 6
    assert len(reads) == len(set(reads))
    assert start or len(reads) == sum(
        len(read_index(tar).entries) for tar in tars if tar.name not in ("s1.tar", "s4.tar")
    )


def test_only_pictures_that_will_be_shown_are_held(tars: list[Path]):
    plan = Loader(tars, LoaderConfig(per_visit=1))._plan()
    visit, i = next(plan)
    _, pictures = visit.read()
    assert list(pictures) == list(visit.read()[0][i]["pictures"])
    assert len(pictures) == 2


# What is taken


def test_families_are_chosen(tars: list[Path], reads: list[str]):
    only = list(Loader(tars, LoaderConfig(families=("procvqa_a",))))
    assert sorted(ids(only)) == sorted(i for i in every(tars) if i.endswith(".0"))
    with pytest.raises(ShardError, match="none of 7 shards has a sample of these families at a rate above 0"):
        list(Loader(tars, LoaderConfig(families=("procvqa_z",))))
    with pytest.raises(ShardError, match="none of 7 shards"):
        list(Loader(tars, LoaderConfig(family_rates={"procvqa_a": 0, "procvqa_c": 0}), worker=1, num_workers=4))
    # a consumer whose shards have none this time has an empty epoch, and no error
    empty = [not ids(Loader(tars, LoaderConfig(dataset_rates={"a": 0, "b": 0}), num_nodes=7, node=n)) for n in range(7)]
    assert sum(empty) == 5


@careful
@given(rate=st.one_of(st.sampled_from([0, 0.5, 1, 2, 2.5, 1 / 3, 0.1]), st.floats(0, 3)), seed=st.integers(0, 99))
def test_a_rate_is_met_to_one_sample_in_each_epoch_and_over_them(tars: list[Path], rate: float, seed: int):
    config = LoaderConfig(seed=seed, family_rates={"procvqa_c": rate})
    total: Counter[str] = Counter()
    shards = [[i for i in every([tar]) if not i.endswith(".0")] for tar in tars]
    for epoch in range(1, 7):
        now = Counter(loader_ids(tars, config, epoch - 1))
        total += now
        for some in shards:
            count = sum(now[i] for i in some)
            assert floor(rate * len(some)) <= count <= ceil(rate * len(some))
            for i in some:
                assert floor(rate) <= now[i] <= ceil(rate)
                assert floor(rate * epoch - 1e-6) <= total[i] <= ceil(rate * epoch + 1e-6)
        assert all(now[i] == 1 for i in every(tars) if i.endswith(".0"))


def loader_ids(tars: list[Path], config: LoaderConfig, epoch: int) -> list[str]:
    """As ids(Loader(...)), by the plan alone."""
    return [visit.entry.sample_id[i] for visit, i in Loader(tars, config, epoch=epoch)._plan()]


def test_half_now_and_the_other_half_next_time(tars: list[Path]):
    loader = Loader(tars, LoaderConfig(dataset_rates={"a": 0.5, "b": 2, "c": 0}))
    first, second = ids(loader), ids(loader)
    a = [i for i in every(tars) if i[0] == "a"]
    assert sorted(i for i in first + second if i[0] == "a") == sorted(a)
    assert abs(sum(i[0] == "a" for i in first) - len(a) / 2) <= 1.5  # three shards
    assert Counter(i for i in first if i[0] == "b") == {i: 2 for i in every(tars) if i[0] == "b"}
    assert not any(i[0] == "c" for i in first + second)
    both = LoaderConfig(dataset_rates={"a": 0.5, "b": 2, "c": 0}, family_rates={"procvqa_a": 2, "procvqa_c": 0.5})
    counts = Counter(i for epoch in range(4) for i in loader_ids(tars, both, epoch))
    product = {"a": (1, 0.25, 0.25), "b": (4, 1, 1), "c": (0, 0, 0)}
    assert counts == Counter({i: int(4 * product[i[0]][int(i[-1])]) for i in every(tars)})


@pytest.mark.parametrize("per_visit", [1, 2, 3, 5])
def test_so_many_samples_of_an_episode_and_others_next_time(tmp_path: Path, per_visit: int):
    tar = write(tmp_path, [episode(i, samples=7) for i in range(20)])
    config = LoaderConfig(per_visit=per_visit)
    epochs = [loader_ids([tar], config, e) for e in range(7)]
    for now in epochs:
        assert set(Counter(i.split(".")[0] for i in now).values()) == {per_visit}
        assert len(set(now)) == len(now)
    assert Counter(chain(*epochs)) == dict.fromkeys(every([tar]), per_visit)  # in 7 epochs, 7 x per_visit of 7
    turns = Counter(chain(*epochs[: 7 // per_visit]))
    assert set(turns.values()) == {1}  # no sample comes back before all had their turn
    assert len({i.split(".")[1] for i in epochs[0]}) == 7  # drawn, not the first ones
    assert Counter(loader_ids([tar], replace(config, per_visit=9), 0)) == dict.fromkeys(every([tar]), 1)
    twice = loader_ids([tar], replace(config, dataset_rates={"sim": 2}), 0)
    assert set(Counter(i.split(".")[0] for i in twice).values()) == {2 * per_visit}


def share_of(samples: Iterable[str], part: Callable[[str], bool]) -> float:
    found = [part(i) for i in samples]
    return sum(found) / len(found)


def test_rates_from_shares(tars: list[Path]):
    def epochs(config: LoaderConfig) -> list[str]:
        return [i for e in range(10) for i in loader_ids(tars, config, e)]

    config = LoaderConfig(seed=5)
    some = epochs(with_shares(tars, config, datasets={"a": 2, "b": 1, "c": 1}))
    assert abs(share_of(some, lambda i: i[0] == "a") - 0.5) < 0.005
    assert abs(share_of(some, lambda i: i[0] == "b") - 0.25) < 0.005
    assert abs(len(some) / 10 - COUNT) < 1.5  # as many as there are
    some = epochs(with_shares(tars, config, families={"procvqa_a": 0.9, "procvqa_c": 0.1}))
    assert abs(share_of(some, lambda i: i.endswith(".0")) - 0.9) < 0.005
    assert abs(share_of(some, lambda i: i[0] == "a") - 3 / 7) < 0.005  # as it was
    both = with_shares(
        tars, config, datasets={"a": 0.2, "b": 0.3, "c": 0.5}, families={"procvqa_a": 0.5, "procvqa_c": 0.5}
    )
    for few in (None, 2):
        some = epochs(replace(both, per_visit=few))
        assert abs(share_of(some, lambda i: i.endswith(".0")) - 0.5) < 0.02
        assert abs(share_of(some, lambda i: i[0] == "c") - 0.5) < 0.02
    none = with_shares(tars, config, families={"procvqa_a": 0, "procvqa_c": 1})
    assert not any(i.endswith(".0") for i in epochs(none))


def test_shares_of_what_an_epoch_takes(tmp_path: Path):
    """With per_visit an episode counts for so many samples, however many it has."""
    tars = [
        write(tmp_path, [episode(i, samples=20, dataset="long") for i in range(10)]),
        write(tmp_path, [episode(i, samples=2, dataset="short") for i in range(30)]),
    ]
    config = with_shares(tars, LoaderConfig(per_visit=4), datasets={"long": 0.5, "short": 0.5})
    some = [i for e in range(6) for i in loader_ids(tars, config, e)]
    assert abs(share_of(some, lambda i: i[0] == "l") - 0.5) < 0.01
    assert abs(len(some) / 6 - 100) < 3


def test_shares_that_cannot_be_had(tmp_path: Path, tars: list[Path]):
    refused: list[tuple[dict[str, Any], str]] = [
        ({"datasets": {"a": 1, "b": 1}}, "no share is given to the dataset c; 0 leaves it out"),
        ({"datasets": {"a": 1, "b": 1, "c": 1, "d": 1}}, "a share is given to the dataset d, of which there is no"),
        ({"families": {"procvqa_a": 1}}, "no share is given to the family procvqa_c"),
        ({"datasets": {"a": -1, "b": 1, "c": 1}}, "shares of a dataset are numbers from 0 on"),
    ]
    for shares, why in refused:
        with pytest.raises(ShardError, match=why):
            with_shares(tars, LoaderConfig(), **shares)
    apart = [
        write(tmp_path, [episode(0, dataset="x", families=["a"])]),
        write(tmp_path, [episode(0, dataset="y", families=["c"])]),
    ]
    with pytest.raises(ShardError, match="no rates give these shares to datasets and families at once"):
        with_shares(apart, LoaderConfig(), datasets={"x": 0.9, "y": 0.1}, families={"a": 0.5, "c": 0.5})
    values: list[dict[str, Any]] = [
        {"per_visit": 0}, {"buffer": 0}, {"family_rates": {"a": -1}}, {"dataset_rates": {"a": float("nan")}},
    ]  # fmt: skip
    for wrong in values:
        with pytest.raises(ShardError, match="must be"):
            LoaderConfig(**wrong)


def same_episode_share(samples: Iterable[Sample], batch: int = 16) -> float:
    """Share of pairs within a batch that are of one episode."""
    indices = [s.row["episode_index"] for s in samples]
    batches = [indices[i : i + batch] for i in range(0, len(indices) - batch + 1, batch)]
    pairs = [a == b for b_ in batches for a, b in combinations(b_, 2)]
    return sum(pairs) / len(pairs)


def test_a_batch_seldom_holds_two_samples_of_one_episode(tmp_path: Path):
    tars = [write(tmp_path, [episode(i, samples=12) for i in range(s, 300, 3)]) for s in range(3)]
    # 64 episodes held: 1 pair in 64; 12 samples in a row would be 1 pair in 2, and 2 in a row 8 pairs of 120
    assert same_episode_share(Loader(tars)) < 0.02
    assert same_episode_share(Loader(tars, LoaderConfig(per_visit=2))) < 0.012
    assert same_episode_share(Loader(tars, LoaderConfig(buffer=1))) > 0.5
    assert 0.05 < same_episode_share(Loader(tars, LoaderConfig(buffer=1, per_visit=2))) < 0.08
    # also at the end of an epoch, where the buffer is not filled up again, and with episodes of any length
    mixed = [write(tmp_path, [episode(i, samples=3 + i % 40) for i in range(s, 300, 3)]) for s in range(3)]
    assert same_episode_share(Loader(mixed)) < 0.025
    assert same_episode_share(list(Loader(mixed))[-640:]) < 0.035


# Resuming


Run = Callable[[Loader], Iterator[list[str]]]


def by_sample(loader: Loader) -> Iterator[list[str]]:
    return ([i] for i in ids_of(loader))


def ids_of(samples: Iterable[Sample]) -> Iterator[str]:
    return (s.row["sample_id"] for s in samples)


def by(**how: Any) -> Run:
    return lambda loader: (list(ids_of(b)) for b in loader.batches(**how))


RUNS = {
    "samples": by_sample,
    "size": by(size=4),
    "bucketed": by(size=4, window=16),
    "tokens": by(max_tokens=2500),
    "bucketed by tokens": by(size=6, max_tokens=2500, window=20),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_resumed_at_every_position_all_is_as_if_never_stopped(tars: list[Path], run: Run):
    config = LoaderConfig(seed=2, buffer=4, interleave=2, dataset_rates={"a": 0.4, "b": 1.5}, per_visit=2)
    part = {"worker": 1, "num_workers": 2}
    whole = Loader(tars, config, **part)
    epochs = [list(run(whole)) for _ in range(3)]
    assert whole.state_dict()["epoch"] == 3
    stopped = Loader(tars, config, **part)
    states = [stopped.state_dict()]
    for _ in range(2):
        for _ in run(stopped):
            states.append(stopped.state_dict())
        states.append(stopped.state_dict())
    assert len(states) == len(epochs[0]) + len(epochs[1]) + 3
    given_ = [(e, k) for e in range(2) for k in range(len(epochs[e]) + 1)] + [(2, 0)]
    for state, (epoch, k) in zip(states[::1], sorted(given_), strict=True):
        resumed = Loader(tars, config, ahead=k % 3, **part)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        rest = [list(run(resumed)) for _ in range(3 - epoch)]
        assert rest == [epochs[epoch][k:], *epochs[epoch + 1 :]]


def test_resuming_reads_nothing_that_was_given(tars: list[Path], reads: list[str]):
    first = Loader(tars)
    list(islice(first, COUNT - 4))
    resumed = Loader(tars)
    resumed.load_state_dict(first.state_dict())
    reads.clear()
    rest = list(resumed)
    assert len(rest) == 4
    assert len(reads) == len({s.row["episode_index"] for s in rest})


def test_an_iteration_that_was_left_is_gone_on_with(tars: list[Path]):
    loader = Loader(tars)
    first = ids(islice(loader, 10))
    assert first + ids(loader) == ids(Loader(tars))
    assert loader.epoch == 1


def test_the_state_of_another_run_is_refused(tars: list[Path]):
    loader = Loader(tars, LoaderConfig(seed=1), num_workers=2)
    list(islice(loader.batches(4), 3))
    state = loader.state_dict()
    for other, why in (
        (Loader(tars, LoaderConfig(seed=2), num_workers=2), "seed was 1, now 2$"),
        (Loader(tars, LoaderConfig(seed=1, families=("f",)), num_workers=2), r"families was None, now \['f'\]$"),
        (Loader(tars, LoaderConfig(seed=1), worker=1, num_workers=2), "worker was 0, now 1$"),
        (Loader(tars[1:], LoaderConfig(seed=1), num_workers=2), r"shards was 7, sha256 \w+, now 6, sha256 \w+$"),
        (Loader(tars, num_nodes=3), "num_nodes was 1, now 3; num_workers was 2, now 1; seed was 1, now 0$"),
    ):
        with pytest.raises(ShardError, match=why):
            other.load_state_dict(state)
        assert other.state_dict()["position"] == 0
    for broken in ({}, {"epoch": 1}, {"epoch": "x", "position": 0, "unit": "samples", "of": {}}, state | {"of": 3}):
        with pytest.raises(ShardError, match="this is not the state of a loader"):
            loader.load_state_dict(broken)
    same = Loader(tars, LoaderConfig(seed=1), num_workers=2)
    same.load_state_dict(state)
    with pytest.raises(ShardError, match=r"begun in batches of size 4, .* cannot be gone on with in samples"):
        next(iter(same))
    with pytest.raises(ShardError, match=r"begun in batches of size 4, .* in batches of size 5"):
        next(same.batches(5))
    assert len(list(same.batches(4))) > 3


# Batches


@careful
@given(
    size=st.one_of(st.none(), st.integers(1, 9)),
    budget=st.one_of(st.none(), st.integers(1200, 9000)),
    window=st.one_of(st.none(), st.integers(1, 200)),
    seed=st.integers(0, 99),
)
def test_batches_hold_every_sample_and_keep_to_size_and_budget(
    tars: list[Path], size: int | None, budget: int | None, window: int | None, seed: int
):
    if size is None and budget is None:
        budget = 5000
    loader = Loader(tars, LoaderConfig(seed=seed, buffer=8))
    found = list(loader.batches(size, max_tokens=budget, window=window))
    assert sorted(chain(*map(ids, found))) == sorted(every(tars))
    for b in found:
        tokens = [s.row["num_tokens"] for s in b]
        assert budget is None or max(tokens) * len(b) <= budget
        assert size is None or len(b) <= size
    if budget is None and size is not None:
        assert sum(len(b) < size for b in found) <= 1
    if window is None:
        assert list(chain(*map(ids, found))) == ids(Loader(tars, LoaderConfig(seed=seed, buffer=8)))


def padding(batches: Iterable[list[Sample]]) -> float:
    tokens = [[s.row["num_tokens"] for s in b] for b in batches]
    return sum(max(t) * len(t) for t in tokens) / sum(map(sum, tokens))


def test_a_window_lowers_padding_and_keeps_the_mix(tmp_path: Path):
    lengths = [30 + (k * k * 37) % 1500 for k in range(101)]  # nearly uniform up to 1530
    tars = [
        write(tmp_path, [episode(i, samples=10, tokens=lengths[i % 90 :]) for i in range(s, 120, 3)]) for s in range(3)
    ]
    plain = list(Loader(tars).batches(8))
    sorted_ = list(Loader(tars).batches(8, window=128))
    assert padding(plain) > 1.6
    assert padding(sorted_) < 1.12
    by_tokens = list(Loader(tars).batches(max_tokens=8000, window=128))
    assert padding(by_tokens) < 1.15
    assert len(by_tokens) < 0.8 * len(list(Loader(tars).batches(max_tokens=8000)))
    longest = [max(s.row["num_tokens"] for s in b) for b in sorted_]
    assert any(a > b for a, b in pairwise(longest[:16]))  # not from short to long
    assert same_episode_share(chain(*sorted_), 8) < 0.04


def test_batches_that_cannot_be_made(tars: list[Path]):
    with pytest.raises(ShardError, match=r"sample \w+\.\d of s\d\.tar has 1200 tokens, more than 1199"):
        list(Loader(tars).batches(max_tokens=1199))
    for size, budget, window in ((None, None, None), (0, None, None), (4, 0, None), (4, None, 0)):
        with pytest.raises(ShardError, match="batches need a size or max_tokens"):
            Loader(tars).batches(size, max_tokens=budget, window=window)


# Damage


@pytest.mark.parametrize("ahead", [0, 4])
def test_damage_is_an_error_that_names_the_shard(tmp_path: Path, ahead: int):
    tars = [write(tmp_path, [episode(s * 4 + i) for i in range(4)], f"s{s}.tar") for s in range(3)]
    bad = tars[1]
    tar, index = bad.read_bytes(), index_path(bad).read_bytes()

    def fails(why: str) -> None:
        with pytest.raises(ShardError, match=why):
            list(Loader(tars, ahead=ahead))
        bad.write_bytes(tar)
        index_path(bad).write_bytes(index)
        assert len(list(Loader(tars, ahead=ahead))) == 36

    bad.unlink()
    fails(r"shard s1\.tar cannot be read at byte \d+: .*No such file")
    index_path(bad).unlink()
    fails(r"the index of shard s1\.tar cannot be read")
    bad.write_bytes(tar[: len(tar) // 3])
    fails(r"shard s1\.tar cannot be read at byte \d+: ")
    bad.write_bytes(tars[2].read_bytes())
    fails(r"shard s1\.tar cannot be read at byte \d+: sim-\d+ lies there instead of sim-\d+")
    index_path(bad).write_bytes(index.replace(b"sim5.1", b"sim5.7"))
    fails(r"shard s1\.tar holds other samples in sim-000005 than its index says")
    bad.write_bytes(tar.replace(b'000001.jpg", "', b'000009.jpg", "'))
    fails(r"shard s1\.tar lacks .*000009\.jpg' in sim-00000\d")


# Workers of PyTorch


def test_in_the_workers_of_a_torch_dataloader(tars: list[Path]):
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info

    class Samples(IterableDataset):
        def __init__(self, states: dict[int, dict] | None = None, given_batches: int = 0) -> None:
            self.states, self.given_batches = states or {}, given_batches

        def __iter__(self) -> Iterator[tuple[list[str], int, dict]]:
            info: Any = get_worker_info()
            me = (info.id + self.given_batches) % info.num_workers
            loader = Loader(tars, LoaderConfig(seed=4), worker=me, num_workers=info.num_workers)
            if me in self.states:
                loader.load_state_dict(self.states[me])
            while loader.epoch < 2:
                for batch in loader.batches(4, window=8):
                    yield ids(batch), me, loader.state_dict()

    whole = list(DataLoader(Samples(), batch_size=None, num_workers=2))
    assert Counter(chain(*(b for b, _, _ in whole))) == dict.fromkeys(every(tars), 2)
    states = {me: state for _, me, state in whole[:7]}
    resumed = list(DataLoader(Samples(states, 7), batch_size=None, num_workers=2))
    assert resumed == whole[7:]


# The documentation


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (ROOT / "docs/samples.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) == 7
    folder = tmp_path / "workspace/shards/train"
    folder.mkdir(parents=True)
    for s in range(4):
        write(folder, [episode(s * 10 + i, dataset="sim" if s % 2 else "real") for i in range(10)])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert (len(names["pictures"]), len(names["jpegs"])) == (2, 2)
    assert names["pictures"][0].shape == (24, 24, 3)
    assert (len(names["first"]), len(names["rest"])) == (8, 15 - 3)
    assert names["loader"].epoch == 2
    resumable = torch_batches(names["Resumable"](), 9)
    states = {me: state for _, me, state in resumable[:5]}
    assert torch_batches(names["Resumable"](states, 5), 4) == resumable[5:]


def torch_batches(dataset: Any, count: int) -> list[Any]:
    from torch.utils.data import DataLoader

    return list(islice(DataLoader(dataset, batch_size=None, num_workers=2), count))
