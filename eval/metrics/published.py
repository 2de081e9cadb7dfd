"""The two papers' own evaluations, with their defects, on the same answers: to compare with published numbers.

ProcVLM: arXiv 2605.08774; ProgressLM: arXiv 2601.15224, `metric.py` of its release. Shares are 0..1 here as everywhere.
"""

import json
import re
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from eval.metrics.order import correlation, mean_ranks
from eval.metrics.score import Runs
from eval.metrics.segments import Span

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_TAG = re.compile(r"<progress>(.*?)</progress>", re.DOTALL)


# ProcVLM


def progress_number(text: str) -> float | None:
    """The share in an answer: the first number of its progress tag or, without one that can be read, of the whole text.

    A number up to 1 without % is a share, so a plan that begins with "1." reads as finished. None without any.
    """
    tag = _TAG.search(text)
    for part in ([tag[1]] if tag else []) + [text]:
        if match := _NUMBER.search(part):
            value = float(match[0])
            if part[match.end() :].startswith("%") or value > 1:
                return value / 100
            return value
    return None


def voc(runs: Runs) -> np.ndarray:
    """Spearman between place and prediction once answers are sorted by label, [episodes]: 0 for constants, NaN (left
    out) below two answers. Answers with equal labels stay in the order in which they are listed: that order counts."""
    order = np.lexsort((runs.target, runs.episode))
    place = np.arange(len(order), dtype=np.float64) - runs.starts[:-1][runs.episode]
    sorted_runs = Runs(runs.predicted[order], place, runs.starts)
    return correlation(sorted_runs, mean_ranks(sorted_runs, sorted_runs.predicted), place)


def kendall(predicted: np.ndarray, target: np.ndarray) -> float:
    """tau-a of one episode by comparing all pairs, O(n^2); ties count 0. NaN below two answers."""
    n = len(target)
    if n < 2:
        return float("nan")
    total = 0
    for i in range(n - 1):
        total += int(
            (
                np.sign(predicted[i + 1 :] - predicted[i]) * np.sign(target[i + 1 :] - target[i])
            ).sum()
        )
    return total / (n * (n - 1) / 2)


def ccc(predicted: np.ndarray, target: np.ndarray) -> float:
    """Lin's concordance of one episode on percentages kept within 0..100; 0 where either varies less than 1e-8."""
    p, t = (100 * np.clip(v, 0, 1) for v in (predicted, target))
    if p.var() < 1e-8 or t.var() < 1e-8:
        return 0.0
    covariance = ((p - p.mean()) * (t - t.mean())).mean()
    return float(2 * covariance / (p.var() + t.var() + (p.mean() - t.mean()) ** 2))


def effective_resolution(predicted: np.ndarray) -> float:
    """EPR@50 of one episode: log2 of the largest k up to 1000 with at least half of k bins in use; NaN below two."""
    if len(predicted) < 2:
        return float("nan")
    shares = np.clip(predicted, 0, 1)
    max_bins = min(1000, 2 * len(shares))
    return float(
        np.log2(
            max(
                k for k in range(1, max_bins + 1) if len(np.unique(np.floor(shares * k))) / k >= 0.5
            )
        )
    )


def used_bins(predicted: np.ndarray, target: np.ndarray) -> float:
    """UBR: number of 5 % bins predicted over that of the labels, where the label is neither 0 nor 1; may exceed 1."""
    is_inner = (target > 0) & (target < 1)
    predicted_bins, label_bins = (
        len(np.unique(np.floor(v[is_inner] * 20 + 1e-9))) for v in (predicted, target)
    )
    if label_bins:
        return predicted_bins / label_bins
    return float("nan")


def mcc(sums: np.ndarray) -> np.ndarray:
    """Matthews' correlation of (TP, TN, FP, FN) [..., 4] with 1e-8 below the root: 0 where labels or predictions are
    all of one kind."""
    tp, tn, fp, fn = np.moveaxis(sums, -1, 0)
    return (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + 1e-8)


def boundary_values(answer: str) -> list[float] | None:
    """Boundaries in a segmentation's JSON, mended if need be: least and largest number of each object, whatever the
    field is called, each once. None where it is no list: such a sample counts nowhere."""
    from json_repair import repair_json

    try:
        entries = json.loads(repair_json(answer))
    except ValueError:
        return None
    if not isinstance(entries, list):
        return None
    values: set[float] = set()
    for entry in entries:
        # By the very type: isinstance takes true and false for numbers.
        if isinstance(entry, dict):
            numbers = [v for v in entry.values() if type(v) in (int, float)]
        else:
            numbers = []
        if len(numbers) >= 2:
            values |= {min(numbers), max(numbers)}
    return sorted(values)


def first_and_last(spans: Sequence[Span]) -> list[float]:
    """Boundaries of segments, as `boundary_values` has them of an answer: first and last frame of each."""
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
