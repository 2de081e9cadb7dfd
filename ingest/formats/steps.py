"""Subtask spans that a source gives for an episode."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ingest.episode import NativeStep

MAX_FRAMES = 1 << 31  # no episode has so many
# What tools write for a time in which no step is under way
NOT_STEPS = (
    *("", "null", "none", "nan", "idle", "static", "stand still", "between steps"),
    *("end", "done", "not done", "abnormal", "unknown"),
)


class StatedSpan(NamedTuple):
    """A span as the source gives it: nothing is known yet of the types of its values. `end`: the frame after it."""

    name: Any
    start: Any
    end: Any


def is_step(name: Any) -> bool:
    """What is no text stays, to be found."""
    return not isinstance(name, str) or name.strip().rstrip(".").lower() not in NOT_STEPS


def span_objects(value: Any, name: str) -> list[dict[str, Any]]:
    """The objects of a list of spans. Raises ValueError, which names the field, for anything else."""
    if not isinstance(value, list) or not all(isinstance(span, dict) for span in value):
        raise ValueError(f"{name} is not a list of spans")
    return value


def checked_steps(spans: Iterable[StatedSpan], num_frames: int | None) -> tuple[NativeStep, ...]:
    """Spans in order of time; all of them or none.

    Raises ValueError, which says what is wrong: no text, reversed, overlapping, or beyond the episode's `num_frames`
    (None where that is not known).
    """
    steps = [_checked_step(number, span, num_frames) for number, span in enumerate(spans)]
    # Spans may come in any order, and may leave gaps, but no frame is in two of them
    steps.sort(key=lambda s: s.start_frame)
    for before, after in pairwise(steps):
        if after.start_frame < before.end_frame:
            raise ValueError(
                f"{before.name} ends at frame {before.end_frame}, {after.name} begins at {after.start_frame}"
            )
    return tuple(steps)


def with_exclusive_ends(spans: Sequence[StatedSpan]) -> list[StatedSpan]:
    """Spans whose `end` is the frame after them.

    Where each span ends one frame before the next one begins, the source counts last frames as ends.
    """
    # What is no frame is left to checked_steps
    if {type(edge) for span in spans for edge in (span.start, span.end)} == {int}:
        between = {after.start - before.end for before, after in pairwise(sorted(spans, key=lambda span: span.start))}
        if between == {1}:
            return [span._replace(end=span.end + 1) for span in spans]
    return list(spans)


def tells_times(steps: Sequence[NativeStep], num_frames: int | None) -> bool:
    """Do steps divide their episode at all? One span that covers all of it is a text of the whole, and no step."""
    if len(steps) != 1:
        return len(steps) > 1
    # A span that counts its last frame as its end lacks that frame
    return steps[0].start_frame > 0 or (num_frames is not None and steps[0].end_frame < num_frames - 1)


def _checked_step(number: int, span: StatedSpan, num_frames: int | None) -> NativeStep:
    name, start, end = span
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"span {number} has no text")
    if type(start) is not int or type(end) is not int:
        raise ValueError(f"span {number} ({name}) runs from {start!r} to {end!r}")
    if not 0 <= start < end < MAX_FRAMES:
        raise ValueError(f"span {number} ({name}) runs from frame {start} to {end}")
    if num_frames is not None and end > num_frames:
        raise ValueError(f"span {number} ({name}) ends at frame {end} of {num_frames}")
    return NativeStep(name.strip(), start, end)
