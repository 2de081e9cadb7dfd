"""Files of ROS recordings and their messages: what their types mean, when they were made, and what they say.

MCAP is read by the library mcap, ROS 1 bags and SQLite files of ROS 2 by rosbags, which decodes all messages by the
definitions that their file brings; one that brings none is of the types that ROS itself has. An MCAP file whose
recorder was stopped is read as far as it goes; rosbags reads whole files alone.
"""

import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from io import BytesIO
from itertools import chain, islice, product
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import apsw
import av
import numpy as np
import zstandard
from av.error import FFmpegError
from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile, InvalidMagic, RecordLengthLimitExceeded
from mcap.exceptions import McapError as LibraryError
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Chunk, Footer, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, get_chunk_data_stream
from rosbags import rosbag1, rosbag2
from rosbags.interfaces import Connection, Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)

from core.yaml_text import parse_yaml
from ingest.episode import VideoError
from ingest.media.picture import ArrayPicture, array_picture, check_size, decode_picture
from ingest.media.video import Frame
from ingest.reasons import DataError, Limits
from ingest.sources.files import Source, once

# What rosbags raises for messages and definitions that are damaged
DAMAGED = (
    SerdeError,
    TypesysError,
    struct.error,
    zstandard.ZstdError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    RecursionError,
    AssertionError,
    IndexError,
)
Kind = Literal["compressed", "raw", "joints", "numbers", "text", "other"]
KINDS: dict[str, Kind] = {
    "sensor_msgs/msg/CompressedImage": "compressed",
    "foxglove_msgs/msg/CompressedVideo": "compressed",
    "sensor_msgs/msg/Image": "raw",
    "sensor_msgs/msg/JointState": "joints",
    "std_msgs/msg/String": "text",
    **{
        f"std_msgs/msg/Float{bits}{form}": "numbers"
        for bits, form in product((32, 64), ("", "MultiArray"))
    },
    **{
        f"geometry_msgs/msg/{m}{s}": "numbers"
        for m, s in product(("Pose", "Twist", "Wrench", "Point"), ("", "Stamped"))
    },
    "trajectory_msgs/msg/JointTrajectoryPoint": "numbers",
}
# Of a type that ROS itself has not, and bags before ROS 2 Iron do not define
VIDEO_TYPE = "foxglove_msgs/msg/CompressedVideo"
VIDEO_DEFINITION = (
    "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
)
# Formats of messages that are packets of a video: FFmpeg's decoder, and how the packet of a key frame looks
H264 = re.compile(rb"\x00\x00\x01[\x25\x45\x65]")
H265 = re.compile(rb"\x00\x00\x01[\x20\x22\x24\x26\x28\x2a]")
VIDEOS = {"h264": ("h264", H264), "h265": ("hevc", H265), "hevc": ("hevc", H265)}
DEPTH = re.compile(r"compressedDepth|16UC1|32FC1|mono16")
CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3}
ENCODINGS = {"cdr": ("ros2msg", "ros2idl", "none"), "ros1": ("ros1msg",)}  # by which definitions
IDL_MARK = re.compile(r"={80}\nIDL: .*\n")
ZSTD_MARK = b"\x28\xb5\x2f\xfd"  # how a message begins that `ros2 bag` packed by itself
MAX_DEPTH = 8  # of messages within messages
NO_VALUES = ("header", "layout", "time_from_start")  # fields of messages


class MessageType(NamedTuple):
    """What messages of a topic are: the type's name and definition, in which language that is, and their encoding."""

    name: str
    definition: str
    language: str
    encoding: str

    @property
    def full_name(self) -> str:
        """Old bags leave `msg` out of it."""
        package, _, name = self.name.rpartition("/")
        return f"{package.removesuffix('/msg')}/msg/{name}"

    @property
    def kind(self) -> Kind:
        return KINDS.get(self.full_name, "other")


class RawMessage(NamedTuple):
    """A message as it is stored, with when it was written down, and when its publisher says it was sent."""

    topic: str
    type: MessageType
    log_ns: int
    publish_ns: int
    data: bytes


