"""MCAP files that are not trusted: their records in order, with sizes known before anything is unpacked.

What a chunk claims to unpack to is held against a limit, and is unpacked to no more than that; its records are made
one by one. A file whose recorder was stopped is read as far as it goes.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import IO, Any, cast

import lz4.frame
import zstandard
from mcap.exceptions import EndOfFile, InvalidMagic, RecordLengthLimitExceeded
from mcap.exceptions import McapError as LibraryError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Footer, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, get_chunk_data_stream

from ingest.limits import Limits
from ingest.media.video import LFS_MARK

RECORD = 4  # times limits.max_chunk_bytes: of one record as stored, and of one chunk once it is unpacked
# What the libraries raise for damaged records
DAMAGED = (LibraryError, struct.error, zstandard.ZstdError, ValueError, KeyError, TypeError, AttributeError)
DAMAGED += (OverflowError, MemoryError, RuntimeError, RecursionError, EOFError, OSError, AssertionError, IndexError)


class McapError(Exception):
    """A recording, or a part of it, that cannot be used; `reason` is a finding's reason code."""

    def __init__(self, message: str, reason: str = "unreadable_data") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class RawMessage:
    """A message as it is stored, with when it was written down."""

    channel: Channel
    schema: Schema | None
    log_ns: int
    data: bytes


@dataclass(frozen=True)
class CutOff:
    """Where a recording ends early, and why; what stands before it was read."""

    why: str


class _Bounded:
    """A file whose reads never ask for more than there is: a record may claim to be as long as it likes."""

    def __init__(self, file: IO[bytes], size: int, most: int) -> None:
        self.file, self.left, self.most = file, size, most

    def read(self, size: int) -> bytes:
        data = self.file.read(max(0, min(size, self.left, self.most)))
        self.left -= len(data)
        return data


class _Reader(StreamReader):
    """Records of a file, each held against the limits before it is read."""

    def __init__(self, file: IO[bytes], name: str, size: int, limits: Limits) -> None:
        bounded = _Bounded(file, size, RECORD * limits.max_chunk_bytes)
        super().__init__(cast(IO[bytes], bounded), emit_chunks=True, record_size_limit=size)
        self.name, self.limits = name, limits

    def _read_record(self, opcode: int, length: int) -> McapRecord | None:
        """Raises McapError."""
        if opcode == Opcode.METADATA:
            _check(self.limits.excess("max_header_bytes", length, f"{self.name}: bytes of one record of metadata"))
        _check(self.limits.excess("max_chunk_bytes", length, f"{self.name}: bytes of one record", RECORD))
        return super()._read_record(opcode, length)


def records(path: Path, limits: Limits) -> Iterator[RawMessage | Metadata | CutOff]:
    """Messages and metadata in the file's order; a CutOff last, where it ends before its end mark.

    Raises McapError for what is no MCAP file at all, and for one that claims more than the limits.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(LFS_MARK)) == LFS_MARK:
            raise McapError(f"{path.name} is a git-LFS pointer, not the file", "lfs_pointer")
        file.seek(0)
        reader = _Reader(file, path.name, size, limits)
        try:
            yield from _in_order(iter(reader.records), path.name, size, limits)
        except InvalidMagic as e:
            raise McapError(f"{path.name} is no MCAP file") from e
        except EndOfFile:
            yield CutOff("the file ends before its end mark")
        except RecordLengthLimitExceeded:
            # A record longer than the whole file was being written when the recorder was stopped
            yield CutOff("the file ends inside a record")
        except DAMAGED as e:
            yield CutOff(f"{type(e).__name__}: {_short(e)}")


def _in_order(stored: Iterator[Any], name: str, size: int, limits: Limits) -> Iterator[RawMessage | Metadata]:
    """Raises McapError and DAMAGED."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    unpacked, count = 0, 0
    for outer in stored:
        inside: Iterable[Any] = [outer]
        if isinstance(outer, Chunk):
            unpacked += outer.uncompressed_size
            _check_unpacked(outer, unpacked, name, size, limits)
            inside = _inside(outer, limits)
        for record in inside:
            count += 1
            if count > limits.max_frames:
                _check(limits.excess("max_frames", count, f"{name}: records"))
            if isinstance(record, Schema):
                schemas[record.id] = record
                _check_number(schemas, channels, name, limits)
            elif isinstance(record, Channel):
                channels[record.id] = record
                _check_number(schemas, channels, name, limits)
            elif isinstance(record, Message):
                channel = channels[record.channel_id]
                yield RawMessage(channel, schemas.get(channel.schema_id), record.log_time, record.data)
            elif isinstance(record, Metadata):
                yield record
            elif isinstance(record, Footer):
                return


def _check_number(schemas: Mapping[int, Schema], channels: Mapping[int, Channel], name: str, limits: Limits) -> None:
    """Raises McapError for too many."""
    _check(limits.excess("max_features", len(schemas) + len(channels), f"{name}: topics and types"))


def _check_unpacked(chunk: Chunk, unpacked: int, name: str, size: int, limits: Limits) -> None:
    """Raises McapError before anything is unpacked."""
    what = f"{name}: bytes that a chunk claims to unpack to"
    _check(limits.excess("max_chunk_bytes", chunk.uncompressed_size, what, RECORD))
    what = f"{name}: bytes that it claims to unpack to, for each of its {size:,}"
    _check(limits.excess("max_ratio", ceil(unpacked / size), what))


def _check(problem: str) -> None:
    """Raises McapError."""
    if problem:
        raise McapError(problem, "over_limit")


def _inside(chunk: Chunk, limits: Limits) -> Iterator[McapRecord | None]:
    """A chunk's records, None for those of other kinds. Raises DAMAGED.

    One by one: a chunk of small records takes ten times its size in memory where all are made at once.
    """
    whole = replace(chunk, compression="", data=_data(chunk, limits))
    stream, num_bytes = get_chunk_data_stream(whole, validate_crc=True)
    while stream.count < num_bytes:
        opcode, length = stream.read1(), stream.read8()
        if opcode == Opcode.MESSAGE:
            yield Message.read(stream, length)
        elif opcode == Opcode.CHANNEL:
            yield Channel.read(stream)
        elif opcode == Opcode.SCHEMA:
            yield Schema.read(stream)
        else:
            stream.read(length)
            yield None


def _data(chunk: Chunk, limits: Limits) -> bytes:
    """What a chunk unpacks to, which is never more than it claims. Raises DAMAGED."""
    claimed = chunk.uncompressed_size
    if chunk.compression == "":
        data = chunk.data
    elif chunk.compression == "zstd":
        reader = zstandard.ZstdDecompressor(max_window_size=limits.window_bytes).stream_reader(chunk.data)
        data = reader.read(claimed + 1)
    elif chunk.compression == "lz4":
        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=claimed + 1)
    else:
        raise ValueError(f"chunks are packed by {chunk.compression[:20]!r}, not by zstd or lz4")
    if len(data) != claimed:
        raise ValueError(f"a chunk does not unpack to the {claimed} bytes that it claims")
    return data


def _short(e: BaseException) -> str:
    if isinstance(e, CRCValidationError):
        return "a chunk's bytes do not fit its checksum"
    return " ".join(str(e).split())[:100]
