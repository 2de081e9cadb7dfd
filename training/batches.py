"""The batches that a run is trained on: without end, exactly resumable, divided among processes and workers.

They are prepared in the process that trains or by workers beside it.

A run's batches are numbered, and whatever the number of processes and of their workers, number n is the same batch:
consumer k of c prepares k, k + c, k + 2 c ... They come in turn from a few lanes, each a part of the data that is read
in windows of samples: a window's samples are sorted by length or packed into rows, and its batches are given in random
order. Lengths are planned from texts and picture headers by whoever takes a batch of a window; pictures are decoded by
the one consumer whose batch shows them.

Where a run stands is how many batches all consumers have given, and for each lane where the window of its last batch
began. That says nothing of who gave them, so any number of processes and workers can go on from it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import batched, chain, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.data import (
    SampleSource,
    Unread,
    augment,
    form_name,
    item_of,
    length_of,
    naming,
    open_lanes,
    worker_count,
)
from training.folder import TrainingError
from training.negatives.samples import Labels, SampleNegatives
from training.pictures import Item
from training.pixels import normalised, on_device
from training.recipe import AS_RECORDED, Recipe
from training.transform import Batch, Transform, pack
from warehouse.shards.shard import Sample, ShardError

NEGATIVES = 1  # of a window's chance: apart from that of its batches' order

# A window's samples as they are drawn: each changed into a negative, or as it was recorded
Change = Callable[[Sequence[Unread], np.random.Generator], list[Unread]]


@dataclass(frozen=True)
class Prepared:
    """One batch of one device. drawn: samples taken from the source for it; left_out of these were too long;
    samples and tokens (without padding) are what the batch holds; keys: of these samples; made: how many were made how,
    where the recipe has negatives; number: of the batch in the run. Its pictures are bytes: see training.pixels."""

    batch: Batch
    drawn: int
    left_out: int
    samples: int
    tokens: int
    keys: tuple[str, ...] = ()
    made: Mapping[str, int] = field(default_factory=dict)
    number: int = 0

    def pin_memory(self) -> "Prepared":
        """As torch's loader asks for, so that a GPU can fetch the batch by itself."""
        return replace(
            self, batch={name: tensor.pin_memory() for name, tensor in self.batch.items()}
        )


def placed(parts: Iterable[Prepared], device: torch.device) -> Iterator[tuple[Prepared, Batch]]:
    """Each part with its batch on the device; on a GPU, the next one is copied while this one is worked on."""
    if device.type != "cuda":
        yield from ((part, on_device(part.batch, device)) for part in parts)
        return
    copying, working = torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def started(part: Prepared) -> tuple[Prepared, Batch, Any]:
        with torch.cuda.stream(copying):
            batch = {
                name: tensor.to(device, non_blocking=True) for name, tensor in part.batch.items()
            }
            return part, batch, copying.record_event()

    # Of each pair the second is on its way already when the first is given.
    for upcoming, _ in pairwise(chain(map(started, parts), [None])):
        assert upcoming is not None
        part, batch, ready = upcoming
        working.wait_event(ready)
        for tensor in batch.values():
            tensor.record_stream(working)  # its memory is not given away while it is worked on
        yield part, normalised(batch)


# What a batch will show


@dataclass(frozen=True)
class _Plan:
    """The samples of a batch; those that were drawn for it, and how many of these were too long."""

    samples: list[Unread]
    drawn: int
    left_out: int


