"""What a TFDS folder holds: versions, splits and shards, by file names and dataset_info.json.

[<config>/]<version>/{dataset_info.json, features.json, <name>-<split>.tfrecord-00000-of-00012}
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from ingest.episode import Finding
from ingest.formats.side_files import parse_json
from ingest.sources.files import Source

SHARD = re.compile(r"^(?:.*-)?(?P<split>[^-]+)\.tfrecord(?:-(?P<number>\d{5,9})-of-(?P<count>\d{5,9}))?$")
COUNT = re.compile(r"^[0-9]{1,15}$")
VERSION = re.compile(r"^\d+\.\d+\.\d+$")
MAX_JSON_BYTES = 1 << 26
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


@dataclass
class Layout:
    shards: list[Shard] = field(default_factory=list)  # in order of key
    findings: list[Finding] = field(default_factory=list)

    def warn(self, reason: str, detail: str, file: str) -> None:
        self.findings.append(Finding(reason, detail, "warning", file=file))


def has_layout(source: Source) -> bool:
    names = source.by_name
    return (FEATURES in names and INFO in names) or any(SHARD.match(n) for n in names)


def layout_of(source: Source) -> Layout:
    """Shards of the newest version of each configuration. Reads dataset_info.json, no shard."""
    layout = Layout()
    folders: dict[str, list[Shard]] = defaultdict(list)
    for uri in source.files:
        folder, _, name = uri.rpartition("/")
        if found := SHARD.match(name):
            config = f"{_config(folder)}/".lstrip("/")
            number, count = int(found["number"] or 0), int(found["count"] or 1)
            folders[folder].append(Shard(uri, f"{config}{found['split']}/{name}", found["split"], number, count))
    newest: dict[str, str] = {}
    for folder in folders:
        before = newest.setdefault(_config(folder), folder)
        newest[_config(folder)] = max(before, folder, key=_version)
    for folder, shards in folders.items():
        if newest[_config(folder)] == folder:
            layout.shards += _named(source, folder, shards, layout)
        else:
            other = newest[_config(folder)].rpartition("/")[2]
            layout.warn("stray_file", f"an older version beside {other}; not read", folder)
    layout.shards.sort(key=lambda s: s.key)
    return layout


def _config(folder: str) -> str:
    """The folder that versions of one configuration share."""
    above, _, name = folder.rpartition("/")
    return above if VERSION.match(name) else folder


def _version(folder: str) -> tuple[int, ...]:
    name = folder.rpartition("/")[2]
    return tuple(map(int, name.split("."))) if VERSION.match(name) else ()


def _named(source: Source, folder: str, shards: list[Shard], layout: Layout) -> list[Shard]:
    """The shards that dataset_info.json names, with their lengths; all, of the commonest numbering, without it."""
    info_uri = f"{folder}/{INFO}".lstrip("/")
    lengths = _shard_lengths(source, info_uri, layout)
    splits: dict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        splits[shard.split].append(shard)
    kept: list[Shard] = []
    for split, parts in splits.items():
        known = lengths.get(split)
        if lengths and known is None:
            for s in parts:
                layout.warn("stray_file", f"{INFO} names no split {split}; not read", s.uri)
            continue
        counts = Counter(s.count for s in parts)
        count = len(known) if known and len(known) in counts else max(counts, key=lambda c: (counts[c], c))
        if known and count != len(known):
            layout.warn("length_differs", f"names {len(known)} shards of {split}, the files say {count}", info_uri)
            known = None
        for s in parts:
            if s.count != count or s.number >= count:
                layout.warn("stray_file", f"not one of the {count} shards of {split}; not read", s.uri)
            else:
                kept.append(replace(s, length=known[s.number] if known else None))
        there = {s.number for s in parts if s.count == count and s.number < count}
        if len(there) < count:
            missing = islice((n for n in range(count) if n not in there), 5)
            shown = ", ".join(f"{n:05d}" for n in missing) + (", ..." if count - len(there) > 5 else "")
            detail = f"{count - len(there)} of {count} shards of {split} are not there: {shown}"
            layout.warn("no_data", detail, folder or info_uri)
    for split in lengths.keys() - splits.keys():
        if lengths[split]:
            layout.warn("no_data", f"no shard of split {split} is there", info_uri)
    return kept


def _shard_lengths(source: Source, uri: str, layout: Layout) -> dict[str, list[int | None]]:
    """Records of each shard by split; {} when dataset_info.json does not say."""
    info, problem = read_json(source, uri)
    if problem:
        layout.warn("no_metadata", f"{problem}; splits and shards are taken from the files", uri)
    lengths: dict[str, list[int | None]] = {}
    splits = info.get("splits")
    for split in splits if isinstance(splits, list) else ():
        if isinstance(split, dict) and isinstance(split.get("name"), str):
            stated = split.get("shardLengths")
            if isinstance(stated, list) and stated:
                lengths[split["name"]] = [int(n) if COUNT.match(str(n)) else None for n in stated]
    return lengths


def read_json(source: Source, uri: str) -> tuple[dict[str, Any], str]:
    """A JSON object, or {} and what is wrong."""
    if uri not in source.files:
        return {}, "is not there"
    if source.files[uri].size > MAX_JSON_BYTES:
        return {}, f"has {source.files[uri].size} bytes"
    try:
        found = parse_json(source.resolve(uri).read_bytes())
    except (OSError, ValueError) as e:
        return {}, f"cannot be read: {e}"
    return (found, "") if isinstance(found, dict) and found else ({}, "holds no object")
