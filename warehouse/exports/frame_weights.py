"""How much each frame weighs when a policy is cloned, by what labels say of it; and how LeRobot is told.

A frame's gain is the progress that the next action chunk brings. `awr`: exp of the gain, standardised within its task,
at most CAP (advantage-weighted regression). `segments`: 0 where a segment fails or stands still, else 1. `top-half`:
1 for the half of the frames that gains most, else 0. `rabc`: as LeRobot's RA-BC weighs. `combined`: `awr`, and 0 where
a segment fails or stands still and in a run that failed. A frame without a label counts as one of mean gain. The last
frame of a run weighs 0: nothing follows that could be learnt.

LeRobot 0.6.1 reads no weights, but progress: its RABCWeights takes the gain r over a chunk, and below `kappa` weighs it
clip((r - mean + 2 std) / (4 std), 0, 1), with mean and standard deviation of all gains of the file. `as_progress` makes
progress whose gains are weights of 0 to 1, and `balancing_gains` those of a made-up run beside them, so that mean and
deviation become 1/2 and 1/4: then LeRobot's weight of a frame is ours.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Literal, NamedTuple

import numpy as np

Weighting = Literal["combined", "awr", "segments", "top-half", "rabc"]
CAP = 20.0  # of AWR: times the weight of a frame of mean gain
TOP = 0.5  # of the frames: by what gains most
KAPPA_SHARE = 0.1  # of the frames that gain, so many are to fall below the suggested kappa
MEAN, DEVIATION = 0.5, 0.25  # of all gains that LeRobot reads
SQUARES_PER_FRAME = MEAN**2 + DEVIATION**2  # the mean of the squares of these
EPSILON = 1e-6  # LeRobot's
TRIED_LEROBOT = "0.6.1"  # printed commands were tried with


class WeighedRun(NamedTuple):
    """What weights hang on, of one run: `gains` float [n], NaN without a label; `is_useful` bool [n]: is the frame in a
    segment that neither fails nor stands still?"""

    task: str | None
    gains: np.ndarray
    is_useful: np.ndarray
    has_failed: bool


def gains_of(progress: np.ndarray, chunk_size: int) -> np.ndarray:
    """Progress that the next frames bring, at most to the last one, as LeRobot takes it: of [n] the same [n]."""
    ends = np.minimum(np.arange(len(progress)) + chunk_size, len(progress) - 1)
    return progress[ends] - progress


def frame_weights(runs: Sequence[WeighedRun], weighting: Weighting) -> list[np.ndarray]:
    """The weight of each frame of each run, float64 [n], 0 or more."""
    gains = np.concatenate([run.gains for run in runs]).astype(np.float64)
    lengths = [len(run.gains) for run in runs]
    tasks = np.repeat(_numbered([run.task for run in runs]), lengths)
    is_useful = np.concatenate([run.is_useful for run in runs])
    if weighting == "segments":
        weights = is_useful.astype(np.float64)
    elif weighting == "rabc":
        weights = rabc_weights(_filled(gains, tasks))
    else:
        standard = _standardised(gains, tasks)
        weights = np.minimum(np.exp(standard), CAP)
        if weighting == "top-half":
            weights = (standard >= np.quantile(standard, 1 - TOP)).astype(np.float64)
        if weighting == "combined":
            weights *= is_useful & ~np.repeat([run.has_failed for run in runs], lengths)
    ends = np.cumsum(lengths)
    weights[ends - 1] = 0.0
    return np.split(weights, ends[:-1])


def rabc_weights(gains: np.ndarray, kappa: float | None = None) -> np.ndarray:
    """As LeRobot's RA-BC weighs gains [n], before it scales a batch to a mean of 1. Default: the suggested kappa."""
    kappa = suggested_kappa(gains) if kappa is None else kappa
    mean = max(float(gains.mean()), 0.0)
    deviation = max(float(gains.std()), EPSILON)
    soft = np.clip((gains - mean + 2 * deviation) / (4 * deviation + EPSILON), 0, 1)
    return np.where(gains > kappa, 1.0, np.where(gains >= 0, soft, 0.0))


def suggested_kappa(gains: np.ndarray) -> float:
    """What all but KAPPA_SHARE of the gains above 0 exceed; 0 where none is."""
    rising = gains[gains > 0]
    if len(rising):
        return float(np.quantile(rising, KAPPA_SHARE))
    return 0.0


def _numbered(tasks: Sequence[str | None]) -> np.ndarray:
    """Each task's number, int [n]."""
    numbers = {task: number for number, task in enumerate(dict.fromkeys(tasks))}
    return np.array([numbers[task] for task in tasks])


def _standardised(gains: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """Gains less the mean of their task, in its standard deviations; 0 without a label, and where
    all gain alike."""
    filled = _filled(gains, tasks)
    is_known = np.isfinite(gains)
    means = _mean_by_task(gains, tasks, is_known)
    deviations = np.sqrt(_mean_by_task((filled - means[tasks]) ** 2, tasks, is_known))[tasks]
    return np.divide(
        filled - means[tasks], deviations, out=np.zeros_like(filled), where=deviations > EPSILON
    )


def _filled(gains: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """Gains with the mean of their task where there is no label."""
    is_known = np.isfinite(gains)
    return np.where(is_known, gains, _mean_by_task(gains, tasks, is_known)[tasks])


def _mean_by_task(values: np.ndarray, tasks: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """The mean of the known values [n] of each task, float64 [tasks]; 0 where none is known."""
    counts = np.bincount(tasks[is_known], minlength=tasks.max() + 1)
    sums = np.bincount(tasks[is_known], values[is_known], minlength=tasks.max() + 1)
    return sums / np.maximum(counts, 1)


def as_progress(weights: np.ndarray, chunk_size: int) -> np.ndarray:
    """Progress of a run, float64 [n], whose gain over a chunk is the weight of each frame [n]; it ends at 0.

    The last frame's weight must be 0: it cannot gain.

    Example: as_progress([0.5, 1.0, 0.25, 0.0], 2) == [-0.75, -1.0, -0.25, 0.0]
    """
    last = len(weights) - 1
    progress = np.zeros(len(weights))
    for end in range(last, 0, -chunk_size):
        frames = np.arange(max(0, end - chunk_size), end)
        progress[frames] = progress[np.minimum(frames + chunk_size, last)] - weights[frames]
    return progress


def balancing_gains(count: int, total: float, squares: float) -> np.ndarray:
    """Gains of a made-up run, float64 [m] with a last one of 0, with which all have the mean MEAN
    and the deviation DEVIATION; there are `count` others, with their sum and the sum of their
    squares.

    Of m that are equal but for a little the mean and the deviation can both be had as soon as m is
    large enough: m is the least even number, 2 to 4 times the count.
    """
    count += 1  # the made-up run's last frame
    missing = MEAN * count - total
    linear = SQUARES_PER_FRAME * count - squares - 2 * MEAN * missing
    m = 2 * ceil((sqrt(linear**2 + 4 * DEVIATION**2 * missing**2) - linear) / (4 * DEVIATION**2))
    m = max(m, 2)
    mean = (missing + MEAN * m) / m
    spread = sqrt(max(0.0, (SQUARES_PER_FRAME * (count + m) - squares) / m - mean**2))
    signs = np.resize([1.0, -1.0], m)
    return np.append(mean + spread * signs, 0.0)
