"""Scores of one model on one benchmark: measures over episodes, in all and by slice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.metrics.runs import Runs
from eval.metrics.score import Difference, Measure, Score, paired, scores

ALL = "all"
LENGTHS_S = (10.0, 30.0)  # short, medium, long runs


@dataclass(frozen=True)
class ScoredEpisode:
    """What is resampled: one episode in one part of a benchmark, and the slices that it belongs to."""

    key: tuple[str, ...]
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """Progress answers of each episode, and the share of its time gone by at each, where that is known [n]."""

    runs: Runs
    elapsed: np.ndarray | None = None

    def of(self, episode: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(time, predicted, target) of an episode, [t] each; without times the answers are spread evenly."""
        at = slice(*self.runs.starts[episode : episode + 2])
        predicted = self.runs.predicted[at]
        time = np.linspace(0, 1, len(predicted)) if self.elapsed is None else self.elapsed[at]
        return time, predicted, self.runs.target[at]


@dataclass(frozen=True)
class ScoredBenchmark:
    """Measures over the same episodes, in order; `counts` says how many rows there were and what became of them,
    `notes` what is not scored, and why."""

    benchmark: str
    episodes: tuple[ScoredEpisode, ...]
    measures: Mapping[str, Measure]
    counts: Mapping[str, int]
    series: Series | None = None
    notes: tuple[str, ...] = ()

    def scores(self, seed: int = 0) -> dict[tuple[str, str], Score]:
        """By (slice, metric): `all`, then every slice."""
        by_slice_and_metric = {(ALL, name): s for name, s in scores(self.measures, seed).items()}
        # A metric that no episode of a slice counts for has no score there
        for part, members in self.slices():
            chosen = {name: m.of(members) for name, m in self.measures.items()}
            named = {name: m for name, m in chosen.items() if m.counted.any()}
            by_slice_and_metric |= {(part, name): s for name, s in scores(named, seed).items()}
        return by_slice_and_metric

    def slices(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, numbers of its episodes), sorted."""
        members: dict[str, list[int]] = {}
        for k, e in enumerate(self.episodes):
            for part in e.slices:
                members.setdefault(part, []).append(k)
        for part in sorted(members):
            yield part, np.array(members[part])

    def find(self, key: tuple[str, ...]) -> int | None:
        """The number of an episode."""
        return next((k for k, e in enumerate(self.episodes) if e.key == key), None)

    def facts(self, scores: Mapping[tuple[str, str], Score]) -> dict[str, Any]:
        """For scripts: metrics in all, the same by slice, and counts."""
        slices: dict[str, dict[str, Any]] = {}
        for (part, name), s in scores.items():
            slices.setdefault(part, {})[name] = s.__dict__
        everything = slices.pop(ALL, {})
        facts = {"benchmark": self.benchmark, "metrics": everything, "counts": dict(self.counts), "slices": slices}
        return facts | ({"notes": list(self.notes)} if self.notes else {})


@dataclass(frozen=True)
class Evaluated:
    """One model, or baseline, on one benchmark, with its scores by (slice, metric)."""

    model: str
    scored: ScoredBenchmark
    scores: Mapping[tuple[str, str], Score]

    @property
    def benchmark(self) -> str:
        return self.scored.benchmark


@dataclass(frozen=True)
class ModelComparison:
    """Two models on the episodes that both were asked about."""

    differences: Mapping[str, Difference]
    common: int  # episodes
    only_first: int
    only_second: int


def compare(first: ScoredBenchmark, second: ScoredBenchmark, seed: int = 0) -> ModelComparison:
    """Paired differences of every metric that both have."""
    # The numbers of each common episode on both sides
    at = {e.key: k for k, e in enumerate(second.episodes)}
    pairs = [(k, at[e.key]) for k, e in enumerate(first.episodes) if e.key in at]
    one = np.array([ours for ours, _ in pairs], np.int64)
    two = np.array([theirs for _, theirs in pairs], np.int64)

    differences = {}
    for name, measure in first.measures.items():
        if name in second.measures:
            differences[name] = paired(measure.of(one), second.measures[name].of(two), seed)
    return ModelComparison(differences, len(pairs), len(first.episodes) - len(pairs), len(second.episodes) - len(pairs))


def numbered(keys: Sequence[tuple[str, ...]]) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """The number of each key, int64 [n], and the keys by number, in order of first appearance."""
    number_by_key: dict[tuple[str, ...], int] = {}
    numbers = np.fromiter((number_by_key.setdefault(k, len(number_by_key)) for k in keys), np.int64, len(keys))
    return numbers, list(number_by_key)


def length_slice(seconds: float) -> str:
    """The slice of runs of about that length."""
    short, medium = (f"{s:.0f} s" for s in LENGTHS_S)
    names = (f"length under {short}", f"length {short} to {medium}", f"length {medium} and more")
    return names[int(np.searchsorted(LENGTHS_S, seconds, side="right"))]
