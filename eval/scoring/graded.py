"""Answers about the ends of graded runs: how far off, which run of a task went better, which succeeded."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eval.benchmarks.graded import POINTS, ROBOREWARD
from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.rows import check_benchmark, read_row
from eval.metrics.outcomes import auc, ranking_measures
from eval.metrics.score import Measure, ratio_of
from eval.predictions import PredictionLine
from eval.scoring.procvqa import share_of
from eval.scoring.scored import ScoredBenchmark, ScoredEpisode, numbered

Share = Annotated[float, Field(ge=0, le=1)]


class GradedRow(BaseModel):
    """A question's row, as prediction files carry it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dataset: str
    run: Annotated[str, Field(min_length=1)]
    split: str
    task: str
    grade: Share
    progress: Share | None = None
    success: bool | None = None
    inference: Annotated[int, Field(alias="_inference_idx")] = 0

    def identity(self) -> tuple:
        return self.split, self.run, self.inference


def score(benchmark: str, rows: Iterable[PredictionLine]) -> ScoredBenchmark:
    """An answer that cannot be read is as wrong as can be. What is resampled is tasks: runs of one are compared.

    Raises BenchmarkError, which names the row that is wrong.
    """
    graded, answers = _read(benchmark, rows)
    told = ~np.isnan(answers)
    grades = np.array([r.grade for r in graded])
    shares = np.array([np.nan if r.progress is None else r.progress for r in graded])
    numbers, keys = numbered([(r.split, r.dataset, r.task) for r in graded])

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(numbers, values, len(keys))

    read = np.stack([sums(told), sums(np.ones(len(graded)))], 1)
    worst = np.where(told, answers, (grades < 0.5).astype(np.float64))
    known = ~np.isnan(shares)
    errors = np.where(known, np.abs(worst - np.nan_to_num(shares)), 0.0)
    measures: dict[str, Measure] = {
        **ranking_measures([(answers[numbers == k], grades[numbers == k]) for k in range(len(keys))]),
        "final_mae": ratio_of(sums(errors), sums(known), read),
        "coverage": ratio_of(read[:, 0], read[:, 1], read),
    }
    if benchmark == ROBOREWARD:
        low, high = POINTS
        said, right = (np.rint(low + (high - low) * v) for v in (worst, grades))
        count = sums(np.ones(len(graded)))
        measures["points_mae"] = ratio_of(sums(np.where(told, np.abs(said - right), _farthest(right))), count, read)
        measures["points_accuracy"] = ratio_of(sums((said == right) & told), count, read)
    if success := _success(graded, answers, numbers, len(keys), read):
        measures["success_auc"] = success
    episodes = tuple(ScoredEpisode(key, tuple(_slices(key))) for key in keys)
    counts = {"rows": len(graded), "episodes": len(keys), "unparsable": int((~told).sum())}
    return ScoredBenchmark(benchmark, episodes, measures, counts)


def _farthest(right: np.ndarray) -> np.ndarray:
    """How many points off the worst answer is."""
    low, high = POINTS
    return np.maximum(right - low, high - right)


def _slices(key: tuple[str, ...]) -> Iterable[str]:
    split, dataset, _ = key
    yield f"part {split}"
    if dataset:
        yield f"dataset {dataset}"


def _success(
    graded: Sequence[GradedRow], answers: np.ndarray, numbers: np.ndarray, tasks: int, read: np.ndarray
) -> Measure | None:
    """AUC over all runs whose outcome is known; None where all are alike."""
    known = np.array([r.success is not None for r in graded])
    succeeded = np.array([r.success is True for r in graded])
    if not (succeeded & known).any() or not (~succeeded & known).any():
        return None
    by_run = auc(np.where(known, answers, np.nan), succeeded)
    parts = np.zeros((tasks, by_run.parts.shape[1]))
    np.add.at(parts, numbers, by_run.parts)
    return Measure(parts, parts.sum(axis=1) > 0, read, by_run.statistic)


def _read(benchmark: str, rows: Iterable[PredictionLine]) -> tuple[list[GradedRow], np.ndarray]:
    """Rows, and the shares 0..1 that the answers state, NaN where none can be read. Raises BenchmarkError."""
    graded: list[GradedRow] = []
    answers: list[float] = []
    seen: dict[tuple, str] = {}
    for p in rows:
        check_benchmark(benchmark, p.meta_data, p.where)
        row = read_row(GradedRow, p.meta_data, p.where)
        first = seen.setdefault(row.identity(), p.where)
        if first != p.where:
            raise BenchmarkError(f"{p.where} is the same row as {first}: keep one answer")
        graded.append(row)
        answers.append(float("nan") if p.error else share_of(p.response) if p.value is None else p.value)
    if not graded:
        raise BenchmarkError("the prediction file holds no row")
    return graded, np.array(answers, np.float64)
