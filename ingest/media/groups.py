"""Groups of pictures: what stands between two key frames of a video, and decodes by itself."""

from collections.abc import Iterator
from itertools import chain

import av
import av.container
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from ingest.episode import VideoError

type Container = av.container.InputContainer
type Packet = av.Packet
type Decoded = av.VideoFrame


def check_complete(pictures: list[Decoded], times: list[int]) -> None:
    """Raises VideoError unless each packet gave one whole picture, and no two have one time."""
    is_complete = [p.pts for p in pictures] == sorted(times) and len(set(times)) == len(times)
    if not is_complete or any(p.is_corrupt for p in pictures):
        raise VideoError("a group of pictures does not decode by itself")


def decode_group(
    codec: VideoCodecContext, group: list[Packet], wanted_times: set[int]
) -> dict[int, Decoded]:
    """Pictures of a group by their time: the wanted ones, and those that are decoded before the
    last of them.

    Raises VideoError when the group does not decode by itself.
    """
    if not wanted_times:
        return {}
    times = [time_of(p) for p in group]
    # No picture needs what comes after it in the file: decoding ends with the last wanted one
    count = 1 + max(k for k, time in enumerate(times) if time in wanted_times)
    pictures = decoded(codec, group[:count])
    check_complete(pictures, times[:count])
    return {p.pts: p for p in pictures if p.pts is not None}


def decoded(
    codec: VideoCodecContext, packets: list[Packet], most_pixels: float = 7e8
) -> list[Decoded]:
    """All pictures of some packets; the decoder is empty afterwards. Raises VideoError: more pixels (7e8: 1 GB)."""
    pictures: list[Decoded] = []
    num_pixels = 0
    try:
        for packet in (*packets, None):  # None: the decoder hands over what it still holds
            packet_pictures = codec.decode(packet)
            pictures += packet_pictures
            num_pixels += sum(p.width * p.height for p in packet_pictures)
            if num_pixels > most_pixels:
                raise VideoError("a group of pictures is too long to be held")
    finally:
        codec.flush_buffers()
    return pictures


def play(container: Container, stream: VideoStream) -> Iterator[Decoded]:
    """A video's pictures, in the order of showing. Raises VideoError."""
    return chain.from_iterable(map(stream.codec_context.decode, container.demux(stream)))


def groups(container: Container, stream: VideoStream) -> Iterator[list[Packet]]:
    """Packets from one key frame to the next.

    Raises VideoError where groups cannot be told apart: a picture is shown before the key frame of
    its group.
    """
    group: list[Packet] = []
    for packet in container.demux(stream):
        if packet.size == 0:  # marks the end
            continue
        if packet.is_keyframe and group:
            yield group
            group = []
        group.append(packet)
        # A group that begins with no key frame, or whose pictures are shown before it, needs another group
        key_frame = group[0]
        if not key_frame.is_keyframe or time_of(packet) < time_of(key_frame) or packet.is_corrupt:
            raise VideoError("groups of pictures cannot be told apart")
    if group:
        yield group


def groups_from(
    container: Container, first: int | None
) -> Iterator[tuple[list[Packet], list[Packet]]]:
    """Groups of pictures from that which holds a frame on: the packets of each, and in the order of
    showing those of them from the frame on. Raises VideoError."""
    stream = container.streams.video[0]
    num_shown = 0
    if first is not None:
        container.seek(first, stream=stream, backward=True)
    for group in groups(container, stream):
        shown_packets = sorted(group, key=time_of)
        if first is not None:
            if not num_shown and time_of(shown_packets[0]) > first:
                raise VideoError("the index leads past the episode")
            # The first group begins at a key frame before the episode
            shown_packets = [p for p in shown_packets if time_of(p) >= first]
        num_shown += len(shown_packets)
        yield group, shown_packets


def is_shown(packet: Packet) -> bool:
    """Is it a picture? A stream's end is a packet, too, and an edit may leave out what only others need."""
    return packet.size > 0 and not packet.is_discard


def time_of(packet: Packet) -> int:
    if packet.pts is None:
        raise VideoError("a frame has no presentation time")
    return packet.pts
