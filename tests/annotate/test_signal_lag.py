"""How far signals are behind the pictures: measured, taken out, and never made up."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from annotate.signal_lag import (
    Lag,
    LagMeter,
    arm_speed,
    correlations,
    opening_without_lag,
    percentile,
    proprioception,
)
from ingest.episode import EpisodeData
from ingest.formats.tables import numbers
from ingest.signals.naming import transitions
from tests.kits.signal_kit import FPS, JOINTS, episode_of, joints_and_openings, signal_at

NAMES = (*JOINTS, "gripper")
GRIPPER = signal_at(6)
NUM_RUNS = 8


def later(rows: np.ndarray, lag_s: float) -> np.ndarray:
    """Rows as a recorder stamps them that is so late."""
    indices = np.arange(len(rows)) - round(lag_s * FPS)
    return rows[np.clip(indices, 0, len(rows) - 1)]


def change_of(joints: np.ndarray, opening: np.ndarray, seed: int) -> np.ndarray:
    """The visual change [n]: the arm, the fingers beside it, and noise."""
    speed = arm_speed(joints)
    fingers = np.abs(np.diff(opening, prepend=opening[0])) > 1e-9
    noise = np.random.default_rng(seed).random(len(joints))
    return 0.02 * speed / speed.max() + 0.008 * fingers + 0.001 * noise


def runs(gripper_lag_s: float = 0.0) -> list[tuple[EpisodeData, np.ndarray]]:
    """Episodes whose gripper is recorded late, and the visual change of each."""
    pairs = []
    for k, (joints, o) in enumerate(joints_and_openings(NUM_RUNS)):
        recorded = np.column_stack([joints, later(o[:, None], gripper_lag_s)])
        pairs.append((episode_of(k, recorded, NAMES), change_of(joints, o, k)))
    return pairs


def measured(
    pairs: Sequence[tuple[EpisodeData, np.ndarray]], *signals
) -> tuple[dict[str, Lag], LagMeter]:
    meter = LagMeter(signals)
    for episode, change in pairs:
        meter.add(episode, proprioception(episode, signals), change, FPS)
    return {lag.signal: lag for lag in meter.lags()}, meter


@pytest.mark.parametrize("lag_s", [1.2, 0.6, -0.8])
def test_a_gripper_that_is_late_or_early(lag_s):
    lags, meter = measured(runs(gripper_lag_s=lag_s), GRIPPER)
    for direction in ("closing", "opening"):
        lag = lags[f"gripper: {direction}"]
        assert lag.lag_s == pytest.approx(lag_s, abs=0.2)
        assert (lag.is_corrected, lag.num_observed) == (True, NUM_RUNS)
    assert not lags["state"].is_corrected
    [finding] = meter.findings(list(lags.values()))
    assert (finding.reason, finding.severity, finding.episode_index) == ("rows_late", "warning", 0)
    side = "behind" if lag_s > 0 else "ahead of"
    assert f"{side} the pictures ({NUM_RUNS} observed); gripper: opening is" in finding.detail


def test_each_gripper_has_its_own_lag():
    left_signal = replace(GRIPPER, arm="left")
    unused = signal_at(0, is_used=False)
    lacking = signal_at(9, arm="right")
    lags, _ = measured(runs(gripper_lag_s=1.2), left_signal, unused, lacking)
    assert set(lags) == {"state", "left gripper: closing", "left gripper: opening"}


def test_actions_that_are_no_numbers_are_left_out():
    spoilt = [
        (replace(e, actions=numbers(np.full((len(change), 2), np.nan))), change)
        for e, change in runs()
    ]
    assert "action" not in measured(spoilt)[0]


def test_without_lag_nothing_changes():
    [(_, o)] = joints_and_openings(1)
    np.testing.assert_allclose(opening_without_lag(o, FPS, 0.0, 0.0), o, atol=1e-12)
    np.testing.assert_allclose(
        opening_without_lag(np.full(20, 0.4), FPS, 1.2, 1.2), np.full(20, 0.4)
    )


def test_moves_that_are_near_each_other_stay_in_order():
    curve = np.repeat([1.0, 0.0, 1.0, 0.0], 30)
    mended = opening_without_lag(curve, FPS, 1.4, 0.8)
    assert [move.rises for move in transitions(mended, FPS)] == [False, True, False]
    assert [move.end for move in transitions(mended, FPS)] == [30 - 28, 60 - 16, 90 - 28]
    assert (mended.min(), mended.max()) == (0.0, 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_percentile_is_numpys_to_the_last_bit(dtype):
    random = np.random.default_rng(0)
    for length in (1, 2, 3, 10, 11, 300):
        values = random.gamma(1, 1, length).astype(dtype)
        for percent in (1, 75, 90, 99):
            assert percentile(values, percent) == float(np.percentile(values, percent))


def test_a_correlation_at_each_lag_is_that_of_what_overlaps():
    random = np.random.default_rng(0)
    changes, motions = random.random((2, 50)), random.random((1, 50))
    curves = correlations(changes, motions, 3)
    for lag in range(-3, 4):
        overlapping_changes = changes[:, max(0, -lag) : 50 - max(0, lag)]
        motion = motions[0, max(0, lag) : 50 - max(0, -lag)]
        expected = [np.corrcoef(change, motion)[0, 1] for change in overlapping_changes]
        assert curves[:, 0, lag + 3] == pytest.approx(expected, abs=1e-12)
