"""Streaming video decoding with PyAV: h264, AV1, MPEG-4 and whatever else FFmpeg reads.

A frame index counts decoded frames of one episode from 0. Pictures are uint8: luma [h, w], RGB [h, w, 3].
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import Protocol, cast

import av
import av.container
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")
# Pixel formats whose first plane is 8-bit luma
LUMA_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "gray")
LFS_MARK = b"version https://git-lfs"
READ_TIMEOUT_S = 30.0  # for one packet: in a damaged file FFmpeg searches for the next one up to the end


class VideoError(Exception):
    """A video that cannot be decoded; `reason` is a finding's reason code."""

    def __init__(self, message: str, reason: str = "undecodable_video") -> None:
        super().__init__(message)
        self.reason = reason


class Picture(Protocol):
    """One frame, converted only as far as it is asked for."""

    def luma(self) -> np.ndarray: ...
    def rgb(self) -> np.ndarray: ...
    @property
    def is_damaged(self) -> bool: ...


@dataclass(frozen=True)
class Frame:
    """A picture as a video decoder hands it over."""

    picture: av.VideoFrame

    def luma(self) -> np.ndarray:
        """uint8 [h, w]; a view of the decoder's buffer where the format allows: do not keep it."""
        if self.picture.format.name not in LUMA_FORMATS:
            return self.picture.to_ndarray(format="gray")
        plane = self.picture.planes[0]
        rows = np.frombuffer(cast(bytes, plane), np.uint8).reshape(plane.height, plane.line_size)
        return rows[:, : plane.width]

    def rgb(self) -> np.ndarray:
        """uint8 [h, w, 3]"""
        return self.picture.to_ndarray(format="rgb24")

    @property
    def is_damaged(self) -> bool:
        """Did the decoder find errors in it, and conceal them?"""
        return self.picture.is_corrupt


class Passed:
    """A frame that `only_frames` did not ask for, in the place of its picture."""

    is_damaged = False

    def luma(self) -> np.ndarray:
        raise ValueError("this frame was not asked for")

    rgb = luma


PASSED = Passed()


@dataclass(frozen=True)
class VideoInfo:
    fps: float
    num_frames: int | None  # as the container says; None when it does not
    width_px: int
    height_px: int
    codec: str
    duration_s: float | None = None  # as the container says; None when it does not


_threads: ContextVar[int] = ContextVar("threads", default=1)


@contextmanager
def decoding_threads(count: int) -> Iterator[None]:
    """So many threads for each video opened inside.

    How a decoder conceals damage is chance with several, and always the same with one.
    """
    before = _threads.set(count)
    try:
        yield
    finally:
        _threads.reset(before)


_only: ContextVar[frozenset[int] | None] = ContextVar("only", default=None)


@contextmanager
def only_frames(wanted: Collection[int]) -> Iterator[None]:
    """Of each video opened inside, groups of pictures that hold none of these frames are not decoded: Passed instead.

    Decoding raises VideoError where groups cannot be told apart, or do not decode by themselves.
    """
    before = _only.set(frozenset(wanted))
    try:
        yield
    finally:
        _only.reset(before)


def several_threads() -> bool:
    return _threads.get() > 1


def _open(path: Path) -> av.container.InputContainer:
    try:
        with path.open("rb") as f:
            head = f.read(len(LFS_MARK))
    except OSError as e:
        raise VideoError(f"cannot read {path.name}: {e.strerror}") from e
    if head == LFS_MARK:
        raise VideoError(f"{path.name} is a git-LFS pointer, not a video", "lfs_pointer")
    try:
        # a title that is not UTF-8 is no reason to refuse the pictures
        container = av.open(str(path), metadata_errors="replace", timeout=READ_TIMEOUT_S)
    except (FFmpegError, ValueError) as e:
        raise VideoError(f"{path.name} is not a video that FFmpeg can open ({_short(e)})") from e
    problem = None
    if not container.streams.video:
        problem = "has no video stream"
    elif container.streams.video[0].codec_context is None:
        problem = "is coded in a way that FFmpeg does not know"
    if problem:
        container.close()
        raise VideoError(f"{path.name} {problem}")
    return container


def _short(e: Exception) -> str:
    return getattr(e, "strerror", None) or str(e)


def probe(path: Path) -> VideoInfo:
    """Header of a video file; decodes nothing. Raises VideoError."""
    with _open(path) as container:
        stream = container.streams.video[0]
        rate, codec = stream.average_rate or stream.guessed_rate, stream.codec_context
        name = codec.codec.canonical_name  # of the format (av1), not of the decoder (libdav1d)
        length = container.duration and container.duration / av.time_base
        info = VideoInfo(float(rate or 0), stream.frames or None, codec.width, codec.height, name, length)
    if not info.fps:
        raise VideoError(f"{path.name} does not say its frame rate")
    return info


