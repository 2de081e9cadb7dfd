"""When a signal goes from one end of its range to the other; grippers are what does so where no name says it.

An arm's joints move all the time and over all of their range. A gripper stays at one end of its range, then goes to the
other in less than a second. It is nearly always the last dimension of its arm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingest.signals.naming import arm_of

END_SHARE = 0.12  # of the range: so near to an end is at it
MIN_AT_ENDS = 0.4  # share of frames at either end
MIN_AT_ONE_END = 0.3  # share of frames at the end where it is more
MIN_STILL = 0.6  # share of frames at which it does not move
STILL_CHANGE, STILL_S = 0.02, 0.2  # of the range, within so many seconds
LONGEST_SWITCH_S = 0.6  # median time from end to end
MIN_RUNS_THAT_SWITCH = 0.3  # share of episodes
TWO_LEVELS = 0.9  # share of frames at the ends by which any dimension is a gripper, wherever it stands
TWO_ARMS = (12, 14, 16)  # widths of vectors that hold two arms, one behind the other

LOW_END, HIGH_END = 0.3, 0.7  # of the run's range: a signal below is at its low end, one above at its high end
MIN_RUN_RANGE = 0.25  # of the dataset's range: a run that uses less of it does not change its end
MIN_STAY_S = 0.4  # a signal that comes back sooner has only twitched


@dataclass(frozen=True)
class Range:
    """The ends of a dimension over a dataset, without the rarest values."""

    low: float
    high: float

    @property
    def span(self) -> float:
        return self.high - self.low

    def relative(self, values: np.ndarray) -> np.ndarray:
        return (values - self.low) / (self.span or 1.0)


def range_of(values: np.ndarray) -> Range:
    """Of values [n] of all episodes: half a per cent at either end does not count, such as single glitches."""
    low, high = np.percentile(values, [0.5, 99.5], method="nearest")
    return Range(float(low), float(high))


def switching_dimensions(runs: Sequence[np.ndarray], rates: Sequence[float], names: Sequence[str]) -> dict[str, int]:
    """The dimension that is the gripper, by arm, among the rows of some episodes, each [n, d]; `rates` in fps.

    Of several candidates of an arm the one that is most at its ends counts.
    """
    width = min(run.shape[1] for run in runs)
    arms = _arms(names, width)
    last_of_arm = {arms[d]: d for d in range(width)}

    best: dict[str, tuple[float, int]] = {}
    for dimension in range(width):
        at_ends = _share_at_ends([run[:, dimension] for run in runs], rates)
        stands_last = last_of_arm[arms[dimension]] == dimension
        if at_ends >= (MIN_AT_ENDS if stands_last else TWO_LEVELS):
            arm = arms[dimension]
            best[arm] = max(best.get(arm, (0.0, 0)), (at_ends, dimension))
    return {arm: dimension for arm, (_, dimension) in best.items()}


def _arms(names: Sequence[str], width: int) -> list[str]:
    """The arm of each dimension, by its name, else by the usual order of two arms; "" for the only one."""
    named = [arm_of(name) for name in names[:width]]
    if any(named):
        return [*named, *[""] * (width - len(named))]
    if width in TWO_ARMS:
        return ["left"] * (width // 2) + ["right"] * (width - width // 2)
    return [""] * width


def _share_at_ends(runs: Sequence[np.ndarray], rates: Sequence[float]) -> float:
    """Share of frames at either end of the range for a dimension that switches; 0 for another one."""
    ends = range_of(np.concatenate(runs))
    if ends.span <= 0:
        return 0.0
    relative = [ends.relative(run) for run in runs]

    # An arm's joint moves where a gripper stays
    pooled = np.concatenate(relative)
    at_low, at_high = (pooled < END_SHARE).mean(), (pooled > 1 - END_SHARE).mean()
    still = np.mean([_share_still(run, fps) for run, fps in zip(relative, rates, strict=True)])
    rests = at_low + at_high >= MIN_AT_ENDS and max(at_low, at_high) >= MIN_AT_ONE_END and still >= MIN_STILL
    return float(at_low + at_high) if rests and _switches(relative, rates) else 0.0


def _switches(relative: Sequence[np.ndarray], rates: Sequence[float]) -> bool:
    """Does it go from end to end, quickly, in a fair share of the episodes?"""
    rated = zip(relative, rates, strict=True)
    durations_s = [[(s.end - s.start) / fps for s in transitions(run, fps)] for run, fps in rated]
    if np.mean([bool(of_run) for of_run in durations_s]) < MIN_RUNS_THAT_SWITCH:
        return False
    return bool(np.median(np.concatenate(durations_s)) <= LONGEST_SWITCH_S)


def _share_still(run: np.ndarray, fps: float) -> float:
    window = max(1, round(STILL_S * fps))
    if len(run) <= window:
        return 1.0
    return float((np.abs(run[window:] - run[:-window]) < STILL_CHANGE).mean())


# From one end to the other


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
