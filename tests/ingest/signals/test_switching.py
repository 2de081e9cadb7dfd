"""Grippers by the shape of the data."""

import numpy as np

from ingest.signals.switching import switching_dimensions
from tests.kits.signal_kit import FPS, joints_and_openings

RUNS = joints_and_openings()
RATES = [FPS] * len(RUNS)


def with_gripper(place: int) -> list[np.ndarray]:
    """The arm's joints, and among them the gripper at some place."""
    return [np.insert(joints, place, opening, axis=1) for joints, opening in RUNS]


def test_two_arms_one_behind_the_other() -> None:
    rows = [np.hstack([run, run]) for run in with_gripper(6)]
    assert switching_dimensions(rows, RATES, ()) == {"left": 6, "right": 13}
    names = [f"{arm}_{k}" for k in range(7) for arm in ("robot1", "robot2")]
    alternating = [np.repeat(run, 2, axis=1) for run in with_gripper(6)]
    assert switching_dimensions(alternating, RATES, names) == {"robot1": 12, "robot2": 13}
    assert switching_dimensions(alternating, RATES, ()) == {"right": 13}  # without names one half is one arm
