"""How well a run was demonstrated, as numbers that need neither a label nor the other runs of its task.

The view `demonstration_quality` (core/demonstration_quality.py) compares them within a task.
"""

from dataclasses import dataclass, replace

import numpy as np

from annotate.config import MotionConfig
from annotate.motion.observe import Signals, gripper_moves, observe
from core.demonstration_quality import LEAST_SPREAD

CODE_VERSION = "demonstrations-2"
PATH_HZ = 10.0  # at which the arm's way is looked at, whatever the frame rate is: no hand trembles on purpose
PATH_SMOOTH_S = 0.2  # moving average over the state: takes out what sensors add
FAST_PERCENTILE = 90

MIN_MOVES = 5  # points of the way at which the arm moves: fewer say nothing about how smoothly
WAY_S = 0.4  # before and after a point of the way; as long as those by which motion sees a turn
BACK = -0.5  # cosine between the two from which on the arm turns back
LEAST_WAY = 0.03  # of the extent of the whole way: shorter ones have no direction
END_S = 0.25  # of a run: where it ends


@dataclass(frozen=True)
class RunMeasures:
    """Measurements of one run; a value is None if the source has no state, or no gripper is used.

    rest_s: in all stand-stills, also before the arm sets out and after it has come to rest. pauses: stand-stills
    between. jerk: 1/s², see `_jerk`. reversals: how often the arm turns back. gripper_moves: closings and openings.
    end_state [d]: mean over the last END_S; state_spread [d]: standard deviation over the run.
    """

    duration_s: float
    rest_s: float
    pauses: int
    reversals: int | None
    jerk: float | None
    gripper_moves: int | None
    end_state: np.ndarray | None
    state_spread: np.ndarray | None


def measures(signals: Signals) -> RunMeasures:
    """Measure one run, whatever its outcome."""
    # An outcome that becomes known later must not change what is measured
    run = observe(replace(signals, success=None), MotionConfig())
    n, fps = len(run), signals.fps
    way = None if signals.state is None else _way(signals.state, fps)
    end_state = state_spread = None
    if signals.state is not None and np.isfinite(signals.state).all():
        state = np.asarray(signals.state, np.float64)
        end_state, state_spread = state[-max(1, round(END_S * fps)) :].mean(axis=0), state.std(axis=0)
    return RunMeasures(
        duration_s=n / fps,
        rest_s=sum(end - start for start, end in run.idle) / fps,
        pauses=sum(start > 0 and end < n for start, end in run.idle),
        reversals=None if way is None else _reversals(way),
        jerk=None if way is None else _jerk(way),
        gripper_moves=_gripper_moves(signals),
        end_state=end_state,
        state_spread=state_spread,
    )


def _gripper_moves(signals: Signals) -> int | None:
    moves = [gripper_moves(gripper.opening, MotionConfig(), signals.fps) for gripper in signals.grippers]
    return sum(map(len, moves)) if moves else None


def _way(state: np.ndarray, fps: float) -> np.ndarray | None:
    """State [n, d] at PATH_HZ, smoothed, each dimension in its standard deviations; None: nothing moves."""
    spread = state.std(axis=0, dtype=np.float64)
    most = spread.max(initial=0.0)
    if not np.isfinite(state).all() or not most:
        return None
    # A joint that hardly moves shows little but its sensor's steps
    scaled = state.astype(np.float64) / np.maximum(spread, LEAST_SPREAD * most)
    window = max(1, round(PATH_SMOOTH_S * fps))
    padded = np.pad(scaled, ((window // 2, window - 1 - window // 2), (0, 0)), mode="edge")
    sums = np.cumsum(np.pad(padded, ((1, 0), (0, 0))), axis=0)
    smooth = (sums[window:] - sums[:-window]) / window
    times = np.arange(len(state)) / fps
    points = np.arange(0, times[-1] + 1e-9, 1 / PATH_HZ)
    return np.stack([np.interp(points, times, dimension) for dimension in smooth.T], axis=1)


def _jerk(way: np.ndarray) -> float | None:
    """Median jerk over median speed while the arm moves, in 1/s²; None where it hardly moves.

    Jerk that is normalised by speed is what Hogan and Sternad (J. Motor Behavior 41, 2009) measure smoothness by. Their
    integral, and the spectral arc length of Balasubramanian et al. (J. NeuroEng. Rehab. 12, 2015), follow how long a
    run is and its few hardest moments; medians see a hand that trembles (docs/data.md has both measured).
    """
    velocity = np.diff(way, axis=0) * PATH_HZ
    jerk = _length(np.diff(velocity, n=2, axis=0)) * PATH_HZ**2
    speed = _length(velocity)
    is_moving = speed > MOVES * np.percentile(speed, FAST_PERCENTILE) if len(speed) else np.zeros(0, bool)
    if is_moving[: len(jerk)].sum() < MIN_MOVES:
        return None
    return float(np.median(jerk[is_moving[: len(jerk)]]) / np.median(speed[is_moving]))


def _reversals(way: np.ndarray) -> int:
    """How often the ways of WAY_S before and after a point lead into opposite directions."""
    k = round(WAY_S * PATH_HZ)
    if len(way) <= 2 * k:
        return 0
    before, after = way[k:-k] - way[: -2 * k], way[2 * k :] - way[k:-k]
    long = np.minimum(_length(before), _length(after)) > LEAST_WAY * _length(way.max(axis=0) - way.min(axis=0))
    product = (before * after).mean(axis=1)
    is_back = long & (product < BACK * _length(before) * _length(after))
    return int((np.diff(is_back.astype(np.int8), prepend=0) == 1).sum())


def _length(vectors: np.ndarray) -> np.ndarray:
    """Root mean square over the last axis."""
    return np.sqrt((vectors**2).mean(axis=-1))
