"""How far is the prediction from the label? Errors per answer and per episode, refusals, and finished or not.

NaN stands for what is not there: a prediction without a number, a label of a question without an answer.
"""

import numpy as np

from eval.metrics.score import Measure, Runs, ratio_of

FINISHED = 0.95  # of the task done, from which on a run counts as finished
UBR_BIN = 0.05
EPR_ANSWERS = 16

# Per answer: float64 [n], NaN where either side is


def score_error(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """ProgressLM's normalised score error, 0 (right) .. 1: |p - g| over max(g, 1 - g), the worst
    that g allows.

    (arXiv 2601.15224.) Shares outside 0..1 are brought inside first, so it does not exceed 1. A
    refusal and what cannot be read count 1, by `errors_with_missing`.
    """
    g = target
    return np.abs(np.clip(predicted, 0, 1) - g) / np.maximum(g, 1 - g)


def reference_error(
    predicted: np.ndarray, target: np.ndarray, demo_size: np.ndarray, *, is_clipped: bool = True
) -> np.ndarray:
    """Distance of the reference item, from 1, over the farthest one of a demonstration of M items,
    0 (right) .. 1.

    |p - g| / max(g - 1, M - g) after ProgressLM; 0 where M is 1. is_clipped: p is kept within 1..M.
    ProgressLM's own evaluation does not do so, and exceeds 1.
    """
    farthest = np.maximum(target - 1, demo_size - target)
    item = np.clip(predicted, 1, demo_size) if is_clipped else predicted
    return np.where(farthest > 0, np.abs(item - target) / np.maximum(farthest, 1), 0.0 * item)


def errors_with_missing(errors: np.ndarray, is_labelled: np.ndarray) -> np.ndarray:
    """Errors [n] with 1 for each wanted answer that is not there; NaN where none was wanted."""
    return np.where(is_labelled, np.where(np.isnan(errors), 1.0, errors), np.nan)


# Per episode: float64 [episodes]; Runs without NaN predictions


def mae(runs: Runs) -> np.ndarray:
    """Mean absolute error, 0 (right) .. 1; NaN without answers."""
    return runs.means(np.abs(runs.predicted - runs.target))


def mae_margin(runs: Runs) -> np.ndarray | None:
    """How much less error the answers have than a clock; None where no time is known. It takes
    unread answers, too."""
    if runs.clock is None:
        return None
    return mae(runs.clock) - mae(runs.worst)


def coverage(runs: Runs) -> Measure:
    """Share of answers that hold a number."""
    return ratio_of(runs.read[:, 0], runs.read[:, 1], runs.read)


def end_error(runs: Runs) -> np.ndarray:
    """Absolute error of the last answer, 0 .. 1: does a failed run end where it failed? NaN without
    answers."""
    last_errors = np.full(len(runs), np.nan)
    has_answers = runs.lengths > 0
    last = runs.starts[1:][has_answers] - 1
    last_errors[has_answers] = np.abs(runs.predicted[last] - runs.target[last])
    return last_errors


def used_bins(runs: Runs) -> np.ndarray:
    """Used-bin ratio, 0..1: the share of the label's 5 % bins in which there is a prediction, too.

    Over answers whose label is neither 0 nor 1; NaN without any. ProcVLM's UBR divides the numbers of
    bins, so that bins which no label falls into count in its favour.
    """
    is_inner = (runs.target > 0) & (runs.target < 1)
    label_bins, predicted_bins = (
        _bins(runs.episode[is_inner], v[is_inner]) for v in (runs.target, runs.predicted)
    )
    bins = int(1 / UBR_BIN) + 1
    hit = np.bincount(np.intersect1d(label_bins, predicted_bins) // bins, minlength=len(runs))
    total = np.bincount(label_bins // bins, minlength=len(runs))
    return hit / np.where(total > 0, total, np.nan)


def _bins(episode: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Distinct (episode, bin) as one number each."""
    bins = int(1 / UBR_BIN) + 1
    return np.unique(
        episode * bins + np.floor(np.clip(values, 0, 1) / UBR_BIN + 1e-9).astype(np.int64)
    )


def effective_resolution(runs: Runs) -> np.ndarray:
    """log2 of the largest k for which at least half of k equal bins hold a prediction,
    0..log2(2 * EPR_ANSWERS).

    ProcVLM's EPR@50 on EPR_ANSWERS evenly chosen answers, for it grows with their number; NaN with
    fewer. It rewards spread, noise too: only to be read beside an error.
    """
    resolution = np.full(len(runs), np.nan)
    long_runs = np.flatnonzero(runs.lengths >= EPR_ANSWERS)
    # EPR_ANSWERS evenly chosen predictions of each long enough episode, [episodes, answers]
    offsets = np.linspace(0, 1, EPR_ANSWERS)[None, :] * (runs.lengths[long_runs, None] - 1)
    values = np.clip(
        runs.predicted[runs.starts[:-1][long_runs, None] + np.rint(offsets).astype(np.int64)], 0, 1
    )
    # The finest division into k bins of which at least half hold a prediction
    best = np.ones(len(long_runs))
    for k in range(1, 2 * EPR_ANSWERS + 1):  # more bins cannot be half full
        bins = np.sort(np.floor(values * k), axis=1)
        distinct = 1 + (np.diff(bins, axis=1) > 0).sum(axis=1)
        best = np.where(distinct >= k / 2, k, best)
    resolution[long_runs] = np.log2(best)
    return resolution


# Finished or not, and refusals: measures over episodes


def mcc(sums: np.ndarray) -> np.ndarray:
    """Matthews' correlation of (TP, TN, FP, FN) [..., 4], -1..1; 0 where the predictions are all of
    one kind.

    NaN where the labels are: then there is nothing to tell apart. (Matthews 1975.)
    """
    tp, tn, fp, fn = np.moveaxis(sums, -1, 0)
    norm = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    correlation = np.divide(
        tp * tn - fp * fn, np.sqrt(norm), out=np.zeros_like(norm, np.float64), where=norm > 0
    )
    return np.where((tp + fn > 0) & (tn + fp > 0), correlation, np.nan)


def accuracy(sums: np.ndarray) -> np.ndarray:
    """Share of right ones, 0..1, of (TP, TN, FP, FN) [..., 4]; NaN without any."""
    total = sums.sum(axis=-1)
    return (sums[..., 0] + sums[..., 1]) / np.where(total > 0, total, np.nan)


def balanced_accuracy(sums: np.ndarray) -> np.ndarray:
    """Mean of the shares found among positives and among negatives, 0..1, of (TP, TN, FP, FN)
    [..., 4]; 0.5 for who always says the same. NaN where the labels are all of one kind."""
    tp, tn, fp, fn = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (tp / (tp + fn) + tn / (tn + fp)) / 2


def confusion(predicted: np.ndarray, actual: np.ndarray, readable: np.ndarray) -> np.ndarray:
    """(TP, TN, FP, FN) of each answer, float64 [n, 4]; what could not be read counts as wrong."""
    counted = np.where(readable, predicted, ~actual)
    cells = [counted & actual, ~counted & ~actual, counted & ~actual, ~counted & actual]
    return np.stack(cells, 1).astype(np.float64)


def finished_mcc(runs: Runs) -> Measure:
    """MCC@95: are answers told apart by whether at least 95 % is done? Unread ones (NaN) count as
    wrong.

    (ProcVLM, over answers of its family c only, whose texts hold the number on purpose.)
    """
    readable = ~np.isnan(runs.predicted)
    cells = confusion(np.nan_to_num(runs.predicted) >= FINISHED, runs.target >= FINISHED, readable)
    parts = np.stack([runs.sums(c) for c in cells.T], 1)
    return Measure(parts, runs.lengths > 0, runs.read, mcc)
