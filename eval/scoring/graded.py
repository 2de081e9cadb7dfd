"""Answers about the ends of graded runs: how far off, which run of a task went better, which succeeded."""

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field

from eval.benchmarks.graded import POINTS, ROBOREWARD
from eval.benchmarks.question import BenchmarkError
from eval.metrics.outcomes import auc, ranking_measures
from eval.metrics.score import Measure
from eval.predictions import PredictionLine
from eval.scoring.procvqa import share_of
from eval.scoring.scored import AnsweredRow, Episodes, ScoredBenchmark, checked

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


def score(benchmark: str, lines: Iterable[PredictionLine], as_published: bool = False) -> ScoredBenchmark:
    """An answer that cannot be read is as wrong as can be. What is resampled is tasks: runs of one are compared.

    Raises BenchmarkError, which names the row that is wrong.
    """
    if as_published:
        raise BenchmarkError(
            f"{benchmark}: how its authors' own code counts is not known here; leave --as-published out"
        )
    found = checked(GradedRow, benchmark, lines, lambda _: None)
    rows = [row for _, row in found]
    answers = np.array([share_of(line.response) if line.value is None else line.value for line, _ in found])
    told, every = ~np.isnan(answers), np.ones(len(rows), bool)
    grades = np.array([row.grade for row in rows])
    shares = np.array([np.nan if row.progress is None else row.progress for row in rows])
    slices = [(f"part {row.split}", *([f"dataset {row.dataset}"] if row.dataset else [])) for row in rows]
    tasks = Episodes.of([(row.split, row.dataset, row.task) for row in rows], slices)

    read = tasks.sums(told, every)
    worst = np.where(told, answers, (grades < 0.5).astype(np.float64))
    known = ~np.isnan(shares)
    by_task = [tasks.number == k for k in range(len(tasks.scored))]
    measures: dict[str, Measure] = {
        **ranking_measures([(answers[runs], grades[runs]) for runs in by_task]),
        "final_mae": tasks.ratio(np.abs(worst - shares), known, read),
        "coverage": tasks.ratio(told, every, read),
    }
    if benchmark == ROBOREWARD:
        low, high = POINTS
        said, right = (np.rint(low + (high - low) * v) for v in (worst, grades))
        farthest = np.maximum(right - low, high - right)
        measures["points_mae"] = tasks.ratio(np.where(told, np.abs(said - right), farthest), every, read)
        measures["points_accuracy"] = tasks.ratio((said == right) & told, every, read)
    # Over all runs whose outcome is known, where these are not all alike
    outcomes = {row.success for row in rows} - {None}
    if len(outcomes) == 2:
        has_outcome = np.array([row.success is not None for row in rows])
        by_run = auc(np.where(has_outcome, answers, np.nan), np.array([row.success is True for row in rows]))
        parts = tasks.sums(*by_run.parts.T)
        measures["success_auc"] = Measure(parts, parts.sum(axis=1) > 0, read, by_run.statistic)
    counts = {"rows": len(rows), "episodes": len(tasks.scored), "unparsable": int((~told).sum())}
    return ScoredBenchmark(benchmark, tasks.scored, measures, counts)
