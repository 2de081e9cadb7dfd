"""Held-out runs that are told or shown otherwise: their questions, and answers that are compared with one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eval.benchmarks import procvqa
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, PictureFile, Question
from eval.metrics.score import Measure
from eval.scored import Episodes, ScoredBenchmark, Series
from warehouse.lake import Lake
from warehouse.releases.release import Release

FAMILY = "procvqa_c"
FINISHED = 0.95  # of the task done at the end of a run


@dataclass(frozen=True)
class QuestionedRun:
    """One run of a release's test split with its questions about progress, in order of time."""

    split: str
    questions: tuple[Question, ...]

    @cached_property
    def pictures(self) -> dict[int, PictureFile]:
        """All that any window shows, by frame, in order."""
        picture_by_frame = {
            f: p for q in self.questions for f, p in zip(q.row["frames"], q.pictures, strict=True)
        }
        return {f: picture_by_frame[f] for f in sorted(picture_by_frame)}

    @property
    def first(self) -> PictureFile | None:
        """Frame 0, where a window shows it."""
        return self.pictures.get(0)

    @property
    def task(self) -> str:
        return self.questions[0].goal

    @property
    def is_finished(self) -> bool:
        """Does its label end near 1? Nothing else of a run says so of every dataset."""
        return (self.questions[-1].progress or 0.0) >= FINISHED


def questions_by_run(benchmark: str, lake: Lake, release: Release) -> list[list[Question]]:
    """The questions about progress of each run of a split, in order of time; runs by dataset and number."""
    by_run: dict[tuple[str, str], list[Question]] = {}
    for q in procvqa.load(lake, release, EvaluationOptions(benchmark=benchmark, part=(FAMILY,))):
        by_run.setdefault((q.dataset, q.trajectory), []).append(q)
    return [
        sorted(questions, key=lambda q: q.frame_index or 0)
        for _, questions in sorted(by_run.items())
    ]


def shown_runs(lake: Lake, release: Release, limit: int | None = None) -> list[QuestionedRun]:
    """The first `limit` runs of each test split that have two questions about progress. Raises BenchmarkError."""
    runs: list[QuestionedRun] = []
    for benchmark, split in procvqa.SPLITS.items():
        if release.paths(lake.workspace, split):
            long_runs = [run for run in questions_by_run(benchmark, lake, release) if len(run) > 1]
            runs += [QuestionedRun(split, tuple(run)) for run in long_runs[:limit]]
    if not runs:
        raise BenchmarkError(
            f"release {release.name} holds no run with two progress questions in its test splits"
        )
    return runs


def evenly[T](items: Sequence[T], max_items: int) -> list[T]:
    """At most so many, the last among them, evenly over all."""
    count = min(max_items, len(items))
    return [items[round((k + 1) * len(items) / count) - 1] for k in range(count)]


def answers_to(questions: Sequence[Question], values: Mapping[str, float]) -> np.ndarray:
    """float64 [n] of answers by question key; NaN where none was read."""
    return np.array([values.get(q.key, np.nan) for q in questions], np.float64)


def counted(
    benchmark: str,
    episodes: Episodes,
    measures: Mapping[str, Measure],
    answers: np.ndarray,
    series: Series | None = None,
) -> ScoredBenchmark:
    """With how many answers could be read."""
    is_answered = ~np.isnan(answers)
    all_answers = np.ones(len(answers))
    coverage = episodes.ratio(is_answered, all_answers, episodes.sums(is_answered, all_answers))
    counts = {
        "rows": len(answers),
        "episodes": len(episodes.scored),
        "unparsable": int((~is_answered).sum()),
    }
    return ScoredBenchmark(
        benchmark, episodes.scored, {**measures, "coverage": coverage}, counts, series
    )
