"""Held-out runs that are shown backwards, forwards and back and standing still (probes), told the instruction of each
task (confusion, after Robometer, arXiv 2603.02115), and shown in other light, from another place, faster and slower
(robustness). The windows are those of the release's progress questions, the pixels those that were recorded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from annotate.samples.procvqa import progress_question, task_text
from core.metrics import is_lower_better
from core.values import grouped
from eval.benchmarks import procvqa
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, PictureFile, Question
from eval.metrics import order
from eval.metrics.errors import FINISHED
from eval.metrics.outcomes import auc
from eval.metrics.score import Measure, Runs, Score, mean_of
from eval.metrics.score import score as score_of
from eval.scored import ALL, BenchmarkAnswers, Episodes, ScoredBenchmark, progress_measures
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


def held_out_runs(
    lake: Lake,
    release: Release,
    limit: int | None = None,
    benchmarks: Sequence[str] = tuple(procvqa.SPLITS),
) -> list[Sequence[Question]]:
    """The questions of the first `limit` runs of each benchmark's split that have two about progress, in order of time;
    runs by dataset and number. Raises BenchmarkError."""
    runs: list[Sequence[Question]] = []
    for benchmark in benchmarks:
        if not release.paths(lake.workspace, procvqa.SPLITS[benchmark]):
            continue
        options = EvaluationOptions(benchmark=benchmark, part=(FAMILY,))
        of_split = procvqa.load(lake, release, options)
        by_run = grouped(((q.dataset, q.trajectory), q) for q in of_split)
        in_order = (
            sorted(run, key=lambda q: q.frame_index or 0) for _, run in sorted(by_run.items())
        )
        # A single question has no order
        runs += [run for run in in_order if len(run) > 1][:limit]
    if not runs:
        splits = " or ".join(procvqa.SPLITS[benchmark] for benchmark in benchmarks)
        raise BenchmarkError(
            f"release {release.name} holds no run with two progress questions in {splits}"
        )
    return runs


def spread_to_last[T](items: Sequence[T], max_items: int) -> list[T]:
    """At most so many, the last among them, evenly over all."""
    count = min(max_items, len(items))
    return [items[round((k + 1) * len(items) / count) - 1] for k in range(count)]


def main_slices(entries: Sequence[ScoredBenchmark]) -> list[str]:
    """All, and beside each other splits, or what was done to the pictures."""
    names = sorted({part for part, _ in entries[0].scores if ", " not in part})
    return [ALL, *(name for name in names if name.startswith(("part ", "split ")))]


# Probes

PROBES = "probes"
REVERSED, CYCLED, FROZEN = PARTS = ("reversed", "cycled", "frozen")
STALLS = 4  # moments of a run at which it is stopped
# Pictures that are shown at once, the frame they end with, the text
Window = tuple[tuple[PictureFile, ...], int, str]


def probe_questions(lake: Lake, release: Release, options: EvaluationOptions) -> list[Question]:
    """The questions about the first `limit` runs of the split test_id. Raises BenchmarkError or ShardError."""
    con = open_for_users(lake.workspace, release.snapshot)
    sql = (
        "SELECT frame_index, progress FROM active_progress WHERE dataset = ? AND episode_index = ?"
    )
    probes: list[Question] = []
    for run in held_out_runs(lake, release, options.limit, ("procvqa-id",)):
        labels = dict(con.execute(sql, [run[0].dataset, int(run[0].trajectory)]).fetchall())
        probes += _probes_of_run(run, labels)
    return probes


def _probes_of_run(run: Sequence[Question], labels: Mapping[int, float]) -> Iterator[Question]:
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
    "reverse_voc": (REVERSED, lambda runs: order.voc(runs.worst)),
    "cycle_voc": (CYCLED, lambda runs: order.voc(runs.worst)),
    "stall_drift": (FROZEN, order.stall_drift),
    "false_progress_rewound": (
        CYCLED,
        lambda runs: order.claimed_progress(runs.worst, since=0.5),
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
        measures[name] = mean_of(of_episode.means(metric(runs)), of_episode.sums(*runs.read.T))
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
    is_own = np.array(list(map(_is_own, answers.questions)))
    progress = np.where(answers.is_read, answers.values, np.where(is_own, 0.0, 1.0))
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
    measures = {name: mean_of(of_runs, answers.read) for name, of_runs in run_measures.items()}
    return answers.scored(measures, cells=_matrix(answers, progress))


def _matrix(answers: BenchmarkAnswers, progress: np.ndarray) -> dict[tuple[str, str], Score]:
    """The matrix as scores by ("video: TASK", "under: INSTRUCTION"): mean last answer to the finished runs of a task.

    Of a task that no run finished there is no row; pairs that do not truly differ are left out.
    """
    cells = grouped(
        ((VIDEO + q.row["video"], UNDER + q.row["instruction"]), value)
        for q, value in zip(answers.questions, progress.tolist(), strict=True)
        if q.row["is_last"] and q.row["finished"]
    )
    return {cell: score_of(mean_of(values)) for cell, values in cells.items()}


# Robustness

ROBUSTNESS = "robustness"
CLEAN = "clean"
# How far apart the pictures of a window are, in those of the recording
SPEEDS = {"faster": 2.0, "slower": 0.5}
SHOWN_MOMENTS = 8  # of a run
# Metrics of an episode whose loss is measured, and the metric that says how much is lost
LOSSES = {"voc": "voc_drop", "mae": "mae_rise", "end_error": "end_error_rise"}
MOVED = 24  # of 255: what differs so much from the run's median picture is the robot, or what it carries
DARK = 100  # of 255: a robot of less is dark
BACKGROUND_OF = 15  # pictures, of which the median is taken
TURN_DEGREES = 5.0
NEARER = 1.08
ASIDE = 0.04


@dataclass(frozen=True)
class ChangedPicture(PictureFile):
    """`base` as `change` makes it; `run`: pictures of the same run, which tell what moves in it. Read as a PNG."""

    base: PictureFile | None = None
    change: str = ""
    run: tuple[PictureFile, ...] = field(default=(), repr=False)

    def read(self) -> bytes:
        """Raises BenchmarkError."""
        return _changed_file(self)


@lru_cache(maxsize=512)
def _changed_file(picture: ChangedPicture) -> bytes:
    assert picture.base is not None
    rgb = CHANGES[picture.change](picture.base.rgb(), picture.run)
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def _camera(rgb: np.ndarray, run: Sequence[PictureFile]) -> np.ndarray:
    """Turned by 5 degrees, 8 % nearer, 4 % aside; at the edges the outermost pixels go on."""
    h, w = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), TURN_DEGREES, NEARER)
    matrix[:, 2] += ASIDE * w, ASIDE * h
    return cv2.warpAffine(
        rgb, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _robot_colour(rgb: np.ndarray, run: Sequence[PictureFile]) -> np.ndarray:
    """What moves is grey and of the other brightness: a dark robot white, a bright one black. What
    it carries, too."""
    background = _background(tuple(run), rgb.shape)
    away = np.abs(rgb.astype(np.int16) - background).max(axis=2).astype(np.uint8)
    mask = (cv2.medianBlur(away, 5) > MOVED).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    if not mask.any():
        return rgb
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    new_luma = 255 - (255 - luma) * 0.4 if np.median(luma[mask > 0]) < DARK else luma * 0.3
    # Without a hard edge, which no camera shows
    share = cv2.GaussianBlur(mask.astype(np.float32), (5, 5), 0)[..., None]
    return (rgb * (1 - share) + new_luma[..., None] * share).astype(np.uint8)


@lru_cache(maxsize=8)
def _background(run: tuple[PictureFile, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The median picture of a run, int16 [h, w, 3]. Raises BenchmarkError."""
    chosen = [
        run[k] for k in np.unique(np.linspace(0, len(run) - 1, BACKGROUND_OF).round().astype(int))
    ]
    pictures = [rgb for picture in chosen if (rgb := picture.rgb()).shape == shape]
    return np.median(np.stack(pictures), axis=0).astype(np.int16)


