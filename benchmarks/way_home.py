"""Where the way home ends the work rightly, and where it would not: simulated arms of several kinds, by their ways.

    python -m benchmarks.way_home

Each kind is a task of eight runs, without pictures: an arm goes from point to point with smooth accelerations, at
places and speeds that differ from run to run, and its pose trembles. What is done on each leg is known, so progress is
known: equal budgets of the steps. Prints per kind the error of progress by the clock, by motion without the rule, and
by motion with it, and where it says that the work is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np

import annotate.motion.annotator as motion
from annotate.config import MotionConfig
from annotate.motion.observe import GripperCurve, Observed, Signals, observe
from benchmarks.harness import table
from core.domain.label import DONE, STEP, Segment
from eval.annotators.truth import hand_progress

RUNS = 8
FPS = 20.0
TREMBLE = 0.002  # m
HOME = (0.0, 0.0, 0.3)
FAR = (0.5, 0.1, 0.05)
LEFT = (0.4, 0.35, 0.05)
SIDE = (0.45, -0.2, 0.05)
NEAR = (0.12, 0.03, 0.05)  # beside the arm's first pose
UP = (0.0, 0.0, 0.15)


@dataclass(frozen=True)
class Leg:
    """A way to a point (m), or a stay where it is the same. closes: the gripper's state at its end; None: as before."""

    to: tuple[float, float, float]
    seconds: float
    step: str | None = None  # the step that it is a part of; None: no work
    closed: bool | None = None


