"""MCAP files that are not trusted: their records in order, with sizes known before anything is unpacked.

What a chunk claims to unpack to is held against a limit, and is unpacked to no more than that. A file whose recorder
was stopped is read as far as it goes.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import lz4.frame
import zstandard
from mcap.exceptions import EndOfFile, InvalidMagic, RecordLengthLimitExceeded
from mcap.exceptions import McapError as LibraryError
from mcap.records import Channel, Chunk, Footer, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk

from ingest.media.video import LFS_MARK

MAX_RECORD_BYTES = 1 << 28  # of one record as stored, and of one chunk once it is unpacked
MAX_RATIO = 1000  # bytes that a whole file may unpack to for each that is stored
MAX_WINDOW = 1 << 27  # that zstd may look back
MAX_CHANNELS = 10_000
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

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size

    def read(self, size: int) -> bytes:
        data = self.file.read(max(0, min(size, self.left)))
        self.left -= len(data)
        return data


def records(path: Path) -> Iterator[RawMessage | Metadata | CutOff]:
    """Messages and metadata in the file's order; a CutOff last, where it ends before its end mark.

    Raises McapError for what is no MCAP file at all, and for one that would unpack to too much.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(LFS_MARK)) == LFS_MARK:
            raise McapError(f"{path.name} is a git-LFS pointer, not the file", "lfs_pointer")
        file.seek(0)
        reader = StreamReader(
            cast(IO[bytes], _Bounded(file, size)), emit_chunks=True, record_size_limit=min(MAX_RECORD_BYTES, size)
        )
        try:
            yield from _in_order(iter(reader.records), path.name, size)
        except InvalidMagic as e:
            raise McapError(f"{path.name} is no MCAP file") from e
        except EndOfFile:
            yield CutOff("the file ends before its end mark")
        except RecordLengthLimitExceeded as e:
            # A record longer than the whole file was being written when the recorder was stopped
            yield CutOff("the file ends inside a record" if size < MAX_RECORD_BYTES else _short(e))
        except DAMAGED as e:
            yield CutOff(f"{type(e).__name__}: {_short(e)}")


def _in_order(stored: Iterator[Any], name: str, size: int) -> Iterator[RawMessage | Metadata]:
    """Raises McapError and DAMAGED."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    unpacked = 0
    for outer in stored:
        inside = [outer]
        if isinstance(outer, Chunk):
            unpacked += outer.uncompressed_size
            _check_unpacked(outer, unpacked, name, size)
            inside = breakup_chunk(replace(outer, compression="", data=_data(outer)), validate_crc=True)
        for record in inside:
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Message):
                channel = channels[record.channel_id]
                yield RawMessage(channel, schemas.get(channel.schema_id), record.log_time, record.data)
            elif isinstance(record, Metadata):
                yield record
            elif isinstance(record, Footer):
                return
        if len(schemas) + len(channels) > MAX_CHANNELS:
            raise McapError(f"{name} has more than {MAX_CHANNELS} topics and types", "over_limit")


def _check_unpacked(chunk: Chunk, unpacked: int, name: str, size: int) -> None:
    """Raises McapError before anything is unpacked."""
    if chunk.uncompressed_size > MAX_RECORD_BYTES:
        told = f"{name}: a chunk claims to unpack to {chunk.uncompressed_size:,} bytes, {MAX_RECORD_BYTES:,} at most"
        raise McapError(told, "over_limit")
    if unpacked > MAX_RATIO * size:
        told = f"{name}: {size:,} bytes claim to unpack to more than {unpacked:,}, {MAX_RATIO} times that at most"
        raise McapError(told, "over_limit")


def _data(chunk: Chunk) -> bytes:
    """What a chunk unpacks to, which is never more than it claims. Raises DAMAGED."""
    claimed = chunk.uncompressed_size
    if chunk.compression == "":
        data = chunk.data
    elif chunk.compression == "zstd":
        reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(chunk.data)
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
