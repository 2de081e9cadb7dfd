"""Scores of one model on one benchmark: measures over episodes, in all and by slice; and the one writer of the lake's
eval_* tables, an evaluation with its predictions and scores."""

import json
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, product
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from core.files import write_file
from core.metrics import METRICS
from core.tables import TABLES
from core.values import grouped, short_hash
from eval.benchmarks.question import PredictionLine, Question
from eval.metrics import errors, order
from eval.metrics.score import (
    RESAMPLES,
    Difference,
    Measure,
    Runs,
    Score,
    Statistic,
    mean_of,
    paired,
    scores,
)
from training.trained_on import NOTHING_SEEN, SeenEpisodes
from warehouse.lake import Lake, content_key

ALL = "all"
LENGTHS_S = (10.0, 30.0)  # short, medium, long runs


@dataclass(frozen=True)
class ResampledUnit:
    """What the bootstrap draws: one episode in one part of a benchmark, or one task, with the
    slices that it is in."""

    key: tuple[str, ...]
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoredBenchmark:
    """Measures over the same episodes, in order, of the answers of `model`, which may be a baseline; `counts` says how
    many rows there were and what became of them, `notes` what is not scored, and why. `cells`: more scores, those of a
    matrix."""

    benchmark: str
    episodes: tuple[ResampledUnit, ...]
    measures: Mapping[str, Measure]
    counts: Mapping[str, int]
    series: Runs | None = None
    notes: tuple[str, ...] = ()
    cells: Mapping[tuple[str, str], Score] = field(default_factory=dict)
    model: str = ""

    @cached_property
    def scores(self) -> dict[tuple[str, str], Score]:
        """By (slice, metric): `all`, then every slice, then the cells."""
        by_slice_and_metric = {(ALL, name): s for name, s in scores(self.measures).items()}
        # A metric that no episode of a slice counts for has no score there
        for part, members in self.slices():
            chosen = {name: m.of(members) for name, m in self.measures.items()}
            counted_measures = {name: m for name, m in chosen.items() if m.counted.any()}
            by_slice_and_metric |= {(part, name): s for name, s in scores(counted_measures).items()}
        return {**by_slice_and_metric, **self.cells}

    def slices(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, numbers of its episodes), sorted."""
        numbered = (product(e.slices, [k]) for k, e in enumerate(self.episodes))
        members = grouped(chain.from_iterable(numbered))
        for part in sorted(members):
            yield part, np.array(members[part])

    def find(self, key: tuple[str, ...]) -> int | None:
        """The number of an episode."""
        return next((k for k, e in enumerate(self.episodes) if e.key == key), None)

    def facts(self) -> dict[str, Any]:
        """For scripts: metrics in all, the same by slice, and counts."""
        by_part = grouped((part, (name, s.__dict__)) for (part, name), s in self.scores.items())
        slices = {part: dict(named_scores) for part, named_scores in by_part.items()}
        everything = slices.pop(ALL, {})
        facts = {
            "benchmark": self.benchmark,
            "metrics": everything,
            "counts": dict(self.counts),
            "slices": slices,
        }
        return facts | ({"notes": list(self.notes)} if self.notes else {})


@dataclass(frozen=True)
class ModelComparison:
    """Two models on the episodes that both were asked about."""

    differences: Mapping[str, Difference]
    common: int  # episodes
    only_first: int
    only_second: int


def model_comparison(first: ScoredBenchmark, second: ScoredBenchmark) -> ModelComparison:
    """Paired differences of every metric that both have."""
    # The numbers of each common episode on both sides
    places = {e.key: k for k, e in enumerate(second.episodes)}
    pairs = [(k, places[e.key]) for k, e in enumerate(first.episodes) if e.key in places]
    first_places, two = np.array(pairs, np.int64).reshape(-1, 2).T

    differences = {
        name: paired(measure.of(first_places), second.measures[name].of(two))
        for name, measure in first.measures.items()
        if name in second.measures
    }
    return ModelComparison(
        differences, len(pairs), len(first.episodes) - len(pairs), len(second.episodes) - len(pairs)
    )


def progress_measures(runs: Runs) -> dict[str, Measure]:
    """By name every metric of progress over time that METRICS computes, whoever predicts it; those beside a clock only
    where times are known. What each does with unread answers is in docs/evaluation.md."""
    measures = {}
    for metric in METRICS:
        if not metric.compute:
            continue
        is_ordered = metric.unread == "ordered"
        unread = "parsed" if is_ordered else metric.unread
        over = getattr(runs, unread) if unread else runs
        values = pkgutil.resolve_name(metric.compute)(over)
        if is_ordered:
            values = order.constant_is_zero(runs, values)
        if values is not None:
            is_measure = isinstance(values, Measure)
            measures[metric.name] = values if is_measure else mean_of(values, runs.read)
    return measures


@dataclass(frozen=True)
class Episodes:
    """Which episode each of some answers is about, and what is summed over the answers of each episode.

    `number`, int64 [n]: the episode of each answer. Numbers and truths [n] that are NaN count as 0 in sums.
    """

    number: np.ndarray
    scored: tuple[ResampledUnit, ...]

    @classmethod
    def of(
        cls, keys: Sequence[tuple[str, ...]], slices: Sequence[tuple[str, ...]] | None = None
    ) -> "Episodes":
        """By the key of each answer's episode; an episode has the slices of its first answer."""
        places: dict[tuple[str, ...], int] = {}
        number = np.fromiter((places.setdefault(k, len(places)) for k in keys), np.int64, len(keys))
        _, first = np.unique(number, return_index=True)
        return cls(
            number, tuple(ResampledUnit(keys[k], slices[k] if slices else ()) for k in first)
        )

    def among(self, answers: np.ndarray) -> "Episodes":
        """The same episodes with some of their answers, by mask or by numbers."""
        return replace(self, number=self.number[answers])

    def sums(self, *columns: np.ndarray) -> np.ndarray:
        """float64 [episodes, columns]."""
        count = len(self.scored)
        summed = [
            np.bincount(self.number, np.nan_to_num(c.astype(np.float64)), count) for c in columns
        ]
        return np.array(summed, np.float64).reshape(len(columns), count).T

    def means(self, values: np.ndarray) -> np.ndarray:
        """Means over the answers that have a value, float64 [episodes]; NaN without one."""
        total, count = self.sums(values, ~np.isnan(values)).T
        return total / np.where(count > 0, count, np.nan)

    def ratio(self, numerator: np.ndarray, denominator: np.ndarray, read: np.ndarray) -> Measure:
        """Sums of numerators over sums of denominators: a mean over answers. `read`: as Measure has it."""
        parts = self.sums(numerator, denominator)
        return Measure(parts, parts[:, 1] > 0, read)

    def mean(self, values: np.ndarray, is_asked: np.ndarray, read: np.ndarray) -> Measure:
        """The mean over the answers `is_asked` for that have a value; `read` [n]: which could be read."""
        counted = is_asked & ~np.isnan(values)
        return self.ratio(
            np.where(counted, values, 0), counted, self.sums(is_asked & read, is_asked)
        )

    def confusion(
        self,
        predicted: np.ndarray,
        actual: np.ndarray,
        is_asked: np.ndarray,
        readable: np.ndarray,
        statistic: Statistic,
    ) -> Measure:
        """A statistic of (TP, TN, FP, FN) of the answers `is_asked` for; one that cannot be read
        counts as wrong."""
        parts = self.sums(*(errors.confusion(predicted, actual, readable) * is_asked[:, None]).T)
        return Measure(
            parts, parts.sum(axis=1) > 0, self.sums(readable & is_asked, is_asked), statistic
        )

    def runs(
        self, predicted: np.ndarray, target: np.ndarray, time: np.ndarray
    ) -> tuple[Runs, np.ndarray]:
        """Answers in order of episode and time, and that order."""
        order = np.lexsort((time, self.number))
        starts = np.searchsorted(self.number[order], np.arange(len(self.scored) + 1))
        return Runs(predicted[order], target[order], starts), order


