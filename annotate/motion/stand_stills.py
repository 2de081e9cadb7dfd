"""Stand-stills of an arm: where they are, and how they interrupt a step. Spans are half-open, in frames."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from annotate.motion.config import MotionConfig
from annotate.segments import DONE, IDLE, Segment

LEAST_STEP_S = 0.3  # no step is shorter
INTERRUPTS_S = 0.5  # the part of a stand-still inside a step has to last this long to interrupt the step


def find_stand_stills(activity: np.ndarray, fast: float, config: MotionConfig, fps: float) -> list[tuple[int, int]]:
    """The start of the run until the arm sets out, pauses of at least `idle_min_s`, and the end from where it rests.

    `activity` [n] is how fast the arm moves, `fast` its fast speed in the same unit. An arm that is slow all the time
    has no stand-stills: its speeds say nothing.
    """
    n = len(activity)
    pausing, resting = activity < config.pause_speed * fast, activity < config.end_speed * fast
    if pausing.all() or resting.all():
        return []
    sets_out = int(np.argmin(resting))
    end_start = n - int(np.argmin(resting[::-1]))  # first frame of the stand-still at the end; n without one

    # Each pause between the two, from where `pausing` becomes true to where it becomes false again
    edges = np.flatnonzero(np.diff(np.r_[False, pausing[:end_start], False].astype(np.int8)))
    pauses = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    shortest_pause = max(1, round(config.idle_min_s * fps))
    found = [(start, end) for start, end in pauses if start >= sets_out and end - start >= shortest_pause]

    if sets_out >= max(1, round(config.start_min_s * fps)):
        found.insert(0, (0, sets_out))
    if n - end_start >= max(1, round(config.end_min_s * fps)):
        found.append((end_start, n))
    return _joined(found, n, fps)


def _joined(spans: Sequence[tuple[int, int]], n: int, fps: float) -> list[tuple[int, int]]:
    """The same stand-stills, as one where the arm hardly stirs between two pauses, or before the first."""
    least = LEAST_STEP_S * fps
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if not joined and start <= least:
            joined.append((0, end))
        elif joined and end < n and start - joined[-1][1] < least:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def without_spans(
    stand_stills: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]], n: int, config: MotionConfig, fps: float
) -> list[tuple[int, int]]:
    """The stand-stills of a run of `n` frames without the spans in which a gripper works; what remains is long enough.

    Example: at 10 fps, a stand-still of frames 20 to 50 in which a gripper closes from 30 to 34 leaves 20 to 30 and
    34 to 50; one that closes from 22 to 26 leaves 26 to 50.
    """
    pieces = list(stand_stills)
    for start, end in spans:
        parted = [piece for p in pieces for piece in ((p[0], min(p[1], start)), (max(p[0], end), p[1]))]
        pieces = [p for p in parted if p[0] < p[1]]
    return sorted({p for p in pieces if p[1] - p[0] >= _shortest(p, n, config) * fps})


def _shortest(span: tuple[int, int], n: int, config: MotionConfig) -> float:
    """Seconds that a stand-still has to last, by whether it is at the start, at the end, or between."""
    if span[1] == n:
        return config.end_min_s
    return config.start_min_s if span[0] == 0 else config.idle_min_s


def split_at_stand_stills(
    segments: Sequence[Segment], stand_stills: Sequence[tuple[int, int]], fps: float
) -> list[Segment]:
    """The same segments, with each step that stand-stills interrupt in its parts."""
    return [part for segment in segments for part in _parts(segment, stand_stills, fps)]


def _parts(step: Segment, stand_stills: Sequence[tuple[int, int]], fps: float) -> list[Segment]:
    """The parts of a step that stand-stills interrupt, with these between them; only the last part completes the step.

    Example: at 10 fps, a completed step of frames 0 to 100 with a stand-still from 40 to 60 becomes a step 0 to 40
    that is not completed, an idle segment 40 to 60, and a completed step 60 to 100.
    """
    if step.kind == IDLE:
        return [step]
    marks = _marks(step, stand_stills, fps)
    if len(marks) == 2:
        return [step]

    parts: list[Segment] = []
    for start, end in pairwise(marks):
        if lies_in_any(start, end, stand_stills):
            parts.append(at_rest(start, end, is_done=False))
        else:
            completed = step.completed and (end == step.end_frame or step.kind == DONE)
            parts.append(replace(step, start_frame=start, end_frame=end, completed=completed))

    # Where a completed step ends with a stand-still, it was complete when the arm came to rest
    if step.completed and parts[-1].kind == IDLE and len(parts) > 1:
        parts[-2] = replace(parts[-2], completed=True)
    return parts


def _marks(step: Segment, stand_stills: Sequence[tuple[int, int]], fps: float) -> list[int]:
    """The ends of a step and, between them, those of the stand-stills that are long enough to interrupt it."""
    marks = {step.start_frame, step.end_frame}
    for rest_start, rest_end in stand_stills:
        start, end = max(rest_start, step.start_frame), min(rest_end, step.end_frame)
        if end - start >= fps * INTERRUPTS_S:
            marks |= {start, end}
    return sorted(marks)


def at_rest(start: int, end: int, *, is_done: bool) -> Segment:
    """A segment in which the arm does nothing: done with its task, or not."""
    if is_done:
        return Segment("Done", start, end, DONE, True)
    return Segment("Stand still", start, end, IDLE, False)


def lies_in_any(start: int, end: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Is start..end a part of one of the spans?"""
    return any(span_start <= start and end <= span_end for span_start, span_end in spans)
