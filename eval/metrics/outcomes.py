"""Outcomes of whole runs: which run of a task went better, did a run succeed, and when is that said.

The runs of a task are ranked by their last answers; success is said by the highest score of a run, since the first one
above a threshold is what ends an episode.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from annotate.preferences import WHYS, Pair
from eval.metrics import order
from eval.metrics.errors import FINISHED, accuracy, balanced_accuracy, confusion
from eval.metrics.score import Measure, Runs, mean_of, ratio, ratio_of

MOST_BINS, FEWEST_BINS = 256, 32  # of scores, where an AUC is resampled
MOST_PARTS = 20_000_000  # numbers that these may be, over all runs
Key = tuple[str, int]  # of an episode


# Ranking: one set of arrays for each task, whose members are its runs


def ranking_measures(runs: Runs) -> dict[str, Measure]:
    """Over tasks, which stand in place of episodes: the last answer about each of their runs, and
    the share of the task truly done at its end.

    An answer that could not be read counts as the worst one. A task whose runs all ended alike has
    nothing to rank.
    """
    worst = runs.worst
    read = runs.read
    tau_b, _ = order.kendall(worst)
    return {
        "ranking_tau_b": mean_of(tau_b, read),
        "ranking_accuracy": mean_of(pairs_in_order(worst), read),
    }


def pairs_in_order(runs: Runs) -> np.ndarray:
    """Share of the pairs of runs that ended differently which are in the right order, 0..1; a tie
    is half a pair.

    float64 [tasks], NaN where all ended alike; 0.5 for who always says the same. Kendall's tau-b
    stays below 1 where runs that ended alike get different answers, as all do: this does not.
    """
    shares = np.full(len(runs), np.nan)
    for k, (start, end) in enumerate(zip(runs.starts[:-1], runs.starts[1:], strict=True)):
        predicted_order = np.sign(runs.predicted[start:end, None] - runs.predicted[None, start:end])
        ended = np.sign(runs.target[start:end, None] - runs.target[None, start:end])
        differ = ended > 0
        if differ.any():
            shares[k] = float((predicted_order[differ] + 1).mean() / 2)
    return shares


# Success


def success_measures(
    runs: Runs, seconds: np.ndarray, succeeded: np.ndarray, threshold: float
) -> dict[str, Measure]:
    """Over runs: is success told at all (AUC), and with a threshold how well and how many seconds
    too early or late.

    A prediction is a score of success, at moments in order of time, `seconds` [n]; the end state is
    reached where the label says FINISHED. `succeeded`: bool [runs]. A run without any answer counts
    as told wrong, and in no AUC.
    """
    best, first, end = _summaries(runs, seconds, threshold)
    readable = ~np.isnan(best)
    read = runs.read
    cells = confusion(np.nan_to_num(best, nan=-1.0) >= threshold, succeeded, readable)
    everywhere = np.ones(len(succeeded), bool)

    def of(statistic: Callable[[np.ndarray], np.ndarray]) -> Measure:
        return Measure(cells, everywhere, read, statistic)

    # Only of a run that succeeded can it be said when it did
    gap = np.where(succeeded, first - end, np.nan)
    return {
        "success_auc": auc(best, succeeded, read),
        "success_accuracy": of(accuracy),
        "success_balanced": of(balanced_accuracy),
        # TP over all of which success is said, and over all that succeeded; NaN where there are none
        "success_precision": of(
            lambda sums: ratio(np.stack([sums[..., 0], sums[..., 0] + sums[..., 2]], -1))
        ),
        "success_recall": of(
            lambda sums: ratio(np.stack([sums[..., 0], sums[..., 0] + sums[..., 3]], -1))
        ),
        "success_early_s": mean_of(np.maximum(-gap, 0), read),
        "success_late_s": mean_of(np.maximum(gap, 0), read),
    }


def _summaries(
    runs: Runs, seconds: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each run: its highest score (NaN without one), the time of the first at the threshold
    (NaN: none is), and the time at which its end state is reached, where it never is its last
    moment; float64 [runs] each."""
    best, first, end = np.full((3, len(runs)), np.nan)
    for k, (a, b) in enumerate(zip(runs.starts[:-1], runs.starts[1:], strict=True)):
        score = runs.predicted[a:b]
        times = seconds[a:b]
        if not np.isfinite(score).any():
            continue
        best[k] = np.nanmax(score)
        hits = np.flatnonzero(np.nan_to_num(score, nan=-1.0) >= threshold)
        reached = np.flatnonzero(runs.target[a:b] >= FINISHED)
        first[k] = times[hits[0]] if len(hits) else np.nan
        end[k] = times[reached[0]] if len(reached) else times[-1]
    return best, first, end


