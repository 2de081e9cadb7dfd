"""Stand-stills of an arm: where they are, and how they interrupt a step. Spans are half-open, in frames."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from annotate.motion.config import MotionConfig
from annotate.segments import DONE, IDLE, STEP, Segment

INTERRUPTS_S = 0.5  # the part of a stand-still inside a step has to last this long to interrupt the step


def find_stand_stills(activity: np.ndarray, fast: float, config: MotionConfig, fps: float) -> list[tuple[int, int]]:
    """Pauses of at least `idle_min_s`, and the end of the run from where the arm moves no more.

    `activity` [n] is how fast the arm moves, `fast` its fast speed in the same unit. An arm that is slow all the time
    has no stand-stills: its speeds say nothing.
    """
    n = len(activity)
    pausing, ending = activity < config.pause_speed * fast, activity < config.end_speed * fast
    if pausing.all() or ending.all():
        return []
    end_start = n - int(np.argmin(ending[::-1]))  # first frame of the stand-still at the end; n without one

    # Each pause before the end, from where `pausing` becomes true to where it becomes false again
    edges = np.flatnonzero(np.diff(np.r_[False, pausing[:end_start], False].astype(np.int8)))
    pauses = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    shortest_pause = max(1, round(config.idle_min_s * fps))
    found = [(start, end) for start, end in pauses if end - start >= shortest_pause]

    if n - end_start >= max(1, round(config.end_min_s * fps)):
        found.append((end_start, n))
    return found


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
    if step.kind != STEP:
        return [step]
    marks = _marks(step, stand_stills, fps)
    if len(marks) == 2:
        return [step]

    parts: list[Segment] = []
    for start, end in pairwise(marks):
        if lies_in_any(start, end, stand_stills):
            parts.append(at_rest(start, end, step.confidence, is_done=False))
        else:
            completed = step.completed and end == step.end_frame
            parts.append(replace(step, start_frame=start, end_frame=end, completed=completed))

    # Where a completed step ends with a stand-still, it was complete when the arm came to rest
    if step.completed and parts[-1].kind == IDLE and len(parts) > 1:
        parts[-2] = replace(parts[-2], step=step.step, kind=STEP, completed=True)
    return parts


def _marks(step: Segment, stand_stills: Sequence[tuple[int, int]], fps: float) -> list[int]:
    """The ends of a step and, between them, those of the stand-stills that are long enough to interrupt it."""
    marks = {step.start_frame, step.end_frame}
    for rest_start, rest_end in stand_stills:
        start, end = max(rest_start, step.start_frame), min(rest_end, step.end_frame)
        if end - start >= fps * INTERRUPTS_S:
            marks |= {start, end}
    return sorted(marks)


def at_rest(start: int, end: int, confidence: float | None, *, is_done: bool) -> Segment:
    """A segment in which the arm does nothing: done with its task, or not."""
    if is_done:
        return Segment("Done", start, end, DONE, True, None, confidence)
    return Segment("Stand still", start, end, IDLE, False, None, confidence)


def lies_in_any(start: int, end: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Is start..end a part of one of the spans?"""
    return any(span_start <= start and end <= span_end for span_start, span_end in spans)
