"""Are shards, and the indexes beside them, as they were written?"""

from collections.abc import Iterator
from pathlib import Path

from core.files import sha256_file
from warehouse.shards.shard import (
    Index,
    ShardError,
    expand,
    lists_of,
    read_entry,
    read_index,
    read_range,
    shard_name,
)


def check_shard(tar: Path, sha256: str, size: int, *, read: bool = True) -> list[str]:
    """The problem with a tar or its index, in words; empty: both are as they were written, or look so where the tar is
    not `read`."""
    wrong = list(filter(None, [glance(tar, size)]))
    if wrong and not read:
        return wrong
    try:
        if read and not wrong and (real := sha256_file(tar)) != sha256:
            wrong = [f"is damaged: its sha256 is {real[:12]}... instead of {sha256[:12]}..."]
        return wrong + _wrong_index(tar, sha256, size, read=read and not wrong)
    except ShardError as e:
        return [*wrong, str(e)]
    except ValueError:
        return [*wrong, "has more or fewer entries than its index says"]


def _wrong_index(tar: Path, sha256: str, size: int, *, read: bool) -> list[str]:
    index = read_index(tar)
    # Entries are looked at only where the tar is the one that the index describes
    name = shard_name(index.dataset, index.chunk, index.split, index.sha256)
    if (index.sha256, index.size, index.shard, name) != (sha256, size, tar.name, tar.name):
        return ["has the index of another tar"]
    if read:
        return list(_wrong_entries(tar, index))
    return []


def glance(tar: Path, size: int) -> str:
    """The problem with a tar as far as its size shows; empty: none."""
    if not tar.exists():
        return "is not there"
    real_size = tar.stat().st_size
    if real_size != size:
        return f"has {real_size} bytes instead of {size}: cut off, or not the same file"
    return ""


def _wrong_entries(tar: Path, index: Index) -> Iterator[str]:
    """Entries of a tar that its index does not describe. Raises ShardError, and ValueError for another number."""
    end = 0
    for entry in index.entries:
        rows, pictures = read_entry(tar, entry)
        is_described = all(
            values == getattr(entry, name) for name, values in lists_of(rows).items()
        )
        if not is_described or entry.offset != end:
            yield f"has other samples in {entry.key} than its index says"
        for row in rows:
            expand(row, pictures)
        end = entry.offset + entry.size
    # Entries lie one after another, and behind the last is nothing but the end of the tar
    if any(read_range(tar, end, index.size - end)):
        raise ValueError("more entries")
