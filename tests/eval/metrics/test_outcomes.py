"""Outcomes of runs: AUC against scikit-learn, thresholds, when success is said, and ranks within a task."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from eval.metrics import outcomes, score
from eval.metrics.outcomes import Detected, auc, success_measures

NAN = float("nan")


def value(measure: score.Measure) -> float:
    return score.score(measure).value


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_agrees_with_scikit_learn(runs: list[tuple[int, bool]]) -> None:
    said, actual = (np.array(x) for x in zip(*runs, strict=True))
    found = value(auc(said.astype(np.float64), actual))
    if len({*actual.tolist()}) < 2:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(actual, said))


def test_auc_of_many_scores_is_nearly_that_of_all() -> None:
    rng = np.random.default_rng(0)
    actual = rng.random(3000) < 0.4
    said = rng.normal(size=3000) + actual
    measure = auc(said, actual)
    assert measure.parts.shape[1] == 2 * outcomes.MOST_BINS
    assert value(measure) == pytest.approx(roc_auc_score(actual, said), abs=0.002)


def test_a_run_without_an_answer_is_told_wrong() -> None:
    silent = Detected(
        np.full(2, NAN), np.zeros(2), np.array([True, False]), np.array([0, 1, 2]), np.array([True, False])
    )
    found = {name: value(m) for name, m in success_measures(silent, 0.5).items()}
    assert found["success_accuracy"] == 0
    assert np.isnan(found["success_auc"])
    assert np.isnan(found["success_late_s"])
