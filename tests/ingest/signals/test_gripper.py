"""How far a gripper is open, and the state that is left without it."""

import numpy as np

from ingest.signals.gripper import opening
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


def test_an_episode_that_has_not_the_dimensions() -> None:
    assert opening(signal_at(4), EPISODE) is None
    assert opening(signal_at(0, column="action"), episode_of(0, ROWS)) is None
    assert opening(signal_at(0), episode_of(0, ROWS[:0])) is None