class BenchmarkAnswers(NamedTuple):
    """Questions of a benchmark with what whoever answers said to each, in the same order: all that scores are made of.

    `values`: the share of the task that each answer states, float64 [n], NaN where none can be read.
    """

    benchmark: str
    questions: Sequence[Question]
    values: np.ndarray
    episodes: Episodes
    lines: Sequence[PredictionLine] = ()

    @classmethod
    def by_values(
        cls,
        benchmark: str,
        questions: Sequence[Question],
        values: np.ndarray,
        lines: Sequence[PredictionLine] = (),
    ) -> "BenchmarkAnswers":
        episodes = Episodes.of([q.unit for q in questions], [q.slices for q in questions])
        return cls(benchmark, questions, values, episodes, lines)

    @classmethod
    def of(
        cls, benchmark: str, questions: Sequence[Question], lines: Sequence[PredictionLine]
    ) -> "BenchmarkAnswers":
        """An answer that failed says nothing, whatever the line holds beside its error."""
        readable_lines = [
            replace(line, response="", value=None) if line.error else line for line in lines
        ]
        pairs = zip(questions, readable_lines, strict=True)
        values = np.array([q.stated(line.response, line.value) for q, line in pairs], np.float64)
        return cls.by_values(benchmark, questions, values, readable_lines)

    @property
    def is_read(self) -> np.ndarray:
        return ~np.isnan(self.values)

    @property
    def everywhere(self) -> np.ndarray:
        return np.ones(len(self.questions), bool)

    @property
    def read(self) -> np.ndarray:
        """How many answers of each episode state a share, and how many there are, float64 [episodes, 2]."""
        return self.episodes.sums(self.is_read, self.everywhere)

    def among(self, places: np.ndarray) -> "BenchmarkAnswers":
        """Some answers, by numbers, about the same episodes."""
        return self._replace(
            questions=[self.questions[k] for k in places],
            values=self.values[places],
            episodes=self.episodes.among(places),
            lines=[self.lines[k] for k in places] if self.lines else (),
        )

    def means(
        self, values: Sequence[Mapping[str, float]], is_read: np.ndarray
    ) -> dict[str, Measure]:
        """By metric the mean over episodes of what `values` has of each answer; `is_read`: bool [n], which could be
        read."""
        read = self.episodes.sums(is_read, self.everywhere)
        return {
            name: mean_of(
                self.episodes.means(np.array([v.get(name, math.nan) for v in values])), read
            )
            for name in dict.fromkeys(chain.from_iterable(values))
        }

    def column(self, name: str) -> np.ndarray:
        """A fact of each question, by the name of its field or of its row's, float64 [n]; None is NaN."""
        facts = (vars(q).get(name, q.row.get(name)) for q in self.questions)
        return np.array(list(facts), np.float64)

    @property
    def series(self) -> Runs:
        """Answers over the time of each episode."""
        frames = self.column("frame_index")
        runs, order = self.episodes.runs(self.values, self.column("progress"), frames)
        elapsed = frames / np.maximum(self.column("num_frames") - 1, 1)
        return replace(runs, elapsed=elapsed[order])

    @property
    def success_scores(self) -> np.ndarray:
        """What tells success, float64 [n]: how probable the end state is, of a head that says so,
        else progress."""
        done = np.array([line.done for line in self.lines], np.float64)
        if np.isnan(done).all():
            return self.values
        return done

    @property
    def by_episode(self) -> list[Question]:
        """A question about each episode, in their order."""
        return list({q.unit: q for q in self.questions}.values())

    @property
    def tested(self) -> "BenchmarkAnswers":
        """Without those that only a threshold was chosen by."""
        places = np.flatnonzero([q.is_scored for q in self.questions])
        chosen = self.among(places)
        return self.by_values(self.benchmark, chosen.questions, chosen.values, chosen.lines)

    def scored(
        self,
        measures: Mapping[str, Measure],
        is_read: np.ndarray | None = None,
        series: Runs | None = None,
        notes: tuple[str, ...] = (),
        cells: Mapping[tuple[str, str], Score] = MappingProxyType({}),
        **counts: int,
    ) -> ScoredBenchmark:
        """Measures with their coverage and counts; `is_read`: bool [n], which could be read: by default the shares."""
        is_read = self.is_read if is_read is None else is_read
        coverage = self.episodes.mean(is_read, self.everywhere, is_read)
        all_counts = {
            "rows": len(is_read),
            "episodes": len(self.episodes.scored),
            "unparsable": int((~is_read).sum()),
            **counts,
        }
        measures = {**measures, "coverage": coverage}
        return ScoredBenchmark(
            self.benchmark, self.episodes.scored, measures, all_counts, series, notes, cells
        )


