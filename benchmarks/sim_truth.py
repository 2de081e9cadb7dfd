"""How true labels are, against what a simulator knows: progress and segments by kind of run, and paired differences.

Compared are the corpus's label (ours), the clock (elapsed over total time: it knows the end), the published formula
with the whole run as one segment and on the same segments as ours, and ours with the simulator's own segments.
Intervals are 95 % of a bootstrap over tasks (by their text). `benchmarks.label_truth` prints the tables.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from annotate.progress import ProgressConfig, procvlm_progress, progress
from annotate.segments import IDLE, STEP, Segment
from benchmarks.trial import among_first, review_scores
from eval.annotators.labels import step_spans, stored_labels
from eval.annotators.scoring import EpisodeScore, even_split, published_hits, score_episode
from eval.annotators.truth import corpus_truth, simulator_segments
from eval.held_out.truth import load_truth
from eval.metrics.errors import end_error, mae
from eval.metrics.order import increment_correlation
from eval.metrics.runs import runs_of
from eval.metrics.segments import segment_iou
from pipeline.reading import chunk_signals
from warehouse.lake import Lake

WAYS = ("ours", "clock", "published, one segment", "published, our segments", "ours, true segments")
METRICS = ("MAE", "increment correlation", "end error", "gain in stand-stills beyond the truth's")
RESAMPLES = 4000


@dataclass(frozen=True)
class Run:
    """One episode: a value per metric and way, NaN where it has none; and what its segments score."""

    task: str
    kind: str
    success: bool
    values: np.ndarray  # [METRICS, WAYS]
    score: EpisodeScore
    hits: tuple[tuple[int, int], tuple[int, int]]  # of the published BF1@5: ours, a uniform split
    iou: tuple[float, float]  # the same two
    review_score: float  # in the review queue; 0: nobody is asked to look at it


def true_segments(
    folder: Path, dataset: str, facts: dict[int, dict]
) -> tuple[dict[int, list[Segment]], dict[int, list[str]]]:
    """The simulator's segments as ours are, and its planned steps: those that it lists, else the steps seen."""
    planned = {episode: list(e["planned_steps"] or []) for episode, e in facts.items()}
    segments = {}
    for episode, own in simulator_segments(folder, dataset).items():
        names = planned[episode]
        names += dict.fromkeys(s.name for s in own if s.kind == STEP and s.name not in names)
        segments[episode] = [replace(s, step=names.index(s.name)) if s.kind == STEP else s for s in own]
    return segments, planned


def episode_runs(lake: Lake, folder: Path, dataset: str) -> list[Run]:
    """The runs of a dataset in order. Raises SystemExit on a frame without a label."""
    truth = load_truth(folder, dataset)
    assert truth is not None, f"no truth of {dataset} in {folder}"
    facts = {e["episode_index"]: e for e in pq.read_table(folder / dataset / "episodes.parquet").to_pylist()}
    segments, planned = true_segments(folder, dataset, facts)
    truths, labels = corpus_truth(lake, folder, dataset), stored_labels(lake, dataset)
    published = published_curves(lake, dataset)
    in_review = review_scores(lake, dataset)
    runs = []
    chunks = [c for (c,) in lake.rows("SELECT DISTINCT chunk FROM episode_content WHERE dataset = ?", [dataset])]
    for chunk in sorted(chunks):
        for e in chunk_signals(lake, dataset, chunk):
            index = e.episode_index
            target = truth.progress[index]
            n = len(target)
            ours = labels.get(index)
            if ours is None or ours.progress is None or len(ours.progress) != n:
                sys.exit(f"{dataset} episode {index}: not every one of its {n} frames has a label")
            known, steps = segments[index], planned[index]
            guesses = (
                ours.progress,
                np.arange(n) / (n - 1),
                procvlm_progress(["the task"] * n, e.phash),
                published[index],
                progress(known, len(steps), e.change, e.fps, ProgressConfig(), None, e.state),
            )
            spans, wanted, split = step_spans(ours.segments), step_spans(tuple(known)), even_split(len(steps), n)
            runs.append(
                Run(
                    task=facts[index]["task"],
                    kind=truth.policy[index],
                    success=facts[index]["success"],
                    values=run_values(guesses, target, known, e.fps),
                    score=score_episode(ours, truths[index]),
                    hits=(published_hits(spans, wanted), published_hits(split, wanted)),
                    iou=(segment_iou(spans, wanted), segment_iou(split, wanted)),
                    review_score=in_review.get(index, 0.0),
                )
            )
    return runs


def published_curves(lake: Lake, dataset: str) -> dict[int, np.ndarray]:
    """Progress by the published formula on the active labels' segments, float64 [frames], by episode."""
    rows = lake.rows(
        "SELECT episode_index, list(progress_procvlm ORDER BY frame_index) FROM active_progress WHERE dataset = ? "
        "GROUP BY ALL",
        [dataset],
    )
    return {episode: np.array(curve, np.float64) for episode, curve in rows}


