"""Held-out runs that are shown backwards, forwards and back and standing still (probes), and told the instruction of
each task (confusion): the questions of each run, made from a release's pictures, and how answers are compared.

Probes: who looks follows the picture; who counts goes on. The windows are those of the release's progress questions, so
a model is asked in the very form it is used in. Confusion: a model that ignores the instruction scores all instructions
equally: such a reward pays a robot for doing anything that looks like work. (After Robometer, arXiv 2603.02115, whose
matrix has the last answers of finished runs, too.)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from annotate.samples.procvqa import progress_question, task_text
from core.values import grouped
from eval.benchmarks import procvqa
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, PictureFile, Question
from eval.metrics import order
from eval.metrics.errors import FINISHED
from eval.metrics.score import Measure, Runs, Score, answers_read, mean_of, worst_case
from eval.metrics.score import score as score_of
from eval.scored import BenchmarkAnswers, Episodes, ScoredBenchmark
from training.negatives.windows import differ
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
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


# Probes

PROBES = "probes"
REVERSED, CYCLED, FROZEN = PARTS = ("reversed", "cycled", "frozen")
STALLS = 4  # moments of a run at which it is stopped
# Pictures that are shown at once, the frame they end with, the text
Window = tuple[tuple[PictureFile, ...], int, str]


def probe_questions(lake: Lake, release: Release, options: EvaluationOptions) -> list[Question]:
    """The questions about the first `limit` held-out runs. Raises BenchmarkError or ShardError."""
    con = open_for_users(lake.workspace, release.snapshot)
    probes: list[Question] = []
    for run in questions_by_run("procvqa-id", lake, release)[: options.limit]:
        sql = "SELECT frame_index, progress FROM active_progress WHERE dataset = ? AND episode_index = ?"
        labels = dict(con.execute(sql, [run[0].dataset, int(run[0].trajectory)]).fetchall())
        # A single question has no order to reverse
        if len(run) > 1:
            probes += _probes_of_run(run, labels)
    if not probes:
        raise BenchmarkError(
            f"release {release.name} holds no run with two progress questions in its split test_id"
        )
    return probes


def _probes_of_run(run: Sequence[Question], labels: Mapping[int, float]) -> Iterator[Question]:
    """The run backwards, the run forwards and back, and stalls: one picture, `STALLS` times over the run."""
    forward = [(q.pictures, q.row["frames"][-1], q.text) for q in run]
    backward = [(q.pictures[::-1], q.row["frames"][0], q.text) for q in reversed(run)]
    yield from _video(REVERSED, run[0], backward, labels)
    # A run that is shown from its end on begins there: what was first of it is then no beginning
    first = next((q.pictures[0] for q in run if q.row["frames"][0] == 0), None)
    yield from _video(CYCLED, replace(run[0], first=first), forward + backward, labels)
    for k in sorted({round(x) for x in np.linspace(0, len(run) - 1, STALLS)}):
        pictures, frame, text = forward[k]
        still = pictures[-1:] * len(pictures)
        stall = [forward[k], (still, frame, text)]
        yield from _video(FROZEN, replace(run[k], first=first), stall, labels, f"@{frame}")


def _video(
    part: str,
    template: Question,
    windows: Sequence[Window],
    labels: Mapping[int, float],
    stopped: str = "",
) -> Iterator[Question]:
    """One question for each window; `frame_index` counts the windows shown, as a clock would."""
    for k, (pictures, frame, text) in enumerate(windows):
        label = float(labels[frame])
        yield replace(
            template,
            benchmark=PROBES,
            part=part,
            trajectory=template.trajectory + stopped,
            pictures=pictures,
            text=text,
            progress=label,
            success=None,
            frame_index=k,
            num_frames=len(windows),
            row={
                "dataset": template.dataset,
                "episode_index": int(template.trajectory),
                "probe": part,
                "stopped": stopped,
                "shown": k,
                "frame": frame,
                "progress": label,
            },
            unit=(template.dataset, str(int(template.trajectory))),
            slices=(f"dataset {template.dataset}",),
        )


# Of each metric: the part, and what it makes of that part's videos
PROBE_METRICS: dict[str, tuple[str, Callable[[Runs], np.ndarray]]] = {
    # Labels fall, or rise and fall: 1 for who looks; a clock has -1 and 0. (After GVL's reversed orders and RoboValue's
    # cycle-VOC.)
    "reverse_voc": (REVERSED, lambda runs: order.voc(worst_case(runs))),
    "cycle_voc": (CYCLED, lambda runs: order.voc(worst_case(runs))),
    "stall_drift": (FROZEN, order.stall_drift),
    "false_progress_rewound": (
        CYCLED,
        lambda runs: order.claimed_progress(worst_case(runs), since=0.5),
    ),
    "false_progress_frozen": (FROZEN, order.claimed_progress),
}


def probe_scores(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """The measures of PROBE_METRICS of answers 0..1, NaN where none was read.

    For the orders and for what is rewound such an answer counts as wrong as can be; a stall without both answers is
    left out, see coverage.
    """
    videos = np.array([(q.part, *q.unit, q.trajectory) for q in answers.questions])
    measures: dict[str, Measure] = {}
    for name, (part, metric) in PROBE_METRICS.items():
        places = [k for k in np.lexsort(videos.T[::-1]) if videos[k][0] == part]
        chosen = answers.among(np.array(places, np.int64))
        of_video = Episodes.of([tuple(video) for video in videos[places]])
        runs, _ = of_video.runs(chosen.values, *map(chosen.column, ("progress", "frame_index")))
        # An episode has one video of most parts, and several stalls: their mean counts
        _, first = np.unique(of_video.number, return_index=True)
        of_episode = chosen.episodes.among(first)
        measures[name] = mean_of(
            of_episode.means(metric(runs)), of_episode.sums(*answers_read(runs).T)
        )
    return answers.scored(measures)


# Confusion

CONFUSION = "confusion"
MOST_TASKS = 16  # of a split
MOST_RUNS = 5  # of a task
MOST_MOMENTS = 4  # of a run, the last one among them
# Beginnings of a slice and of a metric that are a cell together
VIDEO, UNDER = "video: ", "under: "


def confusion_questions(lake: Lake, release: Release, options: EvaluationOptions) -> list[Question]:
    """The questions about the first `limit` runs of each split. Raises BenchmarkError or ShardError."""
    by_split = grouped(
        (split_of(run[0]), run) for run in held_out_runs(lake, release, options.limit)
    )
    questions = []
    for runs in by_split.values():
        by_task = grouped((run[0].goal, run) for run in runs)
        tasks = spread_to_last(sorted(by_task), MOST_TASKS)
        for run in chain.from_iterable(spread_to_last(by_task[task], MOST_RUNS) for task in tasks):
            questions += _under_tasks(run, tasks)
    if all(map(_is_own, questions)):
        raise BenchmarkError(
            f"release {release.name} has no two tasks in one test split that differ: a run can be asked about no other"
        )
    return questions


def _under_tasks(run: Sequence[Question], tasks: Sequence[str]) -> Iterator[Question]:
    """Of a run under its own instruction and under those that truly differ from it."""
    chosen = spread_to_last(run, MOST_MOMENTS)
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
                benchmark=CONFUSION,
                part=CONFUSION,
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


def confusion_scores(answers: BenchmarkAnswers) -> ScoredBenchmark:
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


def _values_or_worst(answers: BenchmarkAnswers) -> np.ndarray:
    """The answers, or the worst ones: no progress for its own instruction, all of it for another."""
    worst = [0.0 if _is_own(q) else 1.0 for q in answers.questions]
    return np.where(answers.is_read, answers.values, worst)


def matrix_scores(answers: BenchmarkAnswers) -> dict[tuple[str, str], Score]:
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
