"""Subtask spans that a source gives for an episode."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from ingest.episode import NativeStep

MAX_FRAMES = 1 << 31  # no episode has so many


def checked_steps(spans: Iterable[tuple[Any, Any, Any]], num_frames: int | None) -> tuple[NativeStep, ...]:
    """Spans (name, first frame, frame after the last) in order of time; all of them or none.

    Raises ValueError, which says what is wrong: no text, reversed, overlapping, or beyond the episode's `num_frames`
    (None where that is not known).
    """
    steps = []
    for number, (name, start, end) in enumerate(spans):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"span {number} has no text")
        if type(start) is not int or type(end) is not int:
            raise ValueError(f"span {number} ({name}) runs from {start!r} to {end!r}")
        if not 0 <= start < end < MAX_FRAMES:
            raise ValueError(f"span {number} ({name}) runs from frame {start} to {end}")
        if num_frames is not None and end > num_frames:
            raise ValueError(f"span {number} ({name}) ends at frame {end} of {num_frames}")
        steps.append(NativeStep(name.strip(), start, end))
    steps.sort(key=lambda s: s.start_frame)
    for before, after in pairwise(steps):
        if after.start_frame < before.end_frame:
            raise ValueError(
                f"{before.name} ends at frame {before.end_frame}, {after.name} begins at {after.start_frame}"
            )
    return tuple(steps)
