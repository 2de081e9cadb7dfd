"""Made-up runs of one task for the transfer annotator: the same course, each at its own pace.

The course has a phase from 0 to 1. An arm goes along a smooth way, a gripper closes at GRASPS_AT
and opens at RELEASES_AT, and what an encoder sees changes smoothly with the phase.
"""

from collections.abc import Sequence

import numpy as np

from annotate.motion.observe import GripperCurve, Signals
from annotate.transfer import Reference
from core.domain.label import STEP, Label, Segment

FPS = 20.0
GRASPS_AT = 0.4
RELEASES_AT = 0.75
PLAN = ("Reach the cup", "Carry the cup", "Go home")
ENDS = (GRASPS_AT, RELEASES_AT, 1.0)  # of the plan's steps
DIMS = 24


def pace(n: int, seed: int) -> np.ndarray:
    """Phases [n] from 0 to 1 that rise now faster, now slower."""
    times = np.linspace(0, 1, 7)
    speeds = np.random.default_rng(seed).uniform(0.6, 1.6, 7)
    progress = np.cumsum(np.interp(np.linspace(0, 1, n), times, speeds))
    return (progress - progress[0]) / (progress[-1] - progress[0])


def run_along(
    phases: np.ndarray, episode: int, *, success: bool | None = None, course: int = 0
) -> Signals:
    """A run that is at `phases` [n] of a course; other numbers of `course` are other tasks."""
    n = len(phases)
    noise = np.random.default_rng(1000 + episode)
    state = _curve(phases, 100 + course, 3) + noise.normal(0, 0.01, (n, 3))
    speed = np.linalg.norm(
        np.diff(
            _curve(phases, 100 + course, 3), axis=0, prepend=_curve(phases[:1], 100 + course, 3)
        ),
        axis=1,
    )
    turns = [0, GRASPS_AT - 0.03, GRASPS_AT, RELEASES_AT - 0.02, RELEASES_AT + 0.02, 1]
    opening = np.interp(phases, turns, [1, 1, 0, 0, 1, 1])
    seen_frames = np.arange(0, n, 4)
    pictures = _curve(phases[seen_frames], course, DIMS) + noise.normal(
        0, 0.1, (len(seen_frames), DIMS)
    )
    grippers = (GripperCurve(opening),)
    seen_by = ((seen_frames, pictures.astype(np.float32)),)
    return Signals(
        FPS, speed, speed * FPS, grippers, success, "Put the cup away.", state, episode, seen_by
    )


def _curve(phases: np.ndarray, seed: int, dims: int) -> np.ndarray:
    """[n, dims]: smooth, and elsewhere at each phase."""
    draws = np.random.default_rng(seed)
    rates = draws.uniform(2, 9, dims)
    shifts = draws.uniform(0, 6.28, dims)
    return np.cos(np.outer(phases, rates) + shifts)


def cuts_of(phases: np.ndarray) -> list[int]:
    """The frames at which a run that never goes back begins the second step, and the third."""
    return [int(np.searchsorted(phases, end)) for end in ENDS[:-1]]


def steps_of(phases: np.ndarray) -> list[Segment]:
    """What a person says of a run that never goes back."""
    ends = [0, *cuts_of(phases), len(phases)]
    return [Segment(name, ends[k], ends[k + 1], STEP, True, k) for k, name in enumerate(PLAN)]


def shown_by(
    phases: np.ndarray, episode: int, segments: Sequence[Segment] | None = None
) -> Reference:
    """A reference whose progress is its phase."""
    label = Label(segments or steps_of(phases), len(PLAN), PLAN, phases)
    return run_along(phases, episode), label