class _Lane:
    """The batches of one source, planned but not prepared. `number`: among a run's lanes."""

    def __init__(
        self,
        source: SampleSource,
        transform: Transform,
        recipe: Recipe,
        number: int,
        change: Change | None,
    ) -> None:
        self._source = source
        self._transform = transform
        self._recipe = recipe
        self._number = number
        self._change = change
        self._window: dict = source.state_dict()  # where the current window began
        self._began = 0  # batches before that window
        self._plans: list[_Plan] = []
        self._lengths: dict[int, int] = {}  # by number of the row: rows come again each epoch

    def state_dict(self) -> dict:
        """Where the window of the last batch began; JSON."""
        return {"window": self._window, "began": self._began}

    def load_state_dict(self, state: Mapping) -> None:
        self._window, self._began, self._plans = dict(state["window"]), int(state["began"]), []
        self._source.load_state_dict(self._window)

    def plan(self, k: int) -> _Plan:
        """Batch number k of this lane; only ever later ones can be asked for."""
        while k >= self._began + len(self._plans):
            self._window, self._began = self._source.state_dict(), self._began + len(self._plans)
            self._plans = self._next_plans()
        return self._plans[k - self._began]

    def _next_plans(self) -> list[_Plan]:
        """The batches of the source's next window that has any. Raises ShardError."""
        drawn = num_too_long = 0
        data = self._recipe.data
        seed = [self._recipe.train.seed, self._began, self._number]
        groups: list[list[Unread]] = []
        # Drawn by where the window began, so that a resumed run draws the same
        chance = np.random.default_rng([*seed, NEGATIVES])
        while not groups:
            window = self._source.window()
            groups, too_long = self._grouped(window, chance)
            drawn = drawn + len(window)
            num_too_long = num_too_long + too_long
            # Two epochs in which nothing fitted: there will be no batch, however long one waits.
            if not groups and drawn > 2 * self._source.per_epoch:
                if data.think is None:
                    form_note = ""
                else:
                    form_note = f", the others are not {form_name(data.think)}"
                raise ShardError(
                    f"no sample can be trained on: {num_too_long} of {drawn} have more than "
                    f"{data.sequence_length} tokens "
                    f"(data.sequence_length, model.max_pixels, model.max_vision_tokens){form_note}"
                )
        order = np.random.default_rng(seed).permutation(len(groups))
        plans = [_Plan(groups[place], len(groups[place]), 0) for place in order]
        # Samples that were drawn in vain are counted with the first batch.
        num_lost = drawn - sum(p.drawn for p in plans)
        plans[0] = replace(plans[0], drawn=plans[0].drawn + num_lost, left_out=num_too_long)
        return plans

    def _grouped(
        self, window: Sequence[Unread], chance: np.random.Generator
    ) -> tuple[list[list[Unread]], int]:
        """The samples of a window by batch, and how many were too long."""
        data = self._recipe.data
        # A sample that states no form is of any
        samples = [
            s
            for s in window
            if data.think is None or s.row.get("form") in (None, form_name(data.think))
        ]
        if self._change is not None:
            samples = self._change(samples, chance)
        # An entry holds many pictures that these samples do not show: it is let go
        samples = [replace(s, entry={}) for s in samples]
        groups: list[list[Unread]] = []
        for group in self._of_batches(list(map(self._length, samples))):
            groups.append([samples[k] for k in group])
        return groups, len(samples) - sum(map(len, groups))

    def _of_batches(self, lengths: Sequence[int]) -> Iterator[Iterable[int]]:
        """The numbers of samples by batch, packed, sorted by length or as they come. Samples that are too long are left
        out, never cut: an answer without its end would be learnt."""
        data = self._recipe.data
        size = self._recipe.train.batch
        fitting = [k for k, n in enumerate(lengths) if n <= data.sequence_length]
        if data.packing:
            return map(
                chain.from_iterable, batched(pack(fitting, lengths, data.sequence_length), size)
            )
        return batched(sorted(fitting, key=lengths.__getitem__) if data.window else fitting, size)

    def _length(self, sample: Unread) -> int:
        """Tokens of a sample, by its texts and the headers of its pictures."""
        if sample.number in self._lengths:
            return self._lengths[sample.number]
        length = length_of(sample, self._transform, self._recipe, sample.row["answer"])
        if sample.number is not None:
            self._lengths[sample.number] = length
        return length


# Batches