class ScoredView(NamedTuple):
    """Questions as they are scored under a name: one set of answers may be held against several
    truths."""

    name: str
    questions: Sequence[Question]
    score: Callable[[BenchmarkAnswers], ScoredBenchmark]


class Predictor(NamedTuple):
    """Whoever answers: its name in reports, all that its answers depend on, the episodes that it was trained on, and
    what it answered, by the questions' keys; None: not all is there, since other shards are at work."""

    name: str
    settings: Mapping[str, Any]
    seen: SeenEpisodes = NOTHING_SEEN
    lines: Mapping[str, PredictionLine] | None = None

    def scored(self, view: ScoredView, of_all: bool) -> ScoredBenchmark:
        """By the questions of a view that were answered; `of_all`: by all."""
        lines = self.lines or {}
        chosen = [q for q in view.questions if of_all or q.key in lines]
        answered = [lines.get(q.key, PredictionLine(q.key, {})) for q in chosen]
        scored = view.score(BenchmarkAnswers.of(view.name, chosen, answered))
        return replace(scored, model=self.name)


def length_slice(seconds: float) -> str:
    """The slice of runs of about that length."""
    short, medium = (f"{s:.0f} s" for s in LENGTHS_S)
    names = (f"length under {short}", f"length {short} to {medium}", f"length {medium} and more")
    return names[int(np.searchsorted(LENGTHS_S, seconds, side="right"))]


