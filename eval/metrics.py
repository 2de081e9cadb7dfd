"""Metrics of segments and of progress: pure functions, and a bootstrap interval over episodes for any of them.

Progress is in 0..1, spans are half-open in frames. A metric of one episode returns NaN where it is not defined; the
interval leaves such episodes out and says how many were counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

RESAMPLES = 1000
RESAMPLED_AT_ONCE = 4_000_000  # values
Span = tuple[str, int, int]  # name, first frame, first frame after


@dataclass(frozen=True)
class Score:
    """A mean over episodes with the 95 % interval of its bootstrap; n episodes counted."""

    value: float
    low: float
    high: float
    n: int

    def text(self) -> str:
        return "–" if self.n == 0 else f"{self.value:.3f} ({self.low:.2f}–{self.high:.2f})"


NO_SCORE = Score(float("nan"), float("nan"), float("nan"), 0)


def bootstrap(per_episode: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Score:
    """Mean over episodes and its 2.5 and 97.5 percentiles under resampling of episodes; NaN episodes left out."""
    values = np.asarray([v for v in per_episode if not np.isnan(v)], np.float64)
    if len(values) == 0:
        return NO_SCORE
    means = _resampled_means(values, seed, resamples)
    low, high = np.percentile(means, [2.5, 97.5])
    return Score(float(values.mean()), float(low), float(high), len(values))


def bootstrap_ratio(parts: Sequence[tuple[float, float]], seed: int = 0, resamples: int = RESAMPLES) -> Score:
    """Sum of numerators over sum of denominators (one pair per episode), resampled as `bootstrap` does."""
    values = np.asarray(parts, np.float64).reshape(-1, 2)
    if values[:, 1].sum() == 0:
        return NO_SCORE
    means = _resampled_means(values, seed, resamples)
    low, high = np.nanpercentile(means[:, 0] / np.where(means[:, 1] > 0, means[:, 1], np.nan), [2.5, 97.5])
    return Score(float(values[:, 0].sum() / values[:, 1].sum()), float(low), float(high), len(values))


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means over episodes, [resamples, ...], of values [n, ...]; some resamples at a time: n may be 400,000."""
    rng, n = np.random.default_rng(seed), len(values)
    block = max(1, RESAMPLED_AT_ONCE // n)
    sizes = [min(block, resamples - done) for done in range(0, resamples, block)]
    return np.concatenate([values[rng.integers(n, size=(size, n))].mean(axis=1) for size in sizes])


# Progress of one episode: arrays [t] of predictions and of labels at the same moments


def mae(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute error, 0 (right) .. 1."""
    return float(np.abs(predicted - target).mean()) if len(target) else float("nan")


def end_error(predicted: np.ndarray, target: np.ndarray) -> float:
    """Absolute error at the last moment, 0 .. 1: does a failed run end where it failed?"""
    return float(abs(predicted[-1] - target[-1])) if len(target) else float("nan")


def voc(predicted: np.ndarray, target: np.ndarray) -> float:
    """Value-order correlation, -1 .. 1: Spearman rank correlation of prediction and label, ties ranked by their mean.

    0 for a constant prediction; NaN where the label is constant or there are fewer than two moments: there is no order.
    (ProcVLM, arXiv 2605.08774; theirs ranks ties by position.)
    """
    if len(target) < 2 or np.ptp(target) == 0:
        return float("nan")
    return _correlation(rankdata(predicted), rankdata(target))


def increment_correlation(predicted: np.ndarray, target: np.ndarray, lag: int) -> float:
    """Pearson correlation of the changes over `lag` moments, -1 .. 1: does it move when the task moves?

    0 for a prediction whose changes are all equal; NaN where the label's are, or with too few moments.
    """
    if len(target) <= lag + 1:
        return float("nan")
    moved = target[lag:] - target[:-lag]
    if np.ptp(moved) < 1e-9:
        return float("nan")
    return _correlation(predicted[lag:] - predicted[:-lag], moved)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson; 0 where either does not vary."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-12 else 0.0


# Segments of one episode


def boundaries(spans: Sequence[Span]) -> list[int]:
    """Inner boundaries: frames where one segment ends and the next begins; the ends of the run are no finding."""
    if not spans:
        return []
    start, end = min(s[1] for s in spans), max(s[2] for s in spans)
    return sorted({b for s in spans for b in s[1:]} - {start, end})


def boundary_f1(
    predicted: Sequence[Span], target: Sequence[Span], tolerance: float = 0.05, frames: float | None = None
) -> float:
    """F1 of inner boundaries matched one to one within a share of the labelled run's length, or within `frames`.

    Pairs farther apart are never matched, whatever the assignment would gain. 1 when neither has a boundary, 0 when
    only one has. `published_boundary_hits` is ProcVLM's own.
    """
    found, wanted = np.array(boundaries(predicted)), np.array(boundaries(target))
    if len(found) == 0 or len(wanted) == 0:
        return float(len(found) == len(wanted))
    if frames is None:
        frames = tolerance * (max(s[2] for s in target) - min(s[1] for s in target))
    near = np.abs(found[:, None] - wanted[None, :]) <= frames
    rows, columns = linear_sum_assignment(~near)
    hits = int(near[rows, columns].sum())
    return 2 * hits / (len(found) + len(wanted))


def published_boundary_hits(predicted: Sequence[Span], target: Sequence[Span]) -> tuple[int, int]:
    """(2 TP, 2 TP + FP + FN) of ProcVLM's BF1@5, whose score is the ratio of their sums over all episodes.

    First and last frames of all segments count, so the ends of the run do and each inner boundary does twice; the
    tolerance is 5 % of the labelled range; pairs are matched by least distance and judged only then. (arXiv 2605.08774)
    """
    found, wanted = (np.array(sorted({f for s in spans for f in (s[1], s[2] - 1)})) for spans in (predicted, target))
    total = len(found) + len(wanted)
    if len(found) == 0 or len(wanted) == 0:
        return 0, total
    distance = np.abs(wanted[:, None] - found[None, :])  # labels in rows: the other way round, ties fall differently
    hits = distance[linear_sum_assignment(distance)] <= 0.05 * (np.ptp(wanted) or np.ptp(found))
    return 2 * int(hits.sum()), total


def best_overlaps(predicted: Sequence[Span], target: Sequence[Span]) -> list[tuple[int, float]]:
    """Per labelled segment, which predicted one overlaps it best and its intersection over union; (-1, 0): none."""
    found = [max(((_iou(p, t), -i) for i, p in enumerate(predicted)), default=(0.0, 1)) for t in target]
    return [(-i, iou) if iou > 0 else (-1, 0.0) for iou, i in found]


def segment_iou(predicted: Sequence[Span], target: Sequence[Span]) -> float:
    """Mean over labelled segments of the best overlap (intersection over union) with any predicted one, 0 .. 1.

    Names do not count. NaN without labelled segments.
    """
    if not target:
        return float("nan")
    return float(np.mean([iou for _, iou in best_overlaps(predicted, target)]))


def _iou(a: Span, b: Span) -> float:
    overlap = min(a[2], b[2]) - max(a[1], b[1])
    return max(0, overlap) / (max(a[2], b[2]) - min(a[1], b[1])) if overlap > 0 else 0.0


def edit_score(predicted: Sequence[Span], target: Sequence[Span]) -> float:
    """1 - Levenshtein distance of the two name sequences over the longer one's length, 0 .. 1; 1 when both are empty.

    (The segmental edit score of Lea et al., CVPR 2017, as a share.)
    """
    a, b = [s[0] for s in predicted], [s[0] for s in target]
    row = list(range(len(b) + 1))
    for i, name in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (name != other))
    longest = max(len(a), len(b))
    return 1 - row[-1] / longest if longest else 1.0


@dataclass(frozen=True)
class EpisodeScores:
    """Predictions of one scored episode in order of time; NaN where an answer could not be read."""

    key: tuple[str, int]  # dataset, episode_index
    predicted: np.ndarray
    target: np.ndarray


PROGRESS_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "voc": voc,
    "mae": mae,
    "end_error": end_error,
    "increment_correlation": lambda p, t: increment_correlation(p, t, 1),
}


def coverage(episodes: Sequence[EpisodeScores]) -> float:
    """Share of answers that could be read, 0 .. 1."""
    total = sum(len(e.predicted) for e in episodes)
    return sum(int((~np.isnan(e.predicted)).sum()) for e in episodes) / total if total else float("nan")


def worst_case(e: EpisodeScores) -> np.ndarray:
    """Predictions with each unread answer replaced by the worst one for its label: 0 or 1, whichever is farther."""
    return np.where(np.isnan(e.predicted), (e.target < 0.5).astype(np.float64), e.predicted)


def progress_scores(episodes: Sequence[EpisodeScores]) -> dict[str, Score]:
    """Every progress metric with its interval; unread answers count as wrong as they can be."""
    return {
        name: bootstrap([metric(worst_case(e), e.target) for e in episodes])
        for name, metric in PROGRESS_METRICS.items()
    }
