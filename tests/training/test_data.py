"""Batches: which, in what order, and where a stream stands."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice, product
from operator import attrgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.kits.negatives_kit import TASKS, runs, write_shards
from tests.kits.patience import PATIENCE_S
from tests.kits.training_kit import make_items, make_parts, make_release, recipe
from training import batches, data
from training.batches import BatchStream, Prepared, open_batches, open_stream, together
from training.data import RowSource, worker_count
from training.pictures import Item
from training.recipe import KINDS, Recipe
from training.transform import Batch, Transform
from warehouse.shards.shard import Sample, ShardError, read_samples


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    lake, release = make_release(tmp_path_factory.mktemp("data"))
    return release.paths(lake.workspace, "train")


@pytest.fixture(scope="module")
def transform() -> Transform:
    return make_parts(make_items())[1]


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(torch.nan_to_num(a[k]), torch.nan_to_num(b[k])) for k in a
    )


def asked(batch: Batch) -> list[float]:
    return batch["progress"].tolist()


PACKED = recipe(
    data={"packing": True, "window": 8, "sequence_length": 200, "augment": True}, train={"batch": 2}
)


def test_samples_that_are_too_long_are_left_out_and_counted(
    shards: list[Path], transform: Transform
) -> None:
    whole = islice(open_stream(shards, transform, recipe()), 6)
    lengths = list(chain.from_iterable(p.batch["attention_mask"].sum(1).tolist() for p in whole))
    limit = int(np.median(lengths))
    stream = open_stream(shards, transform, recipe(data={"sequence_length": limit}))
    drawn = 0
    num_left_out = 0
    token_counts = []
    while drawn < len(lengths):
        part = next(stream)
        drawn = drawn + part.drawn
        num_left_out = num_left_out + part.left_out
        token_counts += part.batch["attention_mask"].sum(1).tolist()
    assert sorted(token_counts) == sorted(n for n in lengths if n <= limit)
    assert num_left_out == len(lengths) - len(token_counts) > 0
    stream = open_stream(shards, transform, recipe(data={"sequence_length": 16}))
    with pytest.raises(
        ShardError, match=r"no sample can be trained on: (\d+) of \1 have more than 16 tokens"
    ) as e:
        next(stream)
    drawn = int(str(e.value).split(": ")[1].split()[0])
    assert 2 * stream.per_epoch < drawn <= 3 * stream.per_epoch, (drawn, stream.per_epoch)


NEGATIVES = {"negatives": dict.fromkeys(KINDS, 0.12)}


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_negatives_are_the_same_resumed_and_by_workers(tmp_path: Path, packing: bool) -> None:
    labels = runs(12)
    shards = write_shards(tmp_path, labels)
    transform = make_parts([Item(q, ()) for q in (*TASKS, "Remaining actions: <progress>%")])[1]
    run_recipe = recipe(
        data=NEGATIVES | {"packing": packing, "window": 16, "sequence_length": 1600}
    )
    whole = open_stream(shards, transform, run_recipe, labels=labels)
    states = []
    expected = []
    for _ in range(8):
        states.append(json.loads(json.dumps(whole.state_dict())))
        expected.append(next(whole))
    negatives_made = sum((Counter(p.made) for p in expected), Counter())
    assert len(negatives_made) > len(KINDS) / 2
    assert negatives_made.total() == sum(p.samples for p in expected)
    assert any(" " in key for key in chain.from_iterable(map(attrgetter("keys"), expected)))
    second_stream = open_stream(shards, transform, run_recipe, labels=labels)
    second_stream.load_state_dict(states[5])
    for part in expected[5:]:
        assert same(next(second_stream).batch, part.batch)
    by_workers = open_batches(
        shards, transform, recipe(data=run_recipe.data.model_dump() | {"workers": 2}), labels=labels
    )
    for part in expected[:4]:
        theirs = next(by_workers)
        assert same(theirs.batch, part.batch)
        assert (theirs.made, theirs.keys) == (part.made, part.keys)
    # Other samples are changed, or otherwise, in the next epoch
    drawn = 0
    epochs = ([], [])
    stream = open_stream(shards, transform, run_recipe, labels=labels)
    while drawn < 2 * stream.per_epoch:
        part = next(stream)
        epochs[int(drawn >= stream.per_epoch)].extend(key for key in part.keys if " " in key)
        drawn += part.drawn
    assert set(epochs[0]) != set(epochs[1])


def test_workers_start_beside_threads_of_opencv(
    shards: list[Path], transform: Transform, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InTime(batches.DataLoader):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings, timeout=PATIENCE_S)  # a worker that hangs is named

    monkeypatch.setattr(batches, "DataLoader", InTime)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.resize(np.zeros((4096, 4096, 3), np.uint8), (512, 512), interpolation=cv2.INTER_AREA)
        next(open_batches(shards, transform, recipe(data={"workers": 2})))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("gpu", [True, False])
def test_batches_are_pinned_where_there_is_a_gpu(
    shards: list[Path], transform: Transform, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    loader_settings: dict = {}

    def loader(parts: object, **settings: object) -> list:
        loader_settings.update(settings)
        return [(open_parts(), {})]

    def open_parts() -> Prepared:
        return next(open_stream(shards, transform, recipe()))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(batches, "DataLoader", loader)
    prepared = next(open_batches(shards, transform, recipe(data={"workers": 1})))
    assert loader_settings["pin_memory"] is gpu
    # torch asks each batch to pin itself.
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t)
    assert prepared.pin_memory() == prepared
    assert len(pinned) == len(prepared.batch)


def test_an_unreadable_shard_is_named(tmp_path: Path, transform: Transform) -> None:
    lake, release = make_release(tmp_path)
    shards = release.paths(lake.workspace, "train")
    for tar in shards:
        tar.write_bytes(bytes(tar.stat().st_size))
    for count in (0, 1):
        with pytest.raises(
            ShardError, match=r"^shard bars-.*\.tar cannot be read at byte \d+: [^\n]*$"
        ):
            next(open_batches(shards, transform, recipe(data={"workers": count})))


def three_windows(source: RowSource) -> list[str]:
    samples = chain(source.window(), source.window(), source.window())
    return [sample.row["question"] for sample in samples]


def test_rows_come_in_a_new_order_each_epoch() -> None:
    rows = [Sample({"question": str(k)}, ()) for k in range(10)]
    source = RowSource(rows, 4, seed=1)
    first = three_windows(source)
    state = json.loads(json.dumps(source.state_dict()))
    second = three_windows(source)
    assert sorted(first) == sorted(second) == sorted(map(str, range(10)))
    assert first != second
    second_source = RowSource(rows, 4, seed=1)
    second_source.load_state_dict(state)
    assert [s.row["question"] for s in second_source.window()] == second[:4]
    with pytest.raises(ShardError, match="begun with 10 rows, now there are 3"):
        RowSource(rows[:3], 4, seed=1).load_state_dict(state)


# The same run, however many prepare it


@pytest.fixture
def lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Shards enough for lanes."""
    monkeypatch.setattr(data, "LANE_PARTS", 1)
    lake, release = make_release(tmp_path, episodes=10)
    shards = release.paths(lake.workspace, "train")
    assert len(shards) >= 4
    return shards


