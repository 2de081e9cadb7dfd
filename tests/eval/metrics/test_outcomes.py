"""Outcomes of runs: AUC against scikit-learn, thresholds, when success is said, and ranks within a task."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from eval.metrics import outcomes, score
from eval.metrics.outcomes import Detected, auc, ranking_measures, success_measures
from eval.metrics.runs import runs_of

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


def test_the_interval_of_an_auc_is_that_of_its_resamples() -> None:
    rng = np.random.default_rng(1)
    actual = np.arange(60) % 2 == 0
    said = rng.normal(size=60) + actual
    found = score.score(auc(said, actual))
    drawn = [rng.integers(60, size=60) for _ in range(1000)]
    areas = np.array([float(roc_auc_score(actual[d], said[d])) for d in drawn])
    low, high = np.percentile(areas, score.LEVELS)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def four_runs() -> Detected:
    """Succeeded and told a second early; succeeded and told late; succeeded and never told; failed and told."""
    said = [[0.1, 0.8, 0.9], [0.1, 0.1, 0.8], [0.1, 0.2, NAN], [0.9, 0.1, 0.1]]
    reached = [[0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]
    return Detected(
        np.array(said).ravel(),
        np.tile([0.0, 1.0, 2.0], 4),
        np.array(reached, bool).ravel(),
        np.arange(5) * 3,
        np.array([True, True, True, False]),
    )


def test_success_is_told_by_the_highest_answer_and_from_the_first_at_the_threshold_on() -> None:
    found = {name: value(m) for name, m in success_measures(four_runs(), 0.5).items()}
    assert found["success_accuracy"] == 0.5
    assert (found["success_precision"], found["success_recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found["success_balanced"] == pytest.approx(1 / 3)
    # One a second early and one a second late, of the two that were told
    assert (found["success_early_s"], found["success_late_s"]) == (0.5, 0.5)
    assert found["success_auc"] == pytest.approx(0.5 / 3)  # the failed run is as high as one, and above the others


def test_a_run_without_an_answer_is_told_wrong() -> None:
    silent = Detected(
        np.full(2, NAN), np.zeros(2), np.array([True, False]), np.array([0, 1, 2]), np.array([True, False])
    )
    found = {name: value(m) for name, m in success_measures(silent, 0.5).items()}
    assert found["success_accuracy"] == 0
    assert np.isnan(found["success_auc"])
    assert np.isnan(found["success_late_s"])


def test_never_saying_success_has_no_precision() -> None:
    found = success_measures(four_runs(), 2.0)
    assert np.isnan(value(found["success_precision"]))
    assert value(found["success_recall"]) == 0


def test_runs_of_a_task_are_ranked_by_their_last_answers() -> None:
    said, ended = np.array([0.2, 0.9, 0.7, 0.8]), np.array([0.3, 1.0, 1.0, 0.6])
    alike = np.array([0.1, 0.9]), np.ones(2)
    found = ranking_measures(runs_of([(said, ended), alike]))
    # Of six pairs four are in order, one is not, and one ended alike
    tau = (4 - 1) / np.sqrt(6 * 5)
    assert (value(found["ranking_tau_b"]), score.score(found["ranking_tau_b"]).n) == (pytest.approx(tau), 1)
    assert value(found["ranking_accuracy"]) == pytest.approx(4 / 5)  # of the third and the fourth alone it is wrong


def test_a_clock_ranks_nothing_and_silence_ranks_worst() -> None:
    ended = np.array([0.2, 1.0, 1.0])
    clock = ranking_measures(runs_of([(np.ones(3), ended)]))
    assert (value(clock["ranking_tau_b"]), value(clock["ranking_accuracy"])) == (0, 0.5)
    silent = ranking_measures(runs_of([(np.full(3, NAN), ended)]))
    assert value(silent["ranking_accuracy"]) == 0
    assert found_coverage(silent) == 0


def found_coverage(measures: dict[str, score.Measure]) -> float:
    return score.score(measures["ranking_tau_b"]).coverage


def test_measures_among_many_episodes_count_their_own_only() -> None:
    inner = score.mean_of([0.2, 0.4])
    outer = inner.among(np.array([False, True, False, True]))
    assert (value(outer), score.score(outer).n) == (pytest.approx(0.3), 2)
    assert value(outer.of(np.array([3]))) == pytest.approx(0.4)
