"""progress-bench and human-bench: ProgressLM's metrics mended, and as its own evaluation has them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotate.samples.replies import parse_answer, parse_reply
from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.rows import HUMAN, ProgressRow, check_benchmark, read_row
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
        first = seen.setdefault(row.identity(), p.where)
        if first != p.where:
            raise BenchmarkError(
                f"{p.where} is the same row as {first}: id {row.id!r}, picture {row.stage_to_estimate!r} and the same "
                "demonstration; keep one answer (several inferences have an _inference_idx each)"
            )
        rows.append((p, row))
    if not rows:
        raise BenchmarkError("the prediction file holds no row")

    # The published evaluation takes a whole file to be of one form
    if as_published:
        tagged = _is_tagged([p for p, _ in rows])
        return _published(benchmark, [_read_as_published(benchmark, p, row, tagged) for p, row in rows])
    return _mended(benchmark, [_read(benchmark, p, row) for p, row in rows])


def _row(benchmark: str, p: PredictionLine) -> ProgressRow:
    check_benchmark(benchmark, p.meta_data, p.where)
    if "text_demo" not in p.meta_data and "visual_demo" not in p.meta_data:
        raise BenchmarkError(f"{p.where} is no row of {benchmark}: its meta_data has neither text_demo nor visual_demo")
    row = read_row(ProgressRow, p.meta_data, p.where)
    if row.data_source is not None and (row.data_source == HUMAN) != (benchmark == "human-bench"):
        raise BenchmarkError(f"{p.where} is no row of {benchmark}: its data_source is {row.data_source}")
    return row


# What an answer says


def _is_tagged(lines: Sequence[PredictionLine]) -> bool:
    """Is a file one of answers with reasons in tags? The fields of its first row say so where ProgressLM's own runners
    wrote it; else any answer does, since the first may be one that cannot be read."""
    first = lines[0].fields
    if first & {"ref", "predicted_score"} or {"score", "ground_truth_score"} <= first:
        return {"ref", "score"} <= first
    return any(_has_tags(line.response) for line in lines)


def _has_tags(text: str) -> bool:
    return "<score>" in text or "<ref>" in text


def _read(benchmark: str, p: PredictionLine, row: ProgressRow) -> ProgressAnswer:
    """An answer in either form: with reasons in tags, or a number alone."""
    return _answer(benchmark, p, row, _has_tags(p.response), takes_nan=False)


def _read_as_published(benchmark: str, p: PredictionLine, row: ProgressRow, tagged: bool) -> ProgressAnswer:
    """The published parser takes the text "nan" in a score's tag for 100 %."""
    return _answer(benchmark, p, row, tagged, takes_nan=True)


def _answer(benchmark: str, p: PredictionLine, row: ProgressRow, tagged: bool, takes_nan: bool) -> ProgressAnswer:
    score, reference, refused = p.value, None, False
    # A head's number needs no reading, and an answer that failed has nothing to read
    if score is None and not p.error:
        score, reference, refused = _parsed(p.response, tagged, takes_nan)
    return ProgressAnswer(row.part(benchmark), row, _or_nan(score), _or_nan(reference), refused)


def _parsed(response: str, tagged: bool, takes_nan: bool) -> tuple[float | None, float | None, bool]:
    """(score, reference, refused) of an answer in words."""
    if not tagged:
        answer = parse_answer(response, "published")
        return answer.score, None, answer.is_na
    reply = parse_reply(response, "published")
    if "nan" in reply.score_text.lower() and not takes_nan:
        return None, reply.ref, reply.score_is_na
    return reply.score, reply.ref, reply.score_is_na


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


# Answers as columns, and their sums over episodes