def taken(streams: Sequence[Iterator[Prepared]], steps: int) -> list[Batch]:
    """What processes are given in some steps, in order."""
    return [next(stream).batch for _, stream in product(range(steps), streams)]


def equal(a: Sequence[Batch], b: Sequence[Batch]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


@pytest.mark.parametrize("of", [recipe(data={"augment": True}), PACKED], ids=["padded", "packed"])
def test_any_number_of_processes_is_given_the_same_run(
    lanes: list[Path], transform: Transform, of: Recipe
) -> None:
    whole = taken([open_stream(lanes, transform, of)], 24)
    assert not same(whole[0], whole[1])
    for world in (2, 3, 4, 6):
        assert equal(
            taken([open_stream(lanes, transform, of, k, world) for k in range(world)], 24 // world),
            whole,
        )


def test_other_processes_go_on(lanes: list[Path], transform: Transform) -> None:
    whole = taken([open_stream(lanes, transform, PACKED)], 36)
    first_streams = [open_stream(lanes, transform, PACKED, k, 4) for k in range(4)]
    taken(first_streams, 3)
    states = [json.loads(json.dumps(s.state_dict())) for s in first_streams]
    for world in (1, 2, 4, 6):
        streams = [open_stream(lanes, transform, PACKED, k, world) for k in range(world)]
        for stream in streams:
            stream.load_state_dict(together(states))
        assert equal(taken(streams, 24 // world), whole[12:])
    with pytest.raises(ShardError, match="not of one moment of a run"):
        together([states[0], states[1] | {"given": 16}])
    with pytest.raises(ShardError, match="begun with 3 lanes of data, now there are 4"):
        first_streams[0].load_state_dict(states[0] | {"count": 3})


def test_workers_change_nothing_nor_does_another_number_of_them(
    lanes: list[Path], transform: Transform
) -> None:
    whole = taken([open_stream(lanes, transform, PACKED)], 16)
    two = open_batches(
        lanes, transform, recipe(data=PACKED.data.model_dump() | {"workers": 2}, train={"batch": 2})
    )
    assert equal(taken([two], 5), whole[:5])
    state = json.loads(json.dumps(two.state_dict()))
    for rank in (0, 1):
        run_recipe = recipe(data=PACKED.data.model_dump() | {"workers": 1}, train={"batch": 2})
        other_stream = open_batches(lanes, transform, run_recipe, rank, 2)
        other_stream.load_state_dict(state)
        # Batch 5 is the next one, and those of process 1 are odd.
        assert equal(taken([other_stream], 2), whole[5 + (1 - rank) :: 2][:2])


@pytest.mark.parametrize(
    ("wanted", "world", "lanes", "count"),
    [
        (8, 8, 64, 8),
        (8, 8, 48, 6),
        (16, 8, 64, 16),
        (8, 1, 1, 8),
        (0, 4, 8, 0),
        (5, 1, 8, 4),
        (4, 7, 64, 4),
    ],
)
def test_workers_share_out_lanes_evenly(wanted: int, world: int, lanes: int, count: int) -> None:
    assert worker_count(wanted, world, lanes) == count


def test_augmentation_differs_between_epochs(shards: list[Path], transform: Transform) -> None:
    """One sample is one epoch."""
    (sample, *_) = read_samples(shards)
    run_recipe = recipe(data={"augment": True}, train={"batch": 1})
    parts_drawn = islice(BatchStream([RowSource([sample], 1, 0)], transform, run_recipe), 4)
    assert len({bytes(part.batch["patches"].numpy()) for part in parts_drawn}) == 4


def test_datasets_have_rates_and_episodes_a_limit(shards: list[Path], transform: Transform) -> None:
    def per_epoch(**data_settings: object) -> float:
        return open_stream(shards, transform, recipe(data=data_settings)).per_epoch

    assert per_epoch(dataset_rates={"bars": 0.5}) == 12
    assert per_epoch(dataset_rates={"bars": 2}, families={"procvqa_c": 0.5}) == 24
    assert per_epoch(per_visit=2) == 4 * 2
    # Samples with thoughts are those of odd moments
    thinking = islice(open_stream(shards, transform, recipe(data={"think": True})), 3)
    values = chain.from_iterable(asked(part.batch) for part in thinking)
    assert {round(7 * value) % 2 for value in values} == {1}
    # Three epochs of two samples of each of the four episodes give all six of each: 1/7, 2/7, 3/7, 5/7, 6/7 and 1.
    stream = open_stream(shards, transform, recipe(data={"per_visit": 2}, train={"batch": 8}))
    values = chain.from_iterable(asked(part.batch) for part in islice(stream, 3))
    frame_numbers = sorted(round(7 * value) for value in values)
    assert frame_numbers == sorted([1, 2, 3, 5, 6, 7] * 4)
    with pytest.raises(
        ShardError, match=r"data.dataset_rates: the release has no dataset berries; it has bars"
    ):
        per_epoch(dataset_rates={"berries": 1})


def test_a_sample_whose_picture_is_none_is_named(transform: Transform) -> None:
    sample = Sample(
        {"sample_id": "s7", "question": "<image>", "answer": "a", "progress": 0.5}, (b"no picture",)
    )
    with pytest.raises(ShardError, match=r"^sample s7: it is no picture"):
        next(BatchStream([RowSource([sample], 1, 0)], transform, recipe(train={"batch": 1})))