class BatchStream:
    """Batches of one consumer, without end: `first`, and then each `every`-th, of the run's.

    Batch n of the run is number n // lanes of lane n % lanes.
    """

    def __init__(
        self,
        sources: Sequence[SampleSource],
        transform: Transform,
        recipe: Recipe,
        first: int = 0,
        every: int = 1,
        change: Change | None = None,
    ) -> None:
        self._lanes = [
            _Lane(source, transform, recipe, k, change) for k, source in enumerate(sources)
        ]
        self.lanes = len(self._lanes)
        self._transform = transform
        self._recipe = recipe
        self._first = first
        self._every = every
        # Decoded items by sample, up to so many bytes; what came first stays
        self._kept: dict[str, Item] = {}
        self._room = recipe.data.cache_mb << 20
        self._given = 0  # of all consumers, each of which gives a batch in turn
        self.per_epoch = sum(source.per_epoch for source in sources)
        self.last: dict[str, dict] = {}  # the state of the lane of the last batch, by its number
        self._states: dict[str, dict] = {}

    def state_dict(self) -> dict:
        """Where the run stands once all consumers have given as many batches as this one; JSON. See `together`."""
        return {"given": self._given, "lanes": dict(self._states), "count": self.lanes}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from a state of all consumers together, however many they were. Raises ShardError."""
        if state["count"] != self.lanes:
            raise ShardError(
                f"the run was begun with {state['count']} lanes of data, now there are {self.lanes}"
            )
        self._given, self._states = int(state["given"]), dict(state["lanes"])
        for name, lane_state in self._states.items():
            self._lanes[int(name)].load_state_dict(lane_state)

    def __iter__(self) -> Iterator[Prepared]:
        return self

    def __next__(self) -> Prepared:
        number = next_number(self._given, self._first, self._every)
        lane = self._lanes[number % self.lanes]
        plan = lane.plan(number // self.lanes)
        self._given += self._every
        self.last = {str(number % self.lanes): lane.state_dict()}
        self._states |= self.last
        items = [self._item(sample) for sample in plan.samples]
        if self._recipe.data.augment:
            # Drawn by the batch's number in the run: no two consumers draw the same.
            rng = np.random.default_rng([self._recipe.train.seed, number])
            items = [augment(i, rng) for i in items]
        packed = self._recipe.data.packing
        batch = self._transform.as_bytes(items, packed)
        tokens = int(batch["item_mask" if packed else "attention_mask"].sum())
        keys = tuple(map(_key, plan.samples))
        negatives = Counter(s.row["negative"] for s in plan.samples if "negative" in s.row)
        return Prepared(
            batch, plan.drawn, plan.left_out, len(items), tokens, keys, negatives, number
        )

    def _item(self, sample: Unread) -> Item:
        # What was changed is hardly ever made again
        key = sample.row.get("sample_id", "") if _is_recorded(sample) else ""
        if key in self._kept:
            return self._kept[key]
        with naming(sample):
            item = item_of(Sample(dict(sample.row), sample.pictures()), self._recipe.model.max_px)
        if key and (size := sum(p.nbytes for p in item.pictures)) <= self._room:
            self._room -= size
            self._kept[key] = item
        return item


def _is_recorded(sample: Unread) -> bool:
    return sample.row.get("negative", AS_RECORDED) == AS_RECORDED


def _key(sample: Unread) -> str:
    """What a batch's samples are called, for people: the sample, and how it was changed."""
    key = str(sample.row.get("sample_id", ""))
    if _is_recorded(sample):
        return key
    return f"{key} {sample.row['negative']}"


def next_number(number: int, first: int, stride: int) -> int:
    """The next batch of a consumer, once so many were given by all: the first from there on that is one of its own."""
    return number + (first - number) % stride


def together(states: Sequence[Mapping]) -> dict:
    """One state of the states of all consumers, which have given as many batches each. Raises
    ShardError.

    A consumer knows the lanes that it took batches of: a lane stands where the furthest of them
    says.
    """
    counts = {state["given"] for state in states}
    if len(counts) != 1 or len({state["count"] for state in states}) != 1:
        raise ShardError(
            f"the states are not of one moment of a run: {sorted(counts)} batches were given"
        )
    lanes = chain.from_iterable(state["lanes"].items() for state in states)
    return {**states[0], "lanes": dict(sorted(lanes, key=lambda lane: lane[1]["began"]))}


