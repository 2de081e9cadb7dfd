"""A shard again without some episodes: without their samples, and without those of others that show them."""

import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from core.paths import Workspace
from warehouse.shards.shard import (
    EntryContent,
    Index,
    ShardError,
    named_picture,
    read_entry,
    read_index,
    shards_stage,
)


def cut_shard(
    workspace: Workspace, tar: Path, episodes: Collection[int], store: str | None
) -> dict[str, pa.Table]:
    """Write a tar like `tar` without some episodes; returns the rows that record it, none where
    nothing is left.

    Equal content has equal bytes: it is the tar of a build that never saw those episodes. `store`:
    where both lie, see Workspace.shard. Raises ShardError.
    """
    index = read_index(tar)
    entries = ((index.split, entry) for entry in _kept_entries(tar, index, episodes))
    return shards_stage(workspace, index.dataset, index.chunk, entries, sys.maxsize, store)


def _kept_entries(tar: Path, index: Index, episodes: Collection[int]) -> Iterator[EntryContent]:
    for entry in index.entries:
        number = int(entry.key.rpartition("-")[2])
        if number in episodes:
            continue
        rows, pictures = read_entry(tar, entry)
        samples = [_as_stored(tar, number, row) for row in rows]
        kept_samples = [sample for sample in samples if not _shows(sample, episodes)]
        if kept_samples:
            yield EntryContent(index.dataset, number, kept_samples, pictures)


def _as_stored(tar: Path, episode: int, row: Mapping) -> dict:
    """A sample of an entry with its pictures as the table `samples` names them. Raises ShardError."""
    pictures = [named_picture(episode, name) for name in row["pictures"]]
    if None in pictures:
        raise ShardError(f"shard {tar.name}: sample {row['sample_id']} shows what names no picture")
    return {**row, "pictures": pictures}


def _shows(sample: Mapping, episodes: Collection[int]) -> bool:
    return any(picture["episode_index"] in episodes for picture in sample["pictures"])
