"""The loader: each sample once however work is divided, the same order always, and resumed as if never stopped."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain, combinations, islice, pairwise, product
from pathlib import Path
from typing import Any

import pytest

import warehouse.shards.loader
from core.paths import ROOT
from tests.kits.pages_kit import blocks
from tests.kits.shard_kit import episode, write
from warehouse.shards.loader import Loader, LoaderConfig
from warehouse.shards.shard import Sample, ShardError, index_path, read_index
from warehouse.shards.shares import with_shares

SHARDS = 7
EPISODES = 5  # of a shard
SAMPLES = 3  # of an episode
COUNT = SHARDS * EPISODES * SAMPLES
TOKENS = (900, 30, 31, 400, 7, 33, 1200)


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> list[Path]:
    """Of three datasets."""
    folder = tmp_path_factory.mktemp("tars")
    paths = []
    for s in range(SHARDS):
        tokens = TOKENS[s:] + TOKENS[:s]
        numbers = range(s * EPISODES, (s + 1) * EPISODES)
        episodes = (episode(k, SAMPLES, "abc"[s % 3], tokens=tokens) for k in numbers)
        paths.append(write(folder, episodes, f"s{s}.tar"))
    return paths


def ids(samples: Iterable[Sample]) -> list[str]:
    return [s.row["sample_id"] for s in samples]


def every(tars: Iterable[Path]) -> list[str]:
    entries = chain.from_iterable(read_index(tar).entries for tar in tars)
    return list(chain.from_iterable(entry.sample_id for entry in entries))


def test_more_consumers_than_shards_is_an_error(tars):
    assert ids(Loader(tars, num_nodes=1, worker=6, num_workers=7))
    with pytest.raises(
        ShardError, match=r"2 nodes x 4 workers are 8 consumers, too many for 7 shards"
    ):
        Loader(tars, node=0, num_nodes=2, worker=1, num_workers=4)
    with pytest.raises(ShardError, match="1 consumers, too many for 0 shards"):
        Loader([])
    with pytest.raises(ShardError, match="no worker 2 of 2 on node 0 of 1"):
        Loader(tars, worker=2, num_workers=2)
    with pytest.raises(ShardError, match=r"shard s0\.tar is given twice"):
        Loader([*tars, tars[0]])


def test_the_order_hangs_on_the_seed_the_epoch_and_the_shards_alone(tars, tmp_path):
    orders = [ids(Loader(tars, LoaderConfig(seed=s), epoch=e)) for s, e in product((0, 1), (0, 1))]
    assert len({tuple(o) for o in orders}) == 4
    loader = Loader(tars)
    assert [ids(loader), ids(loader)] == orders[:2]  # one epoch after another
    moved_tars = [Path(shutil.copy(p, tmp_path)) for p in reversed(tars)]
    for tar, moved_tar in zip(reversed(tars), moved_tars, strict=True):
        shutil.copy(index_path(tar), index_path(moved_tar))
    assert ids(Loader(moved_tars)) == orders[0]
    assert ids(Loader(tars, ahead=5)) == orders[0]


def test_the_order_is_the_same_on_every_machine(tars):
    """Another order needs another PLAN, or states of before would be resumed wrongly."""
    config = LoaderConfig(
        seed=3, buffer=8, interleave=2, per_visit=2, dataset_rates={"a": 0.3, "b": 2.5}
    )
    loader = Loader(tars, config, worker=1, num_workers=2, epoch=4)
    order = [ids(b) for b in loader.batches(4, max_tokens=3000, window=16)]
    digest = hashlib.sha256(json.dumps(order).encode()).hexdigest()
    assert (warehouse.shards.loader.PLAN, digest[:16]) == (1, "e164d38f052cc0a1")


def test_families_are_chosen(tars):
    only = list(Loader(tars, LoaderConfig(families=("procvqa_a",))))
    assert sorted(ids(only)) == sorted(i for i in every(tars) if i.endswith(".0"))
    with pytest.raises(
        ShardError, match="none of 7 shards has a sample of these families at a rate above 0"
    ):
        list(Loader(tars, LoaderConfig(families=("procvqa_z",))))
    with pytest.raises(ShardError, match="none of 7 shards"):
        list(
            Loader(
                tars,
                LoaderConfig(family_rates={"procvqa_a": 0, "procvqa_c": 0}),
                worker=1,
                num_workers=4,
            )
        )
    # a consumer whose shards have none this time has an empty epoch, and no error
    empty = [
        not ids(Loader(tars, LoaderConfig(dataset_rates={"a": 0, "b": 0}), num_nodes=7, node=n))
        for n in range(7)
    ]
    assert sum(empty) == 5


def loader_ids(tars: list[Path], config: LoaderConfig, epoch: int) -> list[str]:
    """As ids(Loader(...)), by the plan alone."""
    return [visit.entry.sample_id[i] for visit, i in Loader(tars, config, epoch=epoch)._plan()]


def share_of(samples: Iterable[str], part: Callable[[str], bool]) -> float:
    is_in_part = [part(i) for i in samples]
    return sum(is_in_part) / len(is_in_part)


def test_rates_from_shares(tars):
    def epochs(config: LoaderConfig) -> list[str]:
        return list(chain.from_iterable(loader_ids(tars, config, e) for e in range(10)))

    config = LoaderConfig(seed=5)
    epoch_samples = epochs(with_shares(tars, config, datasets={"a": 2, "b": 1, "c": 1}))
    assert abs(share_of(epoch_samples, lambda i: i[0] == "a") - 0.5) < 0.005
    assert abs(share_of(epoch_samples, lambda i: i[0] == "b") - 0.25) < 0.005
    assert abs(len(epoch_samples) / 10 - COUNT) < 1.5  # as many as there are
    epoch_samples = epochs(with_shares(tars, config, families={"procvqa_a": 0.9, "procvqa_c": 0.1}))
    assert abs(share_of(epoch_samples, lambda i: i.endswith(".0")) - 0.9) < 0.005
    assert abs(share_of(epoch_samples, lambda i: i[0] == "a") - 3 / 7) < 0.005  # as it was
    both = with_shares(
        tars,
        config,
        datasets={"a": 0.2, "b": 0.3, "c": 0.5},
        families={"procvqa_a": 0.5, "procvqa_c": 0.5},
    )
    for few in (None, 2):
        epoch_samples = epochs(replace(both, per_visit=few))
        assert abs(share_of(epoch_samples, lambda i: i.endswith(".0")) - 0.5) < 0.02
        assert abs(share_of(epoch_samples, lambda i: i[0] == "c") - 0.5) < 0.02
    none = with_shares(tars, config, families={"procvqa_a": 0, "procvqa_c": 1})
    assert not any(i.endswith(".0") for i in epochs(none))


def test_shares_of_what_an_epoch_takes(tmp_path):
    """With per_visit an episode counts for so many samples, however many it has."""
    tars = [
        write(tmp_path, [episode(i, samples=20, dataset="long") for i in range(10)]),
        write(tmp_path, [episode(i, samples=2, dataset="short") for i in range(30)]),
    ]
    config = with_shares(tars, LoaderConfig(per_visit=4), datasets={"long": 0.5, "short": 0.5})
    epoch_samples = list(chain.from_iterable(loader_ids(tars, config, e) for e in range(6)))
    assert abs(share_of(epoch_samples, lambda i: i[0] == "l") - 0.5) < 0.01
    assert abs(len(epoch_samples) / 6 - 100) < 3


def same_episode_share(samples: Iterable[Sample], batch: int = 16) -> float:
    """Share of pairs within a batch that are of one episode."""
    indices = [s.row["episode_index"] for s in samples]
    batches = [indices[i : i + batch] for i in range(0, len(indices) - batch + 1, batch)]
    pairs = [a == b for a, b in chain.from_iterable(combinations(b, 2) for b in batches)]
    return sum(pairs) / len(pairs)


def test_the_state_of_another_run_is_refused(tars):
    loader = Loader(tars, LoaderConfig(seed=1), num_workers=2)
    list(islice(loader.batches(4), 3))
    state = loader.state_dict()
    for other_loader, reason in (
        (Loader(tars, LoaderConfig(seed=2), num_workers=2), "seed was 1, now 2$"),
        (
            Loader(tars, LoaderConfig(seed=1, families=("f",)), num_workers=2),
            r"families was None, now \['f'\]$",
        ),
        (Loader(tars, LoaderConfig(seed=1), worker=1, num_workers=2), "worker was 0, now 1$"),
        (
            Loader(tars[1:], LoaderConfig(seed=1), num_workers=2),
            r"shards was 7, sha256 \w+, now 6, sha256 \w+$",
        ),
        (
            Loader(tars, num_nodes=3),
            "num_nodes was 1, now 3; num_workers was 2, now 1; seed was 1, now 0$",
        ),
    ):
        with pytest.raises(ShardError, match=reason):
            other_loader.load_state_dict(state)
        assert other_loader.state_dict()["position"] == 0
    for broken in (
        {},
        {"epoch": 1},
        {"epoch": "x", "position": 0, "unit": "samples", "of": {}},
        state | {"of": 3},
    ):
        with pytest.raises(ShardError, match="this is not the state of a loader"):
            loader.load_state_dict(broken)
    same = Loader(tars, LoaderConfig(seed=1), num_workers=2)
    same.load_state_dict(state)
    with pytest.raises(
        ShardError, match=r"begun in batches of size 4, .* cannot be gone on with in samples"
    ):
        next(iter(same))
    with pytest.raises(ShardError, match=r"begun in batches of size 4, .* in batches of size 5"):
        next(same.batches(5))
    assert len(list(same.batches(4))) > 3


def padding(batches: Iterable[list[Sample]]) -> float:
    tokens = [[s.row["num_tokens"] for s in b] for b in batches]
    return sum(max(t) * len(t) for t in tokens) / sum(map(sum, tokens))


def test_a_window_lowers_padding_and_keeps_the_mix(tmp_path):
    lengths = [30 + (k * k * 37) % 1500 for k in range(101)]  # nearly uniform up to 1530
    tars = []
    for s in range(3):
        episodes = [episode(i, samples=10, tokens=lengths[i % 90 :]) for i in range(s, 120, 3)]
        tars.append(write(tmp_path, episodes))
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


@pytest.mark.parametrize("ahead", [0, 4])
def test_damage_is_an_error_that_names_the_shard(tmp_path, ahead):
    tars = [write(tmp_path, map(episode, range(s * 4, s * 4 + 4)), f"s{s}.tar") for s in range(3)]
    bad = tars[1]
    tar, index = bad.read_bytes(), index_path(bad).read_bytes()

    def fails(reason: str) -> None:
        with pytest.raises(ShardError, match=reason):
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


def test_the_page_resumes_as_if_never_stopped(tmp_path, monkeypatch):
    """The Python of docs/samples.md, by itself and in the workers of PyTorch."""
    folder = tmp_path / "workspace/shards/train"
    folder.mkdir(parents=True)
    tars = []
    for s, dataset in enumerate(["sim", "real", "sim", "real"]):
        tars.append(write(folder, [episode(10 * s + i, 5, dataset) for i in range(6)]))
    monkeypatch.chdir(tmp_path)
    page: dict[str, Any] = {}
    for block in (b for b in blocks(ROOT / "docs/samples.md") if b.kind == "python"):
        exec(block.text, page)
    # As plain webdataset reads them
    assert [picture.shape for picture in page["pictures"]] == 2 * [(24, 24, 3)]
    epochs = [
        list(map(ids, Loader(tars, LoaderConfig(seed=1), epoch=e).batches(8))) for e in (2, 3)
    ]
    assert [ids(b) for b in page["rest"]] == epochs[0][3:]
    assert [ids(b) for b in page["again"].batches(8)] == epochs[1]
    assert len(page["first"]) == 8

    def taken(*arguments: Any, count: int) -> list[Any]:
        of_workers = page["DataLoader"](
            page["Resumable"](*arguments), batch_size=None, num_workers=2
        )
        return [(ids(batch), worker, state) for batch, worker, state in islice(of_workers, count)]

    whole = taken(count=32)  # two epochs and more
    for num_done in (1, 7, 20):
        states = {worker: state for _, worker, state in whole[:num_done]}
        assert taken(states, num_done, count=32 - num_done) == whole[num_done:]
