"""TFDS folders, their TFRecord files and the tf.train.Example messages in these, read in place without TensorFlow.

A record is its length (8 bytes, little endian), a masked CRC32C of those 8 bytes, the message, and
a masked CRC32C of the message. Messages are walked in protobuf's wire format: only what is asked
for is read, the rest is skipped by length. Positions count bytes from the beginning of the file.
"""

import mmap
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from core.values import grouped
from ingest.formats.folders import object_of
from ingest.formats.listing import ListingBuilder
from ingest.formats.side_files import read_json
from ingest.reasons import LIMITS, DataError, Limits, guarded
from ingest.sources.files import Source

HEADER_BYTES = 12
FOOTER_BYTES = 4
CRC_CHUNK_BYTES = 1 << 20
LONGEST_VARINT = 10  # bytes
FIXED_BYTES = {1: 8, 5: 4}  # of a field, by its wire type
KINDS = {1: "bytes", 2: "float", 3: "int"}

SHARDS = (
    re.compile(
        r"^(?:.*-)?(?P<split>[^-]+)\.tfrecord(?:-(?P<number>\d{5,9})-of-(?P<count>\d{5,9}))?$"
    ),
    # By a filepathTemplate such as {SPLIT}-{SHARD_X_OF_Y}.tfrecord
    re.compile(r"^(?:.*-)?(?P<split>[^-]+)-(?P<number>\d{5,9})-of-(?P<count>\d{5,9})\.tfrecord$"),
)
COUNT = re.compile(r"^[0-9]{1,15}$")
VERSION = re.compile(r"^\d+\.\d+\.\d+$")
MAX_NAMED = 5  # missing shards, in one message
FEATURES = "features.json"
INFO = "dataset_info.json"
Data = mmap.mmap | bytes


class Record(NamedTuple):
    """Where a record begins, and where its message does and ends."""

    offset: int
    start: int
    end: int


class Values(NamedTuple):
    """Where the list of a feature's values is; kind: bytes, float or int."""

    kind: str
    start: int
    end: int


def mapped(path: Path) -> Data:
    """A file's bytes, read when they are looked at. Raises DataError."""
    with guarded(path.name, OSError), path.open("rb") as f:
        if path.stat().st_size:
            return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    return b""


def masked(crc: int) -> int:
    """A CRC32C as TFRecord stores it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record_at(data: Data, offset: int) -> Record:
    """The record whose header is at an offset; its message is not looked at. Raises DataError."""
    header = data[offset : offset + HEADER_BYTES]
    if len(header) < HEADER_BYTES:
        raise DataError(f"the file ends within a record's header (byte {offset})")
    length, crc = struct.unpack("<QI", header)
    if masked(google_crc32c.value(header[:8])) != crc:
        raise DataError(f"no record begins at byte {offset}: the length's CRC is wrong")
    return Record(offset, offset + HEADER_BYTES, offset + HEADER_BYTES + length)


def is_whole(data: Data, record: Record) -> bool:
    """Whether the file holds all of a record."""
    return record.end + FOOTER_BYTES <= len(data)


def records(data: Data) -> Iterator[Record]:
    """Records in file order; the last one may not be whole. Raises DataError where no further one can be found."""
    offset = 0
    while offset < len(data):
        record = record_at(data, offset)
        yield record
        offset = record.end + FOOTER_BYTES


def stored_crc(data: Data, record: Record) -> int:
    """What the file says of a whole record's message: changes with the message."""
    return struct.unpack("<I", data[record.end : record.end + FOOTER_BYTES])[0]


def check_message(data: Data, record: Record) -> None:
    """Read all of a record's message; raises DataError when it is cut off or its CRC is wrong."""
    if not is_whole(data, record):
        raise DataError(
            f"the record at byte {record.offset} is cut off: the file has {len(data)} bytes"
        )
    crc = 0
    for offset in range(record.start, record.end, CRC_CHUNK_BYTES):
        crc = google_crc32c.extend(crc, data[offset : min(offset + CRC_CHUNK_BYTES, record.end)])
    if masked(crc) != stored_crc(data, record):
        raise DataError(f"the record at byte {record.offset} is damaged: its CRC is wrong")


def example(data: Data, record: Record, limits: Limits = LIMITS) -> dict[str, Values]:
    """Features of an Example by key, values unread. Raises DataError for what is none."""
    features: dict[str, Values] = {}
    for _, start, end in _messages(data, record.start, record.end, 1):
        for _, entry, entry_end in _messages(data, start, end, 1):
            key, values = _feature(data, entry, entry_end)
            if values:
                features[key] = values
            limits.check(
                "max_features", len(features), f"features of the record at byte {record.offset}"
            )
    if not features:
        raise DataError(f"the record at byte {record.offset} is not an Example: it has no features")
    return features