def _shifted(point: Sequence[float], shift: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (a + b for a, b in zip(point, shift, strict=True))
    return x, y, z


ABOVE = _shifted(FAR, UP)
REACH = Leg(FAR, 3.0, "reach")
GRASP = Leg(FAR, 0.6, "grasp", closed=True)
PRESS = (Leg(_shifted(FAR, (0, 0, -0.03)), 0.5, "press"), Leg(FAR, 0.5, "press"))
GO_HOME = Leg(HOME, 2.0)
OPEN_DRAWER = (Leg(FAR, 0.5, "grip", closed=True), Leg(_shifted(FAR, (-0.22, 0, 0)), 2.0, "pull"))
STROKES = tuple(Leg(point, 1.0, "wipe") for point in (LEFT, SIDE, LEFT, SIDE))
# Each kind: the text, the legs, and whether which end of its gripper is open is known (None: no gripper)
KINDS: Mapping[str, tuple[str, Sequence[Leg], bool | None]] = {
    "presses, goes home": ("press the button", (REACH, *PRESS, GO_HOME), None),
    "presses, goes home, fingers close on the way": (
        "",
        (REACH, *PRESS, Leg(HOME, 2.0, closed=True)),
        True,
    ),
    "presses with a fist, goes home": (
        "press the button",
        (
            Leg(HOME, 1.0, "reach", closed=True),
            REACH,
            *PRESS,
            GO_HOME,
            Leg(HOME, 1.0, closed=False),
        ),
        True,
    ),
    "presses two, goes home": (
        "press both buttons",
        (
            REACH,
            *PRESS,
            Leg(SIDE, 2.0, "second"),
            Leg(_shifted(SIDE, (0, 0, -0.03)), 0.5, "press 2"),
            GO_HOME,
        ),
        None,
    ),
    "presses and stays": ("press the button", (REACH, *PRESS), None),
    "pushes, is cut at success": (
        "push the block",
        (REACH, Leg(_shifted(FAR, (0.15, 0, 0)), 2.0, "push")),
        None,
    ),
    "wipes, goes home": ("wipe the table", (REACH, *STROKES, GO_HOME), None),
    "wipes and stays": ("wipe the table", (REACH, *STROKES), None),
    "opens a drawer and stays, gripper unseen": ("open the drawer", (REACH, *OPEN_DRAWER), None),
    "opens a drawer and stays": ("open the drawer", (REACH, *OPEN_DRAWER), True),
    "opens a drawer, lets go, goes home": (
        "open the drawer",
        (REACH, *OPEN_DRAWER, Leg(_shifted(FAR, (-0.22, 0, 0)), 0.5, closed=False), GO_HOME),
        True,
    ),
    "brings a thing to itself": (
        "",
        (REACH, GRASP, Leg(NEAR, 3.0, "carry"), Leg(NEAR, 0.5, "release", closed=False)),
        True,
    ),
    "brings a thing to itself and keeps it": ("", (REACH, GRASP, Leg(NEAR, 3.0, "carry")), True),
    "drags a thing to itself, gripper unseen": (
        "drag the box here",
        (REACH, Leg(NEAR, 3.0, "drag")),
        None,
    ),
    "brings a thing to itself, open end unknown": (
        "",
        (REACH, GRASP, Leg(NEAR, 3.0, "carry"), Leg(NEAR, 0.5, "release", closed=False)),
        False,
    ),
    "brings a thing to itself, gripper unseen": (
        "",
        (REACH, Leg(FAR, 0.6, "grasp"), Leg(NEAR, 3.0, "carry"), Leg(NEAR, 0.5, "release")),
        None,
    ),
    "carries a thing aside, goes home, open end unknown": (
        "",
        (
            REACH,
            GRASP,
            Leg(ABOVE, 1.0, "lift"),
            Leg(SIDE, 3.0, "carry"),
            Leg(SIDE, 0.5, "release", closed=False),
            GO_HOME,
        ),
        False,
    ),
}


@dataclass(frozen=True)
class Run:
    signals: Signals
    progress: np.ndarray
    work_end: int


def runs_of(kind: str, *, arms: int = 1, base_m: float = 0.0) -> list[Run]:
    """The runs of a kind. arms: that many poses in the state; the second stays. base_m: how far a base drives first."""
    text, legs, has_polarity = KINDS[kind]
    return [_run(text, legs, has_polarity, seed, arms, base_m) for seed in range(RUNS)]


def _run(
    text: str, legs: Sequence[Leg], has_polarity: bool | None, seed: int, arms: int, base_m: float
) -> Run:
    rng = np.random.default_rng(seed)
    pose, closed, segments = _gone(legs, rng)
    n = len(pose)
    other_columns = [rng.normal(0, TREMBLE, (n, 3)) for _ in range(arms - 1)]
    if base_m:
        driven = base_m * np.clip(np.arange(n) / (0.3 * n), 0, 1)
        other_columns.append(np.stack([driven, np.zeros(n)], axis=1))
    grippers = () if has_polarity is None else (GripperCurve(1 - closed, has_polarity),)
    speed = np.linalg.norm(np.diff(pose, axis=0, prepend=pose[:1]), axis=1) * FPS
    state = np.concatenate([pose, *other_columns], axis=1)
    signals = Signals(FPS, speed, speed, grippers, None, text or None, state, seed)
    work_end = max(s.end_frame for s in segments if s.kind == STEP)
    return Run(signals, hand_progress(segments, n), work_end)


def _gone(
    legs: Sequence[Leg], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[Segment]]:
    """The pose [n, 3], how closed the gripper is [n], and what is done, of an arm that goes along its legs."""
    shift = rng.normal(0, 0.03, 3)
    steps = list(dict.fromkeys(leg.step for leg in legs if leg.step))
    start_point = np.asarray(HOME)
    is_closed = 0.0
    poses: list[np.ndarray] = []
    closed: list[np.ndarray] = []
    segments: list[Segment] = []
    for leg in legs:
        count = max(2, round(leg.seconds * rng.uniform(0.7, 1.3) * FPS))
        # Minimum jerk, as arms of people and planners go
        t = np.linspace(0, 1, count)
        smooth = t**3 * (10 - 15 * t + 6 * t**2)
        goal = np.asarray(leg.to) + (shift if leg.to != HOME else 0)
        poses.append(start_point + smooth[:, None] * (goal - start_point))
        start_point = goal
        was_closed = is_closed
        is_closed = was_closed if leg.closed is None else float(leg.closed)
        closed.append(was_closed + (is_closed - was_closed) * smooth)
        start = segments[-1].end_frame if segments else 0
        segments.append(Segment("home", start, start + count, DONE))
        if leg.step:
            segments[-1] = Segment(
                leg.step, start, start + count, STEP, True, steps.index(leg.step)
            )
    pose = np.concatenate(poses)
    return pose + rng.normal(0, TREMBLE, pose.shape), np.concatenate(closed), segments


def error(runs: Sequence[Run]) -> float:
    labels = motion.annotate([run.signals for run in runs], MotionConfig())
    errors = []
    for label, run in zip(labels, runs, strict=True):
        errors.append(np.abs(label.progress - run.progress).mean())
    return float(np.mean(errors))


def row(name: str, runs: Sequence[Run]) -> list[str]:
    def rests(task: Sequence[Observed]) -> list[int]:
        return [episode.final_rest for episode in task]

    clock = np.mean(
        [np.abs(np.linspace(0, 1, len(run.progress)) - run.progress).mean() for run in runs]
    )
    ends = motion.ends_of_work([observe(run.signals, MotionConfig()) for run in runs])
    mean_end = np.mean([end / len(run.progress) for end, run in zip(ends, runs, strict=True)])
    true = np.mean([run.work_end / len(run.progress) for run in runs])
    with mock.patch.object(motion, "ends_of_work", rests):
        without = error(runs)
    return [
        name,
        f"{clock:.3f}",
        f"{without:.3f}",
        f"{error(runs):.3f}",
        f"{mean_end:.2f}",
        f"{true:.2f}",
    ]


def main() -> None:
    rows = [row(kind, runs_of(kind)) for kind in KINDS]
    for kind in ("presses, goes home", "presses and stays"):
        rows.append(row(f"{kind}; a second arm stays", runs_of(kind, arms=2)))
        rows.append(row(f"{kind}; a base drives there", runs_of(kind, base_m=1.5)))
    table(
        ["kind", "clock", "without the rule", "with it", "work ends at, by motion", "in truth"],
        rows,
    )


if __name__ == "__main__":
    main()
