"""Robustness: held-out runs in other light, from another place, of a robot of another colour, faster and slower.

The task is the same and so is its progress: what a score loses against the very same moments as they were recorded is
what a model has learnt of its pictures and not of the task. (Users of published models saw rewards of 0 on white arms.)
Nothing is drawn anew: what is changed are the pixels that were recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from core.metrics import is_lower_better
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import PictureFile, Question
from eval.metrics.outcomes import auc
from eval.metrics.progress import progress_measures
from eval.metrics.score import Measure, answers_read, mean_of
from eval.probes import (
    FAMILY,
    held_out_runs,
    pictures_by_frame,
    split_of,
    spread_to_last,
)
from eval.scored import BenchmarkAnswers, ScoredBenchmark
from warehouse.lake import Lake
from warehouse.releases.release import Release

BENCHMARK = "robustness"
CLEAN = "clean"
# How far apart the pictures of a window are, in those of the recording
SPEEDS = {"faster": 2.0, "slower": 0.5}
MOMENTS = 8  # of a run
# Metrics of an episode whose loss is measured, and the metric that says how much is lost
LOSSES = {"voc": "voc_drop", "mae": "mae_rise", "end_error": "end_error_rise"}
MOVED = 24  # of 255: what differs so much from the run's median picture is the robot, or what it carries
DARK = 100  # of 255: a robot of less is dark
BACKGROUND_OF = 15  # pictures, of which the median is taken
TURN_DEGREES = 5.0
NEARER = 1.08
ASIDE = 0.04


# Pictures


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
    """What moves is grey and of the other brightness: a dark robot white, a bright one black. What it carries, too."""
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
PARTS = (CLEAN, *CHANGES, *SPEEDS)


# Questions


def load(lake: Lake, release: Release, options: EvaluationOptions) -> list[Question]:
    """Some parts (default: all), and always `clean`, of the first `limit` runs of each test split.

    Raises BenchmarkError or ShardError.
    """
    chosen = [part for part in PARTS if part == CLEAN or not options.part or part in options.part]
    questions = []
    for run in held_out_runs(lake, release, options.limit):
        run_pictures = pictures_by_frame(run)
        for part in chosen:
            questions += [
                _changed_question(part, q, run_pictures) for q in spread_to_last(run, MOMENTS)
            ]
    return questions


def _changed_question(part: str, q: Question, run_pictures: Mapping[int, PictureFile]) -> Question:
    """A question with its pictures changed; run_pictures: those of its run by frame, in order."""
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
        benchmark=BENCHMARK,
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


def score(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """Measures over (part, run) of answers 0..1, NaN where none was read.

    What each part loses against `clean` is in `voc_drop`, `mae_rise`, `end_error_rise` and `success_auc_drop`.
    """
    shown_episodes = answers.episodes
    series = answers.series
    runs = series.runs
    measures = progress_measures(runs, series.elapsed)

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
            best, np.array([success is True for success in outcome]), answers_read(runs)
        )
        measures["success_auc_drop"] = _auc_loss(measures["success_auc"], clean, changed)
    return answers.scored(measures, series=series)


def _auc_loss(measure: Measure, clean: np.ndarray, changed: np.ndarray) -> Measure:
    """The AUC of the runs as they were recorded less that of the same runs changed."""
    width = measure.parts.shape[1]
    both = measure.counted & measure.counted[clean] & changed

    def difference(sums: np.ndarray) -> np.ndarray:
        return measure.statistic(sums[..., :width]) - measure.statistic(sums[..., width:])

    parts = np.concatenate([measure.parts[clean], measure.parts], axis=1)
    return Measure(parts * both[:, None], both, measure.read, difference)
