"""Pairs of parts of runs of one task, one of which came further or is better: what preferences are
learnt and measured by.

    further   two moments, of one run or of two, whose labels of progress are apart
    outcome   the last moments of a run that succeeded and of one that failed
    quality   two whole runs, neither known to have failed, one demonstrated much more as is usual for its task

Robometer (arXiv 2603.02115) compares runs by outcome and moments by order; quality is ours. A pair
says why it is one, what it shows, and which label run its progress is of.
"""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from operator import attrgetter
from typing import Literal
from zlib import crc32

import numpy as np

Why = Literal["further", "outcome", "quality"]
WHYS: tuple[Why, ...] = ("further", "outcome", "quality")
FURTHER_BY = 0.1  # of progress: what is nearer is not told apart by the labels either
BETTER_BY = 0.5  # of the score of demonstration_quality, 0..1
WHOLE = 8  # moments that stand for a run that is compared as a whole
TRIES = 20  # to find two moments that are far enough apart
QUALITY = attrgetter("quality")


@dataclass(frozen=True)
class ComparedRun:
    """One run. frames: int64 [k], rising, the moments that can be shown; progress: float [k], NaN without a label.

    same_as: the task by which runs are compared, within a dataset. quality: the score of
    demonstration_quality.
    """

    dataset: str
    episode_index: int
    same_as: str
    frames: np.ndarray
    progress: np.ndarray
    success: bool | None = None
    quality: float | None = None
    label_run: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.dataset, self.episode_index

    @property
    def task(self) -> tuple[str, str]:
        return self.dataset, self.same_as


@dataclass(frozen=True)
class RunPart:
    """Moments of a run by whose mean score it is compared, and their labels of progress. One moment
    stands for the run as far as it came by then, several for the run as a whole."""

    dataset: str
    episode_index: int
    frames: tuple[int, ...]
    progress: tuple[float | None, ...]
    label_run: str | None

    @property
    def key(self) -> tuple[str, int]:
        return self.dataset, self.episode_index


@dataclass(frozen=True)
class Pair:
    """margin: by how much `chosen` is ahead, of progress or of quality; of an outcome 1."""

    why: Why
    chosen: RunPart
    rejected: RunPart
    margin: float


def draw_pairs(runs: Sequence[ComparedRun], per_run: int, seed: int) -> list[Pair]:
    """At most `per_run` pairs of each kind that begin with each run, none twice; in order of runs and kinds.

    A run's pairs hang on the seed and on the runs of its own task, on nothing else, nor on the
    order of runs.
    """
    compared = sorted((r for r in runs if len(r.frames)), key=attrgetter("key"))
    run_groups = _similar_runs(compared)
    pairs: dict[Pair, None] = {}
    for (number, criterion), run in product(enumerate(WHYS), compared):
        rng = np.random.default_rng([seed, number, crc32(run.dataset.encode()), run.episode_index])
        partners = _partners(run_groups, criterion, run)
        for _ in range(per_run if partners else 0):
            partner = partners[int(rng.integers(len(partners)))]
            if criterion == "further":
                pair = _distant_moments(run, partner, rng)
            else:
                pair = _judged_pair(criterion, run, partner)
            if pair is not None:
                pairs[pair] = None
    return list(pairs)


def _similar_runs(runs: Sequence[ComparedRun]) -> dict[tuple, list[ComparedRun]]:
    """Runs of a task that one kind of pair is of."""
    run_groups: dict[tuple, list[ComparedRun]] = defaultdict(list)
    for run in runs:
        if np.isfinite(run.progress).any():
            run_groups[run.task, "further"].append(run)
        run_groups[run.task, "outcome", run.success].append(run)
        # Of runs that nobody judged none is compared with one that succeeded
        if run.quality is not None and run.success is not False:
            insort(run_groups[run.task, "quality", run.success], run, key=QUALITY)
    return run_groups


def _partners(
    run_groups: Mapping[tuple, list[ComparedRun]], criterion: Why, run: ComparedRun
) -> list[ComparedRun]:
    """The runs that it can be compared with."""
    if criterion == "further":
        if np.isfinite(run.progress).any():
            return run_groups[run.task, criterion]
        return []
    if criterion == "outcome":
        if run.success is None:
            return []
        return run_groups[run.task, criterion, not run.success]
    if run.success is False or run.quality is None:
        return []
    of_task = run_groups[run.task, criterion, run.success]
    worse = bisect_right(of_task, run.quality - BETTER_BY, key=QUALITY)
    return of_task[:worse] + of_task[bisect_left(of_task, run.quality + BETTER_BY, key=QUALITY) :]


def _distant_moments(
    first_run: ComparedRun, second_run: ComparedRun, rng: np.random.Generator
) -> Pair | None:
    """Two moments of these runs that chance finds far enough apart."""
    sides = [(run, np.flatnonzero(np.isfinite(run.progress))) for run in (first_run, second_run)]
    for _ in range(TRIES):
        moments = [(run, int(rng.choice(known_frames))) for run, known_frames in sides]
        (a, ahead), (b, behind) = sorted(moments, key=lambda moment: -moment[0].progress[moment[1]])
        margin = float(a.progress[ahead] - b.progress[behind])
        if margin >= FURTHER_BY:
            return Pair("further", _run_part(a, [ahead]), _run_part(b, [behind]), margin)
    return None


def _judged_pair(criterion: Why, first_run: ComparedRun, second_run: ComparedRun) -> Pair:
    if criterion == "outcome":
        if first_run.success:
            chosen, rejected = (first_run, second_run)
        else:
            chosen, rejected = (second_run, first_run)
        return Pair(criterion, _run_part(chosen, [-1]), _run_part(rejected, [-1]), 1.0)
    rejected, chosen = sorted((first_run, second_run), key=QUALITY)
    # Moments that stand for a run as a whole: evenly spread, the first and the last among them
    ends = [(run, len(run.frames) - 1, min(WHOLE, len(run.frames))) for run in (chosen, rejected)]
    best, worst = (
        _run_part(run, np.linspace(0, last, count).round().astype(int).tolist())
        for run, last, count in ends
    )
    return Pair(criterion, best, worst, QUALITY(chosen) - QUALITY(rejected))


def _run_part(run: ComparedRun, indices: Sequence[int]) -> RunPart:
    frames = tuple(run.frames[list(indices)].tolist())
    progress = tuple(None if np.isnan(p) else p for p in run.progress[list(indices)].tolist())
    return RunPart(run.dataset, run.episode_index, frames, progress, run.label_run)
