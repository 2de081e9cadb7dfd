"""Metrics of progress over time, whoever predicts it. METRICS (core/metrics.py) names each of these functions.

Each takes Answers and gives float64 [episodes], NaN where an episode has nothing to measure, or a Measure. What each
does with unread answers is in docs/evaluation.md.
"""

import pkgutil
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.metrics import METRICS
from eval.metrics import errors, order
from eval.metrics.score import Measure, Runs, answers_read, mean_of, ratio_of, readable, worst_case


@dataclass(frozen=True)
class Answers:
    """Answers of episodes, with NaN where an answer held no number.

    elapsed: float64 [n], the share of the episode's time at each answer; None: not known, and then nothing is compared
    with a clock, which predicts it.
    """

    as_said: Runs
    elapsed: np.ndarray | None = None

    @cached_property
    def parsed(self) -> Runs:
        """Without the answers that hold no number."""
        return readable(self.as_said)

    @property
    def ordered(self) -> Runs:
        return self.parsed

    @cached_property
    def worst(self) -> Runs:
        """Each answer without a number replaced by the worst one for its label."""
        return worst_case(self.as_said)

    @cached_property
    def read(self) -> np.ndarray:
        """How many answers of each episode hold a number, and how many there are, float64
        [episodes, 2]."""
        return answers_read(self.as_said)

    @cached_property
    def clock(self) -> Runs | None:
        """What a clock answers: the share of time that has passed."""
        if self.elapsed is None:
            return None
        return Runs(self.elapsed, self.as_said.target, self.as_said.starts)

    @cached_property
    def has_order(self) -> np.ndarray:
        """bool [episodes]: do the labels rise or fall?"""
        return ~np.isnan(order.voc(self.worst))

    def constant_is_zero(self, correlation: np.ndarray) -> np.ndarray:
        """A constant's 0 in place of NaN, on the episodes whose labels have an order."""
        return np.where(self.has_order, np.nan_to_num(correlation), np.nan)


def progress_measures(runs: Runs, elapsed: np.ndarray | None = None) -> dict[str, Measure]:
    """By name every metric of progress that METRICS computes; those beside a clock only where
    `elapsed` is known."""
    answers = Answers(runs, elapsed)
    measures = {}
    for metric in METRICS:
        if not metric.compute:
            continue
        over = getattr(answers, metric.unread) if metric.unread else answers
        values = pkgutil.resolve_name(metric.compute)(over)
        if metric.unread == "ordered":
            values = answers.constant_is_zero(values)
        if values is not None:
            if isinstance(values, Measure):
                measures[metric.name] = values
            else:
                measures[metric.name] = mean_of(values, answers.read)
    return measures


def tau_b(answers: Answers) -> np.ndarray:
    return answers.constant_is_zero(order.kendall(answers.parsed)[0])


def tau_a(answers: Answers) -> np.ndarray:
    return answers.constant_is_zero(order.kendall(answers.parsed)[1])


def increment_correlation(answers: Answers) -> np.ndarray:
    return order.increment_correlation(answers.worst, 1, answers.elapsed)


def mae_margin(answers: Answers) -> np.ndarray | None:
    """How much less error the answers have than a clock; None where no time is known."""
    if answers.clock is None:
        return None
    return errors.mae(answers.clock) - errors.mae(answers.worst)


def voc_margin(answers: Answers) -> np.ndarray | None:
    """How much more VOC the answers have than a clock; None where no time is known."""
    if answers.clock is None:
        return None
    voc = answers.constant_is_zero(order.voc(answers.parsed))
    return voc - order.voc(answers.clock)


def coverage(answers: Answers) -> Measure:
    """Share of answers that hold a number."""
    read = answers.read
    return ratio_of(read[:, 0], read[:, 1], read)
