"""MCAP recordings of ROS 2, read by the library mcap: their messages in order, and what these say.

A file whose recorder was stopped is read as far as it goes.
"""

import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import zstandard
from mcap.exceptions import EndOfFile, InvalidMagic, RecordLengthLimitExceeded
from mcap.exceptions import McapError as LibraryError
from mcap.records import Attachment, Channel, Chunk, Footer, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk
from mcap_ros2.decoder import DecoderFactory

from ingest.media.frames import VideoError
from ingest.media.picture import ArrayPicture, array_picture, check_size, decode_picture
from ingest.reasons import DataError, Limits
from ingest.sources.files import Source

PACKED = ".zstd"  # `ros2 bag` can pack its files as a whole
# What the libraries raise for damaged records
DAMAGED = (
    LibraryError,
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
    EOFError,
    OSError,
    AssertionError,
    IndexError,
)
# Errors that say more to people in other words
WHY_CUT_OFF: dict[type[Exception], str] = {
    EndOfFile: "the file ends before its end mark",
    RecordLengthLimitExceeded: "the file ends inside a record",
    CRCValidationError: "CRCValidationError: a chunk's bytes do not fit its checksum",
}

Kind = Literal["compressed", "raw", "joints", "numbers", "text", "other"]
KINDS: dict[str, Kind] = {
    "sensor_msgs/msg/CompressedImage": "compressed",
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
CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3}
HEADERS = ("std_msgs/Header", "std_msgs/msg/Header", "Header")
MAX_DEPTH = 8  # of messages within messages
NO_VALUES = ("header", "layout", "time_from_start")  # fields of messages


@dataclass(frozen=True)
class RawMessage:
    """A message as it is stored, with when it was written down, and when its publisher says it was sent."""

    channel: Channel
    schema: Schema | None
    log_ns: int
    publish_ns: int
    data: bytes

    @property
    def kind(self) -> Kind:
        """By the type's name; old bags leave `msg` out of it."""
        package, _, name = self.schema.name.rpartition("/") if self.schema else ("", "", "")
        return KINDS.get(f"{package.removesuffix('/msg')}/msg/{name}", "other")

    def stamp_ns(self) -> int | None:
        """The time in the message's own header, in nanoseconds; None where it has none. Raises DataError."""
        # Is a Header the first field of its definition?
        definition = self.schema.data[:4096].decode(errors="replace") if self.schema else ""
        lines = (line.partition("#")[0].split() for line in definition.splitlines())
        if next(filter(None, lines), [""])[0] not in HEADERS:
            return None
        if len(self.data) < 12:
            raise DataError(
                f"{self.channel.topic}: a message of {len(self.data)} bytes is too short for its header"
            )
        seconds, nanoseconds = struct.unpack_from(
            "<iI" if self.data[1] & 1 else ">iI", self.data, 4
        )
        return seconds * 10**9 + nanoseconds


@dataclass(frozen=True)
class CutOff:
    """Where a recording ends early, and why; what stands before it was read."""

    why: str


def records(source: Source, uri: str) -> Iterator[RawMessage | Metadata | Attachment | CutOff]:
    """Messages, metadata and attachments in the file's order; a CutOff last, where it ends before its end mark.

    Raises DataError for what is no MCAP file at all, and for one that claims more than the limits; OSError.
    """
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
        except DAMAGED as e:
            message = " ".join(str(e).split())[:100]
            yield CutOff(WHY_CUT_OFF.get(type(e), f"{type(e).__name__}: {message}"))


def _in_order(
    stored: Iterable[Any], uri: str, limits: Limits
) -> Iterator[RawMessage | Metadata | Attachment]:
    """Raises DataError and DAMAGED."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    for outer in stored:
        for record in (
            breakup_chunk(outer, validate_crc=True) if isinstance(outer, Chunk) else [outer]
        ):
            if isinstance(record, Schema | Channel):
                (schemas if isinstance(record, Schema) else channels)[record.id] = record  # pyright: ignore
                limits.check(
                    "max_features", len(schemas) + len(channels), f"{uri}: topics and types"
                )
            elif isinstance(record, Message):
                channel = channels[record.channel_id]
                schema = schemas.get(channel.schema_id)
                yield RawMessage(channel, schema, record.log_time, record.publish_time, record.data)
            elif isinstance(record, Metadata | Attachment):
                yield record
            elif isinstance(record, Footer):
                return


class Decoder:
    """Messages of one file, within the limits of its dataset; each type's definition is parsed once."""

    def __init__(self, limits: Limits) -> None:
        self.factory = DecoderFactory()
        self.limits = limits

    def decoded(self, message: RawMessage) -> SimpleNamespace:
        """Raises DataError."""
        topic = message.channel.topic
        encoding = message.channel.message_encoding
        try:
            decode = self.factory.decoder_for(encoding, message.schema)
            if decode is not None:
                return decode(message.data)
        except DAMAGED as e:
            raise DataError(f"{topic}: a message cannot be decoded ({type(e).__name__})") from e
        definitions = message.schema.encoding if message.schema else "none"
        problem = f"messages are {encoding or '?'} by {definitions or '?'} definitions; only cdr by ros2msg is read"
        raise DataError(f"{topic}: {problem}")

    def picture(self, message: RawMessage) -> ArrayPicture:
        """Of a camera's message, as RGB. Raises DataError."""
        description = f"a picture of {message.channel.topic}"
        decoded = self.decoded(message)
        try:
            if message.kind == "compressed":
                return decode_picture(bytes(decoded.data), description, self.limits)
            return _raw_picture(decoded, description, self.limits)
        except (AttributeError, TypeError, ValueError) as e:
            raise VideoError(f"{description} has not the fields of its type") from e

    def numbers(self, message: RawMessage) -> dict[str, float]:
        """Numbers of a message by name: joint positions, or every number that is no header. Raises DataError."""
        decoded = self.decoded(message)
        try:
            if message.kind == "joints":
                names = [str(n) for n in decoded.name] or [
                    f"joint_{k}" for k in range(len(decoded.position))
                ]
                pairs = list(zip(names, map(float, decoded.position), strict=False))
            else:
                # One more than may be shows that there are more
                pairs = list(islice(_flat(decoded, "", 0), self.limits.max_features + 1))
        except (AttributeError, TypeError, ValueError) as e:
            raise DataError(
                f"{message.channel.topic}: a message has not the fields of its type"
            ) from e
        self.limits.check(
            "max_features", len(pairs), f"{message.channel.topic}: numbers of one message"
        )
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
    fields = [f for f in getattr(type(value), "__slots__", ()) if f not in NO_VALUES]
    is_list = isinstance(value, list | tuple | np.ndarray | array)
    for key, item in (
        enumerate(value) if is_list else ((field, getattr(value, field)) for field in fields)
    ):
        yield from _flat(item, f"{name}_{key}".strip("_"), depth + 1)


def _raw_picture(message: SimpleNamespace, description: str, limits: Limits) -> ArrayPicture:
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
