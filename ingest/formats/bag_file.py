"""Files of ROS recordings: MCAP by the library mcap, ROS 1 bags and SQLite files of ROS 2 by rosbags.

Each gives its messages in one form (`ros_messages.RawMessage`). An MCAP file whose recorder was
stopped is read as far as it goes; rosbags reads whole files alone.
"""

import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import apsw
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile, InvalidMagic, RecordLengthLimitExceeded
from mcap.exceptions import McapError as LibraryError
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Chunk, Footer, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, get_chunk_data_stream
from rosbags import rosbag1, rosbag2
from rosbags.interfaces import Connection

from core.yaml_text import parse_yaml
from ingest.formats.ros_messages import DAMAGED, MessageType, RawMessage
from ingest.reasons import DataError, Limits
from ingest.sources.files import Source

PACKED = ".zstd"  # `ros2 bag` can pack its files as a whole
MCAP = ".mcap"
SQLITE = ".db3"
ROS_1 = ".bag"
SUFFIXES = (MCAP, SQLITE, ROS_1)
READERS = {SQLITE: rosbag2.Reader, ROS_1: rosbag1.Reader}
MANIFEST = "metadata.yaml"  # beside the files of a recording, by `ros2 bag`
# In a chunk of MCAP: what a record is and its length; a message's channel, number and times
RECORD_HEAD = struct.Struct("<BQ")
MESSAGE_HEAD = struct.Struct("<HIQQ")
DEFINITIONS = {int(Opcode.SCHEMA): Schema, int(Opcode.CHANNEL): Channel}
DAMAGED_FILE = (
    *DAMAGED,
    LibraryError,
    zstandard.ZstdError,
    rosbag1.ReaderError,
    rosbag2.ReaderError,
    apsw.Error,
    EOFError,
    OSError,
    struct.error,
)
# Errors that say more to people in other words
WHY_CUT_OFF: dict[type[Exception], str] = {
    EndOfFile: "the file ends before its end mark",
    RecordLengthLimitExceeded: "the file ends inside a record",
    CRCValidationError: "CRCValidationError: a chunk's bytes do not fit its checksum",
}


@dataclass(frozen=True)
class CutOff:
    """Where a recording ends early, and why; what stands before it was read."""

    why: str


type Record = RawMessage | Metadata | Attachment | CutOff


def suffix_of(uri: str) -> str:
    return PurePosixPath(uri.lower().removesuffix(PACKED)).suffix


def is_recording(uri: str) -> bool:
    return suffix_of(uri) in SUFFIXES


def session_of(uri: str) -> str:
    """What a recording is called: its folder where that is named as `ros2 bag` names it, else the file."""
    folder, _, name = uri.rpartition("/")
    stem = name.removesuffix(PACKED).rpartition(".")[0]
    if re.fullmatch(re.escape(folder.rpartition("/")[2]) + r"_\d+", stem):
        return folder
    return uri


def recordings(source: Source) -> dict[str, list[str]]:
    """The files of each recording, in their order, by the first. A manifest may name several."""
    if "recordings" not in source.noted:
        parts = {uri: [uri] for uri in sorted(filter(is_recording, source.files))}
        for manifest in source.by_name.get(MANIFEST, []):
            uris = [uri for uri in manifest_uris(source, manifest) if uri in parts]
            for uri in uris[1:]:
                del parts[uri]
            parts |= {uris[0]: uris} if uris else {}
        source.noted["recordings"] = parts
    return source.noted["recordings"]


def manifest_beside(uri: str) -> str:
    return uri[: uri.rfind("/") + 1] + MANIFEST


def manifest_uris(source: Source, manifest: str) -> list[str]:
    """Files that a manifest names, as they may be called beside it; none of one that cannot be read."""
    information = manifest_of(source, manifest)
    names = [str(path).rpartition("/")[2] for path in information.get("relative_file_paths", [])]
    folder = manifest.removesuffix(MANIFEST)
    plain = [folder + name.removesuffix(PACKED) for name in names]
    packed = [uri for uri in plain if uri not in source.files and uri + PACKED in source.files]
    return [uri + PACKED if uri in packed else uri for uri in plain]


def manifest_of(source: Source, uri: str) -> dict[str, Any]:
    """What `ros2 bag` says of a recording; {} where it says nothing that can be read."""
    try:
        source.config.limits.check("max_file_bytes", source.size(uri) or 0, uri)
        with source.open(uri) as file:
            content = parse_yaml(file.read().decode(errors="replace"))
        information = content["rosbag2_bagfile_information"]
        return information if isinstance(information["relative_file_paths"], list) else {}
    except (DataError, OSError, ValueError, LookupError, TypeError):
        return {}


def custom_facts(source: Source, uri: str) -> dict[str, str]:
    """What a person said of a recording as it began (`ros2 bag record --custom-data`)."""
    facts = manifest_of(source, manifest_beside(uri)).get("custom_data")
    if isinstance(facts, dict):
        return {str(key): str(value) for key, value in facts.items()}
    return {}


