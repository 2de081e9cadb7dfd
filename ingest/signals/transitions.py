"""When a signal goes from one end of its range to the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LOW_END, HIGH_END = 0.3, 0.7  # of the run's range: a signal below is at its low end, one above at its high end
MIN_RUN_RANGE = 0.25  # of the dataset's range: a run that uses less of it does not change its end
MIN_STAY_S = 0.4  # a signal that comes back sooner has only twitched


@dataclass(frozen=True)
class Transition:
    """From the last frame at one end to the first at the other."""

    start: int
    end: int
    rises: bool


def transitions(relative: np.ndarray, fps: float) -> list[Transition]:
    """Where a signal [n], 0..1 of its range over the dataset, changes its end, in time; without twitches.

    A person opens a gripper now more, now less: the ends are those of the run, where it uses enough of the range.

    Example: at 10 fps, five frames at 0, one at 0.5 and five at 1 give one transition from frame 4 to frame 6.
    """
    low, high = float(relative.min()), float(relative.max())
    if high - low < MIN_RUN_RANGE:
        return []
    # The end that each frame is at: 0 or 1, -1 between them
    of_run = (relative - low) / (high - low)
    end_of = np.select([of_run < LOW_END, of_run > HIGH_END], [0, 1], -1)
    at_end = np.flatnonzero(end_of >= 0)
    changes = np.flatnonzero(np.diff(end_of[at_end]))
    crossings = [
        Transition(int(at_end[k]), int(at_end[k + 1]), rises=bool(end_of[at_end[k + 1]] == 1)) for k in changes
    ]
    return _without_twitches(crossings, max(1, round(MIN_STAY_S * fps)))


def _without_twitches(crossings: Sequence[Transition], shortest: int) -> list[Transition]:
    """Two transitions there and back, less than `shortest` frames apart, are none."""
    steady: list[Transition] = []
    for crossing in crossings:
        if steady and crossing.start - steady[-1].end < shortest:
            steady.pop()
        else:
            steady.append(crossing)
    return steady
