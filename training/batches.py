"""The batches that a run is trained on: where they come from, and how they are divided among processes and workers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from training.data import BatchStream, Prepared, SampleSource, row_lanes, shard_lanes
from training.labels import Labels
from training.negatives.samples import SampleNegatives
from training.progresslm_data import read_rows
from training.recipe import Recipe
from training.transform import Transform
from training.workers import ParallelStream
from warehouse.shards.loader import LoaderConfig

NO_LABELS: Labels = MappingProxyType({})


class Batches(Iterator[Prepared], Protocol):
    """Batches without end and the state to go on from: a BatchStream or a ParallelStream."""

    per_epoch: float

    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: Mapping) -> None: ...


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
    return ParallelStream(part, workers, whole.per_epoch, whole.lanes, rank, world) if workers else whole


def needs_labels(recipe: Recipe) -> bool:
    """Does training show moments that no sample asks about, or compare runs of a task?"""
    return recipe.data.negatives.total > 0 or recipe.data.preferences.total > 0


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
    data = recipe.data
    window = data.window or recipe.train.batch
    sources: Sequence[SampleSource]
    if data.jsonl:
        rows = read_rows(data.jsonl, data.image_root, "think" if data.think else "no_think")
        sources = row_lanes(rows, window, recipe.train.seed)
    else:
        families = tuple(sorted(data.families))
        config = LoaderConfig(
            seed=recipe.train.seed,
            families=families,
            per_visit=data.per_visit,
            dataset_rates=data.dataset_rates,
            family_rates=data.families,
        )
        sources = shard_lanes(shards, config, window)
    change = SampleNegatives(data.negatives, labels) if data.negatives.total > 0 else None
    return BatchStream(sources, transform, recipe, first, every, change)