def records(source: Source, uris: Sequence[str]) -> Iterator[Record]:
    """Messages, metadata and attachments of a recording's files, in their order; a CutOff where one ends early.

    Raises DataError for what is no recording at all, and for one that claims more than the limits; OSError.
    """
    for uri in uris:
        yield from _of_mcap(source, uri) if suffix_of(uri) == MCAP else _by_rosbags(source, uri)


def _of_mcap(source: Source, uri: str) -> Iterator[Record]:
    """Raises DataError and OSError."""
    with source.open(uri) as file:
        size = source.size(uri) or 1
        try:
            # A record longer than the whole file was being written when the recorder was stopped
            if uri.endswith(PACKED):
                file = zstandard.ZstdDecompressor().stream_reader(file)
                size = source.config.limits.max_file_bytes
            reader = StreamReader(file, emit_chunks=True, record_size_limit=size)
            yield from _in_order(reader.records, uri, source.config.limits)
        except InvalidMagic as e:
            raise DataError(f"{uri} is no MCAP file") from e
        except DAMAGED_FILE as e:
            message = " ".join(str(e).split())[:100]
            yield CutOff(WHY_CUT_OFF.get(type(e), f"{type(e).__name__}: {message}"))


def _in_order(stored: Iterable[Any], uri: str, limits: Limits) -> Iterator[Record]:
    """Raises DataError and DAMAGED_FILE."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, tuple[str, MessageType]] = {}
    for outer in stored:
        for record in _of_chunk(outer) if isinstance(outer, Chunk) else [outer]:
            if isinstance(record, Message):
                topic, type_ = channels[record.channel_id]
                yield RawMessage(topic, type_, record.log_time, record.publish_time, record.data)
            elif isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                schema = schemas.get(record.schema_id)
                channels[record.id] = record.topic, _type_of(record, schema)
                limits.check(
                    "max_features", len(schemas) + len(channels), f"{uri}: topics and types"
                )
            elif isinstance(record, Metadata | Attachment):
                yield record
            elif isinstance(record, Footer):
                return


def _of_chunk(chunk: Chunk) -> Iterator[Message | Schema | Channel]:
    """As mcap's `breakup_chunk` gives them, at a third of its time. Raises DAMAGED_FILE."""
    stream, size = get_chunk_data_stream(chunk, validate_crc=True)
    data = stream.read(size)
    begin = 0
    while begin < size:
        opcode, length = RECORD_HEAD.unpack_from(data, begin)
        begin += RECORD_HEAD.size
        end = begin + length
        if end > size:
            raise EndOfFile
        if opcode == Opcode.MESSAGE:
            channel, number, log_ns, publish_ns = MESSAGE_HEAD.unpack_from(data, begin)
            content = data[begin + MESSAGE_HEAD.size : end]
            yield Message(channel, log_ns, content, publish_ns, number)
        elif opcode in DEFINITIONS:
            yield DEFINITIONS[opcode].read(ReadDataStream(BytesIO(data[begin:end])))
        begin = end


def _type_of(channel: Channel, schema: Schema | None) -> MessageType:
    if schema is None:
        return MessageType("no type", "", "none", channel.message_encoding)
    definition = schema.data.decode(errors="replace")
    return MessageType(schema.name, definition, schema.encoding, channel.message_encoding)


def _by_rosbags(source: Source, uri: str) -> Iterator[RawMessage]:
    """Raises DataError and OSError."""
    source.open(uri).close()  # a pointer to a file is none
    with TemporaryDirectory() as folder:
        # rosbags takes what stands behind `#` and `?` in a path for no part of it
        path = Path(folder, f"bag{suffix_of(uri)}")
        try:
            if uri.endswith(PACKED):
                with source.open(uri) as packed, path.open("wb") as file:
                    shutil.copyfileobj(zstandard.ZstdDecompressor().stream_reader(packed), file)
            else:
                path.symlink_to(source.resolve(uri).absolute())
            with READERS[path.suffix](path) as bag:
                source.config.limits.check(
                    "max_features", len(bag.connections), f"{uri}: topics and types"
                )
                types = {
                    c.id: _type_of_connection(c, path.suffix == ROS_1) for c in bag.connections
                }
                for connection, time_ns, data in bag.messages():
                    type_ = types[connection.id]
                    yield RawMessage(connection.topic, type_, time_ns, time_ns, bytes(data))
        except DAMAGED_FILE as e:
            message = " ".join(str(e).replace(str(path), uri).split())[:200]
            raise DataError(f"{uri} cannot be read: {message or type(e).__name__}") from e


def _type_of_connection(connection: Connection, is_ros_1: bool) -> MessageType:
    form = connection.msgdef.format.name.lower()
    language = "ros1msg" if is_ros_1 else {"msg": "ros2msg", "idl": "ros2idl"}.get(form, form)
    return MessageType(
        connection.msgtype, connection.msgdef.data, language, "ros1" if is_ros_1 else "cdr"
    )
