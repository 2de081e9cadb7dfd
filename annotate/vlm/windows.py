"""Which pictures are shown, what one look at them says, and how far two looks agree.

A look gives spans, known to the distance between two pictures.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from annotate.config import VlmConfig
from annotate.vlm.prompts import ACHIEVED
from core.domain.label import DONE, IDLE
from core.values import spread

TILES = 9  # pictures in a contact sheet
MIN_SHOWN = 8  # pictures of a short episode
NEAR_SHARE = 0.25  # of the time between pictures: a stored keyframe that near is shown instead
THIN_UP_TO = 1.5  # times the capacity: up to there fewer pictures are taken, since one window sees more than two halves

# Frames, ascending. A picture's number is its frame: a model that counts pictures itself gives a number that is none
Window = tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """An activity up to the next span, or to the end of what was seen. It begins in frames after + 1 .. start."""

    label: int | str  # planned step from 0, idle or done
    after: int  # last shown frame before it; -1 for the first span
    start: int  # first shown frame of it; 0 for the first span
    completed: bool
    notes: tuple[str, ...] = ()

    @property
    def middle(self) -> int:
        """The frame at which it most likely begins: nothing is known between two pictures."""
        if self.after < 0:
            return 0
        return (self.after + 1 + self.start) // 2


def shown_frames(coarse: Sequence[int], num_frames: int, fps: float, config: VlmConfig) -> Window:
    """The frames that are shown: pictures_per_s of them, and the last frame, which tells how the run ended.

    Where a coarse keyframe is near, it is taken: it is stored already. A short episode is shown in
    more frames; one that is a little too long for a request, in fewer.

    Example: of 100 frames at 15 fps with keyframes at 0, 15, 30 ..., two a second are 0, 8, 15, 22,
    30 ... and 99.
    """
    limit = config.max_images
    spacing = fps / config.pictures_per_s
    requested_frames = np.arange(0, num_frames, max(1.0, spacing))
    stored = np.array([frame for frame in coarse if 0 <= frame < num_frames], dtype=float)
    frames = {0, num_frames - 1}
    for frame in requested_frames:
        nearest = stored[np.abs(stored - frame).argmin()] if stored.size else -np.inf
        is_near = abs(nearest - frame) <= spacing * NEAR_SHARE
        frames.add(int(nearest) if is_near else min(num_frames - 1, round(frame)))
    min_shown = min(MIN_SHOWN, limit, num_frames)
    if len(frames) < min_shown:
        return tuple(spread(range(num_frames), min_shown))
    if limit < len(frames) <= THIN_UP_TO * limit:
        return tuple(spread(sorted(frames), limit))
    return tuple(sorted(frames))


def shifted_frames(shown_window: Window) -> Window:
    """As many frames half-way between those shown, for a second look; the first and the last are the same.

    Where the shown frames lie side by side, every other one.
    """
    middle = {(a + b) // 2 for a, b in list(pairwise(shown_window))[1:]}
    shifted = tuple(sorted({shown_window[0], shown_window[-1], *middle}))
    if not set(shifted) <= set(shown_window):
        return shifted
    return tuple(sorted({*shown_window[::2], shown_window[-1]}))


def windows(shown_window: Window, config: VlmConfig) -> list[Window]:
    """Stretches of the shown frames that one request can hold, neighbours overlapping by at least overlap_images.

    Example: 40 frames in requests of 24 pictures, 6 of them shared, are two windows, of the frames
    [0:24] and [16:40].
    """
    size = config.max_images
    if len(shown_window) <= size:
        return [shown_window]
    # At most half is shared: each window has to bring something new
    stride = size - min(config.overlap_images, size // 2)
    last_start = len(shown_window) - size
    count = 1 + -(-last_start // stride)
    starts = [round(k * last_start / (count - 1)) for k in range(count)]
    return [shown_window[start : start + size] for start in starts]


def frames_around(frames: Sequence[int], shown_window: Window) -> Window:
    """The shown frames around some moments: two up to each, and the next one."""
    chosen: set[int] = set()
    for frame in frames:
        position = bisect_left(shown_window, frame)
        chosen |= set(shown_window[max(0, position - 2) : position + 1])
    return tuple(sorted(chosen))


# What one look says


def spans_of(value: Mapping[str, Any], window: Window, num_steps: int) -> list[Span]:
    """The spans that a reply of the segment stage tells.

    Changes are sorted, of several at one picture the last counts, repeated idle or done is one
    span: each noted.
    """
    # Replies count steps from 1, labels from 0
    labels: dict[str, int | str] = {str(k + 1): k for k in range(num_steps)} | {
        IDLE: IDLE,
        DONE: DONE,
    }
    first = Span(
        labels[value["first"]["label"]], -1, window[0], value["first"]["outcome"] == ACHIEVED
    )
    if not value["changes"]:
        first = replace(first, notes=("no change was told",))
    span_at: dict[int, Span] = {}  # by picture
    for change in value["changes"]:
        picture = int(change["picture"])
        notes = ()
        if picture < max(span_at, default=0):
            notes += ("changes not in the order of time: sorted",)
        if picture in span_at:
            notes += (
                *span_at[picture].notes,
                f"several changes at picture {picture}: the last one counts",
            )
        # A change lies between two pictures of the window
        completed = change["outcome"] == ACHIEVED
        previous_frame = window[window.index(picture) - 1]
        span_at[picture] = Span(labels[change["label"]], previous_frame, picture, completed, notes)
    return _without_repeats([first, *(span_at[picture] for picture in sorted(span_at))])


def _without_repeats(spans: Sequence[Span]) -> list[Span]:
    """Idle after idle, and done after done, is one span; a step after itself is a new attempt."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.label == joined[-1].label and span.label in (IDLE, DONE):
            told_again = f"{span.label} told again at frame {span.start}: merged"
            joined[-1] = _extended_span(joined[-1], span, told_again)
        else:
            joined.append(span)
    return joined


