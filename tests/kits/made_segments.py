"""Segments as tests write them down, and as they compare them."""

from collections.abc import Sequence

from annotate.segments import IDLE, STEP, Segment


def step(start: int, end: int, number: int, *, completed: bool = True) -> Segment:
    return Segment(f"step {number}", start, end, STEP, completed, number)


def rest(start: int, end: int) -> Segment:
    return Segment("Stand still", start, end, IDLE, False)


def spans(segments: Sequence[Segment]) -> list[tuple[int, int, int | None, bool]]:
    return [(s.start_frame, s.end_frame, s.step, s.completed) for s in segments]
