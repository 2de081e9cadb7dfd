"""Scores over episodes: means, ratios and other statistics of sums, with a 95 % bootstrap interval over episodes.

Episodes are resampled, not answers: the answers of one episode resemble each other, and an interval over answers
would be too narrow. Resamples are drawn by one seed, so equal answers give equal intervals.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from core.values import grouped


@dataclass(frozen=True)
class Runs:
    """Answers of episodes one after the other, each episode's in order of time.

    `predicted` and `target`, float64 [n], are shares of the task, 0..1; a prediction is NaN where there was no number.
    `starts`, int64 [episodes + 1], has where each episode begins; an episode may be empty. `elapsed`, float64 [n]: the
    share of the episode's time at each answer; None: not known, and then nothing is compared with a clock.
    """

    predicted: np.ndarray
    target: np.ndarray
    starts: np.ndarray
    elapsed: np.ndarray | None = None

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

    @cached_property
    def has_order(self) -> np.ndarray:
        """bool [episodes]: those with two different labels."""
        low, high = np.full(len(self), np.inf), np.full(len(self), -np.inf)
        np.minimum.at(low, self.episode, self.target)
        np.maximum.at(high, self.episode, self.target)
        return high > low

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n] over each episode, float64 [episodes]; 0 for an empty one."""
        return np.bincount(self.episode, values, minlength=len(self))

    def means(self, values: np.ndarray) -> np.ndarray:
        """Means of values [n] over each episode; NaN for an empty one."""
        return self.sums(values) / np.where(self.lengths > 0, self.lengths, np.nan)

    @cached_property
    def parsed(self) -> "Runs":
        """Without the answers that hold no number; episodes stay, shorter or empty."""
        has_number = ~np.isnan(self.predicted)
        starts = np.cumsum([0, *self.sums(has_number.astype(np.float64))]).astype(np.int64)
        elapsed = None if self.elapsed is None else self.elapsed[has_number]
        return Runs(self.predicted[has_number], self.target[has_number], starts, elapsed)

    @cached_property
    def worst(self) -> "Runs":
        """Each answer without a number replaced by the worst one for its label: 0 or 1, whichever
        is farther."""
        worst = (self.target < 0.5).astype(np.float64)
        return replace(self, predicted=np.where(np.isnan(self.predicted), worst, self.predicted))

    @cached_property
    def read(self) -> np.ndarray:
        """How many answers of each episode hold a number, and how many there are, float64
        [episodes, 2]."""
        has_number = (~np.isnan(self.predicted)).astype(np.float64)
        return np.stack([self.sums(has_number), self.lengths.astype(np.float64)], 1)

    @property
    def clock(self) -> "Runs | None":
        """What a clock answers: the share of time that has passed."""
        return None if self.elapsed is None else replace(self, predicted=self.elapsed)

    def curve(self, episode: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(time, predicted, target) of an episode, [t] each; without times the answers are spread
        evenly."""
        span = slice(*self.starts[episode : episode + 2])
        predicted = self.predicted[span]
        time = np.linspace(0, 1, len(predicted)) if self.elapsed is None else self.elapsed[span]
        return time, predicted, self.target[span]


def runs_of(episodes: Iterable[tuple[np.ndarray, np.ndarray]]) -> Runs:
    """From (predicted, target) arrays [t] per episode."""
    pairs = list(episodes)
    predicted = np.concatenate([np.empty(0), *(answers for answers, _ in pairs)])
    target = np.concatenate([np.empty(0), *(labels for _, labels in pairs)])
    return Runs(predicted, target, np.cumsum([0, *(len(labels) for _, labels in pairs)]))


# Scores

RESAMPLES = 1000
SEED = 0
RESAMPLED_AT_ONCE = 4_000_000  # values
LEVELS = (2.5, 97.5)
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Score:
    """A value over n episodes with the 95 % interval of its bootstrap; `coverage`: share of the
    answers behind it that could be read."""

    value: float
    low: float
    high: float
    n: int
    coverage: float = float("nan")

    def text(self) -> str:
        """Value and interval; an interval over one episode would say nothing."""
        if self.n < 2:
            if self.n:
                return f"{self.value:.3f}"
            return "–"
        return f"{self.value:.3f} ({self.low:.2f}–{self.high:.2f})"


NO_SCORE = Score(float("nan"), float("nan"), float("nan"), 0)


def ratio(sums: np.ndarray) -> np.ndarray:
    """First over second of the sums [..., 2]; NaN where the second is 0."""
    den = sums[..., 1]
    return sums[..., 0] / np.where(den != 0, den, np.nan)


@dataclass(frozen=True)
class Measure:
    """What a score is made of: per episode some numbers [episodes, k], and the statistic of their
    sums over episodes.

    `counted` [episodes]: the episodes that it is defined on. `read` [episodes, 2]: of how many
    answers that were wanted each, how many could be read (first) and how many there are (second).
    """

    parts: np.ndarray
    counted: np.ndarray
    read: np.ndarray
    statistic: Statistic = ratio

    def of(self, episodes: np.ndarray) -> "Measure":
        """Some episodes only, by mask or by numbers."""
        return replace(
            self,
            parts=self.parts[episodes],
            counted=self.counted[episodes],
            read=self.read[episodes],
        )

    def among(self, members: np.ndarray) -> "Measure":
        """The same as one of many more episodes, of which those of a mask are its own and the
        others count nowhere."""
        parts = np.zeros((len(members), self.parts.shape[1]))
        counted = np.zeros(len(members), bool)
        read = np.zeros((len(members), 2))
        parts[members] = self.parts
        counted[members] = self.counted
        read[members] = self.read
        return replace(self, parts=parts, counted=counted, read=read)

    @property
    def coverage(self) -> float:
        """Share of the wanted answers that could be read; NaN where none was wanted."""
        if len(self.read):
            return float(ratio(self.read.sum(axis=0)))
        return float("nan")


def mean_of(per_episode: Sequence[float] | np.ndarray, read: np.ndarray | None = None) -> Measure:
    """The mean over episodes [episodes]; those with NaN are left out. An episode counts once,
    however long it is."""
    values = np.asarray(per_episode, np.float64)
    counted = ~np.isnan(values)
    return ratio_of(np.where(counted, values, 0.0), counted, read)


def ratio_of(
    numerator: Sequence[float] | np.ndarray,
    denominator: Sequence[float] | np.ndarray,
    read: np.ndarray | None = None,
) -> Measure:
    """Sum of numerators over sum of denominators, [episodes] each: a mean over answers; long
    episodes weigh more."""
    parts = np.stack([np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)], 1)
    return Measure(parts, parts[:, 1] > 0, parts[:, [1, 1]] if read is None else read)


def scores(measures: Mapping[str, Measure]) -> dict[str, Score]:
    """Each measure's score; those on the same episodes share their resamples, so equal answers give
    equal intervals."""
    names_by_episodes = grouped((m.counted.tobytes(), name) for name, m in measures.items())
    by_name = {}
    for names in names_by_episodes.values():
        parts = [measures[n].parts[measures[n].counted] for n in names]
        cuts = np.cumsum([p.shape[1] for p in parts])[:-1]
        sums = np.split(_resampled_sums(np.concatenate(parts, 1)), cuts, axis=1)
        for name, its_parts, its_sums in zip(names, parts, sums, strict=True):
            by_name[name] = _score(measures[name], its_parts, its_sums)
    return {name: by_name[name] for name in measures}


def score(measure: Measure) -> Score:
    """One measure's score."""
    return scores({"": measure})[""]


def _score(measure: Measure, parts: np.ndarray, sums: np.ndarray) -> Score:
    value = float(measure.statistic(parts.sum(axis=0))) if len(parts) else float("nan")
    if np.isnan(value):
        return replace(NO_SCORE, coverage=measure.coverage)
    low, high = np.nanpercentile(measure.statistic(sums), LEVELS)
    return Score(value, float(low), float(high), len(parts), measure.coverage)


def _resampled_sums(values: np.ndarray) -> np.ndarray:
    """Sums over resampled episodes, [RESAMPLES, k], of values [n, k]; some resamples at a time: n
    may be 400,000."""
    n = len(values)
    if n:
        return np.concatenate([c @ values for c in _counts(n)])
    return np.zeros((0, values.shape[1]))


def _counts(n: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(SEED)
    block = max(1, RESAMPLED_AT_ONCE // n)
    for start in range(0, RESAMPLES, block):
        # Each row draws n of n episodes with replacement; offsets keep the rows apart in one bincount
        size = min(block, RESAMPLES - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


# Two models


@dataclass(frozen=True)
class Difference:
    """The first model's score less the second's over n episodes that both have, with its 95 % interval.

    `p`: two-sided, that resampling episodes turns the sign round; 1/(RESAMPLES + 1) is the least
    there can be.
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    p: float
    n: int


def paired(first: Measure, second: Measure) -> Difference:
    """Paired bootstrap of two measures over the same episodes [episodes]; each resample is drawn
    for both.

    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993: the percentile interval of the
    difference.) NaN throughout where no episode counts in both.
    """
    both = first.counted & second.counted
    a = first.parts[both]
    b = second.parts[both]
    nan = float("nan")
    if not len(a):
        return Difference(nan, nan, nan, nan, nan, nan, 0)
    # Both models' columns side by side: each resample draws the same episodes for both
    sums = _resampled_sums(np.concatenate([a, b], 1))
    gaps = first.statistic(sums[:, : a.shape[1]]) - second.statistic(sums[:, a.shape[1] :])
    gaps = gaps[~np.isnan(gaps)]
    first_value = float(first.statistic(a.sum(axis=0)))
    two = float(second.statistic(b.sum(axis=0)))
    low, high = np.percentile(gaps, LEVELS) if len(gaps) else (nan, nan)
    # How often resampling turns the sign round, the observed sample counted as one of them
    opposite = min((gaps <= 0).sum(), (gaps >= 0).sum())
    p = min(1.0, 2 * (int(opposite) + 1) / (len(gaps) + 1))
    return Difference(first_value, two, first_value - two, float(low), float(high), p, len(a))
