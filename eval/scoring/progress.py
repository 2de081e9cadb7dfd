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

    def ordered(found: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(full), np.nan, np.nan_to_num(found))

    full = order.voc(worst)
    tau_b, tau_a = order.kendall(parsed)
    worst_mae, voc = errors.mae(worst), ordered(order.voc(parsed))
    found = {
        "voc": voc,
        "voc_worst": full,
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
        found["mae_margin"] = errors.mae(clock) - worst_mae
        found["voc_margin"] = voc - order.voc(clock)
    measures = {name: mean_of(values, read) for name, values in found.items()}
    return measures | {"mcc@95": errors.finished(runs), "coverage": ratio_of(read[:, 0], read[:, 1], read)}