NO_LABELS: Labels = MappingProxyType({})


class _Parts(IterableDataset):
    """In each worker, its own stream; a batch travels with the state of the lane that it came from.

    The torch loader asks worker 0, 1, ... in turn. The parts are dealt out such that worker 0 has the one whose turn it
    is at `turn`.
    """

    def __init__(self, make: Callable[[int, int], BatchStream], state: Mapping, turn: int) -> None:
        self._make = make
        self._state = state
        self._turn = turn

    def __iter__(self) -> Iterator[tuple[Prepared | ShardError | TrainingError, dict[str, dict]]]:
        worker = get_worker_info()
        assert worker is not None
        try:
            stream = self._make((worker.id + self._turn) % worker.num_workers, worker.num_workers)
            stream.load_state_dict(self._state)
            for prepared in stream:
                yield prepared, stream.last
        except (
            ShardError,
            TrainingError,
        ) as e:  # raised, it would arrive with the worker's traceback in its message
            yield e, {}


class ParallelStream:
    """Takes a BatchStream's place, as process `rank` of `world`; `whole` is what it would be by itself.

    `make(k, n)` gives part k of n of this process's data: batches rank + world k of each world n. Each lives in a
    worker. On a machine with a GPU, batches lie in pinned memory.
    """

    def __init__(
        self,
        make: Callable[[int, int], BatchStream],
        workers: int,
        whole: BatchStream,
        rank: int,
        world: int,
    ) -> None:
        self._make = make
        self._workers = workers
        self._rank = rank
        self._world = world
        self.per_epoch = whole.per_epoch
        self._state = whole.state_dict()
        self._batches: Iterator[Any] | None = None

    def state_dict(self) -> dict:
        """As a BatchStream's: it says nothing of the workers."""
        return {**self._state, "lanes": dict(self._state["lanes"])}

    def load_state_dict(self, state: Mapping) -> None:
        self._state = {**state, "lanes": dict(state["lanes"])}
        self._batches = None

    def __iter__(self) -> Iterator[Prepared]:
        return self

    def __next__(self) -> Prepared:
        if self._batches is None:
            self._batches = self._started()
        prepared, lane = next(self._batches)
        if not isinstance(prepared, Prepared):
            raise prepared
        self._state["lanes"] |= lane
        self._state["given"] += self._world
        return prepared

    def _started(self) -> Iterator[Any]:
        turn = next_number(self._state["given"], self._rank, self._world) // self._world
        loader = DataLoader(
            _Parts(self._make, self.state_dict(), turn),
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=2,
            pin_memory=torch.cuda.is_available(),
        )
        # There is a worker for each core. OpenCV is told before they start: a worker that came into being beside its
        # threads would wait for them for ever, since a process is copied without its threads.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return iter(loader)
        finally:
            cv2.setNumThreads(threads)


Batches = BatchStream | ParallelStream


def open_batches(
    shards: Sequence[Path],
    transform: Transform,
    recipe: Recipe,
    rank: int = 0,
    world: int = 1,
    labels: Labels = NO_LABELS,
) -> Batches:
    """The part of the data of one of `world` processes, prepared there or by its workers. `labels` of the shards'
    episodes are what negatives are made by. Raises ShardError."""

    def part(k: int, parts: int) -> BatchStream:
        return open_stream(shards, transform, recipe, rank + world * k, world * parts, labels)

    whole = part(0, 1)
    workers = worker_count(recipe.data.workers, world, whole.lanes)
    if workers:
        return ParallelStream(part, workers, whole, rank, world)
    return whole


def open_stream(
    shards: Sequence[Path],
    transform: Transform,
    recipe: Recipe,
    first: int = 0,
    stride: int = 1,
    labels: Labels = NO_LABELS,
) -> BatchStream:
    """Batches `first`, `first + every` ... of the run: the part of one of `stride` consumers. Raises ShardError."""
    negatives = recipe.data.negatives
    change = SampleNegatives(negatives, labels) if negatives.total > 0 else None
    return BatchStream(open_lanes(shards, recipe), transform, recipe, first, stride, change)
