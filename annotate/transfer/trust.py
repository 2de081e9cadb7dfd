"""Is a reference of this task, seen as its runs are, and labelled where something happens? Others mislead."""

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np

from annotate.motion.signals import MIN_RUNS
from annotate.segments import Segment
from annotate.transfer.marks import Marks
from annotate.transfer.moments import Moments

OTHERWISE_AT = 1.6  # times as far as any run from the run nearest to it: a camera elsewhere, or another place
MARKED_S = 0.3  # s: a boundary as near as this to a mark is where something happens
# In 95 of 100 runs of three real and two simulated sets a half or more of the true boundaries have a mark so near. With
# the lengths of the spans in the opposite order, half of those runs have a half at most
MARKED_SHARE = 0.45
MIN_BOUNDARIES = 2


def why_not(reference: Moments, segments: Sequence[Segment], marks: Marks, runs: Sequence[Moments]) -> str | None:
    """What speaks against following a reference, for people; None where nothing does.

    marks: of the reference itself. runs: of the task that it is to show.
    """
    if _is_seen_otherwise(reference, runs):
        return "its pictures are unlike those of all runs of the task: another camera, or another place"
    # Without a gripper little marks a boundary, and without a state only changes of the picture do
    has_signals = reference.state is not None and reference.openings is not None
    boundaries = [after.start_frame for _, after in pairwise(segments)]
    if not has_signals or len(boundaries) < MIN_BOUNDARIES:
        return None
    share = _marked_share(boundaries, marks, reference.fps)
    if share < MARKED_SHARE:
        return f"only {share:.0%} of its boundaries are where its arm or gripper does something: is it labelled right?"
    return None


def _is_seen_otherwise(reference: Moments, runs: Sequence[Moments]) -> bool:
    if not reference.pictures or len(runs) < MIN_RUNS:
        return False
    views = np.stack([_view(run) for run in runs])
    apart = np.linalg.norm(views[:, None] - views, axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = float(np.linalg.norm(views - _view(reference), axis=1).min())
    return nearest > OTHERWISE_AT * float(apart.min(axis=1).max())


def _view(moments: Moments) -> np.ndarray:
    """What the pictures of a run have in common, over all its cameras."""
    return np.concatenate([seen.mean(axis=0) for seen in moments.pictures])


def _marked_share(boundaries: Sequence[int], marks: Marks, fps: float) -> float:
    frames = np.array(sorted(set(chain.from_iterable(marks.values()))))
    if not len(frames):
        return 0.0
    near = [float(np.abs(frames - boundary).min()) <= MARKED_S * fps for boundary in boundaries]
    return sum(near) / len(near)
