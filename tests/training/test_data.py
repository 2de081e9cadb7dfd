"""Batches: which, in what order, and where a stream stands."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.kits.negatives_kit import TASKS, runs, write_shards
from tests.kits.progresslm_rows import conversations, source_rows, write_rows
from tests.kits.training_kit import make_items, make_parts, make_release, recipe
from training import data, feeding
from training.batches import BatchStream, Prepared, together
from training.data import RowSource, augment
from training.feeding import open_batches, open_stream, worker_count
from training.negatives.config import KINDS
from training.pictures import Item
from training.recipe import Recipe
from training.transform import Batch, Transform, pack
from warehouse.shards import Sample, ShardError, read_samples
from warehouse.shards.loader import LoaderConfig


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
    batches = list(islice(open_stream(shards, transform, PACKED), 4))
    for part in batches:
        # One row in all, of at most train.batch parts of at most data.sequence_length
        rows, tokens = part.batch["input_ids"].shape
        assert rows == 1
        assert tokens == part.tokens == int(part.batch["item_mask"].sum()) <= 200 * PACKED.train.batch
        assert part.samples == len(part.batch["progress"])
    assert sum(part.samples for part in batches) > len(batches) * PACKED.train.batch
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


NEGATIVES = {"negatives": dict.fromkeys(KINDS, 0.12)}


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_negatives_are_the_same_resumed_and_by_workers(tmp_path: Path, packing: bool) -> None:
    labels = runs(12)
    shards = write_shards(tmp_path, labels)
    transform = make_parts([Item(q, ()) for q in (*TASKS, "Remaining actions: <progress>%")])[1]
    of = recipe(data=NEGATIVES | {"packing": packing, "window": 16, "sequence_length": 1600})
    whole = open_stream(shards, transform, of, labels=labels)
    states, expected = [], []
    for _ in range(8):
        states.append(json.loads(json.dumps(whole.state_dict())))
        expected.append(next(whole))
    made = sum((Counter(p.made) for p in expected), Counter())
    assert len(made) > len(KINDS) / 2
    assert made.total() == sum(p.samples for p in expected)
    assert any(" " in key for p in expected for key in p.keys)
    again = open_stream(shards, transform, of, labels=labels)
    again.load_state_dict(states[5])
    for part in expected[5:]:
        assert same(next(again).batch, part.batch)
    by_workers = open_batches(shards, transform, recipe(data=of.data.model_dump() | {"workers": 2}), labels=labels)
    for part in expected[:4]:
        theirs = next(by_workers)
        assert same(theirs.batch, part.batch)
        assert (theirs.made, theirs.keys) == (part.made, part.keys)
    # Other samples are changed, or otherwise, in the next epoch
    drawn, epochs = 0, ([], [])
    stream = open_stream(shards, transform, of, labels=labels)
    while drawn < 2 * stream.per_epoch:
        part = next(stream)
        epochs[int(drawn >= stream.per_epoch)].extend(key for key in part.keys if " " in key)
        drawn += part.drawn
    assert set(epochs[0]) != set(epochs[1])


def test_workers_start_beside_threads_of_opencv(
    shards: list[Path], transform: Transform, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InTime(feeding.DataLoader):
        def __init__(self, *given: Any, **settings: Any) -> None:
            super().__init__(*given, **settings, timeout=60)  # a worker that hangs is named

    monkeypatch.setattr(feeding, "DataLoader", InTime)
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
    given: dict = {}

    def loader(parts: object, **settings: object) -> list:
        given.update(settings)
        return [(open_parts(), {})]

    def open_parts() -> Prepared:
        return next(open_stream(shards, transform, recipe()))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(feeding, "DataLoader", loader)
    prepared = next(open_batches(shards, transform, recipe(data={"workers": 1})))
    assert given["pin_memory"] is gpu
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
        with pytest.raises(ShardError, match=r"^shard bars-.*\.tar cannot be read at byte \d+: [^\n]*$"):
            next(open_batches(shards, transform, recipe(data={"workers": count})))


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
    samples = list(read_samples(shards))
    rows = BatchStream([RowSource(samples, 4, seed=0)], transform, recipe())
    assert next(rows).samples == 4


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
    return [next(stream).batch for _ in range(steps) for stream in streams]


def equal(a: Sequence[Batch], b: Sequence[Batch]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


@pytest.mark.parametrize("of", [recipe(data={"augment": True}), PACKED], ids=["padded", "packed"])
def test_any_number_of_processes_is_given_the_same_run(lanes: list[Path], transform: Transform, of: Recipe) -> None:
    whole = taken([open_stream(lanes, transform, of)], 24)
    assert not same(whole[0], whole[1])
    for world in (2, 3, 4, 6):
        assert equal(taken([open_stream(lanes, transform, of, k, world) for k in range(world)], 24 // world), whole)


def test_another_number_of_processes_goes_on(lanes: list[Path], transform: Transform) -> None:
    whole = taken([open_stream(lanes, transform, PACKED)], 36)
    began = [open_stream(lanes, transform, PACKED, k, 4) for k in range(4)]
    taken(began, 3)
    states = [json.loads(json.dumps(s.state_dict())) for s in began]
    for world in (1, 2, 4, 6):
        streams = [open_stream(lanes, transform, PACKED, k, world) for k in range(world)]
        for stream in streams:
            stream.load_state_dict(together(states))
        assert equal(taken(streams, 24 // world), whole[12:])
    with pytest.raises(ShardError, match="not of one moment of a run"):
        together([states[0], states[1] | {"given": 16}])
    with pytest.raises(ShardError, match="begun with 3 lanes of data, now there are 4"):
        began[0].load_state_dict(states[0] | {"count": 3})


def test_workers_change_nothing_nor_does_another_number_of_them(lanes: list[Path], transform: Transform) -> None:
    whole = taken([open_stream(lanes, transform, PACKED)], 16)
    two = open_batches(lanes, transform, recipe(data=PACKED.data.model_dump() | {"workers": 2}, train={"batch": 2}))
    assert equal(taken([two], 5), whole[:5])
    state = json.loads(json.dumps(two.state_dict()))
    for rank in (0, 1):
        of = recipe(data=PACKED.data.model_dump() | {"workers": 1}, train={"batch": 2})
        other = open_batches(lanes, transform, of, rank, 2)
        other.load_state_dict(state)
        # Batch 5 is the next one, and those of process 1 are odd.
        assert equal(taken([other], 2), whole[5 + (1 - rank) :: 2][:2])


def test_rows_are_dealt_out_to_lanes_each_once_an_epoch(tmp_path: Path, transform: Transform, monkeypatch) -> None:
    monkeypatch.setattr(data, "LANE_PARTS", 1)
    jsonl = write_rows(tmp_path / "rows.jsonl", conversations(source_rows(tmp_path / "images")) * 3)
    of = recipe(data={"jsonl": [jsonl], "image_root": tmp_path / "images"}, train={"batch": 2})
    whole = open_stream([], transform, of)
    assert whole.lanes == 12
    epoch, again = taken([whole], 12), taken([whole], 12)
    assert [asked(b) for b in epoch] != [asked(b) for b in again]
    # Each of the eight rows stands three times in the file.
    for batches in (epoch, again):
        shown = np.nan_to_num([x for b in batches for x in asked(b)], nan=-1).tolist()
        assert {shown.count(x) for x in shown} == {3}
    three = taken([open_stream([], transform, of, k, 3) for k in range(3)], 8)
    assert equal(three, epoch + again)


def test_only_pictures_of_this_consumer_are_read(tmp_path: Path, transform: Transform, monkeypatch) -> None:
    decoded: list[bytes] = []
    whole = data.decode_picture

    def counted(jpeg: bytes, max_px: int) -> np.ndarray:
        decoded.append(jpeg)
        return whole(jpeg, max_px)

    monkeypatch.setattr(data, "decode_picture", counted)
    rows = source_rows(tmp_path / "images")
    jsonl = write_rows(tmp_path / "rows.jsonl", conversations(rows))
    source = {"jsonl": [jsonl], "image_root": tmp_path / "images", "window": 8, "cache_mb": 0}
    stream = open_stream([], transform, recipe(data=source, train={"batch": 1}), 3, 4)
    shown = [len(next(stream).batch["image_grid_thw"]) for _ in range(4)]
    assert len(decoded) == sum(shown)


def test_lanes_are_of_one_length_and_follow_from_the_shards(lanes: list[Path]) -> None:
    config = LoaderConfig(families=("procvqa_c",))
    dealt = [s.per_epoch for s in data.shard_lanes(lanes, config, 4)]
    assert len(dealt) == data.lane_count(len(lanes))
    assert max(dealt) <= 2 * min(dealt)
    assert [s.state_dict() for s in data.shard_lanes(lanes[::-1], config, 4)] == [
        s.state_dict() for s in data.shard_lanes(lanes, config, 4)
    ]


@pytest.mark.parametrize(
    ("wanted", "world", "lanes", "count"),
    [(8, 8, 64, 8), (8, 8, 48, 6), (16, 8, 64, 16), (8, 1, 1, 8), (0, 4, 8, 0), (5, 1, 8, 4), (4, 7, 64, 4)],
)
def test_workers_share_out_lanes_evenly(wanted: int, world: int, lanes: int, count: int) -> None:
    assert worker_count(wanted, world, lanes) == count


def test_augmentation_differs_between_consumers(shards: list[Path], transform: Transform) -> None:
    """One sample again and again: each consumer changes it in its own way."""
    (sample, *_) = read_samples(shards)
    of = recipe(data={"augment": True}, train={"batch": 1})
    streams = [BatchStream([RowSource([sample], 1, 0)], transform, of, k, 4) for k in range(4)]
    pictures = {bytes(next(s).batch["patches"].numpy()) for s in streams}
    assert len(pictures) == 4


def test_augmentation_differs_between_epochs_and_is_the_same_when_resumed(
    shards: list[Path], transform: Transform
) -> None:
    """One sample is one epoch: each shows it otherwise, whoever gives it, and a run that goes on shows the same."""
    (sample, *_) = read_samples(shards)
    of = recipe(data={"augment": True}, train={"batch": 1})

    def stream(first: int = 0, every: int = 1) -> BatchStream:
        return BatchStream([RowSource([sample], 1, 0)], transform, of, first, every)

    one = stream()
    epochs = [bytes(next(one).batch["patches"].numpy()) for _ in range(4)]
    assert len(set(epochs)) == 4
    again, resumed = stream(), stream()
    for _ in range(2):
        next(again)
    resumed.load_state_dict(again.state_dict())
    assert bytes(next(resumed).batch["patches"].numpy()) == epochs[2]
    # Two processes give the same batches in turn.
    parts = [stream(k, 2) for k in range(2)]
    assert [bytes(next(parts[k % 2]).batch["patches"].numpy()) for k in range(4)] == epochs


def test_datasets_have_rates_and_episodes_a_limit(shards: list[Path], transform: Transform) -> None:
    def per_epoch(**of: object) -> float:
        return open_stream(shards, transform, recipe(data=of)).per_epoch

    assert per_epoch(dataset_rates={"bars": 0.5}) == 12
    assert per_epoch(dataset_rates={"bars": 2}, families={"procvqa_c": 0.5}) == 24
    assert per_epoch(per_visit=2) == 4 * 2
    # Three epochs of two samples of each of the four episodes give all six of each: 1/7, 2/7, 3/7, 5/7, 6/7 and 1.
    stream = open_stream(shards, transform, recipe(data={"per_visit": 2}, train={"batch": 8}))
    shown = sorted(round(7 * x) for p in islice(stream, 3) for x in asked(p.batch))
    assert shown == sorted([1, 2, 3, 5, 6, 7] * 4)
    with pytest.raises(ShardError, match=r"data.dataset_rates: the release has no dataset berries; it has bars"):
        per_epoch(dataset_rates={"berries": 1})


def test_a_sample_whose_picture_is_none_is_named(transform: Transform) -> None:
    sample = Sample({"sample_id": "s7", "question": "<image>", "answer": "a", "progress": 0.5}, (b"no picture",))
    with pytest.raises(ShardError, match=r"^sample s7: it is no picture"):
        next(BatchStream([RowSource([sample], 1, 0)], transform, recipe(train={"batch": 1})))
