"""Weights by gains, segments and outcomes; and the progress and the made-up run by which LeRobot comes to them."""

import numpy as np
import pytest

from warehouse.exports.frame_weights import (
    CAP,
    DEVIATION,
    MEAN,
    WeighedRun,
    as_progress,
    balancing_gains,
    frame_weights,
    gains_of,
)

N = 40


def run_of(
    progress: np.ndarray | None = None,
    task: str = "open",
    *,
    idle: slice = slice(0),
    failed: bool = False,
):
    gains = np.full(N, np.nan) if progress is None else gains_of(progress, 5)
    is_useful = np.ones(N, bool)
    is_useful[idle] = False
    return WeighedRun(task, gains, is_useful, failed)


RISE = np.linspace(0, 1, N)
STALLS = np.interp(np.arange(N), [0, 10, 30, N - 1], [0, 0.5, 0.5, 1])


def test_what_gains_weighs_more_and_what_fails_or_stands_still_nothing():
    runs = [run_of(RISE), run_of(STALLS, idle=slice(10, 30)), run_of(RISE, failed=True)]
    awr = frame_weights(runs, "awr")
    combined = frame_weights(runs, "combined")
    assert awr[1][0] > awr[0][0] > awr[1][15] > 0  # the stalled run is faster before it stalls
    np.testing.assert_array_equal(awr[0], awr[2])
    np.testing.assert_array_equal(combined[0], awr[0])
    assert not combined[1][10:30].any()
    assert not combined[2].any()
    np.testing.assert_array_equal(frame_weights(runs, "segments")[1][:-1], runs[1].is_useful[:-1])
    top = np.concatenate(frame_weights(runs, "top-half"))
    assert set(top) == {0.0, 1.0}
    # Nothing follows a run's last frame
    assert all(weights[-1] == 0 for weights in [*awr, *combined])


def test_gains_are_compared_within_a_task_and_without_a_label_count_as_its_mean():
    slow = run_of(RISE / 10, "slow")
    weights = frame_weights(
        [run_of(RISE), run_of(STALLS), slow, run_of(STALLS / 10, "slow"), run_of(None)], "awr"
    )
    np.testing.assert_allclose(weights[2], weights[0])
    assert set(weights[4][:-1]) == {1.0}
    assert max(map(np.max, weights)) <= CAP
    weights_by_mean = frame_weights(
        [WeighedRun(None, np.full(N, 0.1), np.ones(N, bool), False)], "awr"
    )
    assert set(weights_by_mean[0][:-1]) == {1.0}


def test_one_leap_is_capped():
    leap = np.where(np.arange(400) < 200, 0.0, 1.0)
    [weights] = frame_weights(
        [WeighedRun("t", gains_of(leap, 1), np.ones(400, bool), False)], "awr"
    )
    assert weights.max() == CAP


@pytest.mark.parametrize("chunk_size", [1, 3, 39, 100])
def test_gains_of_the_progress_are_the_weights(chunk_size: int):
    weights = np.append(np.random.default_rng(0).random(N - 1), 0.0)
    np.testing.assert_allclose(
        gains_of(as_progress(weights, chunk_size), chunk_size), weights, atol=1e-12
    )


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_a_made_up_run_brings_mean_and_deviation(share: float):
    weights = (np.arange(1000) < share * 1000) * np.linspace(0.2, 1, 1000)
    made_up = balancing_gains(len(weights), weights.sum(), (weights**2).sum())
    all_weights = np.concatenate([weights, made_up])
    assert (all_weights.mean(), all_weights.std()) == (
        pytest.approx(MEAN, abs=1e-9),
        pytest.approx(DEVIATION, abs=1e-9),
    )
    assert made_up[-1] == 0
    assert len(made_up) < 5 * len(weights)
