"""Robustness: held-out runs in other light, from another place, of a robot of another colour, faster and slower.

The task is the same and so is its progress: what a score loses against the very same moments as they were recorded is
what a model has learnt of its pictures and not of the task. (Users of published models saw rewards of 0 on white arms.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval.benchmarks.question import BenchmarkError, PictureFile, Question
from eval.changes import CHANGES, ChangedPicture
from eval.metrics.outcomes import auc
from eval.metrics.runs import Runs, answers_read, runs_of
from eval.metrics.score import Measure, mean_of
from eval.scoring.progress import progress_measures
from eval.scoring.scored import ScoredBenchmark, ScoredEpisode, Series
from eval.shown import FAMILY, ShownRun, evenly, shown_runs
from warehouse.lake import Lake
from warehouse.releases import Release

BENCHMARK = "robustness"
CLEAN = "clean"
SPEEDS = {"faster": 2.0, "slower": 0.5}  # how far apart the pictures of a window are, in those of the recording
PARTS = (CLEAN, *CHANGES, *SPEEDS)
MOMENTS = 8  # of a run
# Metrics of an episode whose loss is measured: more of the first is better, less of the others
LOSSES = {"voc": ("voc_drop", 1), "mae": ("mae_rise", -1), "end_error": ("end_error_rise", -1)}


def load(lake: Lake, release: Release, limit: int | None = None, parts: Sequence[str] = ()) -> list[Question]:
    """Some parts (default: all), and always `clean`, of the first `limit` runs of each test split.

    Raises BenchmarkError or ShardError.
    """
    if unknown := set(parts) - set(PARTS):
        raise BenchmarkError(f"{BENCHMARK} has no part {min(unknown)!r}; it has {', '.join(PARTS)}")
    chosen = [part for part in PARTS if part == CLEAN or not parts or part in parts]
    return [
        _shown_as(part, run, q)
        for run in shown_runs(lake, release, limit)
        for part in chosen
        for q in evenly(run.questions, MOMENTS)
    ]


def _shown_as(part: str, run: ShownRun, q: Question) -> Question:
    """A question of a run with its pictures changed."""
    frames, pictures, first = list(q.row["frames"]), q.pictures, run.first
    if part in SPEEDS:
        frames = _other_speed(frames, list(run.pictures), SPEEDS[part])
        pictures = tuple(run.pictures[f] for f in frames)
    elif part in CHANGES:
        pictures = tuple(_changed(p, part, run) for p in pictures)
        first = None if first is None else _changed(first, part, run)
    row = {
        "dataset": q.dataset,
        "episode_index": int(q.trajectory),
        "split": run.split,
        "shown": part,
        "frames": frames,
        "num_frames": q.num_frames,
        "progress": q.truth.score,
        "success": q.truth.success,
    }
    return replace(
        q,
        benchmark=BENCHMARK,
        part=part,
        family=FAMILY,
        pictures=pictures,
        first=first,
        row=row,
    )


def _changed(picture: PictureFile, change: str, run: ShownRun) -> ChangedPicture:
    # A name of its own: messages and whoever keeps pictures by their place must not take it for the recorded one
    name = Path(f"{picture.path}:{picture.offset} ({change})")
    return ChangedPicture(name, base=picture, change=change, run=tuple(run.pictures.values()))


def _other_speed(frames: Sequence[int], known: Sequence[int], speed: float) -> list[int]:
    """As many frames up to the same one, so much farther apart; of those that any window shows each time the nearest.
    Where that would begin before the run they lie as far apart as they can, as a release's own windows do."""
    now, before = frames[-1], max(1, len(frames) - 1)
    step = min(speed * (now - frames[0]), now - known[0]) / before
    wanted = now - step * np.arange(len(frames))[::-1]
    at = np.abs(np.array(known)[None] - wanted[:, None]).argmin(axis=1)
    return [known[k] for k in at]


def score(questions: Sequence[Question], values: Mapping[str, float]) -> ScoredBenchmark:
    """Measures over (part, run) of answers 0..1 by question key, NaN or absent where none was read.

    What each part loses against `clean` is in `voc_drop`, `mae_rise`, `end_error_rise` and `success_auc_drop`.
    """
    by_run: dict[tuple[str, str, str], list[Question]] = {}
    for q in questions:
        by_run.setdefault((q.part, q.dataset, q.trajectory), []).append(q)
    keys = list(by_run)
    shown = [sorted(by_run[key], key=lambda q: q.frame_index or 0) for key in keys]
    runs = runs_of(
        (np.array([values.get(q.key, np.nan) for q in run]), np.array([q.truth.score for q in run], np.float64))
        for run in shown
    )
    elapsed = np.array([(q.frame_index or 0) / max(1, (q.num_frames or 1) - 1) for run in shown for q in run])
    measures = progress_measures(runs, elapsed) | _success(shown, runs)
    at = {key: k for k, key in enumerate(keys)}
    clean = np.array([at[CLEAN, key[1], key[2]] for key in keys])
    changed = np.array([key[0] != CLEAN for key in keys])
    for metric, (name, sign) in LOSSES.items():
        measures[name] = _loss(measures[metric], clean, changed, sign)
    if "success_auc" in measures:
        measures["success_auc_drop"] = _auc_loss(measures["success_auc"], clean, changed)
    episodes = tuple(
        ScoredEpisode(key, (f"part {key[0]}", f"part {key[0]}, split {run[0].row['split']}"))
        for key, run in zip(keys, shown, strict=True)
    )
    counts = {"rows": len(questions), "episodes": len(keys), "unparsable": int(np.isnan(runs.predicted).sum())}
    return ScoredBenchmark(BENCHMARK, episodes, measures, counts, Series(runs, elapsed))


def _loss(measure: Measure, clean: np.ndarray, changed: np.ndarray, sign: int) -> Measure:
    """How much worse each run is than the same one as it was recorded."""
    own = np.where(measure.counted, measure.parts[:, 0], np.nan)
    return mean_of(np.where(changed, sign * (own[clean] - own), np.nan), measure.read)


def _success(shown: Sequence[Sequence[Question]], runs: Runs) -> dict[str, Measure]:
    """Is success told by a run's highest answer? Of the runs whose outcome is known; nothing where all are alike."""
    known = np.array([run[0].truth.success is not None for run in shown])
    succeeded = np.array([run[0].truth.success is True for run in shown])
    best = np.full(len(shown), np.nan)
    for k, (a, b) in enumerate(zip(runs.starts[:-1], runs.starts[1:], strict=True)):
        if known[k] and np.isfinite(runs.predicted[a:b]).any():
            best[k] = np.nanmax(runs.predicted[a:b])
    if not (succeeded & known).any() or not (~succeeded & known).any():
        return {}
    return {"success_auc": auc(best, succeeded, answers_read(runs))}


def _auc_loss(measure: Measure, clean: np.ndarray, changed: np.ndarray) -> Measure:
    """The AUC of the runs as they were recorded less that of the same runs changed."""
    width = measure.parts.shape[1]
    both = measure.counted & measure.counted[clean] & changed

    def difference(sums: np.ndarray) -> np.ndarray:
        return measure.statistic(sums[..., :width]) - measure.statistic(sums[..., width:])

    parts = np.concatenate([measure.parts[clean], measure.parts], axis=1)
    return Measure(parts * both[:, None], both, measure.read, difference)
