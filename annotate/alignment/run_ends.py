"""Which runs of a task end unlike the others: the order in which to ask people how they ended. It
is no label, and no probability: on real robots it tells failed runs apart on some sets and not on
others (docs/truth.md)."""

from collections.abc import Sequence

import numpy as np

from annotate.alignment.engine import Moments, Seen, distances, task_moments, usual_distances
from annotate.config import MotionConfig
from annotate.motion.observe import Signals, observe

LAST_S = 1.0  # of a run: its end
NEAREST_SHARE = 0.25  # of the others: a task may end in several ways
MOMENTS = 120  # of an episode that are looked at


def worst_first(episodes: Sequence[Signals], motion: MotionConfig) -> list[int]:
    """Episodes of one task by episode_index, first those that stay farthest from how the others
    end; by index where nothing of them can be compared. Costs the square of their number."""
    in_order = sorted(episodes, key=lambda e: e.episode_index)
    moments = task_moments([observe(e, motion) for e in in_order], MOMENTS)
    indices = [e.episode_index for e in in_order]
    if len(moments) < 2 or not moments[0].is_comparable:
        return indices
    far = end_distances(moments)
    return [
        indices[place]
        for place in sorted(range(len(indices)), key=lambda place: (-far[place], place))
    ]


def end_distances(moments: Sequence[Moments]) -> np.ndarray:
    """How near each episode ever comes to the last second of the nearest quarter of the others, float64 [episodes].

    1 is a usual distance.
    """
    usual_scales = usual_distances(moments)
    ends = [_end_of_run(reference) for reference in moments]
    count = max(1, round(NEAREST_SHARE * (len(moments) - 1)))
    far = np.zeros(len(moments))
    for i, run_moments in enumerate(moments):
        end_gaps = [
            distances(run_moments, end, usual_scales).min(axis=0).mean()
            for j, end in enumerate(ends)
            if j != i
        ]
        far[i] = np.mean(sorted(end_gaps)[:count])
    return far


def _end_of_run(moments: Moments) -> Seen:
    """What its last second shows."""
    return moments.part(moments.frames >= moments.frames[-1] - LAST_S * moments.episode.fps)
