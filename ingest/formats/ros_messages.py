"""Messages of ROS as they are stored: what their types mean, when they were made, and what they say.

They are decoded by rosbags, by the definitions that their file brings; one that brings none is of
the types that ROS itself has.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import chain, islice, product
from typing import Any, Literal, NamedTuple

import av
import numpy as np
import zstandard
from av.error import FFmpegError
from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)

from ingest.media.frames import VideoError
from ingest.media.picture import ArrayPicture, array_picture, check_size, decode_picture
from ingest.media.video import Frame
from ingest.reasons import DataError, Limits

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
