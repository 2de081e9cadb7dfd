"""How alike the optical flow of a run is to what its joints make one expect, where rows are so many frames later.

How the joints' steps move the pictures is learnt on other runs (ridge regression, in five folds): each way of moving
together has a flow of its own, which also depends on where the arm is. So the direction of motion tells the lag, and
not only how fast the arm is.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from annotate.checkup.clocks import max_lag_frames
from annotate.checkup.signals import RunSignals, values_of_commonest_kind

WINDOW_S = 0.1  # over which flow and steps are summed: cameras may show a frame twice
MAX_FRAMES = 1000  # of a run, from its start: more tell its lag no better
MIN_FRAMES = 40
MAX_LAG_SHARE = 0.3  # of a run's frames: of a larger lag too little is compared
USUAL_PERCENTILE = 75  # of the flow's size: much more of it counts for little more
AXES = 6  # ways of moving together, and of standing, that are told apart
LOW = 5  # percentile of a joint
HIGH = 95  # percentile: from the low one to it a joint's range is 1
MAX_PLACE = 1.5  # ranges from the median
FAST_STEP = 99  # percentile of a joint's steps
MAX_STEP = 2.0  # times the fast step: a larger one is none of the arm
FOLDS = 5
RIDGE = 0.02  # of the mean of the predictors' diagonal, added to it
NOISE = 0.05  # the same of what is left unexplained
TINY = 1e-12  # added to the diagonal of what may be all 0


class RunMotion(NamedTuple):
    """What is kept of a run with n frames: its cameras and how many lags they have, the frames that are summed, joints
    float32 [n, d], and flow of all cameras float16 [n, m]."""

    cameras: tuple[str, ...]
    max_lag: int
    window: int
    joints: np.ndarray
    flow: np.ndarray

    @property
    def compared_lag(self) -> int:
        """The largest lag, in frames, at which enough of the run is compared."""
        return min(self.max_lag, int(MAX_LAG_SHARE * len(self.flow)))

    @property
    def layout(self) -> tuple[tuple[str, ...], int, int, int]:
        """Runs that differ in it are not compared."""
        return self.cameras, self.max_lag, self.window, self.joints.shape[1]


class ArmAxes(NamedTuple):
    """How joints [d] become a few coordinates: medians, ranges, largest steps, and axes of steps and places [d, p]."""

    median: np.ndarray
    extent: np.ndarray
    max_step: np.ndarray
    step_axes: np.ndarray
    place_axes: np.ndarray


class Fold(NamedTuple):
    """Products summed over runs: of predictors [k, k], of predictors and flow [k, m], of flow [m, m]; and frames."""

    predictors: np.ndarray
    mixed: np.ndarray
    flow: np.ndarray
    num_frames: int


def run_motion(run: RunSignals) -> RunMotion | None:
    """Joints and flow of a run; None where there are none, or too few."""
    state = run.state
    max_lag = max_lag_frames(run.fps)
    if state is None or len(state) != len(run) or not run.cameras:
        return None
    # A shorter run would show nothing of itself at the largest lags
    if len(run) < max(MIN_FRAMES, max_lag + 1):
        return None
    joints = state[:MAX_FRAMES, run.arm_dimensions("state")]
    if not joints.size or not np.isfinite(joints).all():
        return None
    window = max(1, round(WINDOW_S * run.fps))
    flow = [_bounded_flow(_window_sums(camera.flow[:MAX_FRAMES], window)) for camera in run.cameras]
    return RunMotion(
        tuple(camera.camera for camera in run.cameras),
        max_lag,
        window,
        joints.astype(np.float32),
        np.concatenate(flow, axis=1).astype(np.float16),
    )


def _window_sums(values: np.ndarray, window: int) -> np.ndarray:
    """Sums of values [n, d] over so many frames about each."""
    n = len(values)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=float)])
    starts = np.maximum(np.arange(n) - (window - 1) // 2, 0)
    ends = np.minimum(np.arange(n) + window // 2 + 1, n)
    return sums[ends] - sums[starts]


def _bounded_flow(flow: np.ndarray) -> np.ndarray:
    """Flow [n, m] whose size is at most 1, and a half where it is usual."""
    size = np.linalg.norm(flow, axis=1, keepdims=True)
    usual_size = float(np.percentile(size, USUAL_PERCENTILE)) or 1.0
    return flow / (usual_size + size)


def flow_curves(
    motions: Mapping[int, RunMotion | None], start_lag: int
) -> tuple[dict[int, np.ndarray], int]:
    """The likeness (correlation) of each run's flow and of what the other runs foretell of it, at each lag,
    [2 * most + 1] and 0 where too little is compared; and the lag of all of them together.

    Learnt where the rows are `start_lag` frames behind the pictures, and then again at the lag that is found.
    """
    compared = values_of_commonest_kind(motions, attrgetter("layout"))
    if len(compared) < FOLDS:
        return {}, start_lag
    runs = list(compared.values())
    predictors = _predictors(runs)
    for _ in range(2):
        curves = _curves(runs, predictors, start_lag)
        mean_curve = np.mean(curves, axis=0)
        # Where nothing moves, no lag is better than another one
        if mean_curve.max() <= 0 or peak_lag(mean_curve) == start_lag:
            break
        start_lag = peak_lag(mean_curve)
    return dict(zip(compared, curves, strict=True)), start_lag


def peak_lag(curve: np.ndarray) -> int:
    """The lag, in frames, at which a curve [2 * most + 1] is highest."""
    return int(np.argmax(curve)) - len(curve) // 2


def _predictors(runs: Sequence[RunMotion]) -> list[np.ndarray]:
    """For each run, each coordinate of its steps by itself and times each of its places, float32 [n, k]."""
    axes = _arm_axes(runs)
    predictors = [_run_predictors(run, axes) for run in runs]
    sizes = np.sqrt(sum((values**2).sum(axis=0) for values in predictors))
    scale = np.divide(
        np.sqrt(sum(map(len, predictors))), sizes, out=np.zeros_like(sizes), where=sizes > 0
    )
    return [(values * scale).astype(np.float32) for values in predictors]


def _arm_axes(runs: Sequence[RunMotion]) -> ArmAxes:
    joints = np.concatenate([run.joints for run in runs]).astype(float)
    low, median, high = np.percentile(joints, (LOW, 50, HIGH), axis=0)
    extent = np.where(high > low, high - low, np.inf)
    steps = np.concatenate([_steps(run, extent) for run in runs])
    max_step = MAX_STEP * np.percentile(np.abs(steps), FAST_STEP, axis=0)
    places = _clipped_places(joints, median, extent)
    return ArmAxes(
        median,
        extent,
        max_step,
        _main_axes(np.clip(steps, -max_step, max_step)),
        _main_axes(places - places.mean(axis=0)),
    )


def _steps(run: RunMotion, extent: np.ndarray) -> np.ndarray:
    """From the frame before, in ranges, [n, d]."""
    return np.diff(run.joints, axis=0, prepend=run.joints[:1]) / extent


def _clipped_places(joints: np.ndarray, median: np.ndarray, extent: np.ndarray) -> np.ndarray:
    return np.clip((joints - median) / extent, -MAX_PLACE, MAX_PLACE)


def _main_axes(values: np.ndarray) -> np.ndarray:
    """The axes along which values [n, d] are largest, [d, p]."""
    _, axes = np.linalg.eigh(values.T @ values)
    return axes[:, ::-1][:, :AXES]


def _run_predictors(run: RunMotion, axes: ArmAxes) -> np.ndarray:
    steps = np.clip(_steps(run, axes.extent), -axes.max_step, axes.max_step)
    moves = _window_sums(steps, run.window) @ axes.step_axes
    places = _clipped_places(run.joints, axes.median, axes.extent) @ axes.place_axes
    factors = np.concatenate([np.ones((len(places), 1)), places], axis=1)
    return (moves[:, :, None] * factors[:, None, :]).reshape(len(moves), -1)


def _curves(
    runs: Sequence[RunMotion], predictors: Sequence[np.ndarray], lag: int
) -> list[np.ndarray]:
    """The curve of each run by what the runs of the other folds show at a lag."""
    parts = list(zip(predictors, (run.flow for run in runs), strict=True))
    folds = [_fold(parts[number::FOLDS], lag) for number in range(FOLDS)]
    whole = _fold_sum(folds)
    rules = [_prediction_rule(whole, fold) for fold in folds]
    curves = []
    for number, (run, values) in enumerate(zip(runs, predictors, strict=True)):
        weights, whitening = rules[number % FOLDS]
        curves.append(_likeness_curve(run, run.flow.astype(float) @ whitening, values @ weights))
    return curves


def _fold(parts: Iterable[tuple[np.ndarray, np.ndarray]], lag: int) -> Fold:
    products: list[Fold] = []
    for values, flow in parts:
        later_values = values[max(0, lag) : len(values) + min(0, lag)].astype(float)
        earlier_flow = flow[max(0, -lag) : len(flow) - max(0, lag)].astype(float)
        products.append(
            Fold(
                later_values.T @ later_values,
                later_values.T @ earlier_flow,
                earlier_flow.T @ earlier_flow,
                len(later_values),
            )
        )
    return _fold_sum(products)


def _fold_sum(folds: Iterable[Fold]) -> Fold:
    return reduce(_combined, folds)


def _combined(first: Fold, second: Fold, sign: int = 1) -> Fold:
    """The sum of two folds; with a sign of -1 what the first has beyond the second."""
    return Fold(
        first.predictors + sign * second.predictors,
        first.mixed + sign * second.mixed,
        first.flow + sign * second.flow,
        first.num_frames + sign * second.num_frames,
    )


def _prediction_rule(whole: Fold, held_out: Fold) -> tuple[np.ndarray, np.ndarray]:
    """What foretells the flow by all runs that are not held out: weights of predictors [k, m] whose result is whitened,
    and the matrix [m, m] that whitens what they leave unexplained."""
    products = _combined(whole, held_out, sign=-1)
    weights = np.linalg.solve(_ridged_products(products.predictors, RIDGE), products.mixed)
    explained = weights.T @ products.mixed
    remaining = products.flow - explained - explained.T + weights.T @ products.predictors @ weights
    noise = _ridged_products(remaining / products.num_frames, NOISE)
    whitening = np.linalg.cholesky(np.linalg.inv(noise))
    return weights @ whitening, whitening


def _ridged_products(products: np.ndarray, share: float) -> np.ndarray:
    """Products [k, k] with a share of their mean diagonal, or a little where that is 0, added to it."""
    return products + (share * float(np.diag(products).mean()) + TINY) * np.eye(len(products))


def _likeness_curve(run: RunMotion, flow: np.ndarray, expected_flow: np.ndarray) -> np.ndarray:
    """Correlation, without a mean, of flow [n, m] of a run and of what is expected so many frames later, at each lag
    from -max_lag to max_lag, [2 * max_lag + 1]; 0 where too little is compared."""
    n = len(flow)
    curve = np.zeros(2 * run.max_lag + 1)
    for lag in range(-run.compared_lag, run.compared_lag + 1):
        earlier_flow = flow[max(0, -lag) : n - max(0, lag)]
        later_flow = expected_flow[max(0, lag) : n + min(0, lag)]
        size = np.sqrt(np.vdot(earlier_flow, earlier_flow) * np.vdot(later_flow, later_flow))
        if size > 0:
            curve[lag + run.max_lag] = np.vdot(earlier_flow, later_flow) / size
    return curve
