"""What a person states of a run's progress: paces of segments, and how the run ends; when that contradicts itself.

How progress follows from it: annotate.progress.stated_progress.
"""

from collections.abc import Sequence

import numpy as np

from core.domain.label import NOTHING_STATED, PACES, STEP, Segment, StatedEnd, finished

SLOPES: dict[str, float] = dict(zip(PACES, (2.0, 1.0, 0.0, -1.0), strict=True))


def is_stated(segments: Sequence[Segment], end: StatedEnd) -> bool:
    """Does a person say anything of the curve, beyond the segments?"""
    return end != NOTHING_STATED or any(s.pace is not None for s in segments)


def check_stated(segments: Sequence[Segment], num_planned: int, end: StatedEnd) -> None:
    """Raise ValueError where what is stated contradicts itself: a label is 1 exactly when all planned steps are done.

    `segments` tile the episode.
    """
    last_frame = segments[-1].end_frame - 1
    final = end.final_progress
    catastrophic_frame = end.catastrophic_frame
    is_finished = finished(segments, num_planned)
    # Without a final progress the curve ends where the segments alone would end it, which is never below 0
    falls = (
        any(s.pace is not None for s in segments)
        and slopes_of(segments)[1:catastrophic_frame].sum() < 0
    )
    finished_note = "every planned step is completed, so"
    contradictions = (
        (
            final is not None and not 0 <= final <= 1,
            f"final progress {final} is not between 0 and 1",
        ),
        (
            catastrophic_frame is not None and not 0 < catastrophic_frame <= last_frame,
            f"the catastrophic frame {catastrophic_frame} is none of the frames 1 to {last_frame}",
        ),
        (
            catastrophic_frame is not None and is_finished,
            f"{finished_note} nothing was lost: mark the step that failed",
        ),
        (
            final not in (None, 1) and catastrophic_frame is None and is_finished,
            f"{finished_note} the run ends at 1: mark the step that failed",
        ),
        (
            final == 1 and catastrophic_frame is None and not is_finished,
            "the run ends at 1, but a planned step is not completed: mark it as completed, or end below 1",
        ),
        (
            falls,
            "the segments fall by more than they rise: mark a segment as slow or fast, or take falls back",
        ),
    )
    for is_so, contradiction in contradictions:
        if is_so:
            raise ValueError(contradiction)


def slopes_of(segments: Sequence[Segment]) -> np.ndarray:
    """Slope of each frame, float64 [n], in parts of a slow one."""
    of_segments = [SLOPES[s.pace or ("slow" if s.kind == STEP else "adjust")] for s in segments]
    return np.repeat(of_segments, [len(s) for s in segments])
