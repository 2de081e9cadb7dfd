"""What the motion annotator is given of a run, and what it observes in it before it looks for steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from annotate.motion.arm_events import FAST_PERCENTILE
from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import GripperCurve, GripperEvent, closings, events_of_arms, joined_hands
from annotate.motion.reference_runs import ReferenceMatch
from annotate.motion.stand_stills import find_stand_stills


@dataclass(frozen=True)
class Signals:
    """What the annotator sees of one episode; arrays [n], None where the source has no such measurement."""

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
    return MotionRun(signals, activity, stand_stills, events)


def have_slow_grasps(runs: Sequence[MotionRun], config: MotionConfig) -> bool:
    """Do the grippers of a task's runs mostly take as long to close as a step lasts? Then grasping is one."""
    lasting_s = [(e.end - e.start) / run.signals.fps for run in runs for e in closings(run.gripper_events)]
    return bool(lasting_s) and median(lasting_s) >= config.step_min_s


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
