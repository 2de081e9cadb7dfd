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
from PIL import Image

from tests.kits.files import table
from tests.kits.negatives_kit import TASKS, runs, write_shards
from tests.kits.patience import PATIENCE_S
from tests.kits.training_kit import make_items, make_parts, make_release, recipe
from training import batches, data
from training.batches import BatchStream, Prepared, open_batches, open_stream, together
from training.data import RowSource, worker_count
from training.folder import TrainingError
from training.pictures import Item
from training.progresslm import Truth
from training.progresslm_data import read_rows, truth_of
from training.recipe import KINDS
from training.transform import Batch, Transform
from warehouse.shards.shard import Sample, ShardError, read_samples


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[Path]:
    lake, release = make_release(tmp_path_factory.mktemp("data"))
    return release.paths(lake.workspace, "train")


@pytest.fixture(scope="module")
def transform() -> Transform:
    return make_parts(make_items())[1]


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(torch.nan_to_num(a[k]), torch.nan_to_num(b[k])) for k in a
    )


PACKED = recipe(
    data={"packing": True, "window": 8, "sequence_length": 200, "augment": True}, train={"batch": 2}
)


def test_samples_that_are_too_long_are_left_out_and_counted(shards, transform):
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
    with pytest.raises(ShardError, match=r": (\d+) of \1 have more than 16 tokens") as e:
        next(stream)
    drawn = int(str(e.value).split(": ")[1].split()[0])
    assert 2 * stream.per_epoch < drawn <= 3 * stream.per_epoch, (drawn, stream.per_epoch)


NEGATIVES = {"negatives": dict.fromkeys(KINDS, 0.12)}


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_negatives_are_the_same_resumed_and_by_workers(tmp_path, packing):
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


def test_workers_start_beside_threads_of_opencv(shards, transform, monkeypatch):
    class InTime(batches.DataLoader):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings, timeout=PATIENCE_S)

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
def test_batches_are_pinned_where_there_is_a_gpu(shards, transform, monkeypatch, gpu):
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


def test_an_unreadable_shard_is_named(tmp_path, transform):
    lake, release = make_release(tmp_path)
    shards = release.paths(lake.workspace, "train")
    for tar in shards:
        tar.write_bytes(bytes(tar.stat().st_size))
    for count in (0, 1):
        with pytest.raises(ShardError, match=r"^shard bars-.*\.tar .* byte \d+: [^\n]*$"):
            next(open_batches(shards, transform, recipe(data={"workers": count})))


def three_windows(source: RowSource) -> list[str]:
    samples = chain(source.window(), source.window(), source.window())
    return [sample.row["question"] for sample in samples]


def test_rows_come_in_a_new_order_each_epoch():
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