@cache
def _typestore(type_: MessageType) -> Any:
    """The types of a definition, by rosbags. Raises DAMAGED."""
    if type_.language == "none":
        store = get_typestore(Stores.ROS2_HUMBLE)
        store.register(get_types_from_msg(VIDEO_DEFINITION, VIDEO_TYPE))
        return store
    store = get_typestore(Stores.EMPTY)
    if type_.language == "ros2idl":
        for text in filter(None, IDL_MARK.split(type_.definition)):
            store.register(get_types_from_idl(text))
    else:
        store.register(get_types_from_msg(type_.definition, type_.full_name))
    return store


@cache
def _stamp_place(type_: MessageType) -> tuple[str, int] | None:
    """How the time of a message's header is packed, and at which byte; None where the type has none."""
    try:
        first = _typestore(type_).fielddefs[type_.full_name][1][0][1]
    except DAMAGED:
        return None
    is_cdr = type_.encoding == "cdr"
    place = {"std_msgs/msg/Header": 4, "builtin_interfaces/msg/Time": 4 * is_cdr}
    if first[0] != Nodetype.NAME or first[1] not in place:
        return None
    return "iI" if is_cdr else "II", place[first[1]]


class Decoder:
    """Messages of a recording, within the limits of its dataset."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def stamp_ns(self, message: RawMessage) -> int | None:
        """The time in the message's own header, in nanoseconds; None where it has none. Raises DataError."""
        place = _stamp_place(message.type)
        if place is None:
            return None
        data = self._unpacked(message)
        if len(data) < 12:
            raise DataError(
                f"{message.topic}: a message of {len(data)} bytes is too short for its header"
            )
        is_little = message.type.encoding != "cdr" or data[1] & 1
        seconds, nanoseconds = struct.unpack_from(
            ("<" if is_little else ">") + place[0], data, place[1]
        )
        return seconds * 10**9 + nanoseconds

    def _unpacked(self, message: RawMessage) -> bytes:
        """Raises DataError."""
        if not message.data.startswith(ZSTD_MARK):
            return message.data
        try:
            size = zstandard.frame_content_size(message.data)
            self.limits.check("max_chunk_bytes", size, f"{message.topic}: bytes of a message")
            return zstandard.decompress(message.data)
        except zstandard.ZstdError as e:
            raise DataError(f"{message.topic}: a message cannot be unpacked") from e

    def decoded(self, message: RawMessage) -> Any:
        """Raises DataError."""
        type_ = message.type
        if type_.language not in ENCODINGS.get(type_.encoding, ()):
            problem = f"messages are {type_.encoding or '?'} by {type_.language} definitions; "
            raise DataError(
                f"{message.topic}: {problem}cdr by ros2msg or ros2idl and ros1 by ros1msg are read"
            )
        try:
            store = _typestore(type_)
            decode = store.deserialize_cdr if type_.encoding == "cdr" else store.deserialize_ros1
            return decode(self._unpacked(message), type_.full_name)
        except DAMAGED as e:
            raise DataError(
                f"{message.topic}: a message cannot be decoded ({type(e).__name__})"
            ) from e

    def format(self, message: RawMessage) -> str:
        """How the pictures of a message are encoded, in its own words. Raises DataError."""
        decoded = self.decoded(message)
        return str(getattr(decoded, "format", "") or getattr(decoded, "encoding", ""))

    def picture(self, message: RawMessage) -> ArrayPicture:
        """Of a camera's message, as RGB. Raises DataError."""
        description = f"a picture of {message.topic}"
        decoded = self.decoded(message)
        try:
            if message.type.kind == "compressed":
                return decode_picture(bytes(decoded.data), description, self.limits)
            return _raw_picture(decoded, description, self.limits)
        except (AttributeError, TypeError, ValueError) as e:
            raise VideoError(f"{description} has not the fields of its type") from e

    def video(
        self, messages: Iterable[tuple[int, RawMessage]], codec: str
    ) -> Iterator[tuple[int, Frame]]:
        """Pictures of messages that are a video's packets, from a key frame on in order of time, each with the number
        of its message. Raises DataError.
        """
        decoder = av.CodecContext.create(codec, "r")
        assert isinstance(decoder, av.VideoCodecContext)
        decoder.thread_count = 1
        decoder.options = {"max_pixels": str(self.limits.max_pixels)}
        try:
            for number, message in chain(messages, [(0, None)]):
                packet = None  # at last what the decoder still holds
                if message is not None:
                    packet = av.Packet(bytes(self.decoded(message).data))
                    packet.pts = number
                for picture in decoder.decode(packet):
                    yield picture.pts or 0, Frame(picture)
        except FFmpegError as e:
            raise VideoError(f"a picture of {codec} cannot be decoded ({e.strerror})") from e

    def numbers(self, message: RawMessage) -> dict[str, float]:
        """Numbers of a message by name: joint positions, or every number that is no header. Raises DataError."""
        decoded = self.decoded(message)
        try:
            if message.type.kind == "joints":
                names = [str(n) for n in decoded.name] or [
                    f"joint_{k}" for k in range(len(decoded.position))
                ]
                pairs = list(zip(names, map(float, decoded.position), strict=False))
            else:
                # One more than may be shows that there are more
                pairs = list(islice(_flat(decoded, "", 0), self.limits.max_features + 1))
        except (AttributeError, TypeError, ValueError) as e:
            raise DataError(f"{message.topic}: a message has not the fields of its type") from e
        self.limits.check("max_features", len(pairs), f"{message.topic}: numbers of one message")
        return dict(pairs)

    def text(self, message: RawMessage) -> str:
        """Raises DataError."""
        return str(getattr(self.decoded(message), "data", "")).strip()


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, float]]:
    """Numbers below a message, named by their fields. Example: pose.position.x is position_x where pose is the root."""
    if depth > MAX_DEPTH:
        raise ValueError("messages in messages")
    if isinstance(value, bool | int | float):
        yield name or "value", float(value)
        return
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        items = enumerate(value)
    elif is_dataclass(value):
        items = ((field.name, getattr(value, field.name)) for field in fields(value))
    for key, item in items:
        if key in NO_VALUES:
            continue
        yield from _flat(item, f"{name}_{key}".strip("_"), depth + 1)


