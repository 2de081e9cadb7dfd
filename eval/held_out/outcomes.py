"""Outcomes of held-out runs: is success told, from when on, and which run of a task went better?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from annotate.samples.procvqa import task_text
from eval.held_out.episodes import HeldOut
from eval.metrics.errors import FINISHED
from eval.metrics.outcomes import Detected, ranking_measures, success_measures
from eval.metrics.runs import runs_of
from eval.metrics.score import Measure
from eval.reward.success import best_threshold
from eval.scoring.scored import Evaluated, ScoredBenchmark, ScoredEpisode

RANKING = "policy-ranking"
VALIDATION = "val"  # the split that thresholds of success are chosen on
MOST_MOMENTS = 2048  # of it
Predictor = Callable[[HeldOut], np.ndarray]


@dataclass(frozen=True)
class Detector:
    """What tells success: a score at each moment of an episode, and from which one on it is said."""

    score: Predictor
    threshold: float


def detector_of(score: Predictor, validation: Sequence[HeldOut]) -> Detector:
    """With the threshold that tells the moments at the end state from the others best, on episodes that no score is
    read from; 0.95 where these have moments of one kind only. Of many moments every n-th is looked at."""
    scores = [score(e) for e in validation]
    labels = [e.label for e in validation]
    every = max(1, -(-sum(map(len, labels)) // MOST_MOMENTS))
    told, reached = (np.concatenate([np.empty(0), *(v[::every] for v in values)]) for values in (scores, labels))
    known = ~np.isnan(told)
    told, at_end = told[known], reached[known] >= 1
    if not at_end.any() or at_end.all():
        return Detector(score, FINISHED)
    return Detector(score, best_threshold(told, at_end)[0])


def success_of(
    episodes: Sequence[HeldOut], target: Callable[[HeldOut], np.ndarray], detector: Detector
) -> dict[str, Measure]:
    """Measures over all episodes, of which those without a known outcome count nowhere; none where all are such."""
    known = np.array([e.success is not None for e in episodes], bool)
    judged = [e for e in episodes if e.success is not None]
    if not judged:
        return {}
    runs = runs_of((detector.score(e), target(e)) for e in judged)
    seconds = np.concatenate([e.frame_index / e.fps for e in judged])
    succeeded = np.array([e.success for e in judged], bool)
    found = Detected(runs.predicted, seconds, runs.target >= FINISHED, runs.starts, succeeded)
    measures = success_measures(found, detector.threshold)
    return {name: measure.among(known) for name, measure in measures.items()}


def rank(
    name: str,
    benchmark: str,
    episodes: Sequence[HeldOut],
    target: Callable[[HeldOut], np.ndarray],
    predictor: Predictor,
) -> Evaluated:
    """Score how a predictor ranks the runs of each task, by its last answers, against the share done at their ends.

    What is resampled is tasks, since the runs of one are compared with each other.
    """
    by_task: dict[tuple[str, str, str], list[HeldOut]] = {}
    for e in episodes:
        by_task.setdefault((e.split, e.dataset, e.same_as or task_text(e.questions[0].goal or None)), []).append(e)
    ends = [
        (np.array([predictor(e)[-1] for e in runs]), np.array([target(e)[-1] for e in runs]))
        for runs in by_task.values()
    ]
    tasks = tuple(ScoredEpisode((dataset, task), (f"split {split}",)) for split, dataset, task in by_task)
    counts = {"rows": len(episodes), "episodes": len(tasks), "unparsable": sum(int(np.isnan(p).sum()) for p, _ in ends)}
    scored = ScoredBenchmark(benchmark, tasks, ranking_measures(runs_of(ends)), counts)
    return Evaluated(name, scored, scored.scores())
