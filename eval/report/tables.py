"""The contents of a report: rows of its tables, sentences on its limits, and the episodes that it shows."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, product

import numpy as np

from core.metrics import REPORT, is_lower_better, leading_metrics, metrics_shown_in
from eval.metrics.score import NO_SCORE
from eval.scored import ALL, Evaluated, model_comparison

ERRORS = tuple(filter(is_lower_better, leading_metrics()[:4]))  # of those that lead a benchmark
UPPER_BOUND = "the label itself"  # an entry that no model has to beat
SHOWN = 4  # episodes beside each other
Stills = Callable[[tuple[str, ...]], Sequence[bytes]]


@dataclass(frozen=True)
class Report:
    """What a report is made of. The first entry of each benchmark is the model, those after it stand beside it.

    `parts`: slices of the main table. `stills(key)`: pictures of an episode in order of time, empty where none are;
    `examples`: of what was shown, by its name.
    """

    model: str
    entries: Sequence[Evaluated]
    parts: Sequence[str] = (ALL,)
    notes: Sequence[str] = ()
    stills: Stills = lambda key: ()
    examples: Mapping[str, Sequence[bytes]] = field(default_factory=dict)

    @property
    def own(self) -> list[Evaluated]:
        """The model's own entries."""
        return [e for e in self.entries if e.model == self.model]

    def rivals(self, entry: Evaluated) -> list[Evaluated]:
        """The other entries of the same benchmark."""
        return [e for e in self.entries if e.benchmark == entry.benchmark and e.model != self.model]


def score_rows(entries: Sequence[Evaluated], parts: Sequence[str]) -> list[dict]:
    """One row per slice and entry: metrics with their interval as text, episodes, coverage."""
    scored = chain.from_iterable(e.scores for e in entries)
    scored_metrics = {metric for part, metric in scored if part in parts}
    # One set of columns for all slices: the metrics that any entry has in any of them
    columns = [metric for metric in metrics_shown_in(REPORT) if metric in scored_metrics]
    return list(
        filter(None, (_score_row(entry, part, columns) for part, entry in product(parts, entries)))
    )


def _score_row(entry: Evaluated, part: str, columns: Sequence[str]) -> dict | None:
    """None where an entry has none of the metrics in a slice."""
    scores = [entry.scores.get((part, metric)) for metric in columns]
    episodes = [s.n for s in scores if s is not None]
    texts = ("–" if s is None else s.text() for s in scores)
    coverage = entry.scores.get((part, "coverage"), NO_SCORE)
    row = {
        "benchmark": entry.benchmark,
        "slice": part,
        "model": entry.model,
        **dict(zip(columns, texts, strict=True)),
        "episodes": max(episodes, default=0),
        "coverage": f"{coverage.value:.0%}" if coverage.n else "–",
    }
    if episodes:
        return row
    return None


def difference_rows(report: Report) -> Iterator[dict]:
    """The model less each other entry, paired over episodes, on the metric that leads its benchmark."""
    for entry in report.own:
        metric = next((m for m in leading_metrics() if m in entry.scored.measures), "")
        for rival in report.rivals(entry):
            d = model_comparison(entry.scored, rival.scored).differences.get(metric)
            # Without an episode in common that both have the metric of there is nothing to compare
            if d is not None and d.n:
                yield {
                    "benchmark": entry.benchmark,
                    "against": rival.model,
                    "metric": metric,
                    "difference": f"{d.value:+.3f} ({d.low:+.2f} to {d.high:+.2f})",
                    "p": f"{d.p:.3f}",
                    "episodes": d.n,
                }


def weak_points(report: Report) -> Iterator[str]:
    """Plain sentences on where the model is no better than what stands beside it, from the scores themselves."""
    for entry, metric, part in product(report.own, ERRORS, report.parts):
        ours = entry.scores.get((part, metric), NO_SCORE)
        for rival in report.rivals(entry):
            theirs = rival.scores.get((part, metric), NO_SCORE)
            if ours.n and theirs.n and rival.model != UPPER_BOUND and ours.value >= theirs.value:
                yield (
                    f"{entry.benchmark}, {part}: no better than {rival.model} ({metric} {ours.value:.3f} against "
                    f"{theirs.value:.3f}, {ours.n} episodes)."
                )


def worst_episodes(entry: Evaluated) -> list[tuple[int, float]]:
    """(episode, MAE) of those with the largest error over their readable answers."""
    measure = entry.scored.measures.get("mae", entry.scored.measures.get("score_error_episodes"))
    if measure is None or entry.scored.series is None:
        return []
    # Episodes without a readable answer have no error: -1 puts them last
    errors = np.where(measure.counted, measure.parts[:, 0], -1.0)
    order = np.argsort(-errors, kind="stable")[:SHOWN]
    return [(int(k), float(errors[k])) for k in order if errors[k] >= 0]


def varied_episodes(entry: Evaluated, count: int = SHOWN) -> list[int]:
    """Episodes with answers, in turn of each split (or part), and there one of each kind of slices first."""
    assert entry.scored.series is not None
    with_answers = np.flatnonzero(entry.scored.series.runs.lengths > 0).tolist()
    slices = {k: entry.scored.episodes[k].slices for k in with_answers}

    # The first episode of each kind of slices comes before all others
    seen_slices: set[tuple[str, ...]] = set()
    first = []
    later = []
    for k in with_answers:
        (later if slices[k] in seen_slices else first).append(k)
        seen_slices.add(slices[k])

    # Splits take turns: all first episodes of a split, then all second ones, and so on
    turns: Counter[tuple[str, ...]] = Counter()
    in_turn = []
    for place, k in enumerate(first + later):
        split = slices[k][:1]
        in_turn.append((turns[split], place, k))
        turns[split] += 1
    return [k for _, _, k in sorted(in_turn)[:count]]