def auc(score: np.ndarray, positive: np.ndarray, read: np.ndarray | None = None) -> Measure:
    """Area under the ROC curve of scores [n], 0..1: how probably a positive has the higher one;
    equal ones are half.

    NaN where all are of one kind. (Hanley and McNeil, Radiology 1982.) Of more than 256 different
    scores (of very many runs: than 32) neighbours are counted as equal.
    """
    max_bins = max(FEWEST_BINS, min(MOST_BINS, MOST_PARTS // max(1, len(score))))
    counted = ~np.isnan(score)
    distinct_scores = np.unique(score[counted])
    bins = np.searchsorted(
        distinct_scores,
        np.where(counted, score, distinct_scores[0] if len(distinct_scores) else 0.0),
    )
    if len(distinct_scores) > max_bins:
        bins = bins * max_bins // len(distinct_scores)
    size = min(len(distinct_scores), max_bins)
    # How many of each kind have each score: sums over episodes are all that the area needs
    parts = np.zeros((len(score), 2 * size))
    places = np.flatnonzero(counted)
    parts[places, bins[places] + size * positive[places]] = 1
    return Measure(parts, counted, np.ones((len(score), 2)) if read is None else read, _area)


def _area(sums: np.ndarray) -> np.ndarray:
    negative, positive = np.split(sums, 2, axis=-1)
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = negative.sum(axis=-1) * positive.sum(axis=-1)
    return (positive * below).sum(axis=-1) / np.where(pairs > 0, pairs, np.nan)


# Preferences


def preference_measures(
    pairs: Sequence[Pair], scores: Mapping[Key, np.ndarray], episodes: Sequence[Key]
) -> dict[str, Measure]:
    """Accuracy over all pairs, `preference_accuracy`, and of each kind that there are,
    `preference_further` and so on.

    `scores`: what a model says of each moment of an episode [t], of which the frames of a pair's
    parts are the numbers. The greater mean is chosen; equal ones are half right, a missing score
    (NaN) is wrong. A pair counts half for each of its episodes, so that resampling episodes
    resamples pairs. (Christiano 2017; Robometer, arXiv 2603.02115.)
    """
    by_name = {"preference_accuracy": list(pairs)} if pairs else {}
    for reason in WHYS:
        if matching := [p for p in pairs if p.why == reason]:
            by_name[f"preference_{reason}"] = matching
    return {metric: _accuracy(matching, scores, episodes) for metric, matching in by_name.items()}


def _accuracy(
    pairs: Sequence[Pair], scores: Mapping[Key, np.ndarray], episodes: Sequence[Key]
) -> Measure:
    number = {key: k for k, key in enumerate(episodes)}
    right, count, read = (np.zeros(len(episodes)) for _ in range(3))
    for pair in pairs:
        chosen, rejected = (
            float(np.mean(scores[p.key][list(p.frames)])) for p in (pair.chosen, pair.rejected)
        )
        is_read = not np.isnan(chosen - rejected)
        places = [number[pair.chosen.key], number[pair.rejected.key]]
        np.add.at(count, places, 0.5)
        np.add.at(read, places, 0.5 * is_read)
        np.add.at(right, places, 0.5 * ((chosen > rejected) + 0.5 * (chosen == rejected)))
    return ratio_of(right, count, np.stack([read, count], 1))
