"""Streaming video decoding with PyAV: h264, AV1, MPEG-4 and whatever else FFmpeg reads.

A frame index counts decoded frames of one episode from 0. Pictures are uint8: luma [h, w], RGB [h, w, 3].
"""

from collections.abc import Iterator
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
) -> Iterator[Frame]:
    """Frames start_frame, start_frame + 1, ... of a file, at most num_frames of them, in one streaming pass.

    A frame's number is its presentation time in a file times `rate` (that which start_frame was computed with; default
    the file's average, which gaps between joined recordings falsify), so a file that holds many episodes is entered by
    one seek to the key frame before. Raises VideoError; ends early, without error, where the file does.
    """
    try:
        with _open(path) as container:
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
    rate, time_base = rate or float(stream.average_rate or 0), stream.time_base
    if not rate or not time_base:
        raise VideoError("the video does not say its frame rate, so an episode inside it cannot be found")
    first = stream.start_time or 0

    def number(picture: av.VideoFrame) -> int:
        if picture.pts is None:
            raise VideoError("a frame has no presentation time, so an episode inside the file cannot be found")
        return round(float((picture.pts - first) * time_base) * rate)

    container.seek(first + int(start_frame / rate / time_base), stream=stream, backward=True)
    pictures = container.decode(stream)
    head = next(pictures, None)
    if head is not None and number(head) > start_frame:  # the index led past the frame: read from the beginning
        container.seek(first, stream=stream, backward=True)
        pictures = container.decode(stream)
        head = next(pictures, None)
    if head is None:
        return
    yield from dropwhile(lambda p: number(p) < start_frame, chain([head], pictures))