def _extended_span(span: Span, addition: Span, *notes: str) -> Span:
    """A span that goes on with another one's frames."""
    return replace(
        span,
        completed=addition.completed,
        notes=tuple(dict.fromkeys((*span.notes, *addition.notes, *notes))),
    )


# Several windows


def merged_spans(parts: Sequence[tuple[Window, list[Span]]]) -> list[Span]:
    """The spans of all windows. Two windows are joined where they agree, nearest to the middle of their overlap.

    Where they agree nowhere, the later window counts from the middle on, and that is noted.
    """
    (covered_window, spans), *later_parts = parts
    for window, later in later_parts:
        spans = _continued_spans(spans, covered_window, later, window)
        covered_window = covered_window + tuple(
            frame for frame in window if frame > covered_window[-1]
        )
    return spans


def _continued_spans(
    spans: list[Span], covered_window: Window, later: list[Span], window: Window
) -> list[Span]:
    """The spans of the frames seen so far, continued from a cut in the overlap on by those of a later window.

    Frames of two windows, and what each says is done there (letters: labels):

        earlier   0 10 20 30 40 50        A A A B B B
        later           20 30 40 50 60 70     B B B B C C

    They overlap from 20 to 50 and agree at 30, 40 and 50. A span begins at 30; of the others 40 is
    the nearest to the middle, so the cut is there. Before it the earlier window counts, after it
    the later one: A A A B B B C C.
    """
    overlap = covered_window[bisect_left(covered_window, window[0]) :]
    cut, do_agree = _best_cut(spans, later, overlap)

    # The earlier spans up to the cut, what the later window says of the cut itself, and its spans from there on
    head = [s for s in spans if s.start < cut or (do_agree and s.start == cut)]
    at_cut = _span_at(later, cut)
    if at_cut.label == head[-1].label:
        head[-1] = _extended_span(head[-1], at_cut)
    else:
        previous_frame = covered_window[bisect_left(covered_window, cut) - 1]
        head.append(
            replace(
                at_cut,
                after=previous_frame,
                start=cut,
                notes=(*at_cut.notes, "windows disagree here"),
            )
        )
    tail = [s for s in later if s.start > cut]
    unused = [s for s in spans if s.start > cut]

    # A new attempt that both windows saw, one on either side of the cut, is one
    if tail and at_cut is later[0] and _is_one_retry(head, unused, tail[0], overlap):
        head[-1] = replace(head[-1], completed=tail[0].completed)
        tail = tail[1:]
    return _without_repeats([*head, *tail])


