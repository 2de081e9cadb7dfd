"""Held-out runs under another instruction or with changed pictures: the questions of each run, and how answers are
compared."""

from collections.abc import Sequence

from core.values import grouped
from eval.benchmarks import procvqa
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, PictureFile, Question
from eval.metrics.errors import FINISHED
from warehouse.lake import Lake
from warehouse.releases.release import Release

FAMILY = "procvqa_c"


def split_of(question: Question) -> str:
    return procvqa.SPLITS[question.benchmark]


def pictures_by_frame(run: Sequence[Question]) -> dict[int, PictureFile]:
    """All pictures that any window of a run shows, by frame, in order."""
    pictures: dict[int, PictureFile] = {}
    for question in run:
        pictures |= zip(question.row["frames"], question.pictures, strict=True)
    return dict(sorted(pictures.items()))


def is_finished(run: Sequence[Question]) -> bool:
    """Does the label of a run end near 1? Nothing else of a run says so of every dataset."""
    return (run[-1].progress or 0.0) >= FINISHED


def questions_by_run(benchmark: str, lake: Lake, release: Release) -> list[list[Question]]:
    """The questions about progress of each run of a split, in order of time; runs by dataset and number."""
    options = EvaluationOptions(benchmark=benchmark, part=(FAMILY,))
    questions = procvqa.load(lake, release, options)
    by_run = grouped(((q.dataset, q.trajectory), q) for q in questions)
    return [sorted(run, key=lambda q: q.frame_index or 0) for _, run in sorted(by_run.items())]


def held_out_runs(
    lake: Lake, release: Release, limit: int | None = None
) -> list[Sequence[Question]]:
    """The questions of the first `limit` runs of each test split that have two about progress, in order of time.

    Raises BenchmarkError.
    """
    runs: list[Sequence[Question]] = []
    for benchmark, split in procvqa.SPLITS.items():
        if release.paths(lake.workspace, split):
            long_runs = [run for run in questions_by_run(benchmark, lake, release) if len(run) > 1]
            runs += long_runs[:limit]
    if not runs:
        raise BenchmarkError(
            f"release {release.name} holds no run with two progress questions in its test splits"
        )
    return runs


def spread_to_last[T](items: Sequence[T], max_items: int) -> list[T]:
    """At most so many, the last among them, evenly over all."""
    count = min(max_items, len(items))
    return [items[round((k + 1) * len(items) / count) - 1] for k in range(count)]
