"""The batches of a run as its processes get them, prepared in the process that trains or by workers beside it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.batches import BatchStream, Prepared, next_number
from training.data import SampleSource, form_name, row_lanes, shard_lanes
from training.folder import TrainingError
from training.negatives.samples import Labels, SampleNegatives
from training.progresslm_data import read_rows
from training.recipe import Recipe
from training.transform import Transform
from warehouse.shards.loader import LoaderConfig
from warehouse.shards.shard import ShardError

NO_LABELS: Labels = MappingProxyType({})


class _Parts(IterableDataset):
    """In each worker, its own stream; a batch travels with the state of the lane that it came from.

    The torch loader asks worker 0, 1, ... in turn. The parts are dealt out such that worker 0 has the one whose turn it
    is at `turn`.
    """

    def __init__(self, make: Callable[[int, int], BatchStream], state: Mapping, turn: int) -> None:
        self._make, self._state, self._turn = make, state, turn

    def __iter__(self) -> Iterator[tuple[Prepared | ShardError | TrainingError, dict[str, dict]]]:
        worker = get_worker_info()
        assert worker is not None
        try:
            stream = self._make((worker.id + self._turn) % worker.num_workers, worker.num_workers)
            stream.load_state_dict(self._state)
            for prepared in stream:
                yield prepared, stream.last
        except (ShardError, TrainingError) as e:  # raised, it would arrive with the worker's traceback in its message
            yield e, {}


class ParallelStream:
    """Takes a BatchStream's place, as process `rank` of `world`; `whole` is what it would be by itself.

    `make(k, n)` gives part k of n of this process's data: batches rank + world k of each world n. Each lives in a
    worker. On a machine with a GPU, batches lie in pinned memory.
    """

    def __init__(
        self, make: Callable[[int, int], BatchStream], workers: int, whole: BatchStream, rank: int, world: int
    ) -> None:
        self._make, self._workers, self._rank, self._world = make, workers, rank, world
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
    return ParallelStream(part, workers, whole, rank, world) if workers else whole


def worker_count(wanted: int, world: int, lanes: int) -> int:
    """The most workers, of those wanted, that share out lanes evenly: each its own, or as many to each lane.

    Others would plan, though not decode, what is not theirs.
    """
    even = [n for n in range(1, wanted + 1) if lanes % (world * n) == 0 or (world * n) % lanes == 0]
    return max(even, default=wanted)


def open_stream(
    shards: Sequence[Path],
    transform: Transform,
    recipe: Recipe,
    first: int = 0,
    every: int = 1,
    labels: Labels = NO_LABELS,
) -> BatchStream:
    """Batches `first`, `first + every` ... of the run: the part of one of `every` consumers. Raises ShardError."""
    data, seed = recipe.data, recipe.train.seed
    window = data.window or recipe.train.batch
    sources: Sequence[SampleSource]
    if data.jsonl:
        sources = row_lanes(read_rows(data.jsonl, data.image_root, form_name(bool(data.think))), window, seed)
    else:
        config = LoaderConfig(
            seed=seed,
            families=tuple(sorted(data.families)),
            per_visit=data.per_visit,
            dataset_rates=data.dataset_rates,
            family_rates=data.families,
        )
        sources = shard_lanes(shards, config, window)
    change = SampleNegatives(data.negatives, labels) if data.negatives.total > 0 else None
    return BatchStream(sources, transform, recipe, first, every, change)
