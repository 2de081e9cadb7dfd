"""What a hand holds, told by how far open it stays, on made-up grippers."""

import numpy as np
import pytest

from annotate.motion.gripper_events import GripperCurve, GripperEvent
from annotate.motion.held_object import MIN_GRASPS, holds_object, opening_on_last_close


def closed(level: float, n: int = 30) -> np.ndarray:
    return np.r_[np.ones(10), np.full(n - 10, level)]


EVENTS = [GripperEvent(9, 11, "close", 11)]


def told(levels: list[float | None], failed: list[float | None]) -> list[bool | None]:
    """Of failed runs beside successful ones whose grippers stayed so far open; None never closed."""
    every = [*levels, *failed]
    grippers = [GripperCurve(np.ones(30) if x is None else closed(x)) for x in every]
    openings = [opening_on_last_close([] if x is None else EVENTS, [g]) for x, g in zip(every, grippers, strict=True)]
    return holds_object(openings, [True] * len(levels) + [False] * len(failed), grippers)[len(levels) :]


def test_a_hold_is_the_last_closing_until_it_opens():
    gripper = GripperCurve(np.r_[np.ones(5), np.full(10, 0.2), np.ones(5), np.full(10, 0.5), np.ones(5)])
    events = [
        GripperEvent(4, 5, "close", 5),
        GripperEvent(14, 15, "open", 15),
        GripperEvent(19, 20, "close", 20),
        GripperEvent(29, 30, "open", 30),
    ]
    assert opening_on_last_close(events, [gripper]) == 0.5
    assert opening_on_last_close(events[:2], [gripper]) == 0.2
    assert opening_on_last_close([], [gripper]) is None
    assert opening_on_last_close([], []) is None


def test_a_hand_holds_when_open_as_far_as_on_the_object():
    assert told([0.5, 0.5, 0.52], [0.5, 0.47, 0.1, 0.9]) == [True, True, False, False]


def test_a_gripper_that_nobody_saw_closing_farther_tells_of_no_thing():
    assert told([0.5, 0.5, 0.5], [0.5]) == [None]
    # nor one that closes as far on the thing as on nothing; one that hardly closed holds nothing all the same
    assert told([0.05, 0.1, 0.05], [0.05, 0.0, 0.9]) == [None, None, False]


@pytest.mark.parametrize("levels", [[], [0.5] * (MIN_GRASPS - 1), [None] * MIN_GRASPS])
def test_too_few_successful_runs_tell_nothing(levels: list[float | None]):
    assert told(levels, [0.1, 0.5]) == [None, None]


def test_a_run_that_never_closed_its_gripper_is_not_told_of():
    assert told([0.5, 0.5, 0.5], [None, 0.1]) == [None, False]
