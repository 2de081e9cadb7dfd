"""Metrics: worked examples, cross-checks against scipy, and what each one does with ties and missing answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from eval import metrics as m

TRUTH = [("a", 0, 20), ("b", 20, 40), ("c", 40, 60)]
LEVELS = st.lists(st.integers(0, 8), min_size=3, max_size=30)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def test_voc_of_the_published_worked_example() -> None:
    assert m.voc(array(12, 15, 35, 30, 60), array(10, 20, 30, 40, 50)) == pytest.approx(0.9)


def test_voc_ranks_ties_by_their_mean_whatever_their_order() -> None:
    truth = array(50, 80, 100, 100, 100)
    assert m.voc(array(40, 70, 98, 95, 99), truth) == pytest.approx(0.894, abs=5e-4)
    assert m.voc(array(40, 70, 95, 98, 99), truth) == pytest.approx(0.894, abs=5e-4)


def test_voc_of_constants() -> None:
    assert m.voc(array(5, 5, 5), array(1, 2, 3)) == 0
    assert np.isnan(m.voc(array(1, 2, 3), array(5, 5, 5)))


@given(LEVELS, st.randoms(use_true_random=False))
def test_voc_agrees_with_scipy(values: list[int], random) -> None:
    truth = np.array(values, float)
    predicted = np.array([random.randint(0, 5) for _ in values], float)
    if np.ptp(truth) and np.ptp(predicted):
        assert m.voc(predicted, truth) == pytest.approx(spearmanr(predicted, truth).statistic, abs=1e-9)


def test_increment_correlation_sees_motion_not_level() -> None:
    truth = array(0, 0.1, 0.1, 0.1, 0.5, 0.6)
    assert m.increment_correlation(truth / 2 + 0.3, truth, 1) == pytest.approx(1)
    clock = np.linspace(0, 1, 6)
    assert m.increment_correlation(clock, truth, 1) == pytest.approx(0, abs=1e-9)
    expected = pearsonr(np.diff(truth**2), np.diff(truth)).statistic
    assert m.increment_correlation(truth**2, truth, 1) == pytest.approx(expected)


def test_errors() -> None:
    assert m.mae(array(0, 0.5), array(0.2, 0.2)) == pytest.approx(0.25)
    assert m.end_error(array(0, 0.5), array(0.2, 0.9)) == pytest.approx(0.4)


def test_boundaries_count_once_and_leave_the_ends_out() -> None:
    assert m.boundaries(TRUTH) == [20, 40]


def test_boundary_f1_of_the_published_worked_example() -> None:
    # boundaries 23 and 45 against 20 and 40, tolerance 3 frames: one of two is near enough
    assert m.boundary_f1([("a", 0, 23), ("b", 23, 45), ("c", 45, 60)], TRUTH) == pytest.approx(0.5)


def test_boundary_f1_matches_only_what_is_near() -> None:
    # an ungated assignment would pair 21 with 40 to save cost elsewhere; here 21 pairs with 20 and the rest is missed
    assert m.boundary_f1([("a", 0, 21), ("b", 21, 60)], TRUTH) == pytest.approx(2 / 3)
    assert m.boundary_f1([("a", 0, 60)], TRUTH) == 0
    assert m.boundary_f1([("a", 0, 60)], [("x", 0, 60)]) == 1


def test_segment_iou() -> None:
    predicted = [("x", 0, 10), ("y", 10, 60)]
    assert m.segment_iou(predicted, TRUTH) == pytest.approx((10 / 20 + 20 / 50 + 20 / 50) / 3)
    assert m.segment_iou(TRUTH, TRUTH) == 1


def test_edit_score() -> None:
    assert m.edit_score(TRUTH, TRUTH) == 1
    assert m.edit_score([("a", 0, 1), ("c", 1, 2)], TRUTH) == pytest.approx(1 - 1 / 3)
    assert m.edit_score([], []) == 1


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_episodes() -> None:
    rng = np.random.default_rng(0)
    few, many = m.bootstrap(rng.normal(size=20)), m.bootstrap(rng.normal(size=2000))
    assert few.low <= few.value <= few.high
    assert (many.high - many.low) < (few.high - few.low) / 5
    assert m.bootstrap([float("nan"), 2.0]).n == 1
    assert np.isnan(m.bootstrap([]).value)


def test_unread_answers_count_as_wrong_as_they_can_be() -> None:
    e = m.EpisodeScores(("d", 0), array(0.1, np.nan, np.nan), array(0.1, 0.2, 0.9))
    assert m.worst_case(e).tolist() == [0.1, 1.0, 0.0]
    assert m.coverage([e]) == pytest.approx(1 / 3)
    assert m.progress_scores([e])["mae"].value == pytest.approx((0.8 + 0.9) / 3)