def _raw_picture(message: Any, description: str, limits: Limits) -> ArrayPicture:
    """A sensor_msgs/Image of 8 bits a channel. Raises VideoError."""
    channels = CHANNELS.get(message.encoding)
    if channels is None:
        raise VideoError(
            f"{description} is encoded as {str(message.encoding)[:20]!r}, not as one of {', '.join(CHANNELS)}"
        )
    height = message.height
    width = message.width
    step = message.step
    data = bytes(message.data)
    check_size(width, height, description, limits)
    if (
        not height
        or not width
        or step < width * channels
        or len(data) < step * (height - 1) + width * channels
    ):
        raise VideoError(
            f"{description} of {width}x{height} px has {len(data)} bytes in rows of {step}"
        )
    padded = np.frombuffer(data + bytes(max(0, step * height - len(data))), np.uint8)[
        : step * height
    ]
    pixels = padded.reshape(height, step)[:, : width * channels].reshape(height, width, channels)[
        :, :, :3
    ]
    return array_picture(
        pixels[:, :, ::-1] if message.encoding.startswith("bgr") else pixels, description
    )


# Files, which each give their messages in this form

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


# An error says where a recording ends early, and why; what stands before it was read
type Record = RawMessage | Metadata | Attachment | DataError


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


@once
def recordings(source: Source) -> dict[str, list[str]]:
    """The files of each recording, in their order, by the first. A manifest may name several."""
    parts = {uri: [uri] for uri in sorted(filter(is_recording, source.files))}
    for manifest in source.by_name.get(MANIFEST, []):
        uris = [uri for uri in manifest_uris(source, manifest) if uri in parts]
        for uri in uris[1:]:
            del parts[uri]
        parts |= {uris[0]: uris} if uris else {}
    return parts


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
    """Messages, metadata and attachments of a recording's files, in their order; an error where one ends early.

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
            yield DataError(WHY_CUT_OFF.get(type(e), f"{type(e).__name__}: {message}"))


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
