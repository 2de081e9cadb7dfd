"""What a TFDS folder holds: versions, splits and shards, by file names and dataset_info.json.

[<config>/]<version>/{dataset_info.json, features.json, <name>-<split>.tfrecord-00000-of-00012}
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ingest.formats.listing import ListingBuilder
from ingest.formats.side_files import read_json
from ingest.reasons import DataError
from ingest.sources.files import Source

SHARD = re.compile(r"^(?:.*-)?(?P<split>[^-]+)\.tfrecord(?:-(?P<number>\d{5,9})-of-(?P<count>\d{5,9}))?$")
COUNT = re.compile(r"^[0-9]{1,15}$")
VERSION = re.compile(r"^\d+\.\d+\.\d+$")
MAX_NAMED = 5  # missing shards, in one message
FEATURES, INFO = "features.json", "dataset_info.json"


@dataclass(frozen=True)
class Shard:
    """`key` names it whatever folder or version it lies in; `length`: records by dataset_info.json, where it says."""

    uri: str
    key: str
    split: str
    number: int
    count: int
    length: int | None = None

    @property
    def folder(self) -> str:
        """That of the version, '' or ending in '/'."""
        return self.uri[: self.uri.rfind("/") + 1]


def configurations(uris: Iterable[str]) -> dict[str, str]:
    """The folders of configurations, and what their shards call the dataset; "" where there is no shard."""
    names: dict[str, str] = {}
    described: dict[str, set[str]] = defaultdict(set)  # which of both descriptions a folder has
    for uri in uris:
        folder, _, name = uri.rpartition("/")
        if match := SHARD.match(name):
            names[_config(folder)] = name[: match.start("split")]
        elif name in (FEATURES, INFO):
            described[folder].add(name)
    return {_config(folder): "" for folder, files in described.items() if len(files) == 2} | names


def find_shards(listing: ListingBuilder) -> list[Shard]:
    """Shards of the newest version of each configuration, in order of key. Reads dataset_info.json, no shard."""
    folders: dict[str, list[Shard]] = defaultdict(list)
    for uri in listing.source.files:
        folder, _, name = uri.rpartition("/")
        if match := SHARD.match(name):
            config = f"{_config(folder)}/".lstrip("/")
            number, count = int(match["number"] or 0), int(match["count"] or 1)
            folders[folder].append(Shard(uri, f"{config}{match['split']}/{name}", match["split"], number, count))
    # A dataset may lie there in several versions, with equal episodes: only the newest is read
    newest: dict[str, str] = {}  # by configuration: the folder of its newest version
    for folder in folders:
        newest[_config(folder)] = max(newest.get(_config(folder), folder), folder, key=_version)
    shards: list[Shard] = []
    for folder, candidates in folders.items():
        newest_folder = newest[_config(folder)]
        if folder == newest_folder:
            shards += _of_version(listing, folder, candidates)
        else:
            detail = f"an older version beside {newest_folder.rpartition('/')[2]}; not read"
            listing.warn("stray_file", detail, file=folder)
    return sorted(shards, key=lambda s: s.key)


def _config(folder: str) -> str:
    """The folder that versions of one configuration share."""
    above, _, name = folder.rpartition("/")
    return above if VERSION.match(name) else folder


def _version(folder: str) -> tuple[int, ...]:
    name = folder.rpartition("/")[2]
    return tuple(map(int, name.split("."))) if VERSION.match(name) else ()


def _of_version(listing: ListingBuilder, folder: str, candidates: list[Shard]) -> list[Shard]:
    """Those that dataset_info.json names, with their lengths; all, of the commonest numbering, without it."""
    info_uri = f"{folder}/{INFO}".lstrip("/")
    info, problem = described(listing.source, info_uri)
    if problem:
        listing.warn("no_metadata", f"{problem}; splits and shards are taken from the files", file=info_uri)
    lengths = _stated_lengths(info.get("splits"))
    # Shards are numbered within their split
    splits: dict[str, list[Shard]] = defaultdict(list)
    for shard in candidates:
        splits[shard.split].append(shard)
    # What dataset_info.json says counts, where it says anything of splits
    shards: list[Shard] = []
    for split, parts in splits.items():
        if not lengths or split in lengths:
            shards += _of_split(listing, folder, split, parts, lengths.get(split))
            continue
        for shard in parts:
            listing.warn("stray_file", f"{INFO} names no split {split}; not read", file=shard.uri)
    # A split without any file shows that the copy is not complete
    for split in sorted(lengths.keys() - splits.keys()):
        listing.warn("no_data", f"no shard of split {split} is there", file=info_uri)
    return shards


def _of_split(
    listing: ListingBuilder, folder: str, split: str, parts: list[Shard], lengths: list[int | None] | None
) -> list[Shard]:
    """The shards of one split that are of one numbering, with findings about other files and missing shards."""
    info_uri = f"{folder}/{INFO}".lstrip("/")
    # Of files of two numberings those of the one in dataset_info.json are taken, else of the commonest
    counts = Counter(shard.count for shard in parts)
    stated = len(lengths or ())
    count = stated if stated in counts else max(counts, key=lambda count: (counts[count], count))
    if lengths and count != stated:
        listing.warn("length_differs", f"names {stated} shards of {split}, the files say {count}", file=info_uri)
        lengths = None
    # Files of the other numbering, and numbers beyond the count, are left out
    shards: list[Shard] = []
    for shard in parts:
        if shard.count != count or shard.number >= count:
            listing.warn("stray_file", f"not one of the {count} shards of {split}; not read", file=shard.uri)
        else:
            shards.append(replace(shard, length=lengths[shard.number] if lengths else None))
    numbers = {shard.number for shard in shards}
    if (num_missing := count - len(numbers)) > 0:
        # A count of nine digits may be claimed: only the first numbers that lack are looked for
        missing = [f"{n:05d}" for n in islice((n for n in range(count) if n not in numbers), MAX_NAMED)]
        more = ", ..." if num_missing > MAX_NAMED else ""
        detail = f"{num_missing} of {count} shards of {split} are not there: {', '.join(missing)}{more}"
        listing.warn("no_data", detail, file=folder or info_uri)
    return shards


def _stated_lengths(splits: Any) -> dict[str, list[int | None]]:
    """Records of each shard, of those splits that are given by name and shards; None for what is no count."""
    lengths: dict[str, list[int | None]] = {}
    for split in splits if isinstance(splits, list) else ():
        name, stated = (split.get("name"), split.get("shardLengths")) if isinstance(split, dict) else (None, None)
        if isinstance(name, str) and isinstance(stated, list) and stated:
            lengths[name] = [int(n) if COUNT.match(str(n)) else None for n in stated]
    return lengths


def described(source: Source, uri: str) -> tuple[dict[str, Any], str]:
    """The object in one of TFDS's files; else {} and what is wrong, for a finding that says what is done instead."""
    if uri not in source.files:
        return {}, "is not there"
    try:
        content = read_json(source, uri)
    except DataError as e:
        return {}, f"cannot be read: {e}"
    # An empty object says no more than a file that is not there
    return (content, "") if isinstance(content, dict) and content else ({}, "holds no object")
