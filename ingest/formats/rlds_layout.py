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
from ingest.formats.side_files import parse_json
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


Lengths = dict[str, list[int | None]]  # records of each shard, by split; None where dataset_info.json does not say


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
    for folder, files in described.items():
        if len(files) == 2:
            names.setdefault(_config(folder), "")
    return names


def find_shards(listing: ListingBuilder) -> list[Shard]:
    """Shards of the newest version of each configuration, in order of key. Reads dataset_info.json, no shard."""
    folders = _shards_by_folder(listing.source)
    # A dataset may lie there in several versions, with equal episodes: only the newest is read
    newest: dict[str, str] = {}  # by configuration: the folder of its newest version
    for folder in folders:
        config = _config(folder)
        newest[config] = max(newest.get(config, folder), folder, key=_version)

    # What else lies in the newest version's folder is sorted out by its metadata
    shards: list[Shard] = []
    for folder, candidates in folders.items():
        newest_folder = newest[_config(folder)]
        if folder == newest_folder:
            shards += _Version(listing, folder).shards(candidates)
        else:
            detail = f"an older version beside {newest_folder.rpartition('/')[2]}; not read"
            listing.warn("stray_file", detail, file=folder)
    return sorted(shards, key=lambda s: s.key)


def _shards_by_folder(source: Source) -> dict[str, list[Shard]]:
    folders: dict[str, list[Shard]] = defaultdict(list)
    for uri in source.files:
        folder, _, name = uri.rpartition("/")
        match = SHARD.match(name)
        if match:
            config = f"{_config(folder)}/".lstrip("/")
            key = f"{config}{match['split']}/{name}"
            number, count = int(match["number"] or 0), int(match["count"] or 1)
            folders[folder].append(Shard(uri, key, match["split"], number, count))
    return folders


def _config(folder: str) -> str:
    """The folder that versions of one configuration share."""
    above, _, name = folder.rpartition("/")
    return above if VERSION.match(name) else folder


def _version(folder: str) -> tuple[int, ...]:
    name = folder.rpartition("/")[2]
    return tuple(map(int, name.split("."))) if VERSION.match(name) else ()


class _Version:
    """The folder of one version, and which of its files are shards of it."""

    def __init__(self, listing: ListingBuilder, folder: str) -> None:
        self.listing = listing
        self.folder = folder
        self.info_uri = f"{folder}/{INFO}".lstrip("/")

    def shards(self, candidates: list[Shard]) -> list[Shard]:
        """Those that dataset_info.json names, with their lengths; all, of the commonest numbering, without it."""
        lengths = self._lengths()
        # Shards are numbered within their split
        splits: dict[str, list[Shard]] = defaultdict(list)
        for shard in candidates:
            splits[shard.split].append(shard)

        # What dataset_info.json says counts, where it says anything of splits
        shards: list[Shard] = []
        for split, parts in splits.items():
            if not lengths or split in lengths:
                shards += self._of_split(split, parts, lengths.get(split))
                continue
            for shard in parts:
                self.listing.warn("stray_file", f"{INFO} names no split {split}; not read", file=shard.uri)

        # A split without any file shows that the copy is not complete
        for split in filter(lambda name: name not in splits, lengths):
            self.listing.warn("no_data", f"no shard of split {split} is there", file=self.info_uri)
        return shards

    def _of_split(self, split: str, parts: list[Shard], lengths: list[int | None] | None) -> list[Shard]:
        """The shards of one split that are of one numbering, with findings about other files and missing shards."""
        # Files of two numberings may lie there: one of them is taken
        count = _count(parts, lengths)
        if lengths and count != len(lengths):
            detail = f"names {len(lengths)} shards of {split}, the files say {count}"
            self.listing.warn("length_differs", detail, file=self.info_uri)
            lengths = None

        # Files of the other numbering, and numbers beyond the count, are left out
        shards: list[Shard] = []
        for shard in parts:
            if shard.count != count or shard.number >= count:
                detail = f"not one of the {count} shards of {split}; not read"
                self.listing.warn("stray_file", detail, file=shard.uri)
            else:
                shards.append(replace(shard, length=lengths[shard.number] if lengths else None))
        self._check_complete(split, count, {shard.number for shard in shards})
        return shards

    def _check_complete(self, split: str, count: int, numbers: set[int]) -> None:
        """Find the numbers that are missing; the first of them are named."""
        num_missing = count - len(numbers)
        if num_missing <= 0:
            return
        missing = islice((n for n in range(count) if n not in numbers), MAX_NAMED)
        named = ", ".join(f"{n:05d}" for n in missing)
        more = ", ..." if num_missing > MAX_NAMED else ""
        detail = f"{num_missing} of {count} shards of {split} are not there: {named}{more}"
        self.listing.warn("no_data", detail, file=self.folder or self.info_uri)

    def _lengths(self) -> Lengths:
        """Records of each shard by split; {} when dataset_info.json does not say."""
        info, problem = described(self.listing.source, self.info_uri)
        if problem:
            detail = f"{problem}; splits and shards are taken from the files"
            self.listing.warn("no_metadata", detail, file=self.info_uri)
        stored = info.get("splits")
        return _stated_lengths(stored) if isinstance(stored, list) else {}


def _stated_lengths(splits: list[Any]) -> Lengths:
    """Records of each shard, of those splits that are given by name and shards; None for what is no count."""
    lengths: Lengths = {}
    for split in filter(_is_object, splits):
        name, stated = split.get("name"), split.get("shardLengths")
        if isinstance(name, str) and isinstance(stated, list) and stated:
            lengths[name] = [int(n) if COUNT.match(str(n)) else None for n in stated]
    return lengths


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _count(parts: list[Shard], lengths: list[int | None] | None) -> int:
    """How many shards a split has: as dataset_info.json says where any file agrees, else as most files say."""
    counts = Counter(shard.count for shard in parts)
    if lengths and len(lengths) in counts:
        return len(lengths)
    return max(counts, key=lambda count: (counts[count], count))


def described(source: Source, uri: str) -> tuple[dict[str, Any], str]:
    """The object in one of TFDS's files; else {} and what is wrong, for a finding that says what is done instead."""
    if uri not in source.files:
        return {}, "is not there"
    # Before all of it is read into memory
    if source.files[uri].size > source.config.limits.max_file_bytes:
        return {}, f"has {source.files[uri].size:,} bytes, over the limit (limits.max_file_bytes of the registry entry)"
    try:
        content = parse_json(source.resolve(uri).read_bytes())
    except (OSError, ValueError) as e:
        return {}, f"cannot be read: {e}"
    # An empty object says no more than a file that is not there
    if not isinstance(content, dict) or not content:
        return {}, "holds no object"
    return content, ""
