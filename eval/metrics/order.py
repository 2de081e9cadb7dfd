"""Does the prediction rise and fall with the label? Correlations per episode, O(n log n).

Each takes Runs without NaN predictions (`parsed` or `worst`) and gives float64 [episodes]: NaN where the label
has no order to find (fewer than two answers with labels, or all labels equal), 0 where the prediction is constant.
"""

from typing import Any

import numpy as np
import scipy  # loads its parts when they are used: many who read scores compute none

from eval.metrics.score import Runs


def voc(runs: Runs) -> np.ndarray:
    """Value-order correlation, -1..1: Spearman's rank correlation of prediction and label; ties
    have their mean rank.

    (ProcVLM, arXiv 2605.08774, after GVL, arXiv 2411.04549.) Any steady rise has 1, a clock too:
    see `margin over the clock` in docs/evaluation.md.
    """
    return correlation(runs, mean_ranks(runs, runs.predicted), mean_ranks(runs, runs.target))


def kendall(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Kendall's (tau-b, tau-a), -1..1, from the numbers C and D of concordant and discordant pairs.

    tau-a = (C - D) / all pairs; tau-b = (C - D) / sqrt(pairs untied in the prediction * pairs
    untied in the label), which reaches 1 with ties as well. (Kendall, The treatment of ties in
    ranking problems, Biometrika 1945.)
    """
    tau_b = np.full(len(runs), np.nan)
    untied = np.zeros(len(runs))
    for k in np.flatnonzero(runs.has_order):
        p, t = (
            values[runs.starts[k] : runs.starts[k + 1]] for values in (runs.predicted, runs.target)
        )
        # A constant prediction has no untied pair to divide by: 0 by definition.
        tau: Any = scipy.stats.kendalltau(p, t)
        tau_b[k] = np.nan_to_num(tau.statistic)
        untied[k] = np.sqrt(_untied(p) * _untied(t))
    return tau_b, tau_b * untied


def tau_b(runs: Runs) -> np.ndarray:
    return kendall(runs)[0]


def tau_a(runs: Runs) -> np.ndarray:
    return kendall(runs)[1]


def _untied(values: np.ndarray) -> float:
    """The share of pairs that differ."""
    tied = np.unique(values, return_counts=True)[1].astype(np.float64)
    return 1 - (tied * (tied - 1)).sum() / (len(values) * (len(values) - 1))


def ccc(runs: Runs) -> np.ndarray:
    """Lin's concordance, -1..1: 2 cov / (var + var + (difference of means)^2), which a shift or a
    stretch lowers.

    (Lin, Biometrics 1989; population moments.) Unlike VOC it needs the right values, not only their
    order.
    """
    p = runs.predicted
    t = runs.target
    mean_p = runs.means(p)
    mean_t = runs.means(t)
    dp = p - mean_p[runs.episode]
    dt = t - mean_t[runs.episode]
    var_p = runs.means(dp * dp)
    var_t = runs.means(dt * dt)
    both = var_p + var_t + (mean_p - mean_t) ** 2
    concordance = 2 * runs.means(dp * dt) / np.where(both > 0, both, np.nan)
    return np.where(runs.has_order, np.where(var_p > 1e-12, concordance, 0.0), np.nan)


def increment_correlation(runs: Runs, lag: int = 1) -> np.ndarray:
    """Pearson's correlation of the changes over `lag` answers, -1..1: does it move when the task moves?

    Where times are known it is of changes per time, or a clock would follow how far apart the
    answers are. 0 for a prediction whose changes are all equal, as a clock's are; NaN where the
    label's are, or with fewer than two changes.
    """
    elapsed = runs.elapsed
    # Changes lie within an episode: its first `lag` answers have none before them.
    has_former = np.arange(len(runs.target)) - runs.starts[:-1][runs.episode] >= lag
    if elapsed is not None:
        # Between two answers of one moment there is no change per time.
        has_former[lag:] &= elapsed[lag:] > elapsed[:-lag]
    places = np.flatnonzero(has_former)
    time = 1.0 if elapsed is None else elapsed[places] - elapsed[places - lag]
    starts = np.concatenate([[0], np.cumsum(runs.sums(has_former.astype(np.float64)))]).astype(
        np.int64
    )
    predicted, target = (
        (v[places] - v[places - lag]) / time for v in (runs.predicted, runs.target)
    )
    increments = Runs(predicted, target, starts)
    return correlation(increments, increments.predicted, increments.target)


def voc_margin(runs: Runs) -> np.ndarray | None:
    """How much more VOC the answers have than a clock; None where no time is known. It takes unread
    answers, too."""
    if runs.clock is None:
        return None
    return constant_is_zero(runs, voc(runs.parsed)) - voc(runs.clock)


def constant_is_zero(runs: Runs, correlation: np.ndarray) -> np.ndarray:
    """A constant's 0 in place of NaN, on the episodes whose labels have an order."""
    return np.where(runs.has_order, np.nan_to_num(correlation), np.nan)


def correlation(runs: Runs, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of a and b [n] within each episode; 0 where a does not vary, NaN where
    b does not."""
    a = a - runs.means(a)[runs.episode]
    b = b - runs.means(b)[runs.episode]
    aa = runs.sums(a * a)
    bb = runs.sums(b * b)
    ab = runs.sums(a * b)
    norm = np.sqrt(aa * bb)
    coefficient = np.divide(ab, norm, out=np.zeros(len(runs)), where=norm > 1e-12)
    return np.where(
        runs.has_order & (runs.lengths >= 2) & (bb > 1e-18), np.clip(coefficient, -1, 1), np.nan
    )


def mean_ranks(runs: Runs, values: np.ndarray) -> np.ndarray:
    """Ranks from 1 within each episode, float64 [n]; equal values share the mean of their ranks."""
    order = np.lexsort((values, runs.episode))
    differ = (np.diff(runs.episode[order]) != 0) | (np.diff(values[order]) != 0)
    # The first of each group of equal values
    first = np.flatnonzero(np.concatenate([np.ones(min(len(order), 1), bool), differ]))
    size = np.diff(np.append(first, len(order)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(first + (size + 1) / 2, size) - runs.starts[:-1][runs.episode[order]]
    return ranks


# Probes: one frame held, or a run that goes back. What is predicted there against what is right there.


def stall_drift(runs: Runs, since: float = 0.0) -> np.ndarray:
    """Last prediction less the first one after a share `since` of the answers, -1..1. While one
    frame is held 0 is right; a clock rises by all that it counts.

    The labels are of no account. NaN with fewer than two answers there.
    """
    drift = np.full(len(runs), np.nan)
    begins = runs.starts[:-1] + np.floor(runs.lengths * since).astype(np.int64)
    ends = runs.starts[1:] - 1
    has_span = ends > begins
    drift[has_span] = runs.predicted[ends[has_span]] - runs.predicted[begins[has_span]]
    return drift


def claimed_progress(runs: Runs, since: float = 0.0) -> np.ndarray:
    """Progress that is claimed where none is made, 0..1: the drift, 0 where it is less. 0 is right
    of a video that stands still, or goes back from that share of its answers on."""
    return np.maximum(stall_drift(runs, since), 0)