def _feature(data: Data, start: int, end: int) -> tuple[str, Values | None]:
    """An entry of the map of features: its key, and its list of values, of the last kind that is there."""
    key = ""
    values = None
    # Protobuf stores an entry of a map as a message: the key is field 1, the value field 2
    for number, offset, stop in _messages(data, start, end, 1, 2):
        if number == 2:
            for kind, first, last in _messages(data, offset, stop, *KINDS):
                values = Values(KINDS[kind], first, last)
            continue
        try:
            key = data[offset:stop].decode()
        except UnicodeDecodeError as e:
            raise DataError(f"not an Example: a key is not text (byte {offset})") from e
    return key, values


def byte_spans(data: Data, values: Values) -> Iterator[tuple[int, int]]:
    """Begin and end of each value of a bytes feature, values unread. Raises DataError."""
    return ((start, end) for _, start, end in _messages(data, values.start, values.end, 1))


def number_spans(data: Data, values: Values) -> Iterator[tuple[int, int]]:
    """Begin and end of the runs of numbers of a feature: packed ones as they are, others one by one. Raises
    DataError."""
    single = 5 if values.kind == "float" else 0
    for number, wire, start, end in _fields(data, values.start, values.end):
        if number == 1:
            if wire not in (2, single) or (single == 5 and (end - start) % 4):
                raise DataError(f"not a list of numbers (byte {start})")
            yield start, end


def numbers(data: Data, values: Values, limits: Limits = LIMITS) -> np.ndarray:
    """Values of a feature of numbers, float32 or int64 [n]. Raises DataError."""
    is_float = values.kind == "float"
    parts: list[np.ndarray] = [np.zeros(0, np.float32 if is_float else np.int64)]
    num_values = 0
    for start, end in number_spans(data, values):
        raw = np.frombuffer(data, np.uint8, end - start, start)
        num_values += (end - start) // 4 if is_float else int(np.count_nonzero(raw < 0x80))
        limits.check("max_values", num_values, f"values of the feature at byte {values.start}")
        parts.append(raw.view("<f4") if is_float else varints(raw))
    return np.concatenate(parts)


def varints(raw: np.ndarray) -> np.ndarray:
    """int64 [m] from the bytes of m varints. Raises DataError for a cut-off or overlong one."""
    last = np.flatnonzero(raw < 0x80)
    # Numbers below 128 take one byte each: nothing has to be put together
    if len(last) == len(raw):
        return raw.astype(np.int64)
    if len(last) == 0 or last[-1] != len(raw) - 1:
        raise DataError("an integer is cut off")
    # A varint ends with the byte whose highest bit is not set
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > LONGEST_VARINT:
        raise DataError(f"an integer has more than {LONGEST_VARINT} bytes")
    # Seven bits per byte, the lowest first: byte k of all that are so long, at once
    out = np.zeros(len(last), np.uint64)
    for k in range(int(lengths.max())):
        on = lengths > k
        out[on] |= (raw[first[on] + k].astype(np.uint64) & np.uint64(0x7F)) << np.uint64(7 * k)
    # A negative number is stored as the unsigned one with the same 64 bits
    return out.view(np.int64)


def _messages(data: Data, start: int, end: int, *numbers: int) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of the fields of some numbers; they must be length-delimited."""
    for number, wire, offset, stop in _fields(data, start, end):
        if number in numbers:
            if wire != 2:
                raise DataError(f"not an Example: unexpected wire type {wire} (byte {offset})")
            yield number, offset, stop


def _fields(data: Data, offset: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, wire type, begin, end) of each field of a message."""
    while offset < end:
        # A tag is the field's number and, in its lowest three bits, the wire type that tells the value's length
        tag, offset = _varint(data, offset, end)
        wire = tag & 7
        if wire == 2:
            length, offset = _varint(data, offset, end)
        elif wire == 0:
            length = _varint(data, offset, end)[1] - offset
        elif wire in FIXED_BYTES:
            length = FIXED_BYTES[wire]
        else:
            raise DataError(f"not an Example: wire type {wire} (byte {offset})")
        # A length is not trusted: no field may reach into what follows its message
        if offset + length > end:
            raise DataError(f"not an Example: a field leaves its message (byte {offset})")
        yield tag >> 3, wire, offset, offset + length
        offset += length


def _varint(data: Data, offset: int, end: int) -> tuple[int, int]:
    """Value, and where it ends."""
    value = shift = 0
    while offset < end and shift < 70:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
        shift += 7
    raise DataError(f"not an Example: a number is cut off (byte {offset})")


# What a TFDS folder holds: versions, splits and shards, by file names and dataset_info.json.
# [<config>/]<version>/{dataset_info.json, features.json, <name>-<split>.tfrecord-00000-of-00012}


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


def shard_match(name: str) -> re.Match[str] | None:
    """The split, number and count in the name of a shard; None for another file's."""
    # A number that ends the name before its suffix belongs to the second form
    return SHARDS[1].match(name) or SHARDS[0].match(name)


def configurations(uris: Iterable[str]) -> dict[str, str]:
    """The folders of configurations, and what their shards call the dataset; "" where there is no shard."""
    names: dict[str, str] = {}
    described: dict[str, set[str]] = defaultdict(set)  # which of both descriptions a folder has
    for uri in uris:
        folder, _, name = uri.rpartition("/")
        if match := shard_match(name):
            names[_config(folder)] = name[: match.start("split")]
        elif name in (FEATURES, INFO):
            described[folder].add(name)
    return {_config(folder): "" for folder, files in described.items() if len(files) == 2} | names


