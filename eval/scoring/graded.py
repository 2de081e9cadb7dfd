"""Answers about the ends of graded runs: how far off, which run of a task went better, which succeeded."""

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field

from eval.benchmarks.graded import POINTS, ROBOREWARD
from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.rows import PredictionLine
from eval.metrics.outcomes import auc, ranking_measures
from eval.metrics.score import Measure
from eval.scoring.procvqa import progress_of
from eval.scoring.scored import AnsweredRow, Episodes, ScoredBenchmark, checked, column

Share = Annotated[float, Field(ge=0, le=1)]


class GradedRow(AnsweredRow):
    dataset: str
    run: Annotated[str, Field(min_length=1)]
    split: str
    task: str
    grade: Share
    progress: Share | None = None
    success: bool | None = None

    def identity(self) -> tuple:
        return self.split, self.run, self.inference

    @property
    def slices(self) -> tuple[str, ...]:
        return (f"part {self.split}", *([f"dataset {self.dataset}"] if self.dataset else []))


def score(benchmark: str, lines: Iterable[PredictionLine], as_published: bool = False) -> ScoredBenchmark:
    """An answer that cannot be read is as wrong as can be. What is resampled is tasks: runs of one are compared.

    Raises BenchmarkError, which names the row that is wrong.
    """
    if as_published:
        raise BenchmarkError(
            f"{benchmark}: how its authors' own code counts is not known here; leave --as-published out"
        )
    said, rows = checked(GradedRow, benchmark, lines)
    answers, every = np.array(list(map(progress_of, said))), np.ones(len(rows), bool)
    grades, shares, success = (column(rows, name) for name in ("grade", "progress", "success"))
    tasks = Episodes.of(rows, lambda row: (row.split, row.dataset, row.task), lambda row: row.slices)

    told, known = ~np.isnan(answers), ~np.isnan(shares)
    read = tasks.sums(told, every)
    worst = np.where(told, answers, (grades < 0.5).astype(np.float64))
    runs, _ = tasks.runs(answers, grades, np.arange(len(rows)))
    measures: dict[str, Measure] = {
        **ranking_measures(runs),
        "final_mae": tasks.ratio(np.abs(worst - shares), known, read),
        "coverage": tasks.ratio(told, every, read),
    }
    if benchmark == ROBOREWARD:
        low, high = POINTS
        points, right = np.rint(low + (high - low) * worst), np.rint(low + (high - low) * grades)
        farthest = np.maximum(right - low, high - right)
        measures["points_mae"] = tasks.ratio(np.where(told, np.abs(points - right), farthest), every, read)
        measures["points_accuracy"] = tasks.ratio((points == right) & told, every, read)
    # Over all runs whose outcome is known, where these are not all alike
    if np.nanmin(success, initial=1) < np.nanmax(success, initial=0):
        by_run = auc(np.where(np.isnan(success), np.nan, answers), success == 1)
        parts = tasks.sums(*by_run.parts.T)
        measures["success_auc"] = Measure(parts, parts.sum(axis=1) > 0, read, by_run.statistic)
    counts = {"rows": len(rows), "episodes": len(tasks.scored), "unparsable": int((~told).sum())}
    return ScoredBenchmark(benchmark, tasks.scored, measures, counts)
