"""What is known of an episode beside the model's replies: its outcome, and what no true division looks like."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from core.domain.label import DONE, IDLE, STEP, Segment, completed_steps, finished

DOUBTED = 0.3  # confidence of a label that no run looks like, at most: its names are not used
EVEN = 0.15  # spread of the lengths over their mean: what people divide is less even
LEAST_FOR_EVEN, LEAST_INNER = 3, 6  # segments: of a run, and of one without its first or its last
LEAST_SEEN = 0.6  # share of the planned steps that a run shows
# Share of the changes from step to step that go on to the next step, or try one anew
LEAST_IN_ORDER = 0.6


def implausibilities(
    segments: Sequence[Segment], plan: Sequence[str], success: bool | None
) -> list[str]:
    """In which ways a division is one that runs do not have, in words; nothing where it may be true.

    A run that failed may lack steps.
    """
    steps = [s for s in segments if s.kind == STEP]
    attempted = {s.step for s in steps}
    doubts = []
    if success is not False and len(attempted) < LEAST_SEEN * len(plan):
        doubts.append(f"the model sees {len(attempted)} of the {len(plan)} steps that it planned")
    if success is not False and not any(s.completed for s in steps):
        doubts.append("the model sees no step completed")
    changes = [(a.step or 0, b.step or 0) for a, b in pairwise(steps)]
    in_order = sum(b in (a, a + 1) for a, b in changes)
    if changes and in_order < LEAST_IN_ORDER * len(changes):
        doubts.append("the model sees the steps in another order than it planned them")
    if _are_even(segments):
        doubts.append("the model divides the run into equal parts")
    if any("several changes at picture" in (s.notes or "") for s in segments):
        doubts.append("the model sees several changes at one moment")
    return doubts


def _are_even(segments: Sequence[Segment]) -> bool:
    """Are the segments equally long: all, or all but the first or the last?"""
    lengths = np.array([len(s) for s in segments])
    parts = [(lengths, LEAST_FOR_EVEN), (lengths[1:], LEAST_INNER), (lengths[:-1], LEAST_INNER)]
    return any(
        len(part) >= min_length and part.std() < EVEN * part.mean() for part, min_length in parts
    )


class KnownOutcome(NamedTuple):
    """Segments that agree with what is known of the whole run; contradictions are for a person to look at."""

    segments: list[Segment]
    notes: list[str]
    contradictions: list[str]


def with_outcome(
    segments: Sequence[Segment],
    plan: Sequence[str],
    success: bool | None,
    shown_frames: Sequence[int],
) -> KnownOutcome:
    """Bring the segments in line with an outcome that the source or a person states: it is stronger than the model.

    shown_frames: the frames that the model saw. Of a run that succeeded each planned step was
    completed: by an attempt between two pictures, where the steps beside it follow one another and
    it lacks, else by the last attempt. Time after the task is `done` only if the task is.
    """
    num_planned = len(plan)
    agreed = list(segments)
    notes: list[str] = []
    contradictions: list[str] = []
    if success is False:
        if finished(agreed, num_planned):
            contradictions.append(
                "the dataset calls the episode a failure, but the model sees every step completed"
            )
        agreed = _segments_of_failure(agreed, num_planned)
    if success:
        agreed, notes = _with_missed_steps(agreed, plan, shown_frames)
        agreed, contradictions = _completed_segments(agreed, num_planned)
    for k, segment in enumerate(agreed):
        if segment.kind == DONE and not finished(agreed[:k], num_planned):
            idle = replace(segment, name=IDLE.capitalize(), kind=IDLE, completed=False)
            agreed[k] = with_note(idle, "told done, but steps are left")
    return KnownOutcome(agreed, notes, contradictions)


def _segments_of_failure(segments: list[Segment], num_planned: int) -> list[Segment]:
    """Of a run that failed, the attempt that would have finished the task did not complete its step."""
    last = max((k for k, s in enumerate(segments) if s.kind == STEP), default=None)
    if last is None or not segments[last].completed:
        return segments
    if segments[last].step == num_planned - 1 or finished(segments, num_planned):
        attempt = replace(segments[last], completed=False)
        segments[last] = with_note(
            attempt, "not completed: the dataset calls the episode a failure"
        )
    return segments


def _open_steps(segments: Sequence[Segment], num_planned: int) -> list[int]:
    """The planned steps that are not complete at the end."""
    complete = completed_steps(segments, segments[-1].end_frame)
    return [step for step in range(num_planned) if step not in complete]


def _completed_segments(
    segments: list[Segment], num_planned: int
) -> tuple[list[Segment], list[str]]:
    """With the last attempt at each step completed; and what a person should look at.

    A model that denies a step on the way, but not the last one, overlooks something: that is a note
    of the segment.
    """
    remaining_steps = _open_steps(segments, num_planned)
    last_attempt = {s.step: k for k, s in enumerate(segments) if s.kind == STEP}
    denied = [
        step
        for step in remaining_steps
        if step in last_attempt and not segments[last_attempt[step]].completed
    ]
    for step in denied:
        attempt = replace(segments[last_attempt[step]], completed=True)
        note = "completed: the dataset calls the episode a success, the model denies it"
        segments[last_attempt[step]] = with_note(attempt, note)
    contradictions = []
    if num_planned - 1 in denied or 2 * len(denied) >= num_planned:
        steps = ", ".join(str(step + 1) for step in denied)
        contradictions.append(
            f"the dataset calls the episode a success, but the model denies it of step {steps}"
        )
    if not finished(segments, num_planned):
        contradiction = (
            "the dataset calls the episode a success, but not every planned step was seen completed"
        )
        contradictions.append(contradiction)
    return segments, contradictions


def _with_missed_steps(
    segments: list[Segment], plan: Sequence[str], shown_frames: Sequence[int]
) -> tuple[list[Segment], list[str]]:
    """With each step that lacks, where its neighbours in the plan meet; and a note for each."""
    notes = []
    for step in _open_steps(segments, len(plan)):
        span = _missed_span(segments, step, len(plan), shown_frames)
        if span is None:
            continue
        first, last = span
        note = "the dataset calls the episode a success: this step was done between two pictures"
        missed = Segment(plan[step], first, last, STEP, True, step, DOUBTED, note)
        earlier_segments = [
            replace(s, end_frame=min(s.end_frame, first)) for s in segments if s.start_frame < first
        ]
        behind = [
            replace(s, start_frame=max(s.start_frame, last)) for s in segments if s.end_frame > last
        ]
        segments = [*earlier_segments, missed, *behind]
        notes.append(
            f"step {step + 1} was not seen: the episode is a success, so it is taken to be between pictures"
        )
    return segments, notes


def _missed_span(
    segments: Sequence[Segment], step: int, num_planned: int, shown_frames: Sequence[int]
) -> tuple[int, int] | None:
    """The frames in which a step that no picture shows must have been done; None: unknown.

    Its neighbours in the plan meet there, or have an idle time between them, in the middle of which
    it is put.
    """
    place = _meeting_neighbours(segments, step, num_planned)
    if place is None:
        return None
    earlier, later = place
    if later == earlier + 1:
        moment = segments[earlier].end_frame
    else:
        moment = (segments[earlier].end_frame + segments[later - 1].end_frame) // 2
    position = bisect_left(shown_frames, moment)
    first = max(shown_frames[max(0, position - 1)], segments[earlier].start_frame) + 1
    limit = segments[later].end_frame - 1 if later < len(segments) else segments[-1].end_frame
    last = min(shown_frames[position] if position < len(shown_frames) - 1 else limit, limit)
    if first < last:
        return (first, last)
    return None


def _meeting_neighbours(
    segments: Sequence[Segment], step: int, num_planned: int
) -> tuple[int, int] | None:
    """The last place where the step before one is followed by what comes after it: the indices of both."""
    meeting = None
    for earlier, segment in enumerate(segments):
        if segment.kind != STEP or segment.step != step - 1:
            continue
        later = earlier + 1
        if later < len(segments) and segments[later].kind == IDLE:
            later += 1
        if later == len(segments):
            follows = step == num_planned - 1
        elif step == num_planned - 1:
            follows = segments[later].kind == DONE
        else:
            follows = segments[later].step == step + 1
        meeting = (earlier, later) if follows else meeting
    return meeting


def with_note(s: Segment, note: str) -> Segment:
    return replace(s, notes=f"{s.notes}; {note}" if s.notes else note)
