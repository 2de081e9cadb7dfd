"""What is measured of a run as a demonstration: on made-up ways of an arm, of which it is known what they do."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.demonstration import measures
from annotate.signals import GripperCurve, Signals

FPS = 20.0
TREMBLES = 3.0  # Hz


def minimum_jerk(seconds: float, fps: float = FPS) -> np.ndarray:
    """From 0 to 1 as people reach [n]."""
    t = np.linspace(0, 1, round(seconds * fps))
    return 10 * t**3 - 15 * t**4 + 6 * t**5


def signals(way: np.ndarray, fps: float = FPS, opening: np.ndarray | None = None) -> Signals:
    """Of an arm whose two joints follow a way [n]; a state that stands still has no speed."""
    state = np.stack([way, -2 * way], axis=1)
    spread = state.std(axis=0)
    speed = np.sqrt((np.gradient(state / spread, 1 / fps, axis=0) ** 2).mean(axis=1))
    grippers = () if opening is None else (GripperCurve(opening),)
    return Signals(fps, np.full(len(way), 0.01), speed, grippers, state=state)


def there_and_back() -> np.ndarray:
    reach = minimum_jerk(2)
    return np.concatenate([reach, reach[::-1]])


def test_a_run_without_a_break_rests_nowhere():
    m = measures(signals(minimum_jerk(3)))
    assert m.duration_s == pytest.approx(3)
    assert (m.pauses, m.reversals, m.gripper_moves) == (0, 0, None)
    assert m.rest_s < 1.2, "an arm that sets out and comes to rest is slow"


def test_a_stand_still_counts_with_its_seconds_wherever_it_is():
    reach, rest = minimum_jerk(2), round(1.5 * FPS)
    on_the_way = np.concatenate([reach, np.full(rest, 1.0), 1 + reach])
    at_the_end = np.concatenate([reach, 1 + reach, np.full(rest, 2.0)])
    without = measures(signals(np.concatenate([reach, 1 + reach])))
    paused, waited = measures(signals(on_the_way)), measures(signals(at_the_end))
    assert (without.pauses, paused.pauses, waited.pauses) == (0, 1, 0)
    assert paused.rest_s - without.rest_s == pytest.approx(2, abs=0.6)
    assert waited.rest_s - without.rest_s == pytest.approx(1.5, abs=0.3)


def test_a_way_back_is_a_reversal():
    assert measures(signals(there_and_back())).reversals == 1
    assert measures(signals(np.concatenate([there_and_back()] * 3))).reversals == 5


def test_a_hand_that_trembles_has_more_jerk_at_any_frame_rate():
    jerks = {}
    for fps in (10.0, 20.0, 50.0):
        smooth = minimum_jerk(4, fps)
        t = np.arange(len(smooth)) / fps
        shaken = smooth + 0.02 * np.sin(2 * np.pi * TREMBLES * t)
        jerks[fps] = [measures(signals(way, fps)).jerk for way in (smooth, shaken)]
    for smooth, shaken in jerks.values():
        assert shaken > 2 * smooth
    assert np.ptp(np.log([smooth for smooth, _ in jerks.values()])) < 0.1, "the frame rate does not count"
    assert np.ptp(np.log([shaken for _, shaken in jerks.values()])) < 0.7


def test_what_a_sensor_adds_is_far_less_than_trembling_and_size_does_not_count():
    way = minimum_jerk(4)
    noisy = way + np.random.default_rng(0).normal(size=len(way)) * 0.0005
    jerk = measures(signals(way)).jerk
    trembling = way + 0.02 * np.sin(2 * np.pi * TREMBLES * np.arange(len(way)) / FPS)
    assert measures(signals(noisy)).jerk < 1.6 * jerk < 0.1 * measures(signals(trembling)).jerk
    assert measures(signals(100 * way)).jerk == pytest.approx(jerk, rel=1e-6)
    # A stand-still changes nothing of how smoothly the arm moves
    rested = np.concatenate([way, np.full(100, way[-1])])
    assert measures(signals(rested)).jerk == pytest.approx(jerk, rel=0.1)


def test_each_move_of_the_gripper_counts():
    way = minimum_jerk(6)
    once = np.where((np.arange(len(way)) > 40) & (np.arange(len(way)) < 90), 0.1, 1.0)
    twice = np.where((np.arange(len(way)) > 60) & (np.arange(len(way)) < 70), 1.0, once)
    assert measures(signals(way, opening=once)).gripper_moves == 2
    assert measures(signals(way, opening=twice)).gripper_moves == 4
    assert measures(signals(way, opening=np.ones(len(way)))).gripper_moves == 0


def test_the_end_is_the_mean_of_the_last_moment():
    way = np.concatenate([np.zeros(40), np.ones(5)])
    m = measures(signals(way))
    assert m.end_state == pytest.approx([1, -2])
    assert m.state_spread == pytest.approx(np.stack([way, -2 * way], axis=1).std(axis=0))


def test_an_outcome_changes_nothing():
    run = signals(there_and_back(), opening=np.r_[np.ones(40), np.zeros(40)])
    measured = [measures(replace(run, success=success)) for success in (None, True, False)]
    assert len({repr(m) for m in measured}) == 1


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
