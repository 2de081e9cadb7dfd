"""When a grape is let go, by the gripper alone."""

import numpy as np
import pytest

from annotate.segments import IDLE, Segment
from benchmarks.piper_placing import Placing, let_go, placed

FPS = 10


def gripper(*levels: tuple[float, int]) -> np.ndarray:
    """Levels of the gripper and for how many frames each."""
    return np.concatenate([np.full(n, level) for level, n in levels])


def test_the_opening_after_a_hold_counts_and_not_the_closing_on_the_way_home() -> None:
    assert let_go(gripper((0.8, 5), (50, 10), (10, 20), (60, 10), (0.8, 40)), FPS) == 34


def test_a_gripper_that_closes_on_nothing_lets_nothing_go() -> None:
    assert let_go(gripper((50, 10), (0.8, 20), (50, 10)), FPS) is None
    # The second time it has something
    assert let_go(gripper((50, 10), (0.8, 20), (50, 10), (10, 20), (50, 5)), FPS) == 59


def test_what_is_let_go_at_once_was_not_grasped() -> None:
    assert let_go(gripper((50, 10), (10, 8), (50, 10), (10, 20), (50, 5)), FPS) == 47


def test_what_is_held_to_the_end_is_not_let_go() -> None:
    assert let_go(gripper((50, 10), (10, 40)), FPS) is None
    assert let_go(gripper((0.8, 20)), FPS) is None


def test_a_slow_closing_is_one() -> None:
    closing = np.concatenate([gripper((50, 10)), np.linspace(50, 5, 15), gripper((5, 20), (30, 10))])
    assert let_go(closing, FPS) == 44


@pytest.mark.parametrize(
    ("let_go_at", "placed_at", "is_right"),
    [
        (30, (35,), True),
        (30, (45,), False),
        (30, (30, 60), False),
        (30, (), False),
        (None, (), True),
        (None, (9,), False),
    ],
)
def test_a_run_is_right_when_it_is_placed_there_and_nowhere_else(
    let_go_at: int | None, placed_at: tuple[int, ...], is_right: bool
) -> None:
    assert Placing(let_go_at, placed_at).is_right(FPS) == is_right


def test_only_completed_steps_place_something() -> None:
    segments = [
        Segment("Place the grape", 0, 10, completed=False),
        Segment("Grasp the grape", 10, 20),
        Segment("Place the grape", 20, 30),
        Segment("Place", 30, 40, IDLE),
    ]
    assert placed(segments) == (30,)
