"""Soft alignment against sums over all ways, and its weights."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.alignment.engine import (
    DISTANCE,
    STAY,
    alignments_by_distance,
    reference_weights,
    spread,
)


def by_hand(distances: np.ndarray) -> np.ndarray:
    """The same by looking at every way that never goes back."""
    k, m = distances.shape
    min_costs = np.full((k, m), np.inf)
    for way in product(range(m), repeat=k):
        steps = np.diff(way)
        if (steps < 0).any():
            continue
        moves = way[0] + (m - 1 - way[-1]) + sum(STAY if s == 0 else s - 1 for s in steps)
        cost = moves + DISTANCE * distances[np.arange(k), list(way)].sum()
        for i, moment in enumerate(way):
            min_costs[i, moment] = min(min_costs[i, moment], cost)
    likelihood = np.exp(min_costs.min(axis=1, keepdims=True) - min_costs)
    return likelihood / likelihood.sum(axis=1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6)),
        min_size=1,
        max_size=4,
    )
)
def test_the_likeliest_ways_are_those_by_hand_however_pairs_lie_side_by_side(
    shapes: list[tuple[int, int, int]],
):
    distances = [np.random.default_rng(seed).uniform(0, 3, (k, m)) for k, m, seed in shapes]
    for run_distances, alignment in zip(distances, alignments_by_distance(distances), strict=True):
        assert alignment.likely == pytest.approx(by_hand(run_distances), abs=1e-9)
        assert alignment.apart == pytest.approx((alignment.likely * run_distances).sum(axis=1))


def test_an_episode_beside_itself_is_where_it_is():
    distances = np.abs(np.subtract.outer(np.arange(30.0), np.arange(30.0)))
    [alignment] = alignments_by_distance([distances])
    assert (alignment.likely.argmax(axis=1) == np.arange(30)).all()
    assert alignment.doubt < 0.3


def test_a_pause_stays_at_one_moment_of_the_reference():
    run = np.r_[np.arange(10.0), np.full(20, 10.0), np.arange(11.0, 20.0)]
    [alignment] = alignments_by_distance([np.abs(np.subtract.outer(run, np.arange(20.0)))])
    assert set(alignment.likely.argmax(axis=1)[10:29]) == {10}


def test_nearer_references_count_more():
    near, far = alignments_by_distance([np.zeros((4, 3)), np.full((4, 3), 3.0)])
    weights = reference_weights(np.array([far.doubt, near.doubt]))
    assert weights[1] == 1
    assert weights[0] < 0.01
    assert spread(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([1.0, 1.0])) == pytest.approx(
        [0.5, 0.0]
    )
