"""How far a gripper is open, and the state that is left without it."""

import numpy as np
import pytest

from ingest.reasons import DataError
from ingest.signals.gripper import arm_state, combined, main_signal, opening, signal_from_row, signal_row
from tests.kits.signal_kit import episode_of, signal_at

ROWS = np.array([[0.0, 10.0, 0.5, 1.0], [1.0, 20.0, 0.25, 3.0]])
EPISODE = episode_of(0, ROWS, action=-ROWS)


def opened(*values: float, closed: float, open: float) -> list[float]:
    state = np.array(values)[:, None]
    curve = opening(signal_at(0, closed=closed, open=open), episode_of(0, state))
    assert curve is not None
    return curve.tolist()


def test_an_opening_is_the_share_of_the_range() -> None:
    assert opened(0.0, 0.01, 0.04, closed=0, open=0.04) == [0.0, 0.25, 1.0]
    assert opened(0.0, 0.25, 1.0, closed=1, open=0) == [1.0, 0.75, 0.0]
    assert opened(-1.0, 0.0, 1.0, closed=-1, open=1) == [0.0, 0.5, 1.0]
    assert opened(-5.0, 120.0, closed=0, open=100) == [0.0, 1.0]  # beyond the ends
    assert opened(3.0, 4.0, closed=3, open=3) == [0.0, 0.0]


def test_several_fingers_are_one_value() -> None:
    signal = signal_at(0, 3, weights=(0.5, -0.5), closed=-1.0, open=0.0)
    assert combined(signal, ROWS).tolist() == [-0.5, -1.0]
    assert opening(signal, EPISODE).tolist() == [0.5, 0.0]  # pyright: ignore


def test_a_gripper_of_the_action() -> None:
    assert opening(signal_at(2, column="action", closed=0, open=-1), EPISODE).tolist() == [0.5, 0.25]  # pyright: ignore


def test_an_episode_that_has_not_the_dimensions() -> None:
    assert opening(signal_at(4), EPISODE) is None
    assert opening(signal_at(0, column="action"), episode_of(0, ROWS)) is None
    assert opening(signal_at(0), episode_of(0, ROWS[:0])) is None


def test_the_arm_is_what_is_left_of_the_state() -> None:
    both = [signal_at(2, arm="left"), signal_at(0, 9, arm="right"), signal_at(1, column="action")]
    assert arm_state(EPISODE, both).tolist() == [[10.0, 1.0], [20.0, 3.0]]  # pyright: ignore
    assert arm_state(EPISODE, ()).tolist() == ROWS.tolist()  # pyright: ignore
    assert arm_state(EPISODE, [signal_at(0, 1, 2, 3)]) is None
    assert arm_state(episode_of(0, None, action=ROWS), both) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_finite_numbers(bad: float) -> None:
    state = ROWS.copy()
    state[1, 2] = bad
    episode = episode_of(0, state)
    with pytest.raises(DataError, match=r"^gripper is not a finite number in row 1$") as error:
        opening(signal_at(2), episode)
    assert error.value.reason == "nan_state"
    with pytest.raises(DataError, match=r"^state is not a finite number in row 1$"):
        arm_state(episode, ())
    # Each looks at its own dimensions only
    assert arm_state(episode, [signal_at(2)]) is not None
    assert opening(signal_at(0), episode) is not None


def test_the_gripper_that_stands_for_all() -> None:
    """The one that closes most often, of two alike the first; none that is not used."""
    idle = signal_at(0, is_used=False, closings_per_episode=None)
    once, twice = signal_at(1), signal_at(2, closings_per_episode=2.0)
    assert main_signal([idle, once, twice, twice]) == 2
    assert main_signal([idle, signal_at(1, closings_per_episode=None)]) == 1
    assert (main_signal([idle]), main_signal([])) == (None, None)


def test_a_signal_survives_the_lake() -> None:
    signal = signal_at(3, 4, arm="left", names=("a", "b"), unit="rad", weights=(1.0, -1.0))
    assert signal_from_row(signal_row(signal) | {"dataset": "d", "signal_index": 0}) == signal
    assert (signal.title, signal_at(0).title) == ("left gripper", "gripper")
    assert (signal.has_polarity, signal_at(0, polarity="unknown").has_polarity) == (True, False)
