"""Pictures of a video, as their readers know them: how they are asked for, and what may be wrong
with them.

A frame index counts decoded frames of one episode from 0. Pictures are uint8: luma [h, w], RGB [h,
w, 3].
"""

from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np

from ingest.reasons import LIMITS, DataError, Limits

CAMERA_RATE_TOLERANCE = 0.01  # relative, between cameras of one episode
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")


class VideoError(DataError):
    """A video or a picture that cannot be decoded."""

    def __init__(self, message: str, reason: str = "undecodable_video") -> None:
        super().__init__(message, reason)


@dataclass(frozen=True)
class Planes:
    """A picture as videos hold it: luma [h, w], and two colour differences of half its width and
    height, rounded up.

    uint8, and views of the decoder's buffers: do not keep them. is_full_range: 0..255 is used, not
    16..235 and 16..240.
    """

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    is_full_range: bool


class Picture(Protocol):
    """One frame, converted only as far as it is asked for."""

    def luma(self) -> np.ndarray: ...
    def rgb(self) -> np.ndarray: ...
    def planes(self) -> Planes | None:
        """None for a picture that is held in another way."""
        ...

    @property
    def is_damaged(self) -> bool: ...
    @property
    def is_key(self) -> bool:
        """Does it decode by itself?"""
        ...


class SkippedFrame:
    """A frame that was not asked for and not decoded, in the place of its picture."""

    is_damaged = is_key = False

    def luma(self) -> NoReturn:
        raise ValueError("this frame was not asked for")

    rgb = planes = luma


SKIPPED = SkippedFrame()


@dataclass(frozen=True)
class DecodeOptions:
    """How a video is decoded.

    `threads`: of the decoder; the frames are the same with any number. `limits`: those of the
    video's dataset. `wanted`: the frames that are needed; None: all. Groups of pictures that hold
    none of them are not decoded, and SkippedFrame stands for each of their frames. Decoding then
    raises VideoError where groups cannot be told apart, or do not decode by themselves.
    """

    threads: int = 1
    wanted: frozenset[int] | None = None
    limits: Limits = LIMITS


DECODE_ALL = DecodeOptions()
