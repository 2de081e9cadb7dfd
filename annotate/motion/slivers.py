"""Steps that are too short to be one: no budget is paid for a few frames."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from annotate.motion.stand_stills import LEAST_STEP_S
from annotate.segments import STEP, Segment


def without_slivers(segments: Sequence[Segment], fps: float) -> list[Segment]:
    """The same segments; no step is shorter than LEAST_STEP_S, unless the run is too short for that.

    A part of a step beside another part of it, with a stand-still between, joins the stand-still. A step by itself gets
    the frames that it lacks of its longer neighbour, or of what lies behind both.
    """
    least = max(1, round(LEAST_STEP_S * fps))
    kept = list(segments)
    k = 0
    while k < len(kept):
        sliver = kept[k]
        if sliver.kind != STEP or len(sliver) >= least:
            k += 1
        elif (other := _other_part(kept, k)) is not None:
            kept = _joined(kept, k, other)
            k = 0
        else:
            kept = _grown(kept, k, least)
            k += 1
    return _spread(kept, least)


def _other_part(segments: Sequence[Segment], k: int) -> int | None:
    """The part of the same attempt on the other side of a stand-still beside segment `k`."""
    for other in (k - 2, k + 2):
        if 0 <= other < len(segments):
            is_same = segments[other].step == segments[k].step and segments[(k + other) // 2].step is None
            if is_same and not segments[min(k, other)].completed:
                return other
    return None


def _joined(segments: Sequence[Segment], k: int, other: int) -> list[Segment]:
    """Segment `k` becomes a part of the stand-still between it and its other part, which ends as it ended."""
    between = (k + other) // 2
    kept = list(segments)
    if other < k:
        kept[other] = replace(kept[other], completed=kept[k].completed)
        kept[between] = replace(kept[between], end_frame=kept[k].end_frame)
    else:
        kept[between] = replace(kept[between], start_frame=kept[k].start_frame)
    del kept[k]
    return _without_repeats(kept)


def _without_repeats(segments: Sequence[Segment]) -> list[Segment]:
    """Two stand-stills in a row are one."""
    kept: list[Segment] = []
    for s in segments:
        if kept and s.step is None and kept[-1].step is None and s.kind == kept[-1].kind and s.name == kept[-1].name:
            kept[-1] = replace(kept[-1], end_frame=s.end_frame)
        else:
            kept.append(s)
    return kept


def _grown(segments: Sequence[Segment], k: int, least: int) -> list[Segment]:
    """Segment `k` with frames of its longer neighbour, which keeps as many."""
    kept = list(segments)
    lacking = least - len(kept[k])
    neighbours = [j for j in (k - 1, k + 1) if 0 <= j < len(kept) and len(kept[j]) - lacking >= least]
    if not neighbours:
        return kept
    giver = max(neighbours, key=lambda j: len(kept[j]))
    if giver < k:
        start = kept[k].start_frame - lacking
        kept[giver] = replace(kept[giver], end_frame=start)
        kept[k] = replace(kept[k], start_frame=start)
    else:
        end = kept[k].end_frame + lacking
        kept[giver] = replace(kept[giver], start_frame=end)
        kept[k] = replace(kept[k], end_frame=end)
    return kept


def _spread(segments: Sequence[Segment], least: int) -> list[Segment]:
    """The same segments, each step at least so long: what lies behind it gives way, or else what lies before."""
    needed = [least if s.kind == STEP else 0 for s in segments]
    num_frames = segments[-1].end_frame
    if sum(needed) > num_frames or all(len(s) >= need for s, need in zip(segments, needed, strict=True)):
        return list(segments)

    # Forwards each end moves on as far as its step needs; backwards, where the run is over, it comes back
    ends: list[int] = []
    end = 0
    for s, need in zip(segments, needed, strict=True):
        end = max(s.end_frame, end + need)
        ends.append(end)
    latest = num_frames
    for k in reversed(range(len(segments))):
        ends[k] = min(ends[k], latest)
        latest = ends[k] - needed[k]
    moved = [replace(s, start_frame=a, end_frame=b) for s, (a, b) in zip(segments, pairwise([0, *ends]), strict=True)]
    return [s for s in moved if len(s) > 0]
