"""A run that goes on beside shown ones: made of one walk through picture space, at other speeds and with noise."""

import numpy as np
import pytest

from annotate.alignment.live import Following, Guide, ReferenceRun, Where

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


def test_with_a_lag_it_speaks_of_the_moment_before() -> None:
    progress = np.linspace(0, 1, 65)
    _, places = follow(progress, lag=5)
    assert [w.about_s for w in places[:8]] == pytest.approx([0, 0, 0, 0, 0, 0, 0.2, 0.4])
    true = np.interp([w.about_s for w in places], np.arange(65) / FPS, progress)
    assert np.abs([w.progress for w in places] - true).mean() < 0.02


def test_what_is_shown_is_of_the_same_cameras() -> None:
    other_shown = ReferenceRun(
        "d/9", (np.ones((5, 3), np.float32),), np.ones(5), np.zeros(5, int), ("a",), 1.0
    )
    with pytest.raises(ValueError, match="different cameras"):
        Guide.of([shown(0, 60), other_shown])


def test_where_pictures_tell_nothing_it_is_less_sure_the_longer_and_goes_by_the_clock() -> None:
    follower, places = follow(np.linspace(0, 0.3, 25))
    nothing = [THREE.means[0]]  # as near to all that is shown
    later = [follower.see(nothing, (25 + k) / FPS) for k in range(30)]
    assert not any(w.is_strange for w in later)
    assert places[-1].spread < 0.01
    assert max(w.spread for w in later) > 0.1
    assert places[-1].progress < 0.35
    assert later[-1].progress > 0.6


def test_pictures_that_are_rather_unlike_one_after_another_are_strange_though_one_alone_is_not() -> (
    None
):
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
