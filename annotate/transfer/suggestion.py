"""Which runs of a task to label next, and what error to expect of the others' labels.

Nobody has labelled them yet, so nothing shows where their steps end. But runs of a task show how far each other is:

1. All pairs of runs are aligned, as a run and its reference are (`alignment`).
2. A run's clock, 0 to 1, is the middle of what all others say of each of its moments. Of a reference beside a run, how
   far the clock that it carries over is from the run's own says how far its steps will be.
3. The next run is the one that leaves the least of that in the others, together with the references there are.
4. That, and how likely the runs are to have failed, give the error of progress to expect (`expected_error`).

Where two references or more are labelled already, each is labelled by the others, too, and the error measured. It says
whether they agree; what to expect of other runs it says worse than the clocks do: nobody labels a failed run first.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from annotate.motion import MotionConfig
from annotate.progress import ProgressConfig, progress
from annotate.segments import Segment
from annotate.transfer.alignment import AT_ONCE, align_all
from annotate.transfer.annotator import FLATNESS, MAX_PAIRS, WEIGHT_PER_S, WHOLE, annotate
from annotate.transfer.config import TransferConfig
from annotate.transfer.moments import Moments, Usual, distances, task_moments
from annotate.transfer.outcome import end_distance, failure_probabilities
from annotate.transfer.runs import Reference, SeenRun

USUAL_MOMENTS = 200  # of a run: it is looked at as often as gives so many, or less often
AT_REFERENCES = (1, 2, 3, 5)  # how many references errors are expected at
MOST_REFERENCES = max(AT_REFERENCES)

# Error of progress where clocks agree; what their error adds; what a run adds that has failed, by how much likelier
# that is than USUAL_FAILURE. Fitted to 19 tasks with true labels, real and simulated
LEAST_ERROR, PER_CLOCK, PER_FAILURE, USUAL_FAILURE = 0.015, 0.85, 0.054, 0.2
BETWEEN = (0.5, 2.5)  # times the expected error: of 5 sets of references 4 have one between
MIN_LEFT_OUT = 2  # references: of fewer none can be labelled by another
SHOW_USUAL = 10  # runs beside these, which show what is usual for the task


@dataclass(frozen=True)
class NextRun:
    """A run to label next; nearest_to: how many of the other runs would follow it rather than another reference."""

    episode_index: int
    nearest_to: int


@dataclass(frozen=True)
class Suggested:
    """next_runs: the best first. expected: the error of progress of the other runs, by the number of references.

    measured: the error of references, each labelled by the others; None where fewer than two could be. judged_by: kinds
    of signals that runs were compared by: pictures, state, grippers.
    """

    next_runs: tuple[NextRun, ...]
    expected: Mapping[int, float]
    measured: float | None
    judged_by: tuple[str, ...]


def suggested(
    runs: Sequence[SeenRun],
    references: Sequence[Reference],
    candidates: Collection[int],
    config: TransferConfig,
    motion: MotionConfig,
) -> Suggested | None:
    """Which `candidates`, by their episode_index, to label next; None where nothing of the runs can be compared.

    runs: two or more of one task, with those that are references. references: none, or some; they are among the runs.
    Costs the square of the number of runs.
    """
    in_order = sorted(runs, key=lambda run: run.signals.episode_index)
    episodes = [run.signals.episode_index for run in in_order]
    shown = {reference.run.signals.episode_index for reference in references}
    hz = _hz(in_order, config.hz)
    moments = task_moments(in_order, hz, motion)
    if not moments[0].is_comparable:
        return None
    task = _Clocks(in_order, moments, hz, config.max_references)

    # The references there are, then those to come: each time the one that leaves the least
    order = task.order([episodes.index(e) for e in sorted(shown)], [], len(shown))
    places = [k for k, episode in enumerate(episodes) if episode in candidates and episode not in shown]
    order = task.order(places, order, max(MOST_REFERENCES, len(order) + 1))

    expected = {n: task.expected_error(order[:n]) for n in range(1, min(len(order), len(runs) - 1) + 1)}
    measured = left_out_errors(in_order, references, config, motion)
    following = [NextRun(episodes[k], task.followers(order[:n], k)) for n, k in enumerate(order, 1) if n > len(shown)]
    of_left_out = float(np.mean(list(measured.values()))) if measured else None
    return Suggested(tuple(following), expected, of_left_out, _kinds(moments[0]))


def _hz(runs: Sequence[SeenRun], most: float) -> float:
    usual_s = float(np.median([len(run) / run.signals.fps for run in runs]))
    return min(most, USUAL_MOMENTS / max(usual_s, 1e-6))


def _kinds(moments: Moments) -> tuple[str, ...]:
    kinds = {"pictures": moments.pictures, "state": moments.state is not None, "grippers": moments.openings is not None}
    return tuple(kind for kind, is_there in kinds.items() if is_there)


def expected_error(clock_error: float, failed: float) -> float:
    """Of progress, 0..1, where clocks differ by so much and so many of the runs have failed for sure, both 0..1."""
    return LEAST_ERROR + PER_CLOCK * clock_error + PER_FAILURE * failed


class _Clocks:
    """The runs of a task, all laid beside each other; runs by their places."""

    def __init__(self, runs: Sequence[SeenRun], moments: Sequence[Moments], hz: float, max_references: int) -> None:
        self.runs = runs
        self.moments = moments
        self._max_references = max_references
        num = len(runs)
        paths, self.apart = _all_beside(self.moments, WEIGHT_PER_S / hz)

        # A run that is longer or shorter than another does what that does not
        lengths = np.log([len(moments) for moments in self.moments])
        self._unlike = self.apart * (1 + np.abs(lengths[:, None] - lengths))

        # What each run's share of its way says of each moment of another, and the middle of it: the nearer weigh more
        shares = [np.linspace(0, 1, len(moments)) for moments in self.moments]
        said = [np.stack([shares[k][paths[i][k]] for k in range(num)]) for i in range(num)]
        self.own = [_weighted_median(of_run, _weights(apart)) for of_run, apart in zip(said, self.apart, strict=True)]
        self.carried = [np.stack([self.own[k][paths[i][k]] for k in range(num)]) for i in range(num)]

    def order(self, places: Collection[int], first: Sequence[int], most: int) -> list[int]:
        """`first`, then up to `most` in all those of `places` that each leave the least error in the others."""
        order, left = list(first), sorted(places)
        while left and len(order) < most:
            best = min(left, key=lambda place: (self._left_by([*order, place]), place))
            order.append(best)
            left.remove(best)
        return order

    def _left_by(self, references: Sequence[int]) -> float:
        """The clocks' error of all runs together; it is the less sure the farther a run is from all references."""
        others = self._others(references)
        return sum(self._clock_error(i, references) * float(self._unlike[i, references].min()) for i in others)

    def _others(self, references: Sequence[int]) -> list[int]:
        return [i for i in range(len(self.runs)) if i not in references]

    def _clock_error(self, i: int, references: Sequence[int]) -> float:
        nearest = sorted(references, key=lambda k: self.apart[i, k])[: self._max_references]
        apart = self.apart[i, nearest]
        weights = np.exp((apart.min() - apart) / (FLATNESS * max(apart.min(), 1e-6)))
        together = weights @ self.carried[i][nearest] / weights.sum()
        return float(np.abs(together - self.own[i]).mean())

    def expected_error(self, references: Sequence[int]) -> float:
        """Of the runs that are no references."""
        others = self._others(references)
        ends = [end_distance(self.moments[i], [self.moments[k] for k in references]) for i in others]
        by_source = [self.runs[i].signals.success for i in others]
        failed = [
            max(0.0, (p or 0.0) - USUAL_FAILURE) if success is None else float(not success)
            for success, p in zip(by_source, failure_probabilities(ends), strict=True)
        ]
        clock_errors = [self._clock_error(i, references) for i in others]
        return expected_error(float(np.mean(clock_errors)), float(np.mean(failed)))

    def followers(self, references: Sequence[int], place: int) -> int:
        """How many others are nearest to one of the references."""
        return sum(min(references, key=lambda k: self.apart[i, k]) == place for i in self._others(references))


