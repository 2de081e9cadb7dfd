"""Measures of progress over time, whoever predicts it: of a benchmark's answers or of a model's head."""

import numpy as np

from eval.metrics import errors, order
from eval.metrics.runs import Runs, answers_read, readable, worst_case
from eval.metrics.score import Measure, mean_of, ratio_of


def progress_measures(runs: Runs, elapsed: np.ndarray | None = None) -> dict[str, Measure]:
    """Every progress measure of Runs with NaN where an answer held no number.

    `elapsed` [n]: the share of the episode's time at each answer; then also the margins over the clock, which predicts
    it: how much less MAE and how much more VOC. What each does with unread answers is in docs/evaluation.md.
    """
    parsed, worst, read = readable(runs), worst_case(runs), answers_read(runs)

    def ordered(values: np.ndarray) -> np.ndarray:
        """A constant's 0 in place of NaN, on the episodes whose labels have an order."""
        return np.where(np.isnan(voc_worst), np.nan, np.nan_to_num(values))

    voc_worst = order.voc(worst)
    tau_b, tau_a = order.kendall(parsed)
    worst_mae, voc = errors.mae(worst), ordered(order.voc(parsed))
    values_by_metric = {
        "voc": voc,
        "voc_worst": voc_worst,
        "tau_b": ordered(tau_b),
        "tau_a": ordered(tau_a),
        "ccc": ordered(order.ccc(parsed)),
        "mae": worst_mae,
        "mae_parsed": errors.mae(parsed),
        "end_error": errors.end_error(worst),
        "increment_correlation": order.increment_correlation(worst, 1, elapsed),
        "epr@16": errors.effective_resolution(parsed),
        "ubr": errors.used_bins(worst),
    }
    if elapsed is not None:
        clock = Runs(elapsed, runs.target, runs.starts)
        values_by_metric["mae_margin"] = errors.mae(clock) - worst_mae
        values_by_metric["voc_margin"] = voc - order.voc(clock)
    measures = {name: mean_of(values, read) for name, values in values_by_metric.items()}
    return measures | {"mcc@95": errors.finished(runs), "coverage": ratio_of(read[:, 0], read[:, 1], read)}
