"""The batches that a run is trained on: where they come from, and how they are divided among processes and workers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from training.data import BatchStream, Prepared, RowSource, SampleSource, ShardSource
from training.progresslm_data import read_rows
from training.recipe import Recipe
from training.transform import Transform
from training.workers import ParallelStream
from warehouse.shards.loader import Loader, LoaderConfig


class Batches(Iterator[Prepared], Protocol):
    """Batches without end and the state to go on from: a BatchStream or a ParallelStream."""

    per_epoch: float

    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: Mapping) -> None: ...


def open_batches(
    shards: Sequence[Path], transform: Transform, recipe: Recipe, rank: int = 0, world: int = 1
) -> Batches:
    """The part of the data of one of `world` processes, prepared there or by its workers. Raises ShardError."""

    def part(k: int, parts: int) -> BatchStream:
        return open_stream(shards, transform, recipe, rank * parts + k, world * parts)

    whole = part(0, 1)
    # A worker that shared its source with others would decode for them as well.
    workers = min(recipe.data.workers, len(shards) // world)
    if recipe.data.jsonl or workers < 1:
        return whole
    return ParallelStream(part, workers, whole.per_epoch)


def open_stream(
    shards: Sequence[Path], transform: Transform, recipe: Recipe, rank: int = 0, world: int = 1
) -> BatchStream:
    """The part of the data of one of `world` consumers. Raises ShardError."""
    data = recipe.data
    window = data.window or recipe.train.batch
    if data.jsonl:
        rows = read_rows(data.jsonl, data.image_root, "think" if data.think else "no_think")
        source: SampleSource = RowSource(rows, window, recipe.train.seed)
        return BatchStream(source, transform, recipe, rank, world)
    families = tuple(sorted(data.families))
    config = LoaderConfig(seed=recipe.train.seed, families=families, family_rates=data.families)
    # Too few shards to divide: each process reads all of them and takes every `world`-th batch.
    if world > len(shards):
        return BatchStream(ShardSource(Loader(shards, config), shards, window), transform, recipe, rank, world)
    own = Loader(shards, config, node=rank, num_nodes=world)
    return BatchStream(ShardSource(own, shards, window), transform, recipe)