def run_values(guesses: Sequence[np.ndarray], target: np.ndarray, known: Sequence[Segment], fps: float) -> np.ndarray:
    """A run's value per metric and way, float64 [METRICS, WAYS]."""
    answers = runs_of((np.asarray(guess, np.float64), np.asarray(target, np.float64)) for guess in guesses)
    still = [s for s in known if s.kind == IDLE and s.end_frame < len(target)]
    lag = max(1, round(0.5 * fps))
    values = [
        mae(answers),
        increment_correlation(answers, lag),
        end_error(answers),
        [stand_still_gain(guess, target, still) for guess in guesses],
    ]
    return np.array(values, float)


def failed_among_first(runs: Sequence[Run], share: float) -> float:
    """Of the runs with the highest review scores the share that failed, over that of all runs: 1 is chance."""
    failed = among_first([not r.success for r in runs], [r.review_score for r in runs], share)
    return failed / share


def stand_still_gain(guess: np.ndarray, target: np.ndarray, still: Sequence[Segment]) -> float:
    """Mean over the stand-stills of what is gained in one, less what the truth gains; NaN without one."""
    gains = [(g[s.end_frame - 1] - g[s.start_frame]) for g in (guess, target) for s in still]
    half = len(still)
    return float(np.mean(np.abs(np.array(gains[:half]) - np.array(gains[half:])))) if half else float("nan")


def over_tasks(runs: Sequence[Run], value: Callable[[Sequence[Run]], float]) -> tuple[float, float, float]:
    """A figure of some runs with the interval of a bootstrap that draws whole tasks."""
    tasks = sorted({r.task for r in runs})
    by_task = [[r for r in runs if r.task == t] for t in tasks]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(tasks), len(tasks))
        drawn.append(value([r for i in chosen for r in by_task[i]]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return value(runs), float(low), float(high)


def difference(metric: str, other: str) -> Callable[[Sequence[Run]], float]:
    m, a, b = METRICS.index(metric), WAYS.index("ours"), WAYS.index(other)
    return lambda runs: float(np.nanmean([r.values[m, a] - r.values[m, b] for r in runs]))


def level(metric: str) -> Callable[[Sequence[Run]], float]:
    m = METRICS.index(metric)
    return lambda runs: float(np.nanmean([r.values[m, 0] for r in runs]))


def published_bf1(which: int) -> Callable[[Sequence[Run]], float]:
    return lambda runs: sum(r.hits[which][0] for r in runs) / max(1, sum(r.hits[which][1] for r in runs))


def mean_iou(which: int) -> Callable[[Sequence[Run]], float]:
    return lambda runs: float(np.mean([r.iou[which] for r in runs]))


def claims(runs: Sequence[Run]) -> list[tuple[str, tuple[float, float, float], str, bool]]:
    """What docs/truth.md says of tasks that nothing was tuned on: figure with interval, the bound, and if it holds."""
    clean = [r for r in runs if r.kind == "expert"]
    troubled = [r for r in runs if r.kind != "expert"]
    failed = [r for r in runs if not r.success]
    still = [r for r in runs if not np.isnan(r.values[METRICS.index(METRICS[3]), 0])]
    found = []

    def claim(text: str, of: Sequence[Run], value: Callable[[Sequence[Run]], float], bound: str) -> None:
        if of:
            score = over_tasks(of, value)
            limit = float(bound.split()[-1])
            which = {"low": 1, "high": 2, "mean": 0}[bound.split()[0]]
            holds = score[which] > limit if ">" in bound else score[which] < limit
            found.append((f"{text} ({len(of)} runs)", score, bound, bool(holds)))

    for way in WAYS[2:4]:
        claim(f"increment correlation less that of {way}", runs, difference(METRICS[1], way), "low > 0")
    claim("troubled runs: MAE less the clock's", troubled, difference("MAE", "clock"), "high < 0")
    for way in WAYS[2:4]:
        claim(f"troubled runs: MAE less that of {way}", troubled, difference("MAE", way), "high < 0")
    claim("failed runs: end error", failed, level("end error"), "mean < 0.15")
    claim("clean successes: MAE less the clock's", clean, difference("MAE", "clock"), "high < 0.02")
    claim("gain in stand-stills beyond the truth's", still, level(METRICS[3]), "mean < 0.02")
    bf1 = over_tasks(runs, lambda rs: published_bf1(0)(rs) - published_bf1(1)(rs))
    found.append((f"BF1@5 less a uniform split's ({len(runs)} runs)", bf1, "low > 0", bf1[1] > 0))
    iou = over_tasks(runs, lambda rs: mean_iou(0)(rs) - mean_iou(1)(rs))
    found.append((f"IoU less a uniform split's ({len(runs)} runs)", iou, "low > 0", iou[1] > 0))
    return found
