"""Pictures of a video, as their readers know them: how they are asked for, and what may be wrong
with them.

A frame index counts decoded frames of one episode from 0. Pictures are uint8: luma [h, w], RGB [h,
w, 3].
"""

from dataclasses import dataclass, field
from functools import cached_property
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


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """When each picture of a file is shown, in this order. `ticks`: int64 [n], of `tick_s` seconds each. Of the packet
    of each picture, `order`: its place in the file, int64 [n]; `is_key`: does it need no other, bool [n]?"""

    ticks: np.ndarray
    tick_s: float
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    is_key: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @cached_property
    def seconds(self) -> np.ndarray:
        """float64 [n]"""
        return self.ticks * self.tick_s

    @cached_property
    def period_s(self) -> float:
        """From a picture to the next one, usually; 1 for a single picture."""
        return float(np.median(np.diff(self.seconds))) if len(self.ticks) > 1 else 1.0

    def nearest(self, times_s: np.ndarray) -> np.ndarray:
        """The picture that is shown nearest to each time, int64 [n]; of two that are equally near the first."""
        shown_s = self.seconds
        next_index = np.searchsorted(shown_s, times_s).clip(max=len(shown_s) - 1)
        previous_index = np.maximum(next_index - 1, 0)
        is_before = np.abs(times_s - shown_s[previous_index]) <= np.abs(
            shown_s[next_index] - times_s
        )
        return np.where(is_before, previous_index, next_index)
