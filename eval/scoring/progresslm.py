"""progress-bench and human-bench: ProgressLM's metrics mended, and as its own evaluation has them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotate.samples.replies import parse_answer, parse_reply
from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.rows import HUMAN, ProgressRow, read_row
from eval.metrics import errors, order, published
from eval.metrics.runs import Runs, readable, worst_case
from eval.metrics.score import Measure, mean_of, ratio_of
from eval.predictions import PredictionLine
from eval.scoring.scored import ScoredBenchmark, ScoredEpisode, Series, numbered


@dataclass(frozen=True)
class ProgressAnswer:
    """One row with its answer: NaN where there is no number, `refused` where it is a literal n/a."""

    part: str
    row: ProgressRow
    score: float
    reference: float
    refused: bool

    @property
    def unparsable(self) -> bool:
        return math.isnan(self.score) and not self.refused


def score(benchmark: str, predictions: Iterable[PredictionLine], as_published: bool = False) -> ScoredBenchmark:
    """Raises BenchmarkError for a row that is broken, of another benchmark, or there twice."""
    rows: list[tuple[PredictionLine, ProgressRow]] = []
    seen: dict[tuple, str] = {}
    for p in predictions:
        row = _row(benchmark, p)
        known = seen.setdefault(row.identity(), p.where)
        if known != p.where:
            raise BenchmarkError(
                f"{p.where} is the same row as {known}: id {row.id!r}, picture {row.stage_to_estimate!r} and the same "
                "demonstration; keep one answer (several inferences have an _inference_idx each)"
            )
        rows.append((p, row))
    if not rows:
        raise BenchmarkError("the prediction file holds no row")
    tags = "<score>" in rows[0][0].response or "<ref>" in rows[0][0].response
    answers = [_read(benchmark, p, row, tags if as_published else None) for p, row in rows]
    return _published(benchmark, answers) if as_published else _mended(benchmark, answers)


def _row(benchmark: str, p: PredictionLine) -> ProgressRow:
    stated = p.meta_data.get("benchmark")
    if isinstance(stated, str) and stated != benchmark:
        raise BenchmarkError(f"{p.where} is of {stated}, not of {benchmark}: give --benchmark {stated}")
    if "text_demo" not in p.meta_data and "visual_demo" not in p.meta_data:
        raise BenchmarkError(f"{p.where} is no row of {benchmark}: its meta_data has neither text_demo nor visual_demo")
    row = read_row(ProgressRow, p.meta_data, p.where)
    if row.data_source is not None and (row.data_source == HUMAN) != (benchmark == "human-bench"):
        raise BenchmarkError(f"{p.where} is no row of {benchmark}: its data_source is {row.data_source}")
    return row


def _read(benchmark: str, p: PredictionLine, row: ProgressRow, tags: bool | None) -> ProgressAnswer:
    """`tags`: whether the file's answers reason in tags; None: to be seen by each answer alone."""
    reference, score, refused = float("nan"), p.value, False
    if score is None and not p.error:
        if tags if tags is not None else "<score>" in p.response or "<ref>" in p.response:
            reply = parse_reply(p.response, "published")
            score, refused = reply.score, reply.score_is_na
            reference = float("nan") if reply.ref is None else float(reply.ref)
            finite = "nan" not in reply.score_text.lower()
        else:
            answer = parse_answer(p.response, "published")
            score, refused, finite = answer.score, answer.is_na, True
        if tags is None and not finite:
            score = None  # the published parser takes "nan" for 100 %
    return ProgressAnswer(row.part(benchmark), row, float("nan") if score is None else score, reference, refused)


def _mended(benchmark: str, answers: Sequence[ProgressAnswer]) -> ScoredBenchmark:
    """Unanswered questions count as wrong as can be, episodes without any order as 0, refusals apart from rubbish."""
    episode, episodes = _episodes(answers)
    target, predicted, reference, wanted_reference, size = _columns(answers)
    answerable = ~np.isnan(target)
    refused = np.array([a.refused for a in answers])
    unparsable = np.array([a.unparsable for a in answers])

    def per_episode(values: np.ndarray) -> np.ndarray:
        return np.bincount(episode, np.nan_to_num(values.astype(np.float64)), minlength=len(episodes))

    def mean_over(values: np.ndarray, wanted: np.ndarray, read: np.ndarray) -> Measure:
        """The mean of values [n] over wanted answers; `read` [n]: which of those could be read."""
        counts = np.stack([per_episode(wanted & read), per_episode(wanted)], 1)
        counted = wanted & ~np.isnan(values)
        return ratio_of(per_episode(np.where(counted, values, 0)), per_episode(counted), counts)

    numeric = ~np.isnan(predicted)
    runs = _runs(episode[answerable], predicted[answerable], target[answerable], len(episodes))
    read = np.stack([per_episode(answerable & numeric), per_episode(answerable)], 1)
    full = order.voc(worst_case(runs))
    error = errors.score_error(predicted, target)
    worst_error = errors.penalised(error, answerable)
    reference_error = errors.reference_error(reference, wanted_reference, size)
    has_reference = ~np.isnan(wanted_reference)
    by_episode = per_episode(worst_error) / np.where(per_episode(answerable) > 0, per_episode(answerable), np.nan)
    measures = {
        "voc": mean_of(np.where(np.isnan(full), np.nan, np.nan_to_num(order.voc(readable(runs)))), read),
        "voc_worst": mean_of(full, read),
        "score_error": mean_over(worst_error, answerable, numeric),
        "score_error_parsed": mean_over(error, answerable, numeric),
        "score_error_episodes": mean_of(by_episode, read),
        "ref_error": mean_over(errors.penalised(reference_error, has_reference), has_reference, ~np.isnan(reference)),
        "ref_error_parsed": mean_over(reference_error, has_reference, ~np.isnan(reference)),
        "na_recall": mean_over(refused, ~answerable, ~unparsable),
        "na_recall_reference": mean_over(~numeric, ~answerable, ~unparsable),
        "afrr": mean_over(refused, answerable, ~unparsable),
        "unparsable": mean_over(unparsable, np.ones(len(answers), bool), ~unparsable),
        "answerability": _answerability(per_episode, refused, unparsable, answerable),
        "coverage": mean_over(numeric, answerable, numeric),
    }
    counts = {
        "rows": len(answers),
        "episodes": len(episodes),
        "answerable": int(answerable.sum()),
        "numbers": int((answerable & numeric).sum()),
        "refusals": int(refused.sum()),
        "unparsable": int(unparsable.sum()),
        "without_order": int(np.isnan(full).sum()),
    }
    return ScoredBenchmark(benchmark, episodes, measures, counts, Series(runs))


