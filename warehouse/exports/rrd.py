"""Rerun's recording files with equal bytes for equal content, which its own writer does not give.

A file is a stream of messages: two of store information, then chunks, then a footer with an index. By time and chance
are in it: the numbers of chunks and of their rows, which are set before they are sent; a number in each of the first
two messages, zeroed afterwards; and the order of the index's columns and of the notes on them, which is put
straight, with the footer's length and checksum. Written for the pinned version; another layout is an error, never a
guess.
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from warehouse.exports.common import ExportError

MAGIC, HEADER_BYTES = b"RRF2", 12
FOOTER_MAGIC, CHECKSUM_SEED = b"RRF2FOOT", 7850921
END, STORE_INFO, DATA = 0, 1, 2  # kinds of message
MESSAGE = struct.Struct("<QQ")  # kind and length, before each message
FOOTER = struct.Struct("<QQI8sI")  # begin, length and checksum of the index, magic, number of indexes
LZ4 = 2  # how the index is compressed
INDEX, SCHEMA, TABLE = 1, 2, 4  # numbers of protobuf fields: of the footer, and of an index
PAYLOAD, COMPRESSION, LENGTH = 2, 3, 4  # of a table


def write(path: Path, application_id: str, recording_id: str, chunks: Iterable[Any]) -> dict[str, int]:
    """Write chunks (rerun.chunk.Chunk), which are let go one by one; returns the rows of each entity."""
    import rerun as rr

    recording = rr.RecordingStream(application_id, recording_id=recording_id, send_properties=False)
    recording.save(path)
    rows: dict[str, int] = {}
    for number, chunk in enumerate(chunks):
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
        recording.send_chunks([_numbered(chunk, recording_id, number)])
        recording.flush()
    recording.disconnect()
    with path.open("r+b") as f:
        _settle(f)
        os.fsync(f.fileno())
    return rows


def _numbered(chunk: Any, recording_id: str, number: int) -> Any:
    """The chunk with numbers of its own and of its rows that follow from where it stands."""
    from rerun.chunk import Chunk

    batch = chunk.to_record_batch()
    first = int.from_bytes(hashlib.sha256(f"{recording_id}/{number}".encode()).digest()[:8], "big") << 64
    rows = pa.array([(first + k).to_bytes(16, "big") for k in range(batch.num_rows)], pa.binary(16))
    at = next(k for k, f in enumerate(batch.schema) if (f.metadata or {}).get(b"rerun:kind") == b"control")
    columns = [rows if k == at else column for k, column in enumerate(batch.columns)]
    metadata = dict(batch.schema.metadata or {}) | {b"rerun:id": f"chunk_{first + batch.num_rows:032X}".encode()}
    numbered = pa.RecordBatch.from_arrays(columns, schema=batch.schema.with_metadata(metadata))
    return Chunk.from_record_batch(numbered)[0]


# After writing


def _settle(f: IO[bytes]) -> None:
    """Take chance out of a file, in place. Raises ExportError for a layout that is not known."""
    if f.read(HEADER_BYTES)[: len(MAGIC)] != MAGIC:
        raise _unknown()
    while True:
        head = f.read(MESSAGE.size)
        if len(head) != MESSAGE.size:
            raise _unknown()
        kind, size = MESSAGE.unpack(head)
        begin = f.tell()
        if kind == STORE_INFO:
            _zero_number(f, begin)
        elif kind == END:
            _settle_footer(f, begin, size)
            return
        elif kind != DATA:
            raise _unknown()
        f.seek(begin + size)


def _zero_number(f: IO[bytes], begin: int) -> None:
    """Field 1 of store information: a message of two 64-bit numbers, time and counter."""
    data = bytearray(f.read(20))
    if data[:3] != b"\n\x12\t" or data[11] != 0x11:
        raise _unknown()
    data[3:11] = data[12:20] = bytes(8)
    f.seek(begin)
    f.write(data)


def _settle_footer(f: IO[bytes], begin: int, size: int) -> None:
    import xxhash

    fields = list(_fields(f.read(size)))
    tail = f.read()
    if len(tail) != FOOTER.size or FOOTER.unpack(tail)[3:] != (FOOTER_MAGIC, 1) or [n for n, _ in fields] != [INDEX]:
        raise _unknown()
    settled = {SCHEMA: _settled_schema, TABLE: _settled_table}
    index = [(n, settled[n](v) if n in settled else v) for n, v in _fields(fields[0][1])]
    footer = _message([(INDEX, _message(index))])
    f.seek(begin - MESSAGE.size)
    f.write(MESSAGE.pack(END, len(footer)) + footer)
    checksum = xxhash.xxh32(footer, seed=CHECKSUM_SEED).intdigest()
    f.write(FOOTER.pack(begin, len(footer), checksum, FOOTER_MAGIC, 1))
    f.truncate()


def _settled_schema(data: bytes) -> bytes:
    """The columns of all chunks together, by which nobody goes in order; its hash in the index knows none either."""
    [(number, found)] = _fields(data)
    schema = _sorted_notes(pa.ipc.read_schema(pa.py_buffer(found)))
    schema = pa.schema(sorted(schema, key=lambda f: (f.name, str(f.metadata))), schema.metadata)
    return _message([(number, schema.serialize().to_pybytes())])


def _settled_table(data: bytes) -> bytes:
    fields = dict(_fields(data))
    if fields.get(COMPRESSION) != LZ4:
        raise _unknown()
    codec = pa.Codec("lz4_raw")
    table = pa.ipc.open_stream(codec.decompress(fields[PAYLOAD], fields[LENGTH])).read_all()
    schema = _sorted_notes(table.schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.table(table.columns, schema=schema))
    plain = sink.getvalue()
    fields |= {PAYLOAD: codec.compress(plain, asbytes=True), LENGTH: plain.size}
    return _message(list(fields.items()))


def _sorted_notes(schema: pa.Schema) -> pa.Schema:
    """The notes on each column, and on the whole, in order of their keys."""
    columns = [column.with_metadata(dict(sorted((column.metadata or {}).items()))) for column in schema]
    return pa.schema(columns, dict(sorted((schema.metadata or {}).items())))


# Protobuf's encoding, as far as it is needed: numbers and byte strings


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _varint(data, at)
        if tag & 7 == 2:
            value, at = data[at : at + value], at + value
        elif tag & 7 != 0:
            raise _unknown()
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _message(fields: list[tuple[int, Any]]) -> bytes:
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_number(number << 3), _number(value)]
        else:
            parts += [_number(number << 3 | 2), _number(len(value)), value]
    return b"".join(parts)


def _number(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _unknown() -> ExportError:
    return ExportError("this version of rerun-sdk writes recordings in another way than the pinned one")
