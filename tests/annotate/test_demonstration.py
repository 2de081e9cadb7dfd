"""What is measured of a run as a demonstration: on made-up ways of an arm, of which it is known what they do."""

import numpy as np
import pytest

from annotate.demonstration import measures
from annotate.signals import GripperCurve, Signals

FPS = 20.0


def signals(way: np.ndarray, fps: float = FPS, opening: np.ndarray | None = None) -> Signals:
    """Of an arm whose two joints follow a way [n]; a state that stands still has no speed."""
    state = np.stack([way, -2 * way], axis=1)
    spread = state.std(axis=0)
    speed = np.sqrt((np.gradient(state / spread, 1 / fps, axis=0) ** 2).mean(axis=1))
    grippers = () if opening is None else (GripperCurve(opening),)
    return Signals(fps, np.full(len(way), 0.01), speed, grippers, state=state)


def test_the_end_is_the_mean_of_the_last_moment():
    way = np.concatenate([np.zeros(40), np.ones(5)])
    m = measures(signals(way))
    assert m.end_state == pytest.approx([1, -2])
    assert m.state_spread == pytest.approx(np.stack([way, -2 * way], axis=1).std(axis=0))


@pytest.mark.parametrize("state", [None, np.zeros((60, 2)), np.full((60, 2), np.nan)])
def test_without_a_state_that_moves_there_is_no_jerk(state: np.ndarray | None):
    m = measures(Signals(FPS, np.full(60, 0.01), None, state=state))
    assert (m.jerk, m.reversals) == (None, None)
    assert (m.end_state is None) == (state is None or bool(np.isnan(state).any()))


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_a_run_of_few_frames_is_measured(n: int):
    m = measures(Signals(FPS, np.full(n, 0.01), np.full(n, 0.5), state=np.arange(2.0 * n).reshape(n, 2)))
    assert m.duration_s == n / FPS
    assert m.jerk is None
    assert m.reversals in (0, None)
