"""Baselines without a model on a benchmark's questions: what one gets without looking, or by looking at pixels only.

Each gives 0..1 by question key, NaN where a picture cannot be read, and leaves out what it is not defined for. None
of them ever says n/a.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np

from core.values import grouped
from eval.benchmarks.question import (
    DEMONSTRATED,
    BenchmarkError,
    PictureFile,
    Question,
    frame_number,
    runs_in_order,
)

GRID = 64
PICTURE_PX = 256  # of pictures that are compared
# By the task's mean length, by that of its references
RUNNING = "running clock"
REFERENCE = "reference clock"
Values = dict[str, float]
Goals = Mapping[tuple[str, str], PictureFile]  # by dataset and task: how a run that succeeded ended


def luma_grid(rgb: np.ndarray) -> np.ndarray:
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)


def nearness(current: np.ndarray, first: np.ndarray, goal: np.ndarray) -> float:
    """1 - distance of a picture to the goal over the first one's distance to it, clipped to 0..1; NaN where one is.

    Pictures are luma on a 64x64 grid, and distance is their mean absolute difference.
    """
    far = max(float(np.abs(first - goal).mean()), 1e-6)
    return float(np.clip(1 - float(np.abs(current - goal).mean()) / far, 0, 1))


def best_constant(targets: np.ndarray) -> float:
    """The constant with the least mean absolute error on these very labels: no constant does
    better."""
    return float(np.median(targets))


def clock_answers(questions: Sequence[Question]) -> Values:
    """Frame number over the last one known of the run: order without understanding. It knows the length."""
    ends = _last_frame_by_run(questions)
    return {
        q.key: q.moment / ends[_run_of(q)]
        for q in questions
        if q.moment is not None and ends[_run_of(q)] > 0
    }


def timed_answers(questions: Sequence[Question], name: str) -> Values:
    """Seconds over the mean length of the runs by which a clock of that name goes, where a
    question's facts have it."""
    return {
        q.key: min(1.0, (q.frame_index or 0) / q.row["fps"] / length_s)
        for q in questions
        if (length_s := q.facts.get("lengths", {}).get(name))
    }


def running_clock_answers(questions: Sequence[Question]) -> Values:
    """Frame number over the mean of the last ones of the task's other runs, at most 1."""
    if any("lengths" in q.facts for q in questions):
        return timed_answers(questions, RUNNING)
    ends = _last_frame_by_run(questions)
    goals = {_run_of(q): q.goal for q in questions}
    of_task = grouped(((*run[:2], goals[run]), end) for run, end in ends.items())
    shares = {}
    for q in questions:
        task_ends = of_task.get((q.part, q.dataset, goals[_run_of(q)]), ())
        if q.moment is not None and (other_ends := sum(task_ends) - ends[_run_of(q)]) > 0:
            shares[q.key] = min(1.0, q.moment * (len(task_ends) - 1) / other_ends)
    return shares


def _run_of(q: Question) -> tuple[str, str, str]:
    return q.part, q.dataset, q.trajectory


def _last_frame_by_run(questions: Sequence[Question]) -> dict[tuple[str, str, str], int]:
    """The last frame that is known of each run."""
    ends: dict[tuple[str, str, str], int] = {}
    for q in questions:
        if q.moment is not None:
            # As a question tells it: by the run's length, else by the names of the demonstration
            if q.family in DEMONSTRATED and q.num_frames is None:
                demonstration = q.pictures[:-1]
            else:
                demonstration = ()
            frame_numbers = [frame_number(picture) or 0 for picture in demonstration]
            ends[_run_of(q)] = max(
                ends.get(_run_of(q), 0), q.moment, (q.num_frames or 1) - 1, *frame_numbers
            )
    return ends


def random_answers(questions: Sequence[Question]) -> Values:
    """A number drawn by the question's key: the same in every run."""
    return {
        q.key: int(hashlib.sha256(q.key.encode()).hexdigest()[:13], 16) / 16**13
        for q in questions
        if q.moment is not None
    }


def best_constant_answers(questions: Sequence[Question]) -> Values:
    """The constant with the least mean absolute error on these very labels."""
    labels = [q.progress for q in questions if q.progress is not None and q.is_scored]
    if not labels:
        return {}
    value = best_constant(np.array(labels))
    return {q.key: value for q in questions if q.moment is not None}


def nearness_to_last_frame(questions: Sequence[Question]) -> Values:
    """1 - distance of the state to the run's last known picture over the first one's, clipped. It sees the end."""
    shares = {}
    for run in runs_in_order(questions):
        if len({q.moment for q in run}) > 1:
            shares |= _nearness(run, run[0].pictures[-1], run[-1].pictures[-1])
    return shares


def nearness_to_goal(questions: Sequence[Question], goals: Goals) -> Values:
    """As nearness_to_last_frame, but nearness to the demonstration's last picture, or to how another run of the task
    ended that succeeded."""
    shares = {}
    for run in runs_in_order(questions):
        q = run[0]
        has_demonstration = q.family in DEMONSTRATED and not q.steps
        goal = q.pictures[-2] if has_demonstration else goals.get((q.dataset, q.goal))
        if goal is not None:
            shares |= _nearness(run, q.pictures[0] if has_demonstration else q.pictures[-1], goal)
    return shares


def weightless_answers(questions: Sequence[Question], goals: Goals) -> dict[str, Values]:
    """All that are defined for any of the questions, by name."""
    baselines: dict[str, Callable[[Sequence[Question]], Values]] = {
        "clock": clock_answers,
        RUNNING: running_clock_answers,
        REFERENCE: lambda q: timed_answers(q, REFERENCE),
        "random": random_answers,
        "best constant": best_constant_answers,
        "visual distance": nearness_to_last_frame,
        "goal image": lambda q: nearness_to_goal(q, goals),
        "the label itself": lambda q: {x.key: x.facts["label"] for x in q if "label" in x.facts},
    }
    values_by_name = {name: baseline(questions) for name, baseline in baselines.items()}
    return {name: values for name, values in values_by_name.items() if values}


def _nearness(run: Sequence[Question], first: PictureFile, goal: PictureFile) -> Values:
    start_grid = _grid(first)
    end = _grid(goal)
    return {q.key: nearness(_grid(q.pictures[-1]), start_grid, end) for q in run}


@lru_cache(maxsize=4096)
def _grid(picture: PictureFile) -> np.ndarray:
    """NaN where it cannot be read."""
    try:
        return luma_grid(picture.rgb(PICTURE_PX))
    except BenchmarkError:
        return np.full((GRID, GRID), np.nan, np.float32)
