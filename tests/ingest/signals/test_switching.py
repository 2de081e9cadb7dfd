"""Grippers by the shape of the data."""

from collections.abc import Callable

import numpy as np
import pytest

from ingest.signals.switching import range_of, switching_dimensions
from tests.kits.signal_kit import FPS, JOINTS, joints_and_openings

RUNS = joints_and_openings()
RATES = [FPS] * len(RUNS)


def with_gripper(place: int) -> list[np.ndarray]:
    """The arm's joints, and among them the gripper at some place."""
    return [np.insert(joints, place, opening, axis=1) for joints, opening in RUNS]


def test_the_last_dimension_of_an_arm() -> None:
    assert switching_dimensions(with_gripper(6), RATES, ()) == {"": 6}


def test_the_arm_alone_has_none() -> None:
    assert switching_dimensions([joints for joints, _ in RUNS], RATES, JOINTS) == {}


def test_two_arms_one_behind_the_other() -> None:
    rows = [np.hstack([run, run]) for run in with_gripper(6)]
    assert switching_dimensions(rows, RATES, ()) == {"left": 6, "right": 13}
    names = [f"{arm}_{k}" for k in range(7) for arm in ("robot1", "robot2")]
    alternating = [np.repeat(run, 2, axis=1) for run in with_gripper(6)]
    assert switching_dimensions(alternating, RATES, names) == {"robot1": 12, "robot2": 13}
    assert switching_dimensions(alternating, RATES, ()) == {"right": 13}  # without names one half is one arm


def test_in_the_middle_only_two_levels_count() -> None:
    assert switching_dimensions(with_gripper(2), RATES, ()) == {}
    steps = [np.insert(joints, 2, opening > 0.5, axis=1) for joints, opening in RUNS]
    assert switching_dimensions(steps, RATES, ()) == {"": 2}


@pytest.mark.parametrize(
    "last",
    [
        lambda opening: np.full(len(opening), 3.0),  # never moves
        lambda opening: np.linspace(0, 1, len(opening)),  # drifts
        lambda opening: np.random.default_rng(0).integers(0, 2, len(opening)),  # trembles
        lambda opening: np.clip(np.linspace(-2, 3, len(opening)), 0, 1),  # takes two seconds to change its end
        lambda opening: np.sin(np.linspace(0, 12, len(opening))),  # swings all the time
    ],
)
def test_other_dimensions_that_stand_last(last: Callable[[np.ndarray], np.ndarray]) -> None:
    rows = [np.column_stack([joints, last(opening)]) for joints, opening in RUNS]
    assert switching_dimensions(rows, RATES, ()) == {}


def test_glitches_do_not_make_a_range() -> None:
    values = np.r_[np.linspace(0, 1, 1000), 50.0, -50.0]
    assert (range_of(values).low, range_of(values).high) == pytest.approx((0, 1), abs=0.01)
    assert range_of(values).relative(np.array([0.5])) == pytest.approx(0.5, abs=0.01)
    assert range_of(np.ones(5)).relative(np.ones(5)).tolist() == [0.0] * 5
