"""Did a run end as its references did? By how it ends, and by how each of its steps ends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from annotate.motion.signals import MIN_RUNS
from annotate.segments import STEP
from annotate.transfer.alignment import Path
from annotate.transfer.carrying_over import Shown
from annotate.transfer.moments import Moments

# Log odds of failure by an EndDistance: of a run that ends as usual, then by the log of how many times farther apart
# than usual its last pictures, its last state and its first pictures are, and by `shorter`. Logistic fits on two
# simulated sets (17 tasks, 1 and 3 references); each set by the fit of the other: AUC 0.95 and 0.96 with 3 references.
# The weight of `shorter` was 5.6 and 5.0 there: lower here by judgement, since real runs differ more in length
WITH_STATE = (-1.9, 2.36, 2.76, -1.5, 4.0)
WITHOUT_STATE = (-1.59, 6.01, 0.0, -0.75, 4.0)
LEAST, MOST = 0.05, 20.0  # times as far as usual: more or less says no more
END_S = 0.5  # the end of a run
BOUNDARY_S = 0.3  # around the end of a step
INCOMPLETE_AT = 1.1  # times as unlike at the end of a step as is usual for the task: it did not end so
ALIKE = 0.5  # of the distance between runs of the task: who is nearer than that ended the step alike


@dataclass(frozen=True)
class EndDistance:
    """How far a run's end is from that of the nearest reference; None where runs do not show it.

    first_pictures: of its start, since runs of other scenes end otherwise, too. shorter: log of how many times shorter
    than the shortest reference it is, without stand-stills; 0 where it is not.
    """

    pictures: float | None
    state: float | None
    first_pictures: float | None
    shorter: float


def end_distance(run: Moments, references: Sequence[Moments]) -> EndDistance:
    """`references`: one or more."""
    return EndDistance(
        pictures=_nearest([_pictures_apart(run, other, _end) for other in references]),
        state=_nearest([_states_apart(run, other) for other in references]),
        first_pictures=_nearest([_pictures_apart(run, other, _start) for other in references]),
        shorter=max(0.0, float(np.log(min(len(other) for other in references) / len(run)))),
    )


def _nearest(distances: Sequence[float | None]) -> float | None:
    return min((d for d in distances if d is not None), default=None)


def _end(moments: Moments) -> np.ndarray:
    at_end = moments.frames >= moments.num_frames - END_S * moments.fps
    return at_end if at_end.any() else np.arange(len(moments)) == len(moments) - 1


def _start(moments: Moments) -> np.ndarray:
    return np.arange(len(moments)) < 2


def _pictures_apart(run: Moments, other: Moments, part: Callable[[Moments], np.ndarray]) -> float | None:
    if not run.pictures:
        return None
    own, its = ([seen[part(m)].mean(axis=0) for seen in m.pictures] for m in (run, other))
    return float(np.mean([np.linalg.norm(a - b) for a, b in zip(own, its, strict=True)]))


def _states_apart(run: Moments, other: Moments) -> float | None:
    if run.state is None or other.state is None:
        return None
    return float(np.linalg.norm(run.state[_end(run)].mean(axis=0) - other.state[_end(other)].mean(axis=0)))


def failure_probabilities(ends: Sequence[EndDistance | None]) -> list[float | None]:
    """Of each run of a task; None for a run without references, and where too few runs show what is usual."""
    known = [end for end in ends if end is not None]
    if len(known) < MIN_RUNS:
        return [None] * len(ends)
    pictures = _usual([end.pictures for end in known])
    state = _usual([end.state for end in known])
    first = _usual([end.first_pictures for end in known])
    return [None if end is None else _probability(end, pictures, state, first) for end in ends]


def _usual(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) or None if known else None


def _probability(end: EndDistance, pictures: float | None, state: float | None, first: float | None) -> float | None:
    away = [_times(end.pictures, pictures), _times(end.state, state), _times(end.first_pictures, first)]
    if away[0] is None and away[1] is None:
        return None
    usual, *weights = WITHOUT_STATE if away[1] is None else WITH_STATE
    odds = usual + sum(w * (a or 0.0) for w, a in zip(weights, [*away, end.shorter], strict=True))
    return float(1 / (1 + np.exp(-odds)))


def _times(distance: float | None, usual: float | None) -> float | None:
    """Log of how many times as far as usual."""
    return None if distance is None or usual is None else float(np.log(np.clip(distance / usual, LEAST, MOST)))


# Steps


def distances_at_ends(costs: np.ndarray, run: Moments, reference: Shown, path: Path) -> dict[int, float]:
    """How unlike a run is to its reference where it ends each step, by the steps' numbers; costs [k, m]."""
    half = max(1, round(BOUNDARY_S * len(run) * run.fps / run.num_frames))
    at_ends = {}
    for segment in reference.segments:
        if segment.kind != STEP or not segment.completed or segment.step is None:
            continue
        ended = path.moments >= np.searchsorted(reference.moments.frames, segment.end_frame)
        if ended.any():
            first = int(ended.argmax())
            around = np.arange(max(0, first - half), min(len(run), first + half))
            at_ends[segment.step] = float(costs[around, path.moments[around]].mean())
    return at_ends


def incomplete_steps(at_ends: Mapping[int, float], usual: Mapping[int, float]) -> set[int]:
    """The steps of a failed run whose end looks otherwise than is usual."""
    return {
        step for step, apart in at_ends.items() if step in usual and apart > max(INCOMPLETE_AT * usual[step], ALIKE)
    }