def decode(
    path: Path, start_frame: int = 0, num_frames: int | None = None, rate: float | None = None
) -> Iterator[Frame | Passed]:
    """Frames start_frame, start_frame + 1, ... of a file, at most num_frames of them, in one streaming pass.

    A frame's number is its presentation time in a file times `rate` (that which start_frame was computed with; default
    the file's average, which gaps between joined recordings falsify), so a file that holds many episodes is entered by
    one seek to the key frame before. Raises VideoError; ends early, without error, where the file does.
    """
    try:
        with _open(path) as container:
            wanted = _only.get()
            if wanted is not None:
                yield from islice(_wanted(container, start_frame, rate, wanted), num_frames)
                return
            for picture in islice(_from(container, start_frame, rate), num_frames):
                yield Frame(picture)
    except (FFmpegError, ValueError, OverflowError) as e:
        raise VideoError(f"{path.name} cannot be decoded ({_short(e)})") from e


def _from(container: av.container.InputContainer, start_frame: int, rate: float | None) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = _threads.get()
    if start_frame == 0:
        yield from container.decode(stream)
        return
    number = _numbering(stream, rate)
    _seek(container, stream, start_frame, rate)
    pictures = container.decode(stream)
    head = next(pictures, None)
    if head is not None and number(head) > start_frame:  # the index led past the frame: read from the beginning
        container.seek(stream.start_time or 0, stream=stream, backward=True)
        pictures = container.decode(stream)
        head = next(pictures, None)
    if head is None:
        return
    yield from dropwhile(lambda p: number(p) < start_frame, chain([head], pictures))


def _numbering(stream: VideoStream, rate: float | None) -> Callable[[av.VideoFrame | av.Packet], int]:
    """Which frame of its file a picture, or the packet it comes from, is. Raises VideoError."""
    rate, time_base, first = rate or float(stream.average_rate or 0), stream.time_base, stream.start_time or 0
    if not rate or not time_base:
        raise VideoError("the video does not say its frame rate, so an episode inside it cannot be found")

    def number(picture: av.VideoFrame | av.Packet) -> int:
        if picture.pts is None:
            raise VideoError("a frame has no presentation time, so an episode inside the file cannot be found")
        return round(float((picture.pts - first) * time_base) * rate)

    return number


def _seek(container: av.container.InputContainer, stream: VideoStream, start_frame: int, rate: float | None) -> None:
    time_s = start_frame / (rate or float(stream.average_rate or 0))
    container.seek((stream.start_time or 0) + int(time_s / (stream.time_base or 1)), stream=stream, backward=True)


def _wanted(
    container: av.container.InputContainer, start_frame: int, rate: float | None, wanted: frozenset[int]
) -> Iterator[Frame | Passed]:
    """As _from, of the wanted frames (counted from start_frame) and those that they need; of the others Passed."""
    stream = container.streams.video[0]
    codec = stream.codec_context
    codec.thread_count = _threads.get()
    number = _numbering(stream, rate) if start_frame else None
    if start_frame:
        _seek(container, stream, start_frame, rate)
    at = 0  # the frame that comes next
    for group in _groups(container, stream):
        shown = sorted(group, key=_time)
        early = sum(number(p) < start_frame for p in shown) if number else 0
        if number and at == 0 and number(shown[0]) > start_frame:
            raise VideoError("the index leads past the episode")
        here = shown[early:]
        pictures = _pictures(codec, group, {_time(p) for k, p in enumerate(here, at) if k in wanted})
        yield from (pictures.get(_time(p), PASSED) for p in here)
        at += len(here)


def _pictures(codec: VideoCodecContext, group: list[av.Packet], wanted: set[int]) -> dict[int, Frame]:
    """Pictures of a group by their time: the wanted ones, and those that are decoded before the last of them."""
    if not wanted:
        return {}
    times = [_time(p) for p in group]
    needed = 1 + max(k for k, time in enumerate(times) if time in wanted)  # none needs what comes after it in the file
    pictures = [f for packet in (*group[:needed], None) for f in codec.decode(packet)]
    codec.flush_buffers()
    if (
        [f.pts for f in pictures] != sorted(times[:needed])
        or len(set(times)) < len(times)
        or any(f.is_corrupt for f in pictures)
    ):
        raise VideoError("a group of pictures does not decode by itself")
    return {time: Frame(picture) for time, picture in zip(sorted(times[:needed]), pictures, strict=True)}


def _groups(container: av.container.InputContainer, stream: VideoStream) -> Iterator[list[av.Packet]]:
    """Packets from one key frame to the next. Raises VideoError: pictures of one are shown before its key frame."""
    group: list[av.Packet] = []
    for packet in container.demux(stream):
        if packet.size == 0:  # marks the end
            continue
        if packet.is_keyframe and group:
            yield group
            group = []
        group.append(packet)
        if not group[0].is_keyframe or _time(packet) < _time(group[0]) or packet.is_corrupt:
            raise VideoError("groups of pictures cannot be told apart")
    if group:
        yield group


def _time(packet: av.Packet) -> int:
    if packet.pts is None:
        raise VideoError("a frame has no presentation time")
    return packet.pts