def _weights(apart: np.ndarray) -> np.ndarray:
    """Of what runs say of one, float64 [runs], by how far it is from them; 0 from itself."""
    nearest = max(apart[apart > 0].min(initial=np.inf), 1e-6)
    return np.exp(np.minimum(0.0, 1 - apart / nearest))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The least value [n] of each column that half of the weight is at or below; values [k, n], weights [k]."""
    order = values.argsort(axis=0, kind="stable")
    so_far = weights[order].cumsum(axis=0)
    middle = (so_far >= so_far[-1] / 2).argmax(axis=0)
    return np.take_along_axis(values, np.take_along_axis(order, middle[None], axis=0), axis=0)[0]


def _all_beside(moments: Sequence[Moments], weight: float) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """Each run beside each other one: the moments of the other along the path, and how far apart both are.

    A run beside itself is as it is. Distances float64 [runs, runs], of the run in the row from that in the column.
    """
    num = len(moments)
    pairs = list(combinations(moments, 2))
    usual = Usual.of(pairs[:: max(1, -(-len(pairs) // MAX_PAIRS))])
    paths = [[np.arange(len(own)) for _ in range(num)] for own in moments]
    apart = np.zeros((num, num))
    for k, reference in enumerate(moments):
        others = [i for i in range(num) if i != k]
        for first in range(0, len(others), AT_ONCE):
            some = others[first : first + AT_ONCE]
            costs = [distances(moments[i], reference, usual) for i in some]
            beside = align_all(
                [c * weight for c in costs], [moments[i].is_still for i in some], reference.is_still, WHOLE
            )
            for i, cost, path in zip(some, costs, beside, strict=True):
                paths[i][k] = path.moments
                apart[i, k] = cost[np.arange(len(cost)), path.moments].mean()
    return paths, apart


# What references say of each other


def left_out_errors(
    runs: Sequence[SeenRun], references: Sequence[Reference], config: TransferConfig, motion: MotionConfig
) -> dict[int, float]:
    """The error of progress of each reference that is labelled by the other ones, by its episode_index.

    runs: of the task, which show what is usual for it. Left out are those that follow no other reference.
    """
    if len(references) < MIN_LEFT_OUT:
        return {}
    labelled = annotate([*(r.run for r in references), *_beside(runs, references)], references, config, motion)
    errors = {}
    for reference, transferred in zip(references, labelled, strict=False):
        label = transferred.label
        if label is not None:
            own = _progress(reference.run, reference.segments, len(reference.plan))
            by_others = _progress(reference.run, label.segments, label.num_planned)
            errors[reference.run.signals.episode_index] = float(np.abs(own - by_others).mean())
    return errors


def _beside(runs: Sequence[SeenRun], references: Sequence[Reference]) -> list[SeenRun]:
    """A few runs that are no references, evenly."""
    episodes = {reference.run.signals.episode_index for reference in references}
    others = [run for run in runs if run.signals.episode_index not in episodes]
    return others[:: max(1, -(-len(others) // SHOW_USUAL))]


def _progress(run: SeenRun, segments: Sequence[Segment], num_planned: int) -> np.ndarray:
    signals = run.signals
    return progress(segments, num_planned, signals.change, signals.fps, ProgressConfig(), None, signals.state)
