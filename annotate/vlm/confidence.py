"""How far two looks at an episode agree, and how sure that makes of each segment."""

from collections.abc import Sequence
from itertools import pairwise

from annotate.vlm.windows import Span

MATCH_S = 0.5  # boundaries this near are one, unless the configuration says otherwise
WEIGHTS = (0.5, 0.3, 0.2)  # labels, boundaries, motion
UNKNOWN = 0.5


def agree(a: Sequence[Span], b: Sequence[Span], tolerance: float) -> bool:
    """Do two looks tell the same activities in the same order, and each change within `tolerance` frames?

    A look knows a change only to lie between two pictures, so the distance is that of these ranges: 0 if they overlap.
    """
    if [s.label for s in a] != [s.label for s in b]:
        return False
    return all(_distance(x.after + 1, x.start, y) <= tolerance for x, y in zip(a[1:], b[1:], strict=True))


def confidences(
    spans: Sequence[Span],
    starts: Sequence[int],
    num_frames: int,
    other: Sequence[Span] | None,
    motion_cuts: Sequence[int],
    tolerance: float,
) -> list[float]:
    """Confidence 0..1 of the segments that begin at `starts`, labelled as `spans` [same length].

        confidence = 0.5 L + 0.3 B + 0.2 M

    L: share of the segment's frames that the other look gives the same label.
    B: share of the segment's boundaries that the other look has within `tolerance` frames, the same label following.
    M: share of the segment's boundaries that have a change point of the motion annotator within `tolerance` frames.
    What is not known counts 0.5: L and B without another look, M where no change point was found, B and M of a segment
    that is the whole episode. The episode's own ends are no boundaries. So one look alone gives 0.4 to 0.6.
    The formula is ours: agreement of what saw the episode independently. It ranks; it is no probability.
    """
    # For each boundary, that is from the second segment's start on: is it met by the other look, and by the motion?
    is_met = [
        any(s.label == span.label and _distance(at, at, s) <= tolerance for s in (other or ())[1:])
        for at, span in zip(starts[1:], spans[1:], strict=True)
    ]
    is_motion_cut = [any(abs(at - cut) <= tolerance for cut in motion_cuts) for at in starts[1:]]

    confidence = []
    for k, (start, end) in enumerate(pairwise([*starts, num_frames])):
        own = slice(max(0, k - 1), k + 1)  # the boundaries at its start and its end
        same_label = same_boundary = same_motion = UNKNOWN
        if other is not None:
            same_label = _overlap(other, spans[k].label, start, end) / (end - start)
        if other is not None and is_met[own]:
            same_boundary = sum(is_met[own]) / len(is_met[own])
        if motion_cuts and is_motion_cut[own]:
            same_motion = sum(is_motion_cut[own]) / len(is_motion_cut[own])
        terms = zip(WEIGHTS, (same_label, same_boundary, same_motion), strict=True)
        confidence.append(round(sum(weight * share for weight, share in terms), 4))
    return confidence


def _distance(low: int, high: int, span: Span) -> int:
    """Frames between low .. high and the frames among which a span begins; 0 if they overlap."""
    return max(0, low - span.start, span.after + 1 - high)


def _overlap(spans: Sequence[Span], label: int | str, start: int, end: int) -> int:
    """Frames of start .. end that have the label; a change counts in the middle of where it is known to be."""
    edges = [(s.after + 1 + s.start) // 2 for s in spans] + [end]
    parts = zip(spans, pairwise(edges), strict=True)
    return sum(max(0, min(until, end) - max(begin, start)) for s, (begin, until) in parts if s.label == label)
