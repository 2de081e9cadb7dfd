"""The instruction x video confusion matrix: every held-out run is scored under the instruction of each task.

Who looks at the pictures alone gives every instruction the same: such a reward pays a robot for doing anything that
looks like work. (After Robometer, arXiv 2603.02115, whose matrix has the last answers of finished runs, too.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from annotate.samples.procvqa import progress_question, task_text
from eval.benchmarks.question import BenchmarkError, Question, RightAnswer
from eval.metrics.score import Measure, Score, mean_of, ratio_of, scores
from eval.scoring.scored import ScoredBenchmark, ScoredEpisode
from eval.shown import ShownRun, evenly, shown_runs
from training.negatives.texts import differ
from warehouse.lake import Lake
from warehouse.releases import Release

BENCHMARK = "confusion"
MOST_TASKS = 16  # of a split
MOST_RUNS = 5  # of a task
MOMENTS = 4  # of a run, the last one among them
VIDEO, UNDER = "video: ", "under: "  # beginnings of a slice and of a metric that are a cell together


def load(lake: Lake, release: Release, limit: int | None = None) -> list[Question]:
    """The questions about the first `limit` runs of each split. Raises BenchmarkError or ShardError."""
    runs = shown_runs(lake, release, limit)
    questions = []
    for split in dict.fromkeys(run.split for run in runs):
        of_split = [run for run in runs if run.split == split]
        tasks = evenly(sorted({run.task for run in of_split}), MOST_TASKS)
        for task in tasks:
            for run in evenly([run for run in of_split if run.task == task], MOST_RUNS):
                questions += _questions(run, tasks)
    if all(q.row["instruction"] == q.row["video"] for q in questions):
        raise BenchmarkError(
            f"release {release.name} has no two tasks in one test split that differ: a run can be asked about no other"
        )
    return questions


def _questions(run: ShownRun, tasks: Sequence[str]) -> list[Question]:
    """Of a run under its own instruction and under those that truly differ from it."""
    questions = []
    for number, instruction in enumerate(tasks):
        is_own = instruction == run.task
        if not is_own and not differ(instruction, run.task):
            continue
        chosen = evenly(run.questions, MOMENTS)
        for at, q in enumerate(chosen):
            share = (q.truth.score or 0.0) if is_own else 0.0
            row = {
                "dataset": q.dataset,
                "episode_index": int(q.trajectory),
                "split": run.split,
                "video": run.task,
                "instruction": instruction,
                "frame": q.row["frames"][-1],
                "is_last": at == len(chosen) - 1,
                "finished": run.is_finished,
                "progress": share,
            }
            with_actions = q.row["variant"] == "progress"
            text = progress_question(instruction, len(q.pictures), with_actions=with_actions)
            changed = replace(
                q,
                benchmark=BENCHMARK,
                part=BENCHMARK,
                trajectory=f"{q.trajectory} under {number}",
                goal=task_text(instruction),
                text=text,
                truth=RightAnswer(score=share),
                first=run.first,
                row=row,
            )
            questions.append(changed)
    return questions


def score(questions: Sequence[Question], values: Mapping[str, float]) -> ScoredBenchmark:
    """Measures over runs of answers 0..1 by question key; one that is NaN or absent counts as wrong as can be.

    The matrix is of the last answers of finished runs; wrong instructions claim progress at any moment of any run.
    """
    by_run: dict[tuple[str, str], list[Question]] = {}
    for q in questions:
        by_run.setdefault((q.dataset, str(q.row["episode_index"])), []).append(q)
    rows = [_measured(asked, values) for asked in by_run.values()]
    read = np.array([_read(asked, values) for asked in by_run.values()])
    measures: dict[str, Measure] = {
        name: mean_of([row[name] for row in rows], read)
        for name in (
            "confusion_own",
            "confusion_other",
            "confusion_margin",
            "instruction_accuracy",
            "false_progress_wrong_task",
        )
    }
    measures["coverage"] = ratio_of(read[:, 0], read[:, 1], read)
    episodes = tuple(
        ScoredEpisode(key, (f"split {asked[0].row['split']}", f"dataset {key[0]}", VIDEO + asked[0].row["video"]))
        for key, asked in by_run.items()
    )
    counts = {"rows": len(questions), "episodes": len(by_run), "unparsable": int((read[:, 1] - read[:, 0]).sum())}
    return ScoredBenchmark(BENCHMARK, episodes, measures, counts)


def _read(asked: Sequence[Question], values: Mapping[str, float]) -> tuple[float, float]:
    return float(sum(not np.isnan(values.get(q.key, np.nan)) for q in asked)), float(len(asked))


def _measured(asked: Sequence[Question], values: Mapping[str, float]) -> dict[str, float]:
    """The numbers of one run; NaN where it says nothing of a metric."""
    nan = float("nan")
    own = [_told(q, values) for q in asked if q.row["is_last"] and _is_own(q)]
    others = [_told(q, values) for q in asked if q.row["is_last"] and not _is_own(q)]
    claimed = [_told(q, values) for q in asked if not _is_own(q)]
    found = {"false_progress_wrong_task": float(np.mean(claimed)) if claimed else nan}
    if not asked[0].row["finished"] or not others:
        return found | dict.fromkeys(
            ("confusion_own", "confusion_other", "confusion_margin", "instruction_accuracy"), nan
        )
    # Of several instructions that share the highest answer, its own one counts in part
    best = max(own[0], *others)
    shared = (own[0] == best) / (1 + others.count(best)) if own[0] == best else 0.0
    return found | {
        "confusion_own": own[0],
        "confusion_other": float(np.mean(others)),
        "confusion_margin": own[0] - float(np.mean(others)),
        "instruction_accuracy": shared,
    }


def _is_own(q: Question) -> bool:
    return q.row["instruction"] == q.row["video"]


def _told(q: Question, values: Mapping[str, float]) -> float:
    """The answer, or the worst one: no progress for its own instruction, all of it for another."""
    value = values.get(q.key, float("nan"))
    return (0.0 if _is_own(q) else 1.0) if np.isnan(value) else float(value)


def cells(questions: Sequence[Question], values: Mapping[str, float]) -> dict[tuple[str, str], Score]:
    """The matrix as scores by ("video: TASK", "under: INSTRUCTION"): mean last answer to the finished runs of a task.

    Of a task that no run finished there is no row; pairs that do not truly differ are left out.
    """
    answers: dict[tuple[str, str], list[float]] = {}
    for q in questions:
        if q.row["is_last"] and q.row["finished"]:
            cell = VIDEO + q.row["video"], UNDER + q.row["instruction"]
            answers.setdefault(cell, []).append(_told(q, values))
    return {cell: scores({"": mean_of(told)})[""] for cell, told in answers.items()}