def _answerability(per_episode: Any, refused: np.ndarray, unparsable: np.ndarray, answerable: np.ndarray) -> Measure:
    """Is a question that has no answer told from one that has? Unparsable answers count as wrong."""
    cells = errors.confusion(refused, ~answerable, ~unparsable)
    parts = np.stack([per_episode(c) for c in cells.T], 1)
    read = np.stack([per_episode(~unparsable), per_episode(np.ones(len(refused)))], 1)
    return Measure(parts, parts.sum(axis=1) > 0, read, errors.balanced_accuracy)


def _published(benchmark: str, answers: Sequence[ProgressAnswer]) -> ScoredBenchmark:
    """eval/metric.py of the release: scores cut off to whole percent, whatever is no number left out."""
    episode, episodes = _episodes(answers)
    target, predicted, reference, wanted_reference, size = _columns(answers)
    predicted = np.array([v if math.isnan(v) else published.written(v) for v in predicted])
    answerable, numeric = ~np.isnan(target), ~np.isnan(target) & ~np.isnan(predicted)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(episode, values.astype(np.float64), minlength=len(episodes))

    runs = _runs(episode[numeric], predicted[numeric], target[numeric], len(episodes))
    both = ~np.isnan(reference) & ~np.isnan(wanted_reference)
    error = np.where(numeric, published.score_error(predicted, target), 0)
    reference_error = np.where(both, published.reference_error(reference, wanted_reference, size), 0)
    read = np.stack([total(numeric), total(answerable)], 1)
    read_reference = np.stack([total(both), total(~np.isnan(wanted_reference))], 1)
    measures = {
        "voc": mean_of(published.trajectory_voc(runs), read),
        "score_error": ratio_of(total(np.nan_to_num(error)), total(numeric), read),
        "ref_error": ratio_of(total(np.nan_to_num(reference_error)), total(both), read_reference),
        "na_recall": ratio_of(total(~answerable & np.isnan(predicted)), total(~answerable)),
        "afrr": ratio_of(total(answerable & ~numeric), total(answerable)),
        "coverage": ratio_of(total(numeric), total(answerable), read),
    }
    counts = {"rows": len(answers), "episodes": len(episodes), "answerable": int(answerable.sum())}
    counts |= {"numbers": int(numeric.sum())}
    return ScoredBenchmark(benchmark, episodes, measures, counts)


def _episodes(answers: Sequence[ProgressAnswer]) -> tuple[np.ndarray, tuple[ScoredEpisode, ...]]:
    """The episode of each answer, int64 [n], and the episodes."""
    numbers, keys = numbered([(a.part, a.row.id) for a in answers])
    first: dict[int, ProgressAnswer] = {}
    for k, a in zip(numbers.tolist(), answers, strict=True):
        first.setdefault(k, a)
    return numbers, tuple(ScoredEpisode(key, _slices(first[k])) for k, key in enumerate(keys))


def _slices(a: ProgressAnswer) -> tuple[str, ...]:
    camera = a.row.camera_combination or a.row.camera
    named = {"part": a.part, "dataset": a.row.dataset, "family": a.row.kind, "camera": camera}
    return (*(f"{k} {v}" for k, v in named.items() if v), f"length {a.row.demo_size} items")


def _columns(answers: Sequence[ProgressAnswer]) -> tuple[np.ndarray, ...]:
    """(label, prediction, reference said, reference wanted, items of the demonstration), float64 [n] each."""

    def column(values: Iterable[float | None]) -> np.ndarray:
        return np.array([float("nan") if v is None else v for v in values], np.float64)

    return (
        column(a.row.progress_score for a in answers),
        column(a.score for a in answers),
        column(a.reference for a in answers),
        column(a.row.closest_idx for a in answers),
        column(a.row.demo_size for a in answers),
    )


def _runs(episode: np.ndarray, predicted: np.ndarray, target: np.ndarray, episodes: int) -> Runs:
    """In order of episode, then of label: what is measured here does not depend on the order within an episode."""
    at = np.lexsort((target, episode))
    starts = np.searchsorted(episode[at], np.arange(episodes + 1))
    return Runs(predicted[at], target[at], starts)
