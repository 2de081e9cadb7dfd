"""Idle spans of an arm: where they are, and how they interrupt a step. Spans are half-open, in frames."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from annotate.motion.config import MotionConfig
from annotate.segments import DONE, IDLE, Segment

LEAST_S = 0.3  # an arm that stirs for less between two pauses rests; a shorter pause interrupts no step


def idle_spans(activity: np.ndarray, fast: float, config: MotionConfig, fps: float) -> list[tuple[int, int]]:
    """The start of the episode until the arm sets out, pauses of at least `idle_min_s`, and its rest at the end.

    `activity` [n] is how fast the arm moves, `fast` its fast speed in the same unit. An arm that is slow all the time
    has no idle spans: its speeds say nothing.
    """
    n = len(activity)
    pausing, resting = activity < config.pause_speed * fast, activity < config.end_speed * fast
    if pausing.all() or resting.all():
        return []
    sets_out = int(np.argmin(resting))
    end_start = n - int(np.argmin(resting[::-1]))  # first frame of the rest at the end; n without one

    # Each pause between the two, from where `pausing` becomes true to where it becomes false again
    edges = np.flatnonzero(np.diff(np.r_[False, pausing[:end_start], False].astype(np.int8)))
    pauses = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    found = [(start, end) for start, end in pauses if start >= sets_out and end - start >= config.idle_min_s * fps]
    if sets_out >= max(1, round(config.start_min_s * fps)):
        found.insert(0, (0, sets_out))
    if n - end_start >= max(1, round(config.end_min_s * fps)):
        found.append((end_start, n))

    # Two pauses between which the arm hardly stirs are one
    joined: list[tuple[int, int]] = []
    for start, end in found:
        if joined and end < n and start - joined[-1][1] < LEAST_S * fps:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def without_work(
    idle: Sequence[tuple[int, int]], works: Sequence[tuple[int, int]], n: int, config: MotionConfig, fps: float
) -> list[tuple[int, int]]:
    """The idle spans of an episode of `n` frames without those in which a gripper works; what remains is long enough.

    Example: at 10 fps, an idle span of frames 20 to 50 in which a gripper closes from 30 to 34 leaves 20 to 30 and
    34 to 50; one that closes from 22 to 26 leaves 26 to 50.
    """
    pieces = list(idle)
    for start, end in works:
        parted = [piece for p in pieces for piece in ((p[0], min(p[1], start)), (max(p[0], end), p[1]))]
        pieces = [p for p in parted if p[0] < p[1]]

    def shortest(span: tuple[int, int]) -> float:
        if span[1] == n:
            return config.end_min_s
        return config.start_min_s if span[0] == 0 else config.idle_min_s

    return sorted({p for p in pieces if p[1] - p[0] >= shortest(p) * fps})


def split_at_idle(segments: Sequence[Segment], idle: Sequence[tuple[int, int]], fps: float) -> list[Segment]:
    """The same segments, each step that idle spans interrupt in its parts; only the last part completes the step.

    Example: at 10 fps, a completed step of frames 0 to 100 with an idle span from 40 to 60 becomes a step 0 to 40 that
    is not completed, an idle segment 40 to 60, and a completed step 60 to 100.
    """
    return [part for segment in segments for part in _parts(segment, idle, fps)]


def _parts(step: Segment, idle: Sequence[tuple[int, int]], fps: float) -> list[Segment]:
    if step.kind == IDLE:
        return [step]
    within = [(max(a, step.start_frame), min(b, step.end_frame)) for a, b in idle]
    within = [(a, b) for a, b in within if b - a >= fps * LEAST_S]
    cuts = sorted({step.start_frame, step.end_frame, *(cut for span in within for cut in span)})
    if len(cuts) == 2 and step.kind == DONE:  # done, and at rest
        return [step]
    parts: list[Segment] = []
    for start, end in pairwise(cuts):
        if any(a <= start and end <= b for a, b in within):
            parts.append(Segment("Stand still", start, end, IDLE, False))
        else:
            completed = step.completed and (end == step.end_frame or step.kind == DONE)
            parts.append(replace(step, start_frame=start, end_frame=end, completed=completed))

    # A completed step that ends with an idle span was complete when the arm came to rest
    if step.completed and parts[-1].kind == IDLE and len(parts) > 1:
        parts[-2] = replace(parts[-2], completed=True)
    return parts
