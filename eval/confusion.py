"""The instruction x video confusion matrix: every held-out run is scored under the instruction of each task.

A model that ignores the instruction scores all instructions equally: such a reward pays a robot for doing anything that
looks like work. (After Robometer, arXiv 2603.02115, whose matrix has the last answers of finished runs, too.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from annotate.samples.procvqa import progress_question, task_text
from core.values import grouped
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, Question
from eval.metrics.score import Score, mean_of
from eval.metrics.score import score as score_of
from eval.perturbed import (
    held_out_runs,
    is_finished,
    pictures_by_frame,
    split_of,
    spread_to_last,
)
from eval.scored import Answers, ScoredBenchmark
from training.negatives.windows import differ
from warehouse.lake import Lake
from warehouse.releases.release import Release

BENCHMARK = "confusion"
MOST_TASKS = 16  # of a split
MOST_RUNS = 5  # of a task
MOMENTS = 4  # of a run, the last one among them
# Beginnings of a slice and of a metric that are a cell together
VIDEO, UNDER = "video: ", "under: "


def load(lake: Lake, release: Release, options: EvaluationOptions) -> list[Question]:
    """The questions about the first `limit` runs of each split. Raises BenchmarkError or ShardError."""
    by_split = grouped(
        (split_of(run[0]), run) for run in held_out_runs(lake, release, options.limit)
    )
    questions = []
    for runs in by_split.values():
        by_task = grouped((run[0].goal, run) for run in runs)
        tasks = spread_to_last(sorted(by_task), MOST_TASKS)
        for run in chain.from_iterable(spread_to_last(by_task[task], MOST_RUNS) for task in tasks):
            questions += _questions(run, tasks)
    if all(map(_is_own, questions)):
        raise BenchmarkError(
            f"release {release.name} has no two tasks in one test split that differ: a run can be asked about no other"
        )
    return questions


def _questions(run: Sequence[Question], tasks: Sequence[str]) -> Iterator[Question]:
    """Of a run under its own instruction and under those that truly differ from it."""
    chosen = spread_to_last(run, MOMENTS)
    task = run[0].goal
    first = pictures_by_frame(run).get(0)
    for number, instruction in enumerate(tasks):
        is_own = instruction == task
        if not is_own and not differ(instruction, task):
            continue
        for q in chosen:
            share = (q.progress or 0.0) if is_own else 0.0
            with_actions = q.row["variant"] == "progress"
            yield replace(
                q,
                benchmark=BENCHMARK,
                part=BENCHMARK,
                trajectory=f"{q.trajectory} under {number}",
                goal=task_text(instruction),
                text=progress_question(instruction, len(q.pictures), with_actions=with_actions),
                progress=share,
                success=None,
                first=first,
                row={
                    "dataset": q.dataset,
                    "episode_index": int(q.trajectory),
                    "split": split_of(q),
                    "video": task,
                    "instruction": instruction,
                    "frame": q.row["frames"][-1],
                    "is_last": q is chosen[-1],
                    "finished": is_finished(run),
                    "progress": share,
                },
                unit=(q.dataset, q.trajectory),
                slices=(f"split {split_of(q)}", f"dataset {q.dataset}", VIDEO + task),
            )


def _is_own(q: Question) -> bool:
    return q.row["instruction"] == q.row["video"]


def score(answers: Answers) -> ScoredBenchmark:
    """Measures over runs of answers 0..1; one that is NaN counts as wrong as can be.

    The matrix is of the last answers of finished runs; wrong instructions claim progress at any moment of any run.
    """
    runs = answers.episodes
    progress = _values_or_worst(answers)
    is_own = np.array(list(map(_is_own, answers.questions)))
    at_end = np.array([q.row["is_last"] and q.row["finished"] for q in answers.questions])
    own_task, other_task, claimed = (
        runs.means(np.where(chosen, progress, np.nan))
        for chosen in (at_end & is_own, at_end & ~is_own, ~is_own)
    )
    # Of a run that is asked about no other task nothing is known
    own_task = np.where(np.isnan(other_task), np.nan, own_task)
    # Of several instructions that share the highest answer, its own one counts in part
    rivals = at_end & ~is_own
    its_own = own_task[runs.number]
    higher, ties = runs.sums(rivals & (progress > its_own), rivals & (progress == its_own)).T
    run_measures = {
        "confusion_own": own_task,
        "confusion_other": other_task,
        "confusion_margin": own_task - other_task,
        "instruction_accuracy": np.where(
            np.isnan(own_task), np.nan, np.where(higher > 0, 0, 1 / (1 + ties))
        ),
        "false_progress_wrong_task": claimed,
    }
    return answers.scored(
        {name: mean_of(of_runs, answers.read) for name, of_runs in run_measures.items()}
    )


def _values_or_worst(answers: Answers) -> np.ndarray:
    """The answers, or the worst ones: no progress for its own instruction, all of it for another."""
    worst = [0.0 if _is_own(q) else 1.0 for q in answers.questions]
    return np.where(answers.is_read, answers.values, worst)


def matrix_scores(answers: Answers) -> dict[tuple[str, str], Score]:
    """The matrix as scores by ("video: TASK", "under: INSTRUCTION"): mean last answer to the finished runs of a task.

    Of a task that no run finished there is no row; pairs that do not truly differ are left out.
    """
    pairs = zip(answers.questions, _values_or_worst(answers).tolist(), strict=True)
    cells = grouped(
        ((VIDEO + q.row["video"], UNDER + q.row["instruction"]), progress)
        for q, progress in pairs
        if q.row["is_last"] and q.row["finished"]
    )
    return {cell: score_of(mean_of(progress)) for cell, progress in cells.items()}