CHANGES: dict[str, Callable[[np.ndarray, Sequence[PictureFile]], np.ndarray]] = {
    "darker": lambda rgb, run: (rgb * 0.5).astype(np.uint8),
    "brighter": lambda rgb, run: np.minimum(rgb * 1.5, 255).astype(np.uint8),
    "camera": _camera,
    "robot_colour": _robot_colour,
}
ROBUSTNESS_PARTS = (CLEAN, *CHANGES, *SPEEDS)


# Questions


def robustness_questions(
    lake: Lake, release: Release, options: EvaluationOptions
) -> list[Question]:
    """Some parts (default: all), and always `clean`, of the first `limit` runs of each test split.

    Raises BenchmarkError or ShardError.
    """
    chosen = [
        part
        for part in ROBUSTNESS_PARTS
        if part == CLEAN or not options.part or part in options.part
    ]
    questions = []
    for run in held_out_runs(lake, release, options.limit):
        run_pictures = pictures_by_frame(run)
        for part in chosen:
            questions += [
                _changed_question(part, q, run_pictures) for q in spread_to_last(run, SHOWN_MOMENTS)
            ]
    return questions


def _changed_question(part: str, q: Question, run_pictures: Mapping[int, PictureFile]) -> Question:
    frames = list(q.row["frames"])
    pictures = q.pictures
    first = run_pictures.get(0)
    if part in SPEEDS:
        frames = _other_speed(frames, list(run_pictures), SPEEDS[part])
        pictures = tuple(run_pictures[f] for f in frames)
    elif part in CHANGES:
        pictures = tuple(_changed_picture(p, part, run_pictures) for p in pictures)
        first = None if first is None else _changed_picture(first, part, run_pictures)
    row = {
        "dataset": q.dataset,
        "episode_index": int(q.trajectory),
        "split": split_of(q),
        "shown": part,
        "frames": frames,
        "num_frames": q.num_frames,
        "progress": q.progress,
        "success": q.success,
    }
    return replace(
        q,
        benchmark=ROBUSTNESS,
        part=part,
        family=FAMILY,
        pictures=pictures,
        first=first,
        row=row,
        unit=(part, q.dataset, q.trajectory),
        slices=(f"part {part}", f"part {part}, split {row['split']}"),
    )