def _best_cut(spans: Sequence[Span], later: Sequence[Span], overlap: Window) -> tuple[int, bool]:
    """The frame of the overlap where the later window takes over, and whether both agree there.

    It is best where no span starts, then near the middle; the middle where they agree nowhere.
    """
    agreed = [
        k
        for k, frame in enumerate(overlap)
        if _span_at(spans, frame).label == _span_at(later, frame).label
    ]
    starts = {s.start for s in (*spans, *later[1:])}
    middle = len(overlap) // 2
    place = min(agreed, key=lambda k: (overlap[k] in starts, abs(k - middle)), default=middle)
    return overlap[place], bool(agreed)


def _is_one_retry(head: list[Span], unused: list[Span], next_: Span, overlap: Window) -> bool:
    """Did each window see one new attempt at a step within the overlap, on either side of the cut: the same one?"""
    return (
        len(head) > 1
        and head[-1].start >= overlap[0]
        and head[-2].label == head[-1].label == next_.label
        and next_.start <= overlap[-1]
        and not (unused and unused[0].label == next_.label)
    )


def _span_at(spans: Sequence[Span], frame: int) -> Span:
    return spans[max(0, bisect_right([s.start for s in spans], frame) - 1)]


# Refinement


def search_ranges(spans: Sequence[Span], num_frames: int) -> list[tuple[int, int]]:
    """For each span but the first: the frames (least, greatest) among which its beginning is searched.

    That is where the coarse pictures put it and, as they may mislead, a quarter more on either
    side, but never more than half of the way to the neighbour's: the ranges are apart and in order,
    so boundaries cannot cross.

    Example: of two spans in 100 frames the second begins in frames 30 .. 41, so it is searched in
    27 .. 44.
    """
    starts = [(s.after + 1, s.start) for s in spans[1:]]
    # The episode's ends are fixed
    fixed = [(0, 0), *starts, (num_frames, num_frames)]
    ranges = []
    for (_, end_before), (low, high), (start_after, _) in zip(
        fixed, fixed[1:], fixed[2:], strict=False
    ):
        # The neighbours may grow into the same frames, so each of them gets half of the room between
        margin = (high - low + 1) // 4
        room_before = (low - end_before - 1) // 2
        room_after = (start_after - high - 1) // 2
        ranges.append((low - min(margin, room_before), high + min(margin, room_after)))
    return ranges


