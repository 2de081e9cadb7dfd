"""Progress as a person states it: how fast each segment went on, where the run ended, where all was lost.

A segment has a pace: `fast` rises twice as steeply as `slow`, `adjust` stands still, `mistake` falls as steeply as
`slow` rises. How steep that is follows from where the curve ends. From the catastrophic frame on all progress is lost.
Paces and their slopes are those of opensarm's labelling tool (xdofai/opensarm @6dd65047, generate_progress.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotate.segments import PACES, STEP, Segment, finished

SLOPES: dict[str, float] = dict(zip(PACES, (2.0, 1.0, 0.0, -1.0), strict=True))


@dataclass(frozen=True)
class StatedEnd:
    """A person's statement on a run's end; None: not stated.

    final_progress: 0..1, at the last frame, or right before the catastrophic one. catastrophic_frame: the first frame
    at which nothing is left of what was done.
    """

    final_progress: float | None = None
    catastrophic_frame: int | None = None


NOTHING_STATED = StatedEnd()


def is_stated(segments: Sequence[Segment], end: StatedEnd) -> bool:
    """Does a person say anything of the curve, beyond the segments?"""
    return end != NOTHING_STATED or any(s.pace is not None for s in segments)


def check_stated(segments: Sequence[Segment], num_planned: int, end: StatedEnd) -> None:
    """Raise ValueError where what is stated contradicts itself: a label is 1 exactly when all planned steps are done.

    `segments` tile the episode.
    """
    last_frame = segments[-1].end_frame - 1
    final, lost = end.final_progress, end.catastrophic_frame
    is_finished = finished(segments, num_planned)
    # Without a final progress the curve ends where the segments alone would end it, which is never below 0
    falls = any(s.pace is not None for s in segments) and _slopes(segments)[1:lost].sum() < 0
    done = "every planned step is completed, so"
    contradictions = (
        (final is not None and not 0 <= final <= 1, f"final progress {final} is not between 0 and 1"),
        (
            lost is not None and not 0 < lost <= last_frame,
            f"the catastrophic frame {lost} is none of the frames 1 to {last_frame}",
        ),
        (lost is not None and is_finished, f"{done} nothing was lost: mark the step that failed"),
        (
            final not in (None, 1) and lost is None and is_finished,
            f"{done} the run ends at 1: mark the step that failed",
        ),
        (
            final == 1 and lost is None and not is_finished,
            "the run ends at 1, but a planned step is not completed: mark it as completed, or end below 1",
        ),
        (falls, "the segments fall by more than they rise: mark a segment as slow or fast, or take falls back"),
    )
    for is_so, what in contradictions:
        if is_so:
            raise ValueError(what)


def stated_progress(segments: Sequence[Segment], ordinary: np.ndarray, end: StatedEnd) -> np.ndarray:
    """Progress as stated, float32 [n]; `ordinary` [n] is what `annotate.progress` makes of the segments alone.

    Without paces it is the ordinary curve, stretched to the final progress. With paces: 0 at frame 0, straight inside
    each segment, the final progress at the end (that of the ordinary curve where none is stated). Segments without a
    pace of their own: a step is slow, all else stands still. Where nothing rises, the way to the end is even.

    Example: fast in frames 0-4, mistake in frames 5-6, ending at 0.6: 4 x 2 - 2 x 1 = 6 parts of 0.1 each, so it rises
    to 0.8 at frame 4 and falls to 0.6 at frame 6.
    """
    last = (len(ordinary) if end.catastrophic_frame is None else end.catastrophic_frame) - 1
    final = float(ordinary[last]) if end.final_progress is None else end.final_progress
    curve = np.asarray(ordinary, np.float64)
    if any(s.pace is not None for s in segments):
        slopes = _slopes(segments)
        slopes[0] = 0.0  # nothing leads to frame 0
        curve = np.cumsum(slopes)
    if curve[last] > 0:
        out = np.clip(curve * (final / curve[last]), 0.0, 1.0)
    else:
        out = np.zeros(len(ordinary))
        out[: last + 1] = np.linspace(0.0, final, last + 1)
    # exactly, without what rounding leaves
    if end.final_progress is not None:
        out[last] = final
    out[last + 1 :] = 0.0
    out[0] = 0.0
    return out.astype(np.float32)


def _slopes(segments: Sequence[Segment]) -> np.ndarray:
    """Slope of each frame, float64 [n], in parts of a slow one."""
    of_segments = [SLOPES[s.pace or ("slow" if s.kind == STEP else "adjust")] for s in segments]
    return np.repeat(of_segments, [len(s) for s in segments])