@dataclass(frozen=True)
class AnswerColumns:
    """The answers' numbers and the right ones, float64 [n] each; NaN where there is none."""

    target: np.ndarray  # share of the task that is done
    predicted: np.ndarray
    right_reference: np.ndarray  # item of the demonstration nearest to the state, from 1
    reference: np.ndarray
    demo_size: np.ndarray  # items of the demonstration

    @classmethod
    def of(cls, answers: Sequence[ProgressAnswer]) -> "AnswerColumns":
        return cls(
            target=np.array([_or_nan(a.row.progress_score) for a in answers]),
            predicted=np.array([a.score for a in answers]),
            right_reference=np.array([_or_nan(a.row.closest_idx) for a in answers]),
            reference=np.array([a.reference for a in answers]),
            demo_size=np.array([a.row.demo_size for a in answers], np.float64),
        )


@dataclass(frozen=True)
class EpisodeSums:
    """Sums over the answers of each episode; `episode`, int64 [n], is the number of each answer's episode."""

    episode: np.ndarray
    num_episodes: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """float64 [episodes] of numbers or truths [n]; NaN counts as 0."""
        return np.bincount(self.episode, np.nan_to_num(values.astype(np.float64)), minlength=self.num_episodes)

    def counts(self, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """How many answers of each episode are in a part, and in the whole, float64 [episodes, 2]."""
        return np.stack([self(part), self(whole)], 1)

    def mean(self, values: np.ndarray, asked: np.ndarray, read: np.ndarray) -> Measure:
        """The mean of values [n] over the answers `asked` for that have one; `read` [n]: which could be read."""
        counted = asked & ~np.isnan(values)
        return ratio_of(self(np.where(counted, values, 0)), self(counted), self.counts(asked & read, asked))


def _runs(columns: AnswerColumns, chosen: np.ndarray, sums: EpisodeSums) -> Runs:
    """The chosen answers in order of episode, then of label: their order within an episode makes no difference."""
    episode, predicted, target = sums.episode[chosen], columns.predicted[chosen], columns.target[chosen]
    at = np.lexsort((target, episode))
    starts = np.searchsorted(episode[at], np.arange(sums.num_episodes + 1))
    return Runs(predicted[at], target[at], starts)


# Mended


def _mended(benchmark: str, answers: Sequence[ProgressAnswer]) -> ScoredBenchmark:
    """Unanswered questions count as wrong as can be, episodes without any order as 0, refusals apart from rubbish."""
    episode, episodes = _episodes(answers)
    sums = EpisodeSums(episode, len(episodes))
    columns = AnswerColumns.of(answers)
    answerable, numeric = ~np.isnan(columns.target), ~np.isnan(columns.predicted)
    refused = np.array([a.refused for a in answers])
    unparsable = np.array([a.unparsable for a in answers])
    everything = np.ones(len(answers), bool)

    # Order within each recording
    runs = _runs(columns, answerable, sums)
    read = sums.counts(answerable & numeric, answerable)
    voc_worst = order.voc(worst_case(runs))
    voc = np.where(np.isnan(voc_worst), np.nan, np.nan_to_num(order.voc(readable(runs))))

    # Distance of each number, and of each reference item, from the right one
    score_error = errors.score_error(columns.predicted, columns.target)
    worst_error = errors.penalised(score_error, answerable)
    num_answerable = sums(answerable)
    episode_error = sums(worst_error) / np.where(num_answerable > 0, num_answerable, np.nan)
    has_reference, reference_read = ~np.isnan(columns.right_reference), ~np.isnan(columns.reference)
    reference_error = errors.reference_error(columns.reference, columns.right_reference, columns.demo_size)
    worst_reference_error = errors.penalised(reference_error, has_reference)

    measures = {
        "voc": mean_of(voc, read),
        "voc_worst": mean_of(voc_worst, read),
        "score_error": sums.mean(worst_error, answerable, numeric),
        "score_error_parsed": sums.mean(score_error, answerable, numeric),
        "score_error_episodes": mean_of(episode_error, read),
        "ref_error": sums.mean(worst_reference_error, has_reference, reference_read),
        "ref_error_parsed": sums.mean(reference_error, has_reference, reference_read),
        "na_recall": sums.mean(refused, ~answerable, ~unparsable),
        "na_recall_reference": sums.mean(~numeric, ~answerable, ~unparsable),
        "afrr": sums.mean(refused, answerable, ~unparsable),
        "unparsable": sums.mean(unparsable, everything, ~unparsable),
        "answerability": _answerability(sums, refused, unparsable, answerable),
        "coverage": sums.mean(numeric, answerable, numeric),
    }
    counts = {
        "rows": len(answers),
        "episodes": len(episodes),
        "answerable": int(answerable.sum()),
        "numbers": int((answerable & numeric).sum()),
        "refusals": int(refused.sum()),
        "unparsable": int(unparsable.sum()),
        "without_order": int(np.isnan(voc_worst).sum()),
    }
    return ScoredBenchmark(benchmark, episodes, measures, counts, Series(runs))


def _answerability(sums: EpisodeSums, refused: np.ndarray, unparsable: np.ndarray, answerable: np.ndarray) -> Measure:
    """Is a question that has no answer told from one that has? Unparsable answers count as wrong."""
    cells = errors.confusion(refused, ~answerable, ~unparsable)
    # Balanced accuracy of an episode needs the sums of all four cells
    parts = np.stack([sums(cell) for cell in cells.T], 1)
    read = sums.counts(~unparsable, np.ones(len(refused)))
    return Measure(parts, parts.sum(axis=1) > 0, read, errors.balanced_accuracy)


# As published


def _published(benchmark: str, answers: Sequence[ProgressAnswer]) -> ScoredBenchmark:
    """eval/metric.py of the release: scores cut off to whole percent, whatever is no number left out."""
    episode, episodes = _episodes(answers)
    sums = EpisodeSums(episode, len(episodes))
    as_read = AnswerColumns.of(answers)
    cut_off = np.array([v if math.isnan(v) else published.written(v) for v in as_read.predicted.tolist()])
    columns = replace(as_read, predicted=cut_off)
    answerable = ~np.isnan(columns.target)
    numeric = answerable & ~np.isnan(columns.predicted)
    has_reference = ~np.isnan(columns.right_reference)
    both_references = has_reference & ~np.isnan(columns.reference)

    runs = _runs(columns, numeric, sums)
    score_error = np.where(numeric, published.score_error(columns.predicted, columns.target), 0)
    all_reference_errors = published.reference_error(columns.reference, columns.right_reference, columns.demo_size)
    reference_error = np.where(both_references, all_reference_errors, 0)
    read = sums.counts(numeric, answerable)
    read_references = sums.counts(both_references, has_reference)
    measures = {
        "voc": mean_of(published.trajectory_voc(runs), read),
        "score_error": ratio_of(sums(score_error), sums(numeric), read),
        "ref_error": ratio_of(sums(reference_error), sums(both_references), read_references),
        "na_recall": ratio_of(sums(~answerable & np.isnan(columns.predicted)), sums(~answerable)),
        "afrr": ratio_of(sums(answerable & ~numeric), sums(answerable)),
        "coverage": ratio_of(sums(numeric), sums(answerable), read),
    }
    counts = {
        "rows": len(answers),
        "episodes": len(episodes),
        "answerable": int(answerable.sum()),
        "numbers": int(numeric.sum()),
    }
    return ScoredBenchmark(benchmark, episodes, measures, counts)


# Episodes and slices


def _episodes(answers: Sequence[ProgressAnswer]) -> tuple[np.ndarray, tuple[ScoredEpisode, ...]]:
    """The number of each answer's episode, int64 [n], and the episodes, which have the slices of their first answer."""
    numbers, keys = numbered([(a.part, a.row.id) for a in answers])
    first_answer: dict[int, ProgressAnswer] = {}
    for number, a in zip(numbers.tolist(), answers, strict=True):
        first_answer.setdefault(number, a)
    return numbers, tuple(ScoredEpisode(key, _slices(first_answer[number])) for number, key in enumerate(keys))


def _slices(a: ProgressAnswer) -> tuple[str, ...]:
    camera = a.row.camera_combination or a.row.camera
    named = {"part": a.part, "dataset": a.row.dataset, "family": a.row.kind, "camera": camera}
    return (*(f"{k} {v}" for k, v in named.items() if v), f"length {a.row.demo_size} items")
