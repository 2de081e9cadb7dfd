"""ProgressLM's own evaluation with its defects (arXiv 2601.15224, `metric.py` of its release), whose golden table a
test reproduces, and ProcVLM's boundaries (arXiv 2605.08774). Shares are 0..1 here as everywhere."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from eval.metrics.order import correlation, mean_ranks
from eval.metrics.score import Runs
from eval.metrics.segments import Span

# ProcVLM: boundaries, as annotators are compared by


def first_and_last(spans: Sequence[Span]) -> list[float]:
    """Boundaries of segments: first and last frame of each."""
    firsts = {float(start) for _, start, _ in spans}
    return sorted(firsts | {float(end - 1) for _, _, end in spans})


def boundary_hits(predicted: Sequence[float], target: Sequence[float]) -> tuple[int, int, float]:
    """(2 TP, 2 TP + FP + FN, sum of the errors matched) of BF1@5 and mMAE, which are ratios of sums over all samples.

    All boundaries count, so the ends of the run do and each inner boundary does twice; the tolerance is 5 % of the
    labelled range; pairs are matched by least distance and judged only then.
    """
    ours = np.array(predicted, np.float64)
    labelled = np.array(target, np.float64)
    total = len(ours) + len(labelled)
    if len(ours) == 0 or len(labelled) == 0:
        return 0, total, 0.0
    # Labels in rows: the other way round, ties fall differently
    distance = np.abs(labelled[:, None] - ours[None, :])
    error = distance[linear_sum_assignment(distance)]
    hit = error <= 0.05 * (np.ptp(labelled) or np.ptp(ours))
    return 2 * int(hit.sum()), total, float(error[hit].sum())


# ProgressLM


def written_shares(shares: np.ndarray) -> np.ndarray:
    """Shares after its runner wrote them as whole percentages, cut off: 0.57 becomes 0.56."""
    return np.trunc(shares * 100) / 100


def score_error(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """|p - g| / max(g, 1 - g) [n]; may exceed 1."""
    return np.abs(predicted - target) / np.maximum(target, 1 - target)


def reference_error(predicted: np.ndarray, target: np.ndarray, demo_size: np.ndarray) -> np.ndarray:
    """|p - g| / max(g - 1, M - g) [n], 0 where that is 0 / 0; references beyond M make it exceed 1."""
    farthest = np.maximum(target - 1, demo_size - target)
    return np.where(
        farthest > 0, np.abs(predicted - target) / np.maximum(farthest, 1), 0.0 * predicted
    )


def trajectory_voc(runs: Runs) -> np.ndarray:
    """Spearman with mean ranks, [episodes]; NaN (left out) where predictions are constant, as where labels are."""
    coefficient = correlation(runs, mean_ranks(runs, runs.predicted), mean_ranks(runs, runs.target))
    high, low = (np.full(len(runs), v) for v in (-np.inf, np.inf))
    np.maximum.at(high, runs.episode, runs.predicted)
    np.minimum.at(low, runs.episode, runs.predicted)
    return np.where(high > low, coefficient, np.nan)
