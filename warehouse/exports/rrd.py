"""Rerun's recording files with equal bytes for equal content.

A file is a stream of messages: two of store information, then chunks, then a footer with an index. Rerun's writer is
not deterministic in three places, and each is fixed here:

1. The ids of chunks and of their rows hold the time: they are set before the chunks are sent.
2. Each message of store information holds an id of time and counter: it is zeroed after the file was written.
3. The columns of the index, and the metadata on them, stand in a random order: they are sorted after the file was
   written, and the footer's length and checksum are made anew.

This is written for the pinned version of rerun-sdk. A file of another layout is an error; nothing is guessed.
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
ID_BYTES = 16  # of a chunk's id, and of a row's


def write(path: Path, application_id: str, recording_id: str, chunks: Iterable[Any]) -> dict[str, int]:
    """Write chunks (rerun.chunk.Chunk), which are let go one by one; returns the rows of each entity."""
    import rerun as rr

    recording = rr.RecordingStream(application_id, recording_id=recording_id, send_properties=False)
    recording.save(path)
    rows: dict[str, int] = {}
    for number, chunk in enumerate(chunks):
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
        recording.send_chunks([_with_ids(chunk, recording_id, number)])
        recording.flush()
    recording.disconnect()
    with path.open("r+b") as f:
        _make_deterministic(f)
        os.fsync(f.fileno())
    return rows


def _with_ids(chunk: Any, recording_id: str, number: int) -> Any:
    """The chunk with ids of its own and of its rows that follow from its number in the recording."""
    from rerun.chunk import Chunk

    batch = chunk.to_record_batch()
    digest = hashlib.sha256(f"{recording_id}/{number}".encode()).digest()
    first = int.from_bytes(digest[:8], "big") << 64
    row_ids = [(first + row).to_bytes(ID_BYTES, "big") for row in range(batch.num_rows)]
    columns = list(batch.columns)
    columns[_row_id_column(batch.schema)] = pa.array(row_ids, pa.binary(ID_BYTES))
    metadata = dict(batch.schema.metadata or {}) | {b"rerun:id": f"chunk_{first + batch.num_rows:032X}".encode()}
    with_ids = pa.RecordBatch.from_arrays(columns, schema=batch.schema.with_metadata(metadata))
    return Chunk.from_record_batch(with_ids)[0]


def _row_id_column(schema: pa.Schema) -> int:
    kinds = [(field.metadata or {}).get(b"rerun:kind") for field in schema]
    return kinds.index(b"control")


# After writing


def _make_deterministic(f: IO[bytes]) -> None:
    """Take time and chance out of a file, in place. Raises ExportError for a layout that is not known."""
    if f.read(HEADER_BYTES)[: len(MAGIC)] != MAGIC:
        raise _unknown()
    while True:
        # Unknown kinds of messages are refused: they might hold further ids or times
        kind, begin, size = _next_message(f)
        if kind == STORE_INFO:
            _zero_id(f, begin)
        elif kind == END:
            _sort_index(f, begin, size)
            return
        elif kind != DATA:
            raise _unknown()
        f.seek(begin + size)


def _next_message(f: IO[bytes]) -> tuple[int, int, int]:
    """Kind of the message, where its bytes begin, and how many they are."""
    head = f.read(MESSAGE.size)
    if len(head) != MESSAGE.size:
        raise _unknown()
    kind, size = MESSAGE.unpack(head)
    return kind, f.tell(), size


def _zero_id(f: IO[bytes], begin: int) -> None:
    """Zero field 1 of store information: a message of two 64-bit numbers, time and counter."""
    # a byte each: tag and length of the message, the tag of a number (9), the number, the tag of the other (0x11)
    data = bytearray(f.read(20))
    if data[:3] != b"\n\x12\t" or data[11] != 0x11:
        raise _unknown()
    data[3:11] = data[12:20] = bytes(8)
    f.seek(begin)
    f.write(data)


def _sort_index(f: IO[bytes], begin: int, size: int) -> None:
    """Write the file's end anew, with the index in order; the message of `size` bytes begins at `begin`."""
    import xxhash

    # A layout that is not exactly the known one is refused, since rewriting it would break the file
    fields = list(_fields(f.read(size)))
    tail = f.read()
    if len(tail) != FOOTER.size or FOOTER.unpack(tail)[3:] != (FOOTER_MAGIC, 1):
        raise _unknown()
    if [number for number, _ in fields] != [INDEX]:
        raise _unknown()
    footer = _message([(INDEX, _message([_in_order(*field) for field in _fields(fields[0][1])]))])

    # The end holds the place, length and checksum of the index, so it is written anew with it
    f.seek(begin - MESSAGE.size)
    f.write(MESSAGE.pack(END, len(footer)) + footer)
    checksum = xxhash.xxh32(footer, seed=CHECKSUM_SEED).intdigest()
    f.write(FOOTER.pack(begin, len(footer), checksum, FOOTER_MAGIC, 1))
    f.truncate()


def _in_order(number: int, value: Any) -> tuple[int, Any]:
    """A field of the index with what it holds in order; a field that has no order stays as it is."""
    if number == SCHEMA:
        return number, _sorted_schema(value)
    if number == TABLE:
        return number, _sorted_table(value)
    return number, value


def _sorted_schema(data: bytes) -> bytes:
    """The columns of all chunks together. No reader goes by their order, nor does the index's hash of them."""
    [(number, serialized)] = _fields(data)
    schema = _with_sorted_metadata(pa.ipc.read_schema(pa.py_buffer(serialized)))
    columns = sorted(schema, key=lambda column: (column.name, str(column.metadata)))
    return _message([(number, pa.schema(columns, schema.metadata).serialize().to_pybytes())])


def _sorted_table(data: bytes) -> bytes:
    """The table of the index, as Arrow's stream format, compressed."""
    fields = dict(_fields(data))
    if fields.get(COMPRESSION) != LZ4:
        raise _unknown()
    codec = pa.Codec("lz4_raw")
    table = pa.ipc.open_stream(codec.decompress(fields[PAYLOAD], fields[LENGTH])).read_all()
    schema = _with_sorted_metadata(table.schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.table(table.columns, schema=schema))
    plain = sink.getvalue()
    fields |= {PAYLOAD: codec.compress(plain, asbytes=True), LENGTH: plain.size}
    return _message(list(fields.items()))


def _with_sorted_metadata(schema: pa.Schema) -> pa.Schema:
    """The metadata of each column, and of the whole, in order of their keys."""
    columns = [column.with_metadata(dict(sorted((column.metadata or {}).items()))) for column in schema]
    return pa.schema(columns, dict(sorted((schema.metadata or {}).items())))


# Protobuf's encoding, as far as it is needed: numbers and byte strings


NUMBER, BYTES = 0, 2  # kinds of values


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number of the field, its value), in the order of the message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == BYTES:  # what was read is their length
            value, at = data[at : at + value], at + value
        elif kind != NUMBER:
            raise _unknown()
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a byte, seven bits to a byte, the lowest first; and where it ends."""
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
            parts += [_number(number << 3 | NUMBER), _number(value)]
        else:
            parts += [_number(number << 3 | BYTES), _number(len(value)), value]
    return b"".join(parts)


def _number(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _unknown() -> ExportError:
    return ExportError("this version of rerun-sdk writes recordings in another way than the pinned one")