def dense_frames(low: int, high: int, count: int) -> Window:
    """At most `count` frames to find a boundary among low .. high: the one before, and candidates up to `high`.

    Example: dense_frames(10, 30, 8) == (9, 12, 15, 18, 21, 24, 27, 30).
    """
    frame_before = low - 1
    size = high - low + 1
    parts = min(count - 1, size)
    return (frame_before, *(frame_before + -(-k * size // parts) for k in range(1, parts + 1)))


def ascending_starts(starts: Sequence[int], num_frames: int) -> list[int]:
    """First frames moved as little as it takes for each span to have a frame."""
    lowest_starts = np.maximum.accumulate(np.asarray(starts) - np.arange(len(starts))) + np.arange(
        len(starts)
    )
    return np.minimum(lowest_starts, num_frames - np.arange(len(starts), 0, -1)).tolist()


MATCH_S = 0.5  # boundaries this near are one, unless the configuration says otherwise
WEIGHTS = (0.5, 0.3, 0.2)  # labels, boundaries, motion
UNKNOWN = 0.5
# F1 of boundaries whose distance from the motion's change points is 0, and what it loses with each second of that;
# fitted to stand-ins with mistakes, and tried on robots left out (benchmarks.vlm_stand_in)
F1_AT_CUTS = 1.12
F1_LOST_A_SECOND = 0.87
FARTHEST_S = 1.0


def are_looks_alike(
    a: Sequence[Span], b: Sequence[Span], tolerance: float, shortest: float
) -> bool:
    """Do two looks tell the same activities in the same order, and each change within `tolerance` frames?

    A look knows a change only to lie between two pictures, so the distance is that of these ranges:
    0 if they overlap. An activity of at most `shortest` frames may lie between the pictures of one
    look: it counts where both have it.
    """
    first_spans = _without_missed_activities(a, b, tolerance, shortest)
    second_spans = _without_missed_activities(b, a, tolerance, shortest)
    if [s.label for s in first_spans] != [s.label for s in second_spans]:
        return False
    pairs = zip(first_spans[1:], second_spans[1:], strict=True)
    return all(_distance(x.after + 1, x.start, y) <= tolerance for x, y in pairs)


def _without_missed_activities(
    spans: Sequence[Span], other_spans: Sequence[Span], tolerance: float, shortest: float
) -> list[Span]:
    """A look without its short activities that another look lacks; the first and the last one stay."""
    remaining_spans = []
    for k, span in enumerate(spans):
        is_inner = 0 < k < len(spans) - 1
        is_short = is_inner and spans[k + 1].middle - span.middle <= shortest
        if not (is_short and not is_met(span, other_spans, tolerance)):
            remaining_spans.append(span)
    return _without_repeats(remaining_spans)


def is_met(span: Span, other_spans: Sequence[Span], tolerance: float) -> bool:
    """Does another look have that span begin within `tolerance` frames, too?"""
    return any(
        s.label == span.label and _distance(span.after + 1, span.start, s) <= tolerance
        for s in other_spans[1:]
    )


def expected_f1(starts: Sequence[int], motion_cuts: Sequence[int], fps: float) -> float:
    """How true boundaries at `starts` are likely to be, 0..1, by the arm's own change points.

    A model that tells what pictures show has a boundary near most of these; one whose boundaries
    are off has not. What counts is the mean of their distances to the nearest boundary, each at
    most FARTHEST_S. Without any it is UNKNOWN.
    """
    if not motion_cuts:
        return UNKNOWN
    away = np.abs(np.subtract.outer(np.array(motion_cuts, float), starts[1:]))
    distances = away.min(axis=1, initial=np.inf)
    off_s = float(np.minimum(distances / fps, FARTHEST_S).mean())
    return min(1.0, max(0.0, F1_AT_CUTS - F1_LOST_A_SECOND * off_s))


def confidences(
    spans: Sequence[Span],
    starts: Sequence[int],
    num_frames: int,
    other_spans: Sequence[Span] | None,
    by_motion: float,
    tolerance: float,
) -> list[float]:
    """Confidence 0..1 of the segments that begin at `starts`, labelled as `spans` [same length].

    With one look it is `by_motion`, the F1 of boundaries that is expected by the arm; with another
    one

        confidence = 0.5 L + 0.3 B + 0.2 by_motion

    L: share of the segment's frames that the other look gives the same label. B: share of the
    segment's boundaries that the other look has within `tolerance` frames, the same label
    following; UNKNOWN of a segment that is the whole episode. The episode's own ends are no
    boundaries.
    """
    if other_spans is None:
        return [round(by_motion, 4)] * len(spans)
    # For each boundary, that is from the second segment's start on: is it met by the other look?
    moved_spans = [
        replace(span, after=start_frame - 1, start=start_frame)
        for start_frame, span in zip(starts[1:], spans[1:], strict=True)
    ]
    are_met = [is_met(span, other_spans, tolerance) for span in moved_spans]
    confidence = []
    for k, (start, end) in enumerate(pairwise([*starts, num_frames])):
        boundaries = are_met[max(0, k - 1) : k + 1]  # the boundaries at its start and its end
        same_label = _num_labelled_frames(other_spans, spans[k].label, start, end) / (end - start)
        same_boundary = sum(boundaries) / len(boundaries) if boundaries else UNKNOWN
        terms = zip(WEIGHTS, (same_label, same_boundary, by_motion), strict=True)
        confidence.append(round(sum(weight * share for weight, share in terms), 4))
    return confidence


def _distance(low: int, high: int, span: Span) -> int:
    """Frames between low .. high and the frames among which a span begins; 0 if they overlap."""
    return max(0, low - span.start, span.after + 1 - high)


def _num_labelled_frames(spans: Sequence[Span], label: int | str, start: int, end: int) -> int:
    """Frames of start .. end that have the label; a change counts in the middle of where it is known to be."""
    edges = [s.middle for s in spans] + [end]
    parts = zip(spans, pairwise(edges), strict=True)
    return sum(
        max(0, min(until, end) - max(begin, start))
        for s, (begin, until) in parts
        if s.label == label
    )
