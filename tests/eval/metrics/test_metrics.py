"""Metrics of progress and outcomes: worked examples, scipy, scikit-learn, missing answers."""

import functools
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import scipy  # its parts are imported when they are used
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef, roc_auc_score

from eval.benchmarks.progresslm import trajectory_voc
from eval.metrics import errors, order, outcomes, score, segments
from eval.metrics import segments as m
from eval.metrics.outcomes import auc, success_measures
from eval.metrics.score import (
    Runs,
    mean_of,
    paired,
    ratio_of,
    runs_of,
)
from eval.scored import progress_measures
from tests.kits.files import table

NAN = float("nan")
LEVEL = st.integers(0, 8)
EPISODE = st.lists(st.tuples(LEVEL, LEVEL), max_size=30)
EPISODES = st.lists(EPISODE, min_size=1, max_size=5)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def one(predicted: np.ndarray, target: np.ndarray) -> Runs:
    return runs_of([(predicted, target)])


def many(episodes: list[list[tuple[int, int]]]) -> Runs:
    return runs_of((array(*(p / 8 for p, _ in e)), array(*(t / 8 for _, t in e))) for e in episodes)


def concordance(predicted: np.ndarray, target: np.ndarray) -> float:
    """tau-a by comparing all pairs; ties count 0."""
    signs = [np.sign(v[:, None] - v[None]) for v in (predicted, target)]
    return float((signs[0] * signs[1]).sum() / (len(target) * (len(target) - 1)))


@settings(max_examples=60, deadline=None)
@given(EPISODES)
def test_orders_agree_with_scipy(episodes):
    runs = many(episodes)
    voc, (tau_b, tau_a) = order.voc(runs), order.kendall(runs)
    for k, e in enumerate(episodes):
        p = array(*(p for p, _ in e))
        t = array(*(t for _, t in e))
        if len(e) < 2 or np.ptp(t) == 0:
            assert np.isnan([voc[k], tau_b[k], tau_a[k]]).all()
        elif np.ptp(p) == 0:
            assert (voc[k], tau_b[k], tau_a[k]) == (0, 0, 0)
        else:
            assert voc[k] == pytest.approx(scipy.stats.spearmanr(p, t).statistic, abs=1e-9)
            assert tau_b[k] == pytest.approx(scipy.stats.kendalltau(p, t).statistic, abs=1e-9)
            assert tau_a[k] == pytest.approx(concordance(p, t), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(LEVEL, LEVEL), min_size=4, max_size=30), st.integers(1, 2))
def test_changes_and_concordance_agree_with_their_formulas(episode, lag):
    runs = many([[(1, 2), (3, 5)], episode])
    p = runs.predicted[2:]
    t = runs.target[2:]
    moved_p = p[lag:] - p[:-lag]
    moved_t = t[lag:] - t[:-lag]
    correlation = order.increment_correlation(runs, lag)[1]
    if np.ptp(moved_t) == 0:
        assert np.isnan(correlation)
    elif np.ptp(moved_p) == 0:
        assert correlation == 0
    else:
        assert correlation == pytest.approx(
            scipy.stats.pearsonr(moved_p, moved_t).statistic, abs=1e-9
        )
    if np.ptp(t) and np.ptp(p):
        expected = (
            2 * np.cov(p, t, bias=True)[0, 1] / (p.var() + t.var() + (p.mean() - t.mean()) ** 2)
        )
        assert order.ccc(runs)[1] == pytest.approx(expected, abs=1e-9)


def test_a_clock_does_not_follow_how_far_apart_the_answers_are():
    elapsed = array(0, 0.1, 0.2, 0.6, 1)
    truth = elapsed**2
    assert order.increment_correlation(one(elapsed, truth))[0] > 0.8
    assert order.increment_correlation(replace(one(elapsed, truth), elapsed=elapsed)) == [0]
    assert order.increment_correlation(
        replace(one(truth / 2, truth), elapsed=elapsed)
    ) == pytest.approx([1])
    twice = array(0, 0.5, 0.5, 1)
    assert order.increment_correlation(
        replace(one(twice**2, twice**2), elapsed=twice)
    ) == pytest.approx([1])


def test_a_clock_has_a_perfect_voc_and_no_margin():
    truth = array(0, 0.1, 0.1, 0.2, 0.9, 1)
    clock = np.linspace(0, 1, 6)
    assert order.voc(one(clock, truth))[0] > 0.98
    measures = progress_measures(replace(one(clock, truth), elapsed=clock))
    scores_found = score.scores(measures)
    assert (scores_found["mae_margin"].value, scores_found["voc_margin"].value) == (0, 0)
    assert scores_found["increment_correlation"].value == pytest.approx(0, abs=1e-9)
    better = score.scores(progress_measures(replace(one(truth * 0.9, truth), elapsed=clock)))
    assert better["mae_margin"].value > 0.1
    assert better["increment_correlation"].value == pytest.approx(1)


def test_a_clock_drifts_where_a_run_stands_still():
    constant = np.full(10, 0.4)
    clock = np.linspace(0, 1, 10)
    drift = order.stall_drift(
        runs_of([(clock, constant), (constant, constant), (constant[:1], constant[:1])])
    )
    assert drift == pytest.approx([1, 0, NAN], nan_ok=True)


