"""How far signals are behind the pictures: a lag that is there is measured and taken out, and none is made up."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from annotate.signal_lag import Lag, LagMeter, arm_speed, lag_row, proprioception, without_lag
from core.tables import TABLES
from ingest.episode import Episode
from ingest.formats.numbers import numbers
from ingest.signals.gripper import opening
from ingest.signals.transitions import transitions
from tests.kits.signal_kit import FPS, JOINTS, episode_of, joints_and_openings, signal_at

NAMES = (*JOINTS, "gripper")
GRIPPER = signal_at(6)
NUM_RUNS = 8


def later(rows: np.ndarray, lag_s: float) -> np.ndarray:
    """Rows as a recorder stamps them that is so late; the first and the last ones stay where nothing else is."""
    at = np.arange(len(rows)) - round(lag_s * FPS)
    return rows[np.clip(at, 0, len(rows) - 1)]


def change_of(joints: np.ndarray, opening: np.ndarray, seed: int) -> np.ndarray:
    """The visual change [n] of what truly happened: the arm, the fingers beside it, and noise."""
    speed = arm_speed(joints)
    assert speed is not None
    fingers = np.abs(np.diff(opening, prepend=opening[0])) > 1e-9
    noise = np.random.default_rng(seed).random(len(joints))
    return 0.02 * speed / speed.max() + 0.008 * fingers + 0.001 * noise


def runs(arm_lag_s: float = 0.0, gripper_lag_s: float = 0.0, num: int = NUM_RUNS) -> list[tuple[Episode, np.ndarray]]:
    """Episodes of one arm whose recorder is late, and the visual change of each."""
    pairs = []
    for k, (joints, o) in enumerate(joints_and_openings(num)):
        recorded = np.column_stack([later(joints, arm_lag_s), later(o[:, None], gripper_lag_s)])
        pairs.append((episode_of(k, recorded, NAMES), change_of(joints, o, k)))
    return pairs


def measured(pairs: Sequence[tuple[Episode, np.ndarray]], *signals) -> tuple[dict[str, Lag], LagMeter]:
    meter = LagMeter(signals)
    for episode, change in pairs:
        meter.add(episode, proprioception(episode, signals), change, FPS)
    return {lag.signal: lag for lag in meter.lags()}, meter


@pytest.mark.parametrize("lag_s", [1.2, 0.6, -0.8])
def test_a_gripper_that_is_late_or_early(lag_s: float) -> None:
    lags, meter = measured(runs(gripper_lag_s=lag_s), GRIPPER)
    for direction in ("closing", "opening"):
        lag = lags[f"gripper: {direction}"]
        assert lag.lag_s == pytest.approx(lag_s, abs=0.2)
        assert (lag.is_corrected, lag.num_observed) == (True, NUM_RUNS)
    assert not lags["state"].is_corrected
    [finding] = meter.findings(list(lags.values()))
    assert (finding.reason, finding.severity, finding.episode_index) == ("signal_lag", "warning", 0)
    side = "behind" if lag_s > 0 else "ahead of"
    assert f"{side} the pictures ({NUM_RUNS} observed); gripper: opening is" in finding.detail
    assert finding.detail.endswith("labels are corrected by it")


def test_a_lag_that_one_recording_shows_is_not_corrected() -> None:
    """Its gripper moves again and again, always late."""
    joints = np.concatenate([joints for joints, _ in joints_and_openings()])
    o = np.concatenate([o for _, o in joints_and_openings()])
    recorded = np.column_stack([joints, later(o[:, None], 0.6)])
    shown = [(episode_of(0, recorded, NAMES), change_of(joints, o, 0))]
    lag = measured(shown, GRIPPER)[0]["gripper: closing"]
    assert lag.num_observed >= 5
    assert not lag.is_corrected


@pytest.mark.parametrize("lag_s", [0.6, -0.5])
def test_an_arm_that_is_late_or_early(lag_s: float) -> None:
    lags, meter = measured(runs(arm_lag_s=lag_s), GRIPPER)
    assert lags["state"].lag_s == pytest.approx(lag_s, abs=0.1)
    assert (lags["state"].is_corrected, lags["state"].num_observed) == (True, NUM_RUNS)
    [finding] = meter.findings(list(lags.values()))
    assert finding.detail.startswith(
        f"state is {abs(lag_s):.1f} s {'behind' if lag_s > 0 else 'ahead of'} the pictures"
    )


def test_no_lag_is_none() -> None:
    lags, meter = measured(runs(), GRIPPER)
    assert set(lags) == {"state", "gripper: closing", "gripper: opening"}
    assert not any(lag.is_corrected for lag in lags.values())
    assert lags["state"].lag_s == 0
    assert meter.findings(list(lags.values())) == []


def test_pictures_that_show_nothing_of_it() -> None:
    blind = [(e, np.random.default_rng(k).random(len(change))) for k, (e, change) in enumerate(runs())]
    lags, _ = measured(blind, GRIPPER)
    assert not any(lag.is_corrected for lag in lags.values())


@pytest.mark.parametrize("num", [2, 4])
def test_few_runs_are_not_enough(num: int) -> None:
    lags, _ = measured(runs(arm_lag_s=0.6, gripper_lag_s=1.2, num=num), GRIPPER)
    assert lags["state"].lag_s == pytest.approx(0.6, abs=0.1)
    assert not any(lag.is_corrected for lag in lags.values())


def test_each_gripper_has_its_own_lag() -> None:
    """One that is not used has none, nor has one that an episode lacks."""
    left, unused, lacking = replace(GRIPPER, arm="left"), signal_at(0, is_used=False), signal_at(9, arm="right")
    lags, _ = measured(runs(gripper_lag_s=1.2), left, unused, lacking)
    assert set(lags) == {"state", "left gripper: closing", "left gripper: opening"}


def test_the_lag_of_an_action_is_told_and_not_used() -> None:
    late = [(replace(e, actions=numbers(later(e.state[:, :6], 0.6))), change) for e, change in runs()]  # pyright: ignore
    lags, meter = measured(late)
    assert lags["action"].lag_s == pytest.approx(0.6, abs=0.1)
    assert (lags["action"].is_corrected, meter.findings(list(lags.values()))) == (False, [])


def test_actions_that_are_no_numbers_are_left_out() -> None:
    spoilt = [(replace(e, actions=numbers(np.full((len(change), 2), np.nan))), change) for e, change in runs()]
    assert "action" not in measured(spoilt)[0]


def test_rows_are_of_the_table() -> None:
    lags, _ = measured(runs(), GRIPPER)
    rows = [{"dataset": "d", "chunk": 0} | lag_row(lag) for lag in lags.values()]
    assert TABLES["signal_lags"].rows(rows).num_rows == 3


# Taken out


def test_a_lag_is_taken_out() -> None:
    """Moves are where they truly were, within a frame or two, and levels stay."""
    for (episode, _), (_, o) in zip(runs(gripper_lag_s=1.2), joints_and_openings(NUM_RUNS), strict=True):
        recorded = opening(GRIPPER, episode)
        assert recorded is not None
        mended = without_lag(recorded, FPS, 1.2, 1.2)
        assert len(mended) == len(o)
        for move, true in zip(transitions(mended, FPS), transitions(o, FPS), strict=True):
            assert (abs(move.start - true.start) <= 2, abs(move.end - true.end) <= 2) == (True, True)
        assert np.abs(mended - o).mean() < 0.02 < np.abs(recorded - o).mean()
        assert (mended.min(), mended.max()) == (pytest.approx(recorded.min()), 1.0)


def test_closing_and_opening_may_lag_by_different_times() -> None:
    [(_, o)] = joints_and_openings(1)
    closing, opens = transitions(o, FPS)
    mended = without_lag(o, FPS, 1.0, 0.5)
    first, second = transitions(mended, FPS)
    assert first.start == pytest.approx(closing.start - FPS * 1.0, abs=1)
    assert second.start == pytest.approx(opens.start - FPS * 0.5, abs=1)


def test_without_lag_nothing_changes() -> None:
    [(_, o)] = joints_and_openings(1)
    np.testing.assert_allclose(without_lag(o, FPS, 0.0, 0.0), o, atol=1e-12)
    np.testing.assert_allclose(without_lag(np.full(20, 0.4), FPS, 1.2, 1.2), np.full(20, 0.4))


def test_moves_that_are_near_each_other_stay_in_order() -> None:
    """No level is lost where closing is so much later than opening that a stay is shortened."""
    curve = np.repeat([1.0, 0.0, 1.0, 0.0], 30)
    mended = without_lag(curve, FPS, 1.4, 0.8)
    assert [move.rises for move in transitions(mended, FPS)] == [False, True, False]
    assert [move.end for move in transitions(mended, FPS)] == [30 - 28, 60 - 16, 90 - 28]
    assert (mended.min(), mended.max()) == (0.0, 1.0)
