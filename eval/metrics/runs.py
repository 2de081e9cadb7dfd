"""Answers about many episodes as one set of arrays, and what is done to them before a metric looks at them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Runs:
    """Answers of episodes one after the other, each episode's in order of time.

    `predicted` and `target`, float64 [n], are shares of the task, 0..1; a prediction is NaN where there was no number.
    `starts`, int64 [episodes + 1], has where each episode begins; an episode may be empty.
    """

    predicted: np.ndarray
    target: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [episodes]"""
        return np.diff(self.starts)

    @cached_property
    def episode(self) -> np.ndarray:
        """Number of the episode of each answer, int64 [n]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n] over each episode, float64 [episodes]; 0 for an empty one."""
        return np.bincount(self.episode, values, minlength=len(self))

    def means(self, values: np.ndarray) -> np.ndarray:
        """Means of values [n] over each episode; NaN for an empty one."""
        return self.sums(values) / np.where(self.lengths > 0, self.lengths, np.nan)


def runs_of(episodes: Iterable[tuple[np.ndarray, np.ndarray]]) -> Runs:
    """From (predicted, target) arrays [t] per episode."""
    pairs = list(episodes)
    predicted, target = (np.concatenate([np.empty(0), *(p[k] for p in pairs)]) for k in (0, 1))
    return Runs(predicted, target, np.cumsum([0, *(len(p[1]) for p in pairs)]))


def readable(runs: Runs) -> Runs:
    """Without the answers that hold no number; episodes stay, shorter or empty."""
    has_number = ~np.isnan(runs.predicted)
    starts = np.concatenate([[0], np.cumsum(runs.sums(has_number.astype(np.float64)))]).astype(np.int64)
    return Runs(runs.predicted[has_number], runs.target[has_number], starts)


def worst_case(runs: Runs) -> Runs:
    """Each answer without a number replaced by the worst one for its label: 0 or 1, whichever is farther."""
    worst = (runs.target < 0.5).astype(np.float64)
    return replace(runs, predicted=np.where(np.isnan(runs.predicted), worst, runs.predicted))


def answers_read(runs: Runs) -> np.ndarray:
    """How many answers of each episode hold a number, and how many there are, float64 [episodes, 2]."""
    held = (~np.isnan(runs.predicted)).astype(np.float64)
    return np.stack([runs.sums(held), runs.lengths.astype(np.float64)], 1)