CODE_VERSION = "scores-1"
# 5: success is detected, runs are ranked; 6: clocks by other runs are baselines
HELD_OUT_VERSION = "eval-6"


def eval_run_id(model: str, benchmark: str, release_hash: str) -> str:
    return short_hash(f"{model}\0{benchmark}\0{release_hash}\0{HELD_OUT_VERSION}")


@dataclass(frozen=True)
class EvalRun:
    """A row of eval_runs with its predictions, rows of eval_predictions, and its scores by (slice, metric). `config` is
    JSON: all that the predictions depend on beside model and code."""

    eval_run: str
    model: str
    benchmark: str
    config: str
    code_version: str
    release: str | None = None
    scores: Mapping[tuple[str, str], Score] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, Any]] = ()
    # By slice how many of its episodes the model was trained on; without one that is not known
    seen_episodes: Mapping[str, int] = field(default_factory=dict)


def store_evaluations(lake: Lake, message: str, runs: Sequence[EvalRun]) -> None:
    """Write evaluations in one transaction; an evaluation replaces what its eval_run has stored
    before."""
    lake.replace_where(message, "eval_run", **_rows_by_table(runs))


def add_predictions(lake: Lake, message: str, run: EvalRun) -> None:
    """Add predictions to an evaluation that grows, in one transaction; those of the same frame are
    replaced."""
    lake.upsert(message, **_rows_by_table([run]))


def drop_predictions(
    lake: Lake, message: str, eval_run: str, dataset: str, episodes: Sequence[int]
) -> None:
    """Remove the predictions for some episodes of a dataset, where there are any."""
    condition = "eval_run = ? AND dataset = ? AND list_contains(?, episode_index)"
    values = [eval_run, dataset, list(episodes)]
    if lake.rows(f"SELECT 1 FROM eval_predictions WHERE {condition} LIMIT 1", values):
        lake.remove(message, condition, values, "eval_predictions")


def _null_where_undefined(score: Score) -> dict[str, float | None]:
    """A number that is not defined is null."""
    return {k: None if math.isnan(v) else v for k, v in vars(score).items()}


def _rows_by_table(runs: Sequence[EvalRun]) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {
        "eval_runs": [],
        "eval_predictions": [],
        "eval_scores": [],
    }
    for run in runs:
        facts = {**vars(run), "created_at": datetime.now(UTC)}
        del facts["scores"], facts["predictions"], facts["seen_episodes"]
        rows["eval_runs"].append(facts)
        rows["eval_predictions"] += [{"eval_run": run.eval_run, **p} for p in run.predictions]
        rows["eval_scores"] += [
            {
                "eval_run": run.eval_run,
                "slice": part,
                "metric": metric,
                "seen_episodes": run.seen_episodes.get(part),
                **_null_where_undefined(score),
            }
            for (part, metric), score in run.scores.items()
        ]
    return {name: TABLES[name].rows(of_table) for name, of_table in rows.items() if of_table}


def store_scores(
    lake: Lake, evaluated: ScoredBenchmark, predictions: bytes, settings: Mapping[str, Any]
) -> str:
    """Keep a prediction file and its scores; returns the eval_run. The same file under the same name replaces itself.

    The file is whole in its place before a row of the lake names it. `settings` go into eval_runs.config.
    """
    eval_run = content_key(
        evaluated.model, evaluated.benchmark, predictions.decode(), CODE_VERSION
    )[:16]
    path = lake.workspace.root / "evals" / eval_run / "predictions.jsonl"
    write_file(path, predictions)
    config = {
        **settings,
        "predictions": str(path.relative_to(lake.workspace.root)),
        "resamples": RESAMPLES,
        "counts": dict(evaluated.counts),
    }
    run = EvalRun(
        eval_run,
        evaluated.model,
        evaluated.benchmark,
        config=json.dumps(config, sort_keys=True),
        code_version=CODE_VERSION,
        scores=evaluated.scores,
    )
    store_evaluations(lake, "scores of a prediction file", [run])
    return eval_run