def test_who_cannot_be_read_at_all_scores_worst_and_not_nothing():
    rising = np.linspace(0, 1, 5)
    runs = runs_of([(np.full(5, NAN), rising)])
    assert score.score(mean_of(trajectory_voc(runs.parsed))).n == 0
    scores_found = score.scores(progress_measures(replace(runs, elapsed=rising)))
    assert (scores_found["voc"].value, scores_found["voc"].n) == (0, 1)
    assert scores_found["voc_worst"].value < -0.8
    assert scores_found["mae"].value == pytest.approx((1 + 0.75 + 0.5 + 0.75 + 1) / 5)
    assert scores_found["mae_parsed"].n == 0
    assert all(s.coverage == 0 for s in scores_found.values())


def test_one_huge_episode_does_not_drown_the_others():
    long = np.linspace(0, 1, 5000)
    short = np.linspace(0, 1, 5)
    runs = runs_of([(long, long), *[(1 - short, short)] * 9])
    pooled = score.score(ratio_of(runs.sums(np.abs(runs.predicted - runs.target)), runs.lengths))
    mae_score = score.scores(progress_measures(runs))["mae"]
    assert pooled.value < 0.01
    assert mae_score.value == pytest.approx(0.54)
    assert mae_score.low > 0.3


def test_effective_resolution_does_not_grow_with_answers():
    evenly = [((np.arange(n) + 0.5) / n,) * 2 for n in (16, 300)]
    few, lots = errors.effective_resolution(runs_of([(p, t) for p, t in evenly]))
    assert few == lots == 5
    values_over_one = np.linspace(0, 2, 16)
    assert errors.effective_resolution(
        one(values_over_one, values_over_one)
    ) == errors.effective_resolution(one(np.minimum(values_over_one, 1), values_over_one))
    assert np.isnan(errors.effective_resolution(one(np.arange(5) / 5, np.arange(5) / 5))[0])


def test_used_bins_never_exceed_one():
    truth = array(0.1, 0.1, 0.1, 0.1)
    noise = array(0.1, 0.3, 0.5, 0.9)
    runs = runs_of([(noise, truth), (truth, truth + 0.6), (array(1.0), array(1.0))])
    assert errors.used_bins(runs) == pytest.approx([1, 0, NAN], nan_ok=True)
    runs_over_one = runs_of([(array(0.1, 1.5), array(0.1, 0.2)), (array(0.1), array(0.45))])
    assert errors.used_bins(runs_over_one).tolist() == [0.5, 0]


