"""What messages of ROS 2 say: pictures, numbers, texts and times, decoded by the definitions that the file brings."""

import struct
from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from mcap.records import Schema
from mcap_ros2.decoder import DecoderFactory

from ingest.formats.mcap_file import DAMAGED, McapError, RawMessage
from ingest.limits import Limits
from ingest.media.picture import ArrayPicture, array_picture, check_size, decode_picture
from ingest.media.video import VideoError

Kind = Literal["compressed", "raw", "joints", "numbers", "text", "other"]
KINDS: dict[str, Kind] = {
    "sensor_msgs/msg/CompressedImage": "compressed",
    "sensor_msgs/msg/Image": "raw",
    "sensor_msgs/msg/JointState": "joints",
    "std_msgs/msg/String": "text",
    **{f"std_msgs/msg/Float{bits}{form}": "numbers" for bits in (32, 64) for form in ("", "MultiArray")},
    **{f"geometry_msgs/msg/{m}{s}": "numbers" for m in ("Pose", "Twist", "Wrench", "Point") for s in ("", "Stamped")},
    "trajectory_msgs/msg/JointTrajectoryPoint": "numbers",
}
HEADERLESS = ("std_msgs/", "trajectory_msgs/msg/JointTrajectoryPoint")
CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3}
MAX_DEPTH = 8


def kind_of(schema: Schema | None) -> Kind:
    """By the type's name; old bags leave `msg` out of it."""
    if schema is None:
        return "other"
    package, _, name = schema.name.rpartition("/")
    return KINDS.get(f"{package.removesuffix('/msg')}/msg/{name}", "other")


def stamp_ns(message: RawMessage) -> int | None:
    """The time in the message's own header, in nanoseconds; None where it has none. Raises McapError."""
    if message.schema is None or not _has_header(message.schema):
        return None
    if len(message.data) < 12:
        raise McapError(f"{message.channel.topic}: a message of {len(message.data)} bytes is too short for its header")
    seconds, nanoseconds = struct.unpack_from("<iI" if message.data[1] & 1 else ">iI", message.data, 4)
    return seconds * 10**9 + nanoseconds


def _has_header(schema: Schema) -> bool:
    """Is a Header the first field of its definition?"""
    for line in schema.data[:4096].decode(errors="replace").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            return text.split()[0] in ("std_msgs/Header", "std_msgs/msg/Header", "Header")
    return False


class Decoder:
    """Messages of one file, within the limits of its dataset; each type's definition is parsed once."""

    def __init__(self, limits: Limits) -> None:
        self.factory, self.limits = DecoderFactory(), limits

    def decoded(self, message: RawMessage) -> SimpleNamespace:
        """Raises McapError."""
        topic = message.channel.topic
        try:
            decode = self.factory.decoder_for(message.channel.message_encoding, message.schema)
            if decode is None:
                encoding = message.schema.encoding if message.schema else "none"
                raise McapError(f"{topic}: messages are {message.channel.message_encoding or '?'} by {encoding or '?'} "
                                "definitions; only cdr by ros2msg is read")  # fmt: skip
            return decode(message.data)
        except DAMAGED as e:
            raise McapError(f"{topic}: a message cannot be decoded ({type(e).__name__})") from e

    def picture(self, message: RawMessage) -> ArrayPicture:
        """Of a camera's message, as RGB. Raises VideoError."""
        what = f"a picture of {message.channel.topic}"
        try:
            decoded = self.decoded(message)
            if kind_of(message.schema) == "compressed":
                return decode_picture(bytes(decoded.data), what, self.limits)
            return _raw_picture(decoded, what, self.limits)
        except McapError as e:
            raise VideoError(str(e)) from e
        except (AttributeError, TypeError, ValueError) as e:
            raise VideoError(f"{what} has not the fields of its type") from e

    def numbers(self, message: RawMessage) -> dict[str, float]:
        """Numbers of a message by name: joint positions, or every number that is no header. Raises McapError."""
        decoded = self.decoded(message)
        try:
            if kind_of(message.schema) == "joints":
                names = [str(n) for n in decoded.name] or [f"joint_{k}" for k in range(len(decoded.position))]
                pairs = list(zip(names, map(float, decoded.position), strict=False))
            else:
                # One more than may be shows that there are more
                pairs = list(islice(_flat(decoded, "", 0), self.limits.max_features + 1))
        except (AttributeError, TypeError, ValueError) as e:
            raise McapError(f"{message.channel.topic}: a message has not the fields of its type") from e
        what = f"{message.channel.topic}: numbers of one message"
        if problem := self.limits.excess("max_features", len(pairs), what):
            raise McapError(problem, "over_limit")
        return dict(pairs)

    def text(self, message: RawMessage) -> str:
        """Raises McapError."""
        return str(getattr(self.decoded(message), "data", "")).strip()


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, float]]:
    """Numbers below a message, named by their fields. Example: pose.position.x is position_x where pose is the root."""
    if depth > MAX_DEPTH:
        raise ValueError("messages in messages")
    if isinstance(value, bool | int | float):
        yield name or "value", float(value)
    elif isinstance(value, list | tuple | np.ndarray) or (hasattr(value, "typecode") and hasattr(value, "tolist")):
        for k, item in enumerate(value):
            yield from _flat(item, f"{name}_{k}".strip("_"), depth + 1)
    elif isinstance(value, SimpleNamespace):
        for field in getattr(type(value), "__slots__", ()):
            if field not in ("header", "layout", "time_from_start"):
                yield from _flat(getattr(value, field), f"{name}_{field}".strip("_"), depth + 1)


def _raw_picture(message: SimpleNamespace, what: str, limits: Limits) -> ArrayPicture:
    """A sensor_msgs/Image of 8 bits a channel. Raises VideoError."""
    channels = CHANNELS.get(message.encoding)
    if channels is None:
        raise VideoError(f"{what} is encoded as {str(message.encoding)[:20]!r}, not as one of {', '.join(CHANNELS)}")
    height, width, step, data = message.height, message.width, message.step, bytes(message.data)
    check_size(width, height, what, limits)
    if not height or not width or step < width * channels or len(data) < step * (height - 1) + width * channels:
        raise VideoError(f"{what} of {width}x{height} px has {len(data)} bytes in rows of {step}")
    padded = np.frombuffer(data + bytes(max(0, step * height - len(data))), np.uint8)[: step * height]
    array = padded.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    array = array[:, :, :3] if channels == 4 else array
    return array_picture(array[:, :, ::-1] if message.encoding.startswith("bgr") else array, what)
