"""A reference's segments carried over to a run along their alignment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from annotate.segments import DONE, IDLE, STEP, Segment
from annotate.transfer.alignment import Path
from annotate.transfer.marks import Marks, at_same_mark
from annotate.transfer.moments import Moments

COMPLETE_SHARE = 0.15  # of a step that a run may lack at its end
COMPLETE_MOMENTS = 2.5  # or so many moments
DETOUR_SHARE = 0.2  # of a detour's moments that a run has to show: else it took none
CLOSES_S = 0.5  # s: a gripper that begins to close so shortly before the end of a step does it for the next one
GONE_BACK_SHARE = 0.25  # of a step that a run may lack where it goes back and does it again


@dataclass(frozen=True)
class Shown:
    """One reference as it is laid beside runs: its moments, its segments without stand-stills, its marks."""

    moments: Moments
    segments: Sequence[Segment]
    marks: Marks

    @cached_property
    def detours(self) -> Sequence[tuple[int, int]]:
        """Places of segments, half-open: from an attempt that failed up to the next one at the same step."""
        spans = []
        for k, failed in enumerate(self.segments):
            if failed.kind == STEP and not failed.completed:
                again = [j for j in range(k + 1, len(self.segments)) if self.segments[j].step == failed.step]
                spans += [(k, again[0])] if again else []
        return spans

    @property
    def is_detour(self) -> np.ndarray:
        """bool [k]: its moments that a run without the failure has not."""
        away = np.zeros(len(self.moments), bool)
        for first, after in self.detours:
            start, end = self.segments[first].start_frame, self.segments[after].start_frame
            away |= (self.moments.frames >= start) & (self.moments.frames < end)
        return away


def without_stand_stills(segments: Sequence[Segment]) -> list[Segment]:
    """A stand-still before a step belongs to the step: each run has its own ones, and they are put in afterwards.

    Parts of one attempt, with a stand-still between them, become that attempt.
    """
    kept: list[Segment] = []
    waits_from: int | None = None
    for segment, behind in zip(segments, [*segments[1:], None], strict=True):
        if segment.kind == IDLE and behind is not None and behind.kind == STEP:
            waits_from = segment.start_frame if waits_from is None else waits_from
            continue
        before = kept[-1] if kept and waits_from is not None else None
        if before is not None and before.step == segment.step and not before.completed:
            kept[-1] = replace(before, end_frame=segment.end_frame, completed=segment.completed)
        elif waits_from is not None:
            kept.append(replace(segment, start_frame=waits_from))
        else:
            kept.append(segment)
        waits_from = None
    return kept


def carried_over(run: Moments, reference: Shown, path: Path, vain: Sequence[int] = ()) -> list[Segment]:
    """Segments that tile the run: each frame belongs to the segment that its moment of the reference belongs to.

    A step that the run leaves before it ends was not completed, nor was one that it does again after it went back.
    vain: the run's vain_closings.
    """
    frames = np.arange(run.num_frames)
    matched = _matched(frames, run.frames, reference.moments.frames[path.moments])
    starts = np.array([segment.start_frame for segment in reference.segments])
    place = np.searchsorted(starts, matched + 1e-6, side="right") - 1
    place = _without_glimpses(place.clip(0), reference, path)
    place = _with_passed_over(place, reference.segments)
    away = np.interp(frames, run.frames, (~path.follows).astype(np.float64)) > 0.5

    segments: list[Segment] = []
    cuts = np.flatnonzero(np.diff(place)) + 1
    for start, end in zip([0, *cuts], [*cuts, len(frames)], strict=True):
        source = reference.segments[place[start]]
        lacks = source.end_frame - matched[end - 1]
        if end == len(frames):
            step = float(np.median(np.diff(run.frames))) if len(run) > 1 else 1.0
            is_whole = not away[-1] and lacks <= max(COMPLETE_MOMENTS * step, COMPLETE_SHARE * len(source))
        else:
            is_whole = place[end] > place[start] or lacks <= GONE_BACK_SHARE * len(source)
        completed = source.completed and bool(is_whole)
        carried = replace(source, start_frame=int(start), end_frame=int(end), completed=completed)
        segments.append(replace(carried, confidence=None, notes=None, pace=None))
    places = [int(place[segment.start_frame]) for segment in segments]
    return _with_second_tries(segments, places, [frame + CLOSES_S * run.fps for frame in vain])


def vain_closings(run: Moments, motion_segments: Sequence[Segment]) -> list[int]:
    """The frames at which a gripper begins to close in attempts that failed, as motion sees it."""
    failed = [s for s in motion_segments if s.kind == STEP and not s.completed]
    closings = [event.start for event in run.motion.gripper_events if event.kind == "close"]
    return [frame for s in failed for frame in closings if s.start_frame <= frame < s.end_frame]


def _holds(segment: Segment, frames: Sequence[float]) -> bool:
    return any(segment.start_frame <= frame < segment.end_frame for frame in frames)


def _with_second_tries(segments: Sequence[Segment], places: Sequence[int], closed: Sequence[float]) -> list[Segment]:
    """What lies behind the place that a run goes back to was not completed: the run does it again.

    Nor was a step that it does again if a gripper closed in vain in it; what it seemed to do then belongs to that.
    closed: the frames by which it had.
    """
    kept: list[Segment] = []
    failed_until = 0
    for k, (segment, place) in enumerate(zip(segments, places, strict=True)):
        if segment.start_frame < failed_until:
            kept[-1] = replace(kept[-1], end_frame=segment.end_frame)
            continue
        later = places[k + 1 :]
        if place in later and min(later) < place:
            segment = replace(segment, completed=False)
        elif segment.kind == STEP and _holds(segment, closed):
            again = next((s for s in segments[k + 1 :] if s.kind == STEP and s.step == segment.step), None)
            segment = replace(segment, completed=segment.completed and again is None)
            failed_until = again.start_frame if again else 0
        kept.append(segment)
    return kept


def _matched(frames: np.ndarray, known: np.ndarray, reference_frames: np.ndarray) -> np.ndarray:
    """The frame of the reference that each frame is like, float64, between the frames `known`.

    Where a run goes back it does not go through what lies between.
    """
    before = np.searchsorted(known, frames, side="right") - 1
    after = np.minimum(before + 1, len(known) - 1)
    goes_back = reference_frames[after] < reference_frames[before]
    between = np.interp(frames, known, reference_frames.astype(np.float64))
    return np.where(goes_back, reference_frames[before], between)


def _without_glimpses(place: np.ndarray, reference: Shown, path: Path) -> np.ndarray:
    """A detour of which a run shows too little is none of its own: it passes from before it to what comes after.

    Parts of the detour look like what lies before it, or after it.
    """
    place = place.copy()
    at = reference.moments.frames[path.moments]
    for first, after in reference.detours:
        start, end = reference.segments[first].start_frame, reference.segments[after].start_frame
        inside = (reference.moments.frames >= start) & (reference.moments.frames < end)
        shown = len(np.unique(at[(at >= start) & (at < end)]))
        if shown >= DETOUR_SHARE * inside.sum():
            continue
        before = first - 1 if first and first + 1 < after else after
        leads_up = (place > first) & (place < after)
        place[leads_up] = before
        place[place == first] = after
        # Once it is at the step itself it does not lead up to it any more
        ahead = np.maximum.accumulate(place == after)
        place[leads_up & ahead] = after
    return place


def _with_passed_over(place: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """Planned steps that a run passes over between two neighbouring frames get one frame each.

    What came after them needs them. One that the run shows elsewhere does not lie there, such as a second attempt.
    """
    place = place.copy()
    shown = {segments[k].step for k in np.unique(place)}
    for i in np.flatnonzero(np.diff(place) > 1) + 1:
        passed = range(place[i - 1] + 1, place[i])
        lacking = {segments[k].step: k for k in passed if segments[k].kind == STEP and segments[k].step not in shown}
        # What lies before gives them up, else what lies behind; both keep a frame
        before = min(len(lacking), _stretch(place[:i][::-1]) - 1)
        after = min(len(lacking) - before, _stretch(place[i:]) - 1)
        place[i - before : i + after] = sorted(lacking.values())[: before + after]
    return place


def _stretch(place: np.ndarray) -> int:
    """How many of the first ones are equal."""
    return int(np.cumprod(place == place[0]).sum())


def of_whole_run(segments: Sequence[Segment], vain: Sequence[int] = (), *, ended_well: bool = False) -> list[Segment]:
    """The segments of a run that is finished: an attempt that is not made again, yet led on, was completed.

    vain: its vain_closings. ended_well: the source says that it succeeded, so its last attempt was completed, too.
    """
    joined: list[Segment] = []
    for k, segment in enumerate(segments):
        later = [s.step for s in segments[k + 1 :] if s.step is not None]
        if segment.step is not None and segment.step not in later:
            led_on = max(later) > segment.step if later else ended_well
            segment = replace(segment, completed=segment.completed or led_on)
        # A failed attempt of the reference and the next one, of which the run shows a part each, without failing
        tried = joined[-1] if joined and segment.kind == STEP and joined[-1].step == segment.step else None
        if tried and not tried.completed and not _holds(tried, vain):
            segment = replace(segment, start_frame=joined.pop().start_frame)
        joined.append(segment)
    return joined


def at_marks(segments: Sequence[Segment], run: Moments, own: Marks, reference: Shown) -> tuple[list[Segment], set[int]]:
    """The segments with boundaries moved to marks that the reference shares; and which were, by their places.

    All stay as they are where moved ones would cross.
    """
    cuts = [segment.start_frame for segment in segments[1:]]
    moved: dict[int, int] = {}
    for k, (cut, segment) in enumerate(zip(cuts, segments[1:], strict=True)):
        boundary = _boundary_of(segment, run, reference)
        if boundary is not None:
            fps = reference.moments.fps
            frame = at_same_mark(cut, own, run.fps, boundary, reference.marks, fps)
            if frame is not None:
                moved[k] = frame
    ends = [0, *(moved.get(k, cut) for k, cut in enumerate(cuts)), run.num_frames]
    if any(end <= start for start, end in pairwise(ends)):
        return list(segments), set()
    return with_cuts(segments, ends[1:-1]), set(moved)


def _boundary_of(segment: Segment, run: Moments, reference: Shown) -> int | None:
    """The frame at which the reference begins what a segment was carried over from; of several the likeliest."""
    share = segment.start_frame / run.num_frames
    starts = [
        s.start_frame
        for s in reference.segments
        if s.start_frame > 0 and (s.name, s.kind, s.step) == (segment.name, segment.kind, segment.step)
    ]
    return min(starts, key=lambda start: abs(start / reference.moments.num_frames - share), default=None)


def with_cuts(segments: Sequence[Segment], cuts: Sequence[int]) -> list[Segment]:
    """The same segments between other frames."""
    ends = [*cuts, segments[-1].end_frame]
    starts = [0, *cuts]
    return [replace(s, start_frame=a, end_frame=b) for s, a, b in zip(segments, starts, ends, strict=True)]


# Unfinished runs


def unfinished(segments: Sequence[Segment], incomplete: set[int], num_planned: int) -> list[Segment]:
    """The segments of a run that failed: steps in `incomplete`, numbers of the plan, did not end as they should.

    The first attempt at one of these was not completed, and what follows earns nothing. Where all steps seem complete
    the last one is not.
    """
    kept = list(segments)
    cut = next((k for k, s in enumerate(kept) if s.kind == STEP and s.completed and s.step in incomplete), None)
    if cut is not None:
        end = kept[-1].end_frame
        kept = [*kept[:cut], replace(kept[cut], completed=False)]
        if kept[-1].end_frame < end:
            kept.append(Segment("Not as shown", kept[-1].end_frame, end, IDLE, completed=False))
    complete = {s.step for s in kept if s.kind == STEP and s.completed}
    if complete and len(complete) == num_planned:
        last = max(k for k, s in enumerate(kept) if s.kind == STEP)
        kept[last] = replace(kept[last], completed=False)
    return [replace(s, name="Stand still", kind=IDLE, completed=False) if s.kind == DONE else s for s in kept]
