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
    return all(
        _distance((x.after + 1, x.start), (y.after + 1, y.start)) <= tolerance
        for x, y in zip(a[1:], b[1:], strict=True)
    )


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
    ends = [*starts[1:], num_frames]
    labels = [s.label for s in spans]
    # For each boundary, that is from the second segment's start on: is it met by the other look, and by the motion?
    is_met = [_is_met(at, label, other or (), tolerance) for at, label in zip(starts[1:], labels[1:], strict=True)]
    is_motion_cut = [_is_near_any(at, motion_cuts, tolerance) for at in starts[1:]]

    # Each segment's three shares, of which those that nothing shows count half
    confidence = []
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        own = slice(max(0, k - 1), k + 1)  # the boundaries at its start and its end
        same_label = same_boundary = UNKNOWN
        if other is not None:
            same_label = _overlap(other, labels[k], start, end) / (end - start)
            same_boundary = _share(is_met[own])
        same_motion = _share(is_motion_cut[own]) if motion_cuts else UNKNOWN
        terms = zip(WEIGHTS, (same_label, same_boundary, same_motion), strict=True)
        confidence.append(round(sum(weight * share for weight, share in terms), 4))
    return confidence


def _is_near_any(at: int, cuts: Sequence[int], tolerance: float) -> bool:
    return any(abs(at - cut) <= tolerance for cut in cuts)


def _is_met(at: int, label: int | str, other: Sequence[Span], tolerance: float) -> bool:
    """Does the other look have a boundary within `tolerance` frames, followed by the same label?"""
    return any(s.label == label and _distance((at, at), (s.after + 1, s.start)) <= tolerance for s in other[1:])


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else UNKNOWN


def _distance(a: tuple[int, int], b: tuple[int, int]) -> int:
    """Frames between two ranges, each with its ends; 0 if they overlap.

    Example: _distance((3, 5), (9, 9)) == 4.
    """
    return max(0, a[0] - b[1], b[0] - a[1])


def _overlap(spans: Sequence[Span], label: int | str, start: int, end: int) -> int:
    """Frames of start .. end that have the label; a change counts in the middle of where it is known to be."""
    edges = [(s.after + 1 + s.start) // 2 for s in spans] + [end]
    frames = 0
    for span, (begin, until) in zip(spans, pairwise(edges), strict=True):
        if span.label == label:
            frames += max(0, min(until, end) - max(begin, start))
    return frames