@pytest.fixture
def lanes(tmp_path, monkeypatch) -> list[Path]:
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
def test_any_number_of_processes_is_given_the_same_run(lanes, transform, of):
    whole = taken([open_stream(lanes, transform, of)], 24)
    assert not same(whole[0], whole[1])
    for world in (2, 3, 6):
        assert equal(
            taken([open_stream(lanes, transform, of, k, world) for k in range(world)], 24 // world),
            whole,
        )


def test_other_processes_go_on(lanes, transform):
    whole = taken([open_stream(lanes, transform, PACKED)], 36)
    first_streams = [open_stream(lanes, transform, PACKED, k, 4) for k in range(4)]
    taken(first_streams, 3)
    states = [json.loads(json.dumps(s.state_dict())) for s in first_streams]
    for world in (1, 2, 6):
        streams = [open_stream(lanes, transform, PACKED, k, world) for k in range(world)]
        for stream in streams:
            stream.load_state_dict(together(states))
        assert equal(taken(streams, 24 // world), whole[12:])
    with pytest.raises(ShardError, match="not of one moment of a run"):
        together([states[0], states[1] | {"given": 16}])
    with pytest.raises(ShardError, match="3 lanes of data, now there are 4"):
        first_streams[0].load_state_dict(states[0] | {"count": 3})


def test_workers_change_nothing_nor_does_another_number_of_them(lanes, transform):
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
def test_workers_share_out_lanes_evenly(wanted, world, lanes, count):
    assert worker_count(wanted, world, lanes) == count


def test_augmentation_differs_between_epochs(shards, transform):
    """One sample is one epoch."""
    (sample, *_) = read_samples(shards)
    run_recipe = recipe(data={"augment": True}, train={"batch": 1})
    parts_drawn = islice(BatchStream([RowSource([sample], 1, 0)], transform, run_recipe), 4)
    assert len({bytes(part.batch["patches"].numpy()) for part in parts_drawn}) == 4


def test_datasets_have_rates_and_episodes_a_limit(shards, transform):
    def per_epoch(**data_settings: object) -> float:
        return open_stream(shards, transform, recipe(data=data_settings)).per_epoch

    assert per_epoch(dataset_rates={"bars": 0.5}) == 12
    assert per_epoch(dataset_rates={"bars": 2}, families={"procvqa_c": 0.5}) == 24
    assert per_epoch(per_visit=2) == 4 * 2
    # Samples with thoughts are those of odd moments
    thinking = islice(open_stream(shards, transform, recipe(data={"think": True})), 3)
    values = chain.from_iterable(part.batch["progress"].tolist() for part in thinking)
    assert {round(7 * value) % 2 for value in values} == {1}
    # Three epochs of two samples of each of the four episodes give all six of each: 1/7, 2/7, 3/7, 5/7, 6/7 and 1.
    stream = open_stream(shards, transform, recipe(data={"per_visit": 2}, train={"batch": 8}))
    values = chain.from_iterable(part.batch["progress"].tolist() for part in islice(stream, 3))
    frame_numbers = sorted(round(7 * value) for value in values)
    assert frame_numbers == sorted([1, 2, 3, 5, 6, 7] * 4)
    with pytest.raises(ShardError, match="no dataset berries; it has bars"):
        per_epoch(dataset_rates={"berries": 1})


def test_a_sample_whose_picture_is_none_is_named(transform):
    sample = Sample(
        {"sample_id": "s7", "question": "<image>", "answer": "a", "progress": 0.5}, (b"no picture",)
    )
    with pytest.raises(ShardError, match=r"^sample s7: it is no picture"):
        next(BatchStream([RowSource([sample], 1, 0)], transform, recipe(train={"batch": 1})))


SOURCE, WORDS, CHAT, PROMPT = table("progresslm_rows").values()
ID = SOURCE["id"]


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "images" / ID
    folder.mkdir(parents=True)
    for k in (0, 15, 47, 56, 64, 80):
        Image.new("RGB", (32, 24), (k, 0, 0)).save(folder / f"camera_top_{k:04d}.jpg")
    return tmp_path / "images"


def write(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def read(tmp_path: Path, root: Path, row: object, form="no_think") -> Sample:
    return read_rows([write(tmp_path, row)], root, form)[0]


def shown(root: Path, *frames: int) -> tuple[bytes, ...]:
    return tuple((root / ID / f"camera_top_{k:04d}.jpg").read_bytes() for k in frames)


def test_a_source_in_words(tmp_path, root):
    sample = read(tmp_path, root, WORDS, "think")
    assert "4. [left] let go\nafter it: 100%" in sample.row["question"]
    assert truth_of(sample) == Truth(2, 50.0, 4)
    assert sample.pictures == shown(root, 56)


def test_a_prompt_of_rl_finds_its_pictures_on_this_machine(tmp_path, root):
    sample = read(tmp_path, root, PROMPT)
    assert sample.row["question"] == PROMPT["user_prompt"]
    assert sample.row["answer"] is None
    assert truth_of(sample) == Truth(1, 8.0, 5)
    assert sample.pictures == shown(root, 0, 80, 15)
    in_parts = [
        {"type": "text", "text": "Goal\n"},
        *[{"type": "image"}] * 3,
        {"type": "text", "text": "\nNow?"},
    ]
    prompt_row = PROMPT | {"user_prompt": "Goal\n\nNow?", "messages": in_parts}
    assert read(tmp_path, root, prompt_row).row["question"] == "Goal\n<image><image><image>\nNow?"


PUBLISHED = table("progresslm_published")


def published_rows(name: str) -> Iterator[dict[str, Any]]:
    for k in range(4):
        row = {"id": "bar/run", "task_goal": "pour the tea", "total_steps": "3"}
        row |= {"data_source": "bar", "closest_idx": f"{min(k, 2) + 1}"}
        row |= {"progress_score": f"{10 + 25 * k}%", "stage_to_estimate": ["camera_top_{:04d}.jpg"]}
        row |= PUBLISHED[name]
        stage = row["stage_to_estimate"]
        number = 12 + 30 * k
        if isinstance(stage, str):
            yield row | {"stage_to_estimate": stage.format(number)}
        else:
            yield row | {"stage_to_estimate": [s.format(number) for s in stage]}


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_of_every_published_file(tmp_path, name):
    rows = list(published_rows(name))
    root = tmp_path / "pictures/bar/run"
    root.mkdir(parents=True)
    for row in rows:
        stage = row["stage_to_estimate"]
        for file in (*row.get("visual_demo", ()), *([stage] if isinstance(stage, str) else stage)):
            (root / file).touch()
    samples = read_rows([write(tmp_path, *rows)], tmp_path / "pictures", "think")
    for row, truth in zip(rows, map(truth_of, samples), strict=True):
        assert truth.demo_count == len(row.get("text_demo") or row["visual_demo"])
        assert (truth.ref is None) == (row["closest_idx"] == "n/a")
        score = "n/a" if truth.score_percent is None else f"{truth.score_percent:g}%"
        assert row["progress_score"] == score
    is_crossed = "visual_cross" in name and not name.startswith("rl")
    assert {"another camera" in sample.row["question"] for sample in samples} == {is_crossed}


def broken_rows() -> Iterator[tuple[object, str]]:
    """Each with what is said of it."""
    yield '{"messages": [', "is no JSON"
    yield "[1]", "is no object"
    yield {"text": "hello"}, "has neither messages, user_prompt nor progress_score"
    rows = table("progresslm_rows")
    for name, changes, problem in table("wrong_progresslm_rows"):
        row = rows[name] | changes
        yield {key: value for key, value in row.items() if value is not None}, problem


@pytest.mark.parametrize(("row", "problem"), broken_rows())
def test_a_broken_row_is_named_with_its_line(tmp_path, root, row, problem):
    path = write(tmp_path, CHAT, "", row)
    with pytest.raises(TrainingError) as e:
        read_rows([path], root)
    assert problem in str(e.value)
    assert str(e.value).startswith(f"{path}:3: ")
    assert "\n" not in str(e.value)


def test_files_that_hold_nothing_no_text_or_no_label(tmp_path, root):
    with pytest.raises(TrainingError, match=r"rows.jsonl:1: a conversation has no"):
        truth_of(read(tmp_path, root, CHAT))
    with pytest.raises(TrainingError, match="there is no row"):
        read_rows([write(tmp_path, "")], root)
    with pytest.raises(TrainingError, match="cannot be read: No such file"):
        read_rows([tmp_path / "none.jsonl"], root)
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TrainingError, match="is no UTF-8"):
        read_rows([tmp_path / "b.jsonl"], root)


def test_a_picture_that_is_gone_names_the_row(tmp_path, root):
    rows = read_rows([write(tmp_path, SOURCE, CHAT)], root)
    (root / ID / "camera_top_0047.jpg").unlink()
    assert rows[1].pictures == shown(root, 0, 80, 15)
    with pytest.raises(TrainingError, match=r"rows.jsonl:1: .*camera_top_0047.jpg"):
        rows[0]