def find_shards(listing: ListingBuilder) -> list[Shard]:
    """Shards of the newest version of each configuration, in order of key. Reads dataset_info.json, no shard."""
    folders: dict[str, list[Shard]] = defaultdict(list)
    for uri in listing.source.files:
        folder, _, name = uri.rpartition("/")
        if match := shard_match(name):
            config = f"{_config(folder)}/".lstrip("/")
            number = int(match["number"] or 0)
            count = int(match["count"] or 1)
            folders[folder].append(
                Shard(uri, f"{config}{match['split']}/{name}", match["split"], number, count)
            )
    # A dataset may lie there in several versions, with equal episodes: only the newest is read
    versions = grouped((_config(folder), folder) for folder in folders)
    shards: list[Shard] = []
    for folder, candidates in folders.items():
        newest_folder = max(versions[_config(folder)], key=_version)
        if folder == newest_folder:
            shards += _of_version(listing, folder, candidates)
        else:
            detail = f"an older version beside {newest_folder.rpartition('/')[2]}; not read"
            listing.warn("stray_file", detail, file=folder)
    return sorted(shards, key=lambda s: s.key)


def _config(folder: str) -> str:
    """The folder that versions of one configuration share."""
    above, _, name = folder.rpartition("/")
    if VERSION.match(name):
        return above
    return folder


def _version(folder: str) -> tuple[int, ...]:
    name = folder.rpartition("/")[2]
    if VERSION.match(name):
        return tuple(map(int, name.split(".")))
    return ()


def _of_version(listing: ListingBuilder, folder: str, candidates: list[Shard]) -> list[Shard]:
    """Those that dataset_info.json names, with their lengths; all, of the commonest numbering, without it."""
    info_uri = f"{folder}/{INFO}".lstrip("/")
    info, problem = read_description(listing.source, info_uri)
    if problem:
        listing.warn(
            "no_metadata", f"{problem}; splits and shards are taken from the files", file=info_uri
        )
    lengths = _stated_lengths(info.get("splits"))
    # Shards are numbered within their split
    splits = grouped((shard.split, shard) for shard in candidates)
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
    listing: ListingBuilder,
    folder: str,
    split: str,
    parts: list[Shard],
    lengths: list[int | None] | None,
) -> list[Shard]:
    """The shards of one split that are of one numbering, with findings about other files and missing shards."""
    info_uri = f"{folder}/{INFO}".lstrip("/")
    # Of files of two numberings those of the one in dataset_info.json are taken, else of the commonest
    counts = Counter(shard.count for shard in parts)
    stated_count = len(lengths or ())
    count = max(counts, key=lambda count: (count == stated_count, counts[count], count))
    if lengths and count != stated_count:
        listing.warn(
            "length_differs",
            f"names {stated_count} shards of {split}, the files say {count}",
            file=info_uri,
        )
        lengths = None
    # Files of the other numbering, and numbers beyond the count, are left out
    shards: list[Shard] = []
    for shard in parts:
        if shard.count != count or shard.number >= count:
            listing.warn(
                "stray_file", f"not one of the {count} shards of {split}; not read", file=shard.uri
            )
        else:
            shards.append(replace(shard, length=lengths[shard.number] if lengths else None))
    numbers = {shard.number for shard in shards}
    if (num_missing := count - len(numbers)) > 0:
        # A count of nine digits may be claimed: only the first numbers that lack are looked for
        absent_numbers = (n for n in range(count) if n not in numbers)
        missing = [f"{n:05d}" for n in islice(absent_numbers, MAX_NAMED)]
        remainder = ", ..." if num_missing > MAX_NAMED else ""
        detail = f"{num_missing} of {count} shards of {split} are not there: {', '.join(missing)}{remainder}"
        listing.warn("no_data", detail, file=folder or info_uri)
    return shards


def _stated_lengths(splits: Any) -> dict[str, list[int | None]]:
    """Records of each shard, of those splits that are given by name and shards; None for what is no count."""
    lengths: dict[str, list[int | None]] = {}
    for split in map(object_of, splits if isinstance(splits, list) else ()):
        name = split.get("name")
        stated_lengths = split.get("shardLengths")
        if isinstance(name, str) and isinstance(stated_lengths, list) and stated_lengths:
            lengths[name] = [int(n) if COUNT.match(str(n)) else None for n in stated_lengths]
    return lengths


def read_description(source: Source, uri: str) -> tuple[dict[str, Any], str]:
    """The object in one of TFDS's files; else {} and what is wrong, for a finding that says what is done instead."""
    if uri not in source.files:
        return {}, "is not there"
    try:
        content = read_json(source, uri)
    except DataError as e:
        return {}, f"cannot be read: {e}"
    # An empty object says no more than a file that is not there
    if isinstance(content, dict) and content:
        return content, ""
    return {}, "holds no object"