def test_errors():
    assert np.isnan(errors.mcc(array(0, 10, 2, 0)))
    assert errors.mcc(array(0, 10, 0, 2)) == 0
    runs = runs_of([(array(0, 0.5), array(0.2, 0.9)), (array(), array())])
    assert errors.mae(runs) == pytest.approx([0.3, NAN], nan_ok=True)
    assert errors.end_error(runs) == pytest.approx([0.4, NAN], nan_ok=True)
    published = errors.reference_error(array(3, 3), array(1, 2), array(1, 3), is_clipped=False)
    assert published == pytest.approx([0, 1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_confusion_agrees_with_scikit_learn(pairs):
    predicted, actual = (np.array(x) for x in zip(*pairs, strict=True))
    cells = errors.confusion(predicted, actual, np.ones(len(predicted), bool)).sum(axis=0)
    assert errors.accuracy(cells) == np.mean(predicted == actual)
    if len({*actual.tolist()}) == 2:
        assert errors.mcc(cells) == pytest.approx(matthews_corrcoef(actual, predicted), abs=1e-9)
        assert errors.balanced_accuracy(cells) == pytest.approx(
            balanced_accuracy_score(actual, predicted)
        )


def test_unread_answers_count_as_wrong_as_they_can_be():
    runs = one(array(0.1, NAN, NAN), array(0.1, 0.2, 0.96))
    assert runs.worst.predicted.tolist() == [0.1, 1.0, 0.0]
    assert runs.read.tolist() == [[1, 3]]
    assert errors.finished_mcc(runs).parts.tolist() == [[0, 1, 1, 1]]
    assert errors.confusion(np.array([False]), np.array([False]), np.array([False])).tolist() == [
        [0, 0, 1, 0]
    ]


def test_interval_holds_the_mean_and_narrows_with_more_episodes():
    rng = np.random.default_rng(0)
    few, lots = (score.score(mean_of(rng.normal(size=n))) for n in (20, 2000))
    assert few.low <= few.value <= few.high
    assert (lots.high - lots.low) < (few.high - few.low) / 5
    texts = [score.score(mean_of(values)).text() for values in ([NAN], [NAN, 2.0], [2.0, 2.0])]
    assert texts == ["–", "2.000", "2.000 (2.00–2.00)"]
    of_more = mean_of([1.0, 3.0], np.array([[1, 1], [0, 1]])).among(np.array([True, False, True]))
    mean_score = score.score(of_more)
    assert (mean_score.value, mean_score.n, mean_score.coverage) == (2, 2, 0.5)


def test_a_ratio_is_of_sums_and_its_interval_holds_it():
    ratio_score = score.score(ratio_of([0, 6, 3], [2, 6, 4]))
    assert (ratio_score.value, ratio_score.n) == (pytest.approx(9 / 12), 3)
    assert ratio_score.low < 9 / 12 < ratio_score.high
    assert score.score(ratio_of([], [])).n == score.score(ratio_of([0], [0])).n == 0


def test_resampling_in_blocks_draws_the_same(monkeypatch):
    measure = mean_of(np.random.default_rng(1).random(37))
    whole = score.score(measure)
    monkeypatch.setattr(score, "RESAMPLED_AT_ONCE", 100)
    block_score = score.score(measure)
    assert (block_score.value, block_score.low, block_score.high) == pytest.approx(
        (whole.value, whole.low, whole.high)
    )


def test_paired_difference_sees_what_the_spread_of_episodes_hides():
    rng = np.random.default_rng(0)
    hard = rng.random(40)
    better = mean_of(hard)
    worse = mean_of(hard + 0.02 + 0.01 * rng.normal(size=40))
    alone = [score.score(m) for m in (better, worse)]
    assert alone[0].high > alone[1].low
    d = paired(better, worse)
    assert d.value == pytest.approx(alone[0].value - alone[1].value)
    assert (d.high < 0, d.n) == (True, 40)
    assert d.p == pytest.approx(2 / (score.RESAMPLES + 1))
    same = paired(better, better)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert paired(mean_of([1, NAN]), mean_of([NAN, 1])).n == 0
    swapped = paired(worse, better)
    assert (swapped.value, swapped.p) == (pytest.approx(-d.value), d.p)


def value(measure: score.Measure) -> float:
    return score.score(measure).value


def test_the_ends_alone_are_no_boundary_and_names_are_plain():
    assert m.boundary_f1([("x", 0, 60)], [("a", 0, 30), ("b", 30, 60)]) == 0
    assert m.plain_name("Put the cup on a Plate!") == "put cup on plate"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_agrees_with_scikit_learn(runs):
    predicted, actual = (np.array(x) for x in zip(*runs, strict=True))
    auc_value = value(auc(predicted.astype(np.float64), actual))
    if len({*actual.tolist()}) < 2:
        assert np.isnan(auc_value)
    else:
        assert auc_value == pytest.approx(roc_auc_score(actual, predicted))


def test_auc_of_many_scores_is_nearly_that_of_all():
    rng = np.random.default_rng(0)
    actual = rng.random(3000) < 0.4
    predicted = rng.normal(size=3000) + actual
    measure = auc(predicted, actual)
    assert measure.parts.shape[1] == 2 * outcomes.MOST_BINS
    assert value(measure) == pytest.approx(roc_auc_score(actual, predicted), abs=0.002)


def test_a_run_without_an_answer_is_told_wrong():
    silent = Runs(np.full(2, NAN), np.array([1.0, 0.0]), np.array([0, 1, 2]))
    measures = success_measures(silent, np.zeros(2), np.array([True, False]), 0.5)
    values_found = {name: value(m) for name, m in measures.items()}
    assert values_found["success_accuracy"] == 0
    assert np.isnan(values_found["success_auc"])
    assert np.isnan(values_found["success_late_s"])


@given(st.text("ab", max_size=6), st.text("abc", max_size=6))
def test_edits_are_counted_as_by_their_definition(actual, target):
    @functools.cache
    def least(a: str, b: str) -> int:
        if not (a and b):
            return len(a + b)
        return min(least(a[1:], b) + 1, least(a, b[1:]) + 1, least(a[1:], b[1:]) + (a[0] != b[0]))

    name_spans = [list(product(names, [0], [1])) for names in (actual, target)]
    assert m.edit_score(*name_spans) == 1 - least(actual, target) / max(1, len(actual), len(target))


def vectors(*names: str) -> dict[str, np.ndarray]:
    return dict(zip(names, np.eye(len(names)), strict=True))


@pytest.mark.parametrize(("text", "plan"), table("plans"))
def test_plans_are_read(text, plan):
    assert segments.plan_of(text) == (None if plan is None else tuple(plan))


def test_plan_success_wants_order_and_number_and_semantic_f1_does_not():
    v = vectors("a", "b", "c")
    assert segments.plan_success(["a", "b"], ["a", "b"], v) == 1
    assert (
        segments.plan_success(["b", "a"], ["a", "b"], v)
        == segments.plan_success(["a"], ["a", "b"], v)
        == 0
    )
    assert segments.plan_success([], [], v) == 1
    assert segments.semantic_f1(["b", "a"], ["a", "b"], v) == 1
    assert segments.semantic_f1(["a", "c"], ["a", "b"], v) == 0.5
    assert segments.semantic_f1([], [], v) == 1
    assert segments.semantic_f1([], ["a"], v) == 0
    close = {"a": np.array([1.0, 0]), "A": np.array([0.9, np.sqrt(1 - 0.81)])}
    assert segments.plan_success(["A"], ["a"], close) == 1
