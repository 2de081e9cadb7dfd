"""Batches: which, in what order, and where a stream stands."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.kits.training_kit import make_items, make_parts, make_release, recipe
from training.batches import open_batches, open_stream
from training.data import BatchStream, RowSource, augment
from training.recipe import Recipe
from training.transform import Batch, Transform, pack
from warehouse.shards import Sample, ShardError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    lake, release = make_release(tmp_path_factory.mktemp("data"))
    return release.paths(lake.workspace, "train")


@pytest.fixture(scope="module")
def transform() -> Transform:
    return make_parts(make_items())[1]


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(torch.equal(torch.nan_to_num(a[k]), torch.nan_to_num(b[k])) for k in a)


def asked(batch: Batch) -> list[float]:
    return batch["progress"].tolist()


PACKED = recipe(data={"packing": True, "window": 8, "sequence_length": 200, "augment": True}, train={"batch": 2})


@pytest.mark.parametrize("of", [recipe(data={"augment": True}), PACKED], ids=["padded", "packed"])
def test_a_stream_goes_on_where_it_stood(shards: list[Path], transform: Transform, of: Recipe) -> None:
    whole = open_stream(shards, transform, of)
    states, batches = [], []
    for _ in range(12):
        states.append(json.loads(json.dumps(whole.state_dict())))
        batches.append(next(whole).batch)
    assert not same(batches[0], batches[1])
    for at in (0, 1, 4, 7):
        again = open_stream(shards, transform, of)
        again.load_state_dict(states[at])
        for expected in batches[at:]:
            assert same(next(again).batch, expected)


def test_an_epoch_gives_each_sample_once_and_counts_them(shards: list[Path], transform: Transform) -> None:
    stream = open_stream(shards, transform, recipe(data={"families": {"procvqa_b": 1, "procvqa_c": 1}}))
    assert stream.per_epoch == 32
    drawn, seen = 0, []
    while drawn < 32:
        part = next(stream)
        drawn += part.drawn
        seen += asked(part.batch)
    assert sorted(seen) == sorted(np.tile(np.float32(np.arange(8) / 7), 4).tolist())
    assert open_stream(shards, transform, recipe()).per_epoch == 24


def test_packed_rows_are_full_and_no_longer_than_asked(shards: list[Path], transform: Transform) -> None:
    stream = open_stream(shards, transform, PACKED)
    for part in islice(stream, 4):
        assert part.batch["input_ids"].shape[1] <= 200
        assert part.samples == len(part.batch["progress"]) > part.batch["input_ids"].shape[0]
        assert part.tokens == int(part.batch["item_mask"].sum())
    assert pack([0, 1, 2, 3], [5, 9, 4, 2], 10) == [[1], [0, 2], [3]]


def test_a_sorted_window_pads_less(shards: list[Path], transform: Transform) -> None:
    def padding(window: int | None) -> int:
        stream = open_stream(shards, transform, recipe(data={"window": window}))
        return sum(int((p.batch["attention_mask"] == 0).sum()) for p in islice(stream, 6))

    assert padding(24) < padding(None) / 2


def test_samples_that_are_too_long_are_left_out_and_counted(shards: list[Path], transform: Transform) -> None:
    whole = islice(open_stream(shards, transform, recipe()), 6)
    lengths = [int(n) for p in whole for n in p.batch["attention_mask"].sum(1)]
    limit = int(np.median(lengths))
    stream = open_stream(shards, transform, recipe(data={"sequence_length": limit}))
    drawn, left_out, seen = 0, 0, []
    while drawn < len(lengths):
        part = next(stream)
        drawn, left_out = drawn + part.drawn, left_out + part.left_out
        seen += part.batch["attention_mask"].sum(1).tolist()
    assert sorted(seen) == sorted(n for n in lengths if n <= limit)
    assert left_out == len(lengths) - len(seen) > 0
    with pytest.raises(ShardError, match=r"no sample can be trained on: \d+ of \d+ have more than 16 tokens"):
        next(open_stream(shards, transform, recipe(data={"sequence_length": 16})))


def test_reasons_on_or_off(shards: list[Path], transform: Transform) -> None:
    for think, places in ((True, {1, 3, 5, 7}), (False, {2, 6})):  # of the 8 moments of family c
        stream = open_stream(shards, transform, recipe(data={"think": think}))
        assert {round(7 * x) for p in islice(stream, 6) for x in asked(p.batch)} <= places


def test_processes_divide_the_data(shards: list[Path], transform: Transform) -> None:
    whole = [asked(p.batch) for p in islice(open_stream(shards, transform, recipe()), 6)]
    few = shards[:1]  # too few shards to divide: every so many-th batch
    one = [asked(p.batch) for p in islice(open_stream(few, transform, recipe()), 4)]
    mine, other = (islice(open_stream(few, transform, recipe(), k, 2), 2) for k in (0, 1))
    assert [asked(p.batch) for p in mine] == one[::2]
    assert [asked(p.batch) for p in other] == one[1::2]
    assert whole != one


def test_workers_give_the_same_after_a_stop(shards: list[Path], transform: Transform) -> None:
    of = recipe(data={"workers": 2})
    whole = open_batches(shards, transform, of)
    expected, states = [], []
    for _ in range(6):
        expected.append(next(whole).batch)
        states.append(json.loads(json.dumps(whole.state_dict())))
    again = open_batches(shards, transform, of)
    again.load_state_dict(states[2])
    for batch in expected[3:]:
        assert same(next(again).batch, batch)


def test_an_unreadable_shard_is_named(tmp_path: Path, transform: Transform) -> None:
    lake, release = make_release(tmp_path)
    shards = release.paths(lake.workspace, "train")
    for tar in shards:
        tar.write_bytes(bytes(tar.stat().st_size))
    for workers in (0, 1):
        with pytest.raises(ShardError, match=r"^shard bars-.*\.tar cannot be read at byte \d+: [^\n]*$"):
            next(open_batches(shards, transform, recipe(data={"workers": workers})))


def test_rows_come_in_a_new_order_each_epoch() -> None:
    rows = [Sample({"question": str(k)}, ()) for k in range(10)]
    source = RowSource(rows, 4, seed=1)
    first = [s.row["question"] for _ in range(3) for s in source.window()]
    state = json.loads(json.dumps(source.state_dict()))
    second = [s.row["question"] for _ in range(3) for s in source.window()]
    assert sorted(first) == sorted(second) == sorted(map(str, range(10)))
    assert first != second
    again = RowSource(rows, 4, seed=1)
    again.load_state_dict(state)
    assert [s.row["question"] for s in again.window()] == second[:4]
    with pytest.raises(ShardError, match="begun with 10 rows, now there are 3"):
        RowSource(rows[:3], 4, seed=1).load_state_dict(state)


def test_augmentation_moves_all_pictures_of_an_item_alike() -> None:
    item = make_items()[5]
    changed = augment(item, np.random.default_rng(0))
    assert changed.progress == item.progress
    assert not np.array_equal(changed.pictures[0], item.pictures[0])
    assert all(np.array_equal(p, changed.pictures[0]) for p in changed.pictures)


def test_a_stream_of_rows_trains_as_one_of_shards(transform: Transform, shards: list[Path]) -> None:
    stream = open_stream(shards, transform, recipe())
    samples = [s for _ in range(3) for s in stream._source.window()]
    rows = BatchStream(RowSource(samples, 4, seed=0), transform, recipe())
    assert next(rows).samples == 4