def _changed_picture(
    picture: PictureFile, change: str, run_pictures: Mapping[int, PictureFile]
) -> ChangedPicture:
    # A name of its own: messages and whoever keeps pictures by their place must not take it for the recorded one
    name = Path(f"{picture.path}:{picture.offset} ({change})")
    return ChangedPicture(name, base=picture, change=change, run=tuple(run_pictures.values()))


def _other_speed(frames: Sequence[int], known_frames: Sequence[int], speed: float) -> list[int]:
    """As many frames up to the same one, so much farther apart; of those that any window shows each time the nearest.
    Where that would begin before the run they lie as far apart as they can, as a release's own windows do."""
    last_frame = frames[-1]
    num_intervals = max(1, len(frames) - 1)
    step = min(speed * (last_frame - frames[0]), last_frame - known_frames[0]) / num_intervals
    target_frames = last_frame - step * np.arange(len(frames))[::-1]
    places = np.abs(np.array(known_frames)[None] - target_frames[:, None]).argmin(axis=1)
    return [known_frames[k] for k in places]


def robustness_scores(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """Measures over (part, run) of answers 0..1, NaN where none was read.

    What each part loses against `clean` is in `voc_drop`, `mae_rise`, `end_error_rise` and `success_auc_drop`.
    """
    shown_episodes = answers.episodes
    runs = answers.series
    measures = progress_measures(runs)

    keys = [run.key for run in shown_episodes.scored]
    places = {key: k for k, key in enumerate(keys)}
    clean = np.array([places[CLEAN, dataset, trajectory] for _, dataset, trajectory in keys])
    changed = np.array([part != CLEAN for part, _, _ in keys])
    # How much worse each run is than the same one as it was recorded
    for metric, name in LOSSES.items():
        sign = -1 if is_lower_better(metric) else 1
        run_values = np.where(measures[metric].counted, measures[metric].parts[:, 0], np.nan)
        measures[name] = mean_of(
            np.where(changed, sign * (run_values[clean] - run_values), np.nan),
            measures[metric].read,
        )

    # Is success told by a run's highest answer? Of the runs whose outcome is known, where these are not all alike
    outcomes = {q.unit: q.success for q in answers.questions}
    outcome = [outcomes[key] for key in keys]
    if {True, False} <= set(outcome):
        best = np.fmax.reduceat(runs.predicted, runs.starts[:-1])
        best[[success is None for success in outcome]] = np.nan
        measures["success_auc"] = auc(
            best, np.array([success is True for success in outcome]), runs.read
        )
        measures["success_auc_drop"] = _auc_loss(measures["success_auc"], clean, changed)
    return answers.scored(measures, series=runs)


def _auc_loss(measure: Measure, clean: np.ndarray, changed: np.ndarray) -> Measure:
    """The AUC of the runs as they were recorded less that of the same runs changed."""
    width = measure.parts.shape[1]
    both = measure.counted & measure.counted[clean] & changed

    def difference(sums: np.ndarray) -> np.ndarray:
        return measure.statistic(sums[..., :width]) - measure.statistic(sums[..., width:])

    parts = np.concatenate([measure.parts[clean], measure.parts], axis=1)
    return Measure(parts * both[:, None], both, measure.read, difference)
