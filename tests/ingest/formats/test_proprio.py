"""State and gripper from the vectors of a source."""

import numpy as np
import pytest

from ingest.episode import RowsError
from ingest.formats.proprio import joined, signals
from ingest.registry import Gripper

STATE = np.array([[0.0, 10.0, 0.5], [1.0, 11.0, 0.25]])
ACTION = np.array([[7.0, 0.0], [8.0, 1.0]])
STATE_NAMES, ACTION_NAMES = ["x", "y", "gripper.pos"], ["x", "left_gripper"]


def listed(found: tuple[np.ndarray | None, np.ndarray | None]) -> list[list | None]:
    return [None if values is None else values.tolist() for values in found]


def test_gripper_by_name() -> None:
    """Of the state, before that of the action; both are taken out of the state."""
    assert listed(signals(STATE, ACTION, None, STATE_NAMES, ACTION_NAMES)) == [[[0.0, 10.0], [1.0, 11.0]], [0.5, 0.25]]
    assert listed(signals(STATE, ACTION, None, [], ACTION_NAMES)) == [STATE.tolist(), [0.0, 1.0]]
    assert listed(signals(STATE, ACTION, None)) == [STATE.tolist(), None]
    assert listed(signals(None, ACTION, None, [], ACTION_NAMES)) == [None, [0.0, 1.0]]
    assert listed(signals(None, None, Gripper(dimension=0))) == [None, None]


def test_mean_of_two_grippers() -> None:
    names = ["left_gripper", "y", "right_gripper"]
    assert listed(signals(STATE, None, None, names)) == [[[10.0], [11.0]], [0.25, 0.625]]
    assert listed(signals(STATE, None, Gripper(dimension=(0, 2)))) == [[[10.0], [11.0]], [0.25, 0.625]]
    assert listed(signals(STATE, None, Gripper(dimension=("y", 0)), STATE_NAMES)) == [[[0.5], [0.25]], [5.0, 6.0]]


@pytest.mark.parametrize(
    ("config", "gripper", "state"),
    [
        (Gripper(column="state", dimension=1), [10.0, 11.0], [[0.0, 0.5], [1.0, 0.25]]),
        (Gripper(column="state", dimension=-1), [0.5, 0.25], [[0.0, 10.0], [1.0, 11.0]]),
        (Gripper(column="state", dimension="y"), [10.0, 11.0], [[0.0, 0.5], [1.0, 0.25]]),
        (Gripper(column="action", dimension=0), [7.0, 8.0], STATE.tolist()),
        (Gripper(column="state", dimension=3), None, STATE.tolist()),
        (Gripper(column="state", dimension=-4), None, STATE.tolist()),
        (Gripper(column="state", dimension="nowhere"), None, STATE.tolist()),
        (Gripper(column="none"), None, STATE.tolist()),
    ],
)
def test_gripper_by_the_registry(config: Gripper, gripper: list[float] | None, state: list[list[float]]) -> None:
    assert listed(signals(STATE, ACTION, config, STATE_NAMES, ACTION_NAMES)) == [state, gripper]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_finite_numbers(bad: float) -> None:
    for at, what in ((1, "state"), (2, "gripper")):
        values = STATE.copy()
        values[1, at] = bad
        with pytest.raises(RowsError, match=f"^{what} is not a finite number in row 1$") as error:
            signals(values, None, None, STATE_NAMES)
        assert error.value.reason == "nan_state"
    action = ACTION.copy()
    action[0, 0] = bad  # an action that is no signal of ours is not looked at
    assert listed(signals(STATE, action, None, STATE_NAMES))[1] == [0.5, 0.25]


def test_parts_side_by_side() -> None:
    parts = [np.array([[1, 2], [3, 4]], np.float32), np.array([True, False])]
    both = joined(parts)
    assert both is not None
    assert (both.dtype, both.tolist()) == (np.float64, [[1.0, 2.0, 1.0], [3.0, 4.0, 0.0]])
    assert joined([]) is None
    with pytest.raises(RowsError, match=r"different lengths: \[2, 3\]"):
        joined([np.zeros((2, 1)), np.zeros(3)])


def test_a_gripper_with_values_of_its_own() -> None:
    def opening(values: list[float], **ends: float) -> list[float] | None:
        return listed(signals(np.array([values]).T, None, Gripper(dimension=0, **ends)))[1]

    assert opening([0.0, 0.25, 1.0], closed=1, open=0) == [1.0, 0.75, 0.0]
    assert opening([0.0, 0.01, 0.04], closed=0, open=0.04) == [0.0, 0.25, 1.0]
    assert opening([0.0, 60.0, 120.0]) == [0.0, 60.0, 120.0]
    for ends in ({"closed": 1.0}, {"open": 1.0}, {"closed": 1.0, "open": 1.0}):
        with pytest.raises(ValueError, match="closed and open go together"):
            Gripper(dimension=0, **ends)
