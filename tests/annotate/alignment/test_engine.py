"""Soft alignment against sums over all ways, and its weights."""

from dataclasses import replace
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
    worst_first,
)
from annotate.alignment.live import Following, Guide, ReferenceRun, Where
from annotate.config import MotionConfig
from tests.kits.transfer_runs import pace, run_along


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
def test_the_likeliest_ways_are_those_by_hand(shapes):
    distances = [np.random.default_rng(seed).uniform(0, 3, (k, m)) for k, m, seed in shapes]
    for run_distances, alignment in zip(distances, alignments_by_distance(distances), strict=True):
        assert alignment.likely == pytest.approx(by_hand(run_distances), abs=1e-9)
        assert alignment.apart == pytest.approx((alignment.likely * run_distances).sum(axis=1))


def test_nearer_references_count_more():
    near, far = alignments_by_distance([np.zeros((4, 3)), np.full((4, 3), 3.0)])
    weights = reference_weights(np.array([far.doubt, near.doubt]))
    assert weights[1] == 1
    assert weights[0] < 0.01
    assert spread(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([1.0, 1.0])) == pytest.approx(
        [0.5, 0.0]
    )


D = 64
FPS = 5.0
WALK = np.cumsum(np.random.default_rng(1).normal(size=(60, D)), axis=0)


def pictures(progress: np.ndarray, seed: int) -> np.ndarray:
    """What is seen at places 0..1 of the walk, float32 [k, D]."""
    place = progress * (len(WALK) - 1)
    start_index = np.floor(place).astype(int)
    share = (place - start_index)[:, None]
    way_vectors = (
        WALK[start_index] * (1 - share) + WALK[np.minimum(start_index + 1, len(WALK) - 1)] * share
    )
    return (way_vectors + 0.3 * np.random.default_rng(seed).normal(size=way_vectors.shape)).astype(
        np.float32
    )


def shown(k: int, length: int) -> ReferenceRun:
    progress = np.linspace(0, 1, length)
    steps = np.minimum((progress * 3).astype(int), 2)
    return ReferenceRun(
        f"d/{k}", (pictures(progress, k),), progress, steps, ("reach", "lift", "put"), length / FPS
    )


THREE = Guide.of([shown(k, length) for k, length in enumerate((60, 70, 50))])


def follow(progress: np.ndarray, lag: int = 0) -> tuple[Following, list[Where]]:
    follower = Following(THREE, lag)
    return follower, [follower.see([p], k / FPS) for k, p in enumerate(pictures(progress, 9))]


def test_with_a_lag_it_speaks_of_the_moment_before():
    progress = np.linspace(0, 1, 65)
    _, places = follow(progress, lag=5)
    assert [w.about_s for w in places[:8]] == pytest.approx([0, 0, 0, 0, 0, 0, 0.2, 0.4])
    true = np.interp([w.about_s for w in places], np.arange(65) / FPS, progress)
    assert np.abs([w.progress for w in places] - true).mean() < 0.02


def test_what_is_shown_is_of_the_same_cameras():
    other_shown = ReferenceRun(
        "d/9", (np.ones((5, 3), np.float32),), np.ones(5), np.zeros(5, int), ("a",), 1.0
    )
    with pytest.raises(ValueError, match="different cameras"):
        Guide.of([shown(0, 60), other_shown])


def test_where_pictures_tell_nothing_it_goes_by_the_clock():
    follower, places = follow(np.linspace(0, 0.3, 25))
    nothing = [THREE.means[0]]  # as near to all that is shown
    later = [follower.see(nothing, (25 + k) / FPS) for k in range(30)]
    assert not any(w.is_strange for w in later)
    assert places[-1].spread < 0.01
    assert max(w.spread for w in later) > 0.1
    assert places[-1].progress < 0.35
    assert later[-1].progress > 0.6


def test_pictures_rather_unlike_are_strange_in_a_row():
    rather = [
        p + np.random.default_rng(k).normal(size=D) * 4
        for k, p in enumerate(pictures(np.linspace(0, 1, 40), 9))
    ]
    alone = [follow(np.linspace(0, 0.1, 8))[0].see([p], 8 / FPS) for p in rather]
    follower = Following(THREE)
    all_strange = [follower.see([p], k / FPS) for k, p in enumerate(rather)]
    assert (
        np.mean([w.is_strange for w in all_strange])
        > 1.3 * np.mean([w.is_strange for w in alone])
        > 0
    )


def test_a_run_that_ends_elsewhere_comes_first():
    runs = [replace(run_along(pace(160, k), k), episode_index=k) for k in range(5)]
    stopped = replace(run_along(pace(160, 9)[:80], 9), episode_index=5)
    assert worst_first([*runs, stopped], MotionConfig())[0] == 5


def test_one_run_alone_or_what_cannot_be_compared_stays_in_order():
    run = run_along(pace(160, 0), 0)
    assert worst_first([replace(run, episode_index=3)], MotionConfig()) == [3]
    blind = [replace(run, episode_index=k, pictures=(), state=None, grippers=()) for k in (2, 1)]
    assert worst_first(blind, MotionConfig()) == [1, 2]
