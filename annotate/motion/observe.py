"""What the signals of one episode show by themselves: how fast the arm moves, where it rests, when its gripper acts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import Attempt, attempts, smoothed
from annotate.motion.idle import LEAST_S, idle_spans, without_work
from annotate.signals import Signals

FAST_PERCENTILE = 90  # of the speeds of an episode: an arm's fast speed, which single jumps do not reach


@dataclass(frozen=True)
class Observed:
    """One episode; `moves` [n] bool: the arm is on its way."""

    signals: Signals
    activity: np.ndarray  # [n]: how fast the arm moves, smoothed
    idle: Sequence[tuple[int, int]]  # half-open spans of frames
    attempts: Sequence[Attempt]
    moves: np.ndarray

    def __len__(self) -> int:
        return len(self.activity)

    @property
    def fps(self) -> float:
        return self.signals.fps

    @property
    def failed(self) -> bool:
        """An episode whose source does not say whether it succeeded is taken as finished."""
        return self.signals.success is False

    @property
    def final_rest(self) -> int:
        """First frame of the rest at the end; n without one. An arm that never moves is at its task all the time."""
        return next((start for start, end in self.idle if end == len(self)), len(self)) or len(self)

    @cached_property
    def moving(self) -> np.ndarray:
        """How many frames outside of idle spans there are up to each frame, float64 [n]."""
        moves = np.ones(len(self))
        for start, end in self.idle:
            moves[start:end] = 0.0
        return np.cumsum(moves)

    @cached_property
    def moving_share(self) -> np.ndarray:
        """The share of the moving time up to each frame, float64 [n]; that of all time where nothing moves."""
        if not self.moving[-1]:
            return np.linspace(0, 1, len(self))
        return self.moving / self.moving[-1]

    @cached_property
    def way(self) -> np.ndarray:
        """How far the arm has moved before each frame, float64 [n + 1]."""
        return np.r_[0.0, np.cumsum(self.activity)]

    def lifts(self, attempt: Attempt) -> int:
        """First frame, LEAST_S or more after the fingers hold, at which the arm is on its way; n where it never is."""
        earliest = min(attempt.closed + round(LEAST_S * self.fps), len(self))
        moving = np.flatnonzero(self.moves[earliest:])
        return earliest + int(moving[0]) if moving.size else len(self)

    def stay_s(self, attempt: Attempt) -> float:
        """Seconds that the arm stays where it grasps: before its fingers close, and until it lifts."""
        moving = np.flatnonzero(self.moves[: attempt.closes])
        arrives = int(moving[-1]) + 1 if moving.size else 0
        return (self.lifts(attempt) - arrives) / self.fps

    def carried(self, attempt: Attempt) -> float:
        """How far the arm moved while the gripper was closed."""
        end = len(self) if attempt.opens is None else attempt.opens
        return float(self.way[end] - self.way[min(attempt.closed, end)])


def observe(signals: Signals, config: MotionConfig) -> Observed:
    n, fps = len(signals), signals.fps
    # Nothing leads to frame 0, so no speed is measured there: it takes the next frame's
    window = max(1, round(config.smooth_s * fps))
    activity = smoothed(signals.change if signals.speed is None else signals.speed, window)
    activity[0] = activity[min(1, n - 1)]
    fast = float(np.percentile(activity, FAST_PERCENTILE))

    tries = attempts(signals.grippers, config, fps)
    # An arm that stands still while its gripper closes or opens is at work
    works = [(t.closes, max(t.closed, t.closes + round(LEAST_S * fps))) for t in tries]
    works += [
        (t.opens, max(t.opened, t.opens + round(LEAST_S * fps))) for t in tries if t.opens is not None and t.opened
    ]
    idle = without_work(idle_spans(activity, fast, config, fps), works, n, config, fps)
    return Observed(signals, activity, idle, tries, moves=activity >= config.end_speed * fast)
