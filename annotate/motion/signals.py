"""The signals of a run that the motion annotator reads, and its observations before it looks for steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from annotate.motion.arm_events import FAST_PERCENTILE
from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import GripperCurve, GripperEvent, closings, events_of_arms, joined_hands
from annotate.motion.reference_runs import ReferenceMatch
from annotate.motion.stand_stills import find_stand_stills, without_spans

MIN_RUNS = 3  # of a task: fewer do not show what is usual for it
LONG_STAY_S = 1.5  # of a hand at what it closes on, before, while and after it does
LIFT_S = 0.3  # from fingers that hold to a thing that is lifted


@dataclass(frozen=True)
class Signals:
    """Signals of one episode; arrays [n], None if the source has no such measurement."""

    fps: float
    change: np.ndarray
    speed: np.ndarray | None
    grippers: Sequence[GripperCurve] = ()
    success: bool | None = None
    task: str | None = None
    state: np.ndarray | None = None  # [n, d]
    picture: np.ndarray | None = None  # luma of the first frame, [p]
    episode_index: int = 0  # by which labels of failed runs name this one


@dataclass(frozen=True)
class MotionRun:
    """One run of a task, with what its signals show and what a comparison with the other runs showed."""

    signals: Signals
    activity: np.ndarray  # [n]: how fast the arm moves, smoothed
    stand_stills: Sequence[tuple[int, int]]  # half-open spans of frames
    gripper_events: Sequence[GripperEvent]  # grasps and releases in time; moves without a polarity
    moves: np.ndarray  # [n] bool: the arm is on its way
    action_candidates: Sequence[int] = ()  # frames at which the one action of the task may begin, in time
    contact: int | None = None  # of a successful run: the frame at which it first acts on an object
    match: ReferenceMatch | None = None  # of a failed run: how far it came

    def __len__(self) -> int:
        return len(self.activity)

    @property
    def failed(self) -> bool:
        """A run whose source does not say whether it succeeded is taken as finished."""
        return self.signals.success is False

    @property
    def final_rest(self) -> int:
        """First frame of the stand-still at the end; n without one."""
        return next((start for start, end in self.stand_stills if end == len(self)), len(self))


def observe(signals: Signals, config: MotionConfig) -> MotionRun:
    """The activity, the stand-stills and the gripper's events of a run; nothing is compared with other runs yet."""
    n = len(signals.change)

    # Nothing leads to frame 0, so no speed is measured there: it takes the next frame's
    window = max(1, round(config.smooth_s * signals.fps))
    activity = _smoothed(signals.change if signals.speed is None else signals.speed, window)
    activity[0] = activity[min(1, n - 1)]

    fast = float(np.percentile(activity, FAST_PERCENTILE))
    stand_stills = find_stand_stills(activity, fast, config, signals.fps)

    events = joined_hands(grasps_of_arms(signals, activity, config), signals.fps)
    # An arm that stands still while its gripper closes or opens is at work
    works = [(e.start, max(e.moment, e.start + round(LIFT_S * signals.fps))) for e in events]
    stand_stills = without_spans(stand_stills, works, n, config, signals.fps)
    return MotionRun(signals, activity, stand_stills, events, moves=activity >= config.end_speed * fast)


def have_slow_grasps(runs: Sequence[MotionRun], config: MotionConfig) -> bool:
    """Do the hands of a task's runs take their time to grasp? Then each part of a transfer is a step of its own.

    They mostly take as long to close as a step lasts, or stay LONG_STAY_S at what they close on.
    """
    grasps = [(run, event) for run in runs for event in closings(run.gripper_events)]
    if not grasps:
        return False
    closing_s = median((event.end - event.start) / run.signals.fps for run, event in grasps)
    stay_s = median((lifts(run, e.moment) - _arrives(run, e.start)) / run.signals.fps for run, e in grasps)
    return closing_s >= config.step_min_s or stay_s >= LONG_STAY_S


def lifts(run: MotionRun, closed: int) -> int:
    """First frame, LIFT_S or more after the fingers hold, at which the arm is on its way; n where it never is."""
    earliest = min(closed + round(LIFT_S * run.signals.fps), len(run))
    moving = np.flatnonzero(run.moves[earliest:])
    return earliest + int(moving[0]) if moving.size else len(run)


def _arrives(run: MotionRun, closes: int) -> int:
    """First frame of the stay in which the fingers begin to close at frame `closes`."""
    moving = np.flatnonzero(run.moves[:closes])
    return int(moving[-1]) + 1 if moving.size else 0


def grasps_of_arms(signals: Signals, activity: np.ndarray, config: MotionConfig) -> list[GripperEvent]:
    """The grasps and releases of each arm, in time; `activity` [n]: how fast the arm moves."""
    # How far the arm has moved by each frame, of all that it moves
    moved = np.cumsum(activity)
    way = moved / (moved[-1] or 1.0)
    # A failed run may end with the thing in its gripper
    return events_of_arms(signals.grippers, way, config, signals.fps, may_end_closed=signals.success is False)


def _smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average, float64 [n], the ends repeated."""
    padded = np.pad(np.asarray(values, np.float64), (window // 2, window - 1 - window // 2), mode="edge")
    return np.convolve(padded, np.ones(window) / window, mode="valid")
