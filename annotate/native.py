"""The native annotator: subtask spans that the source itself brings, such as AgiBot's timed action_config."""

from collections.abc import Sequence

from core.domain.label import DONE, IDLE, STEP, Segment
from core.names import is_name
from ingest.episode import NativeStep


def annotate(
    steps: Sequence[NativeStep], num_frames: int, success: bool | None, plan: Sequence[str] = ()
) -> tuple[list[Segment], int]:
    """Segments that tile the episode, and the number of planned steps: one for each span, in order of time.

    A source that says which planned step a span is an attempt at, or whether it was completed, is
    followed; `plan` has the names of all planned steps then. Frames before, between and after the
    spans are idle, but those after the last span of a run that did not fail are done. A last span
    that runs on behind the last frame ends with it, which its note says. Raises ValueError for
    spans that overlap, are empty, or begin outside the episode.
    """
    numbers = _planned_numbers(steps)
    last_attempt = max((k for k, number in enumerate(numbers) if number is not None), default=None)

    # `covered_end` is the end of what has been laid so far; gaps between spans are filled
    segments: list[Segment] = []
    covered_end = 0
    for k, step in enumerate(steps):
        end = min(step.end_frame, num_frames)
        if not covered_end <= step.start_frame < end:
            covered = (
                f"step {k} ({step.name!r}) covers frames {step.start_frame} to {step.end_frame}"
            )
            raise ValueError(
                f"{covered}; the one before ends at {covered_end}, the episode at {num_frames}"
            )
        if step.start_frame > covered_end:
            segments.append(Segment("Between steps", covered_end, step.start_frame, IDLE, False))
        covered_end = end
        segments.append(
            _segment(
                step, covered_end, numbers[k], is_completed=(success, k) != (False, last_attempt)
            )
        )

    # What is left of the run after the last span
    if covered_end < num_frames:
        name, kind = ("Between steps", IDLE) if success is False else ("Done", DONE)
        segments.append(Segment(name, covered_end, num_frames, kind, kind == DONE))
    return segments, max(len(plan), *(number + 1 for number in numbers if number is not None), 0)


def _planned_numbers(steps: Sequence[NativeStep]) -> list[int | None]:
    """Which planned step each span is an attempt at; None for spans of no step. Raises ValueError
    where only some of the spans say it."""
    attempts = [step for step in steps if step.kind in (None, STEP)]
    numbers = [step.step for step in attempts]
    if set(numbers) <= {None}:
        numbers = list(range(len(attempts)))
    if any(number is None or number < 0 for number in numbers):
        raise ValueError("some of its spans name no planned step")
    remaining_numbers = iter(numbers)
    return [next(remaining_numbers) if step.kind in (None, STEP) else None for step in steps]


def _segment(step: NativeStep, end: int, number: int | None, *, is_completed: bool) -> Segment:
    """A span as a segment that ends at frame `end`; `is_completed` where the source does not say."""
    kind = step.kind or STEP
    if step.completed is not None:
        is_completed = step.completed
    elif kind != STEP:
        is_completed = kind == DONE
    if end == step.end_frame:
        note = step.notes
    else:
        note = f"the source ends it at frame {step.end_frame}"
    return Segment(
        step.name,
        step.start_frame,
        end,
        kind,
        is_completed,
        number,
        step.confidence,
        note,
        is_name(step.name),
    )
