"""Metrics of progress over time, whoever predicts it. METRICS (core/metrics.py) names each of these functions.

Each takes Runs and gives float64 [episodes], NaN where an episode has nothing to measure, or a Measure. What each does
with unread answers is in docs/evaluation.md.
"""

import pkgutil

import numpy as np

from core.metrics import METRICS
from eval.metrics import errors, order
from eval.metrics.score import Measure, Runs, mean_of, ratio_of


def progress_measures(runs: Runs) -> dict[str, Measure]:
    """By name every metric of progress that METRICS computes; those beside a clock only where times are known."""
    measures = {}
    for metric in METRICS:
        if not metric.compute:
            continue
        is_ordered = metric.unread == "ordered"
        unread = "parsed" if is_ordered else metric.unread
        over = getattr(runs, unread) if unread else runs
        values = pkgutil.resolve_name(metric.compute)(over)
        if is_ordered:
            values = _constant_is_zero(runs, values)
        if values is not None:
            is_measure = isinstance(values, Measure)
            measures[metric.name] = values if is_measure else mean_of(values, runs.read)
    return measures


def _constant_is_zero(runs: Runs, correlation: np.ndarray) -> np.ndarray:
    """A constant's 0 in place of NaN, on the episodes whose labels have an order."""
    return np.where(runs.has_order, np.nan_to_num(correlation), np.nan)


def tau_b(runs: Runs) -> np.ndarray:
    return _constant_is_zero(runs, order.kendall(runs.parsed)[0])


def tau_a(runs: Runs) -> np.ndarray:
    return _constant_is_zero(runs, order.kendall(runs.parsed)[1])


def increment_correlation(runs: Runs) -> np.ndarray:
    return order.increment_correlation(runs.worst, 1, runs.elapsed)


def mae_margin(runs: Runs) -> np.ndarray | None:
    """How much less error the answers have than a clock; None where no time is known."""
    if runs.clock is None:
        return None
    return errors.mae(runs.clock) - errors.mae(runs.worst)


def voc_margin(runs: Runs) -> np.ndarray | None:
    """How much more VOC the answers have than a clock; None where no time is known."""
    if runs.clock is None:
        return None
    return _constant_is_zero(runs, order.voc(runs.parsed)) - order.voc(runs.clock)


def coverage(runs: Runs) -> Measure:
    """Share of answers that hold a number."""
    return ratio_of(runs.read[:, 0], runs.read[:, 1], runs.read)
