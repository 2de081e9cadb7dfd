"""Statistics over episodes and chunks are those of the frames."""

import numpy as np

from warehouse.exports.lerobot_rows import (
    QUANTILES,
    Stats,
    combined,
    picture_statistics,
    statistics,
)


def stats_of(values: np.ndarray) -> Stats:
    stats = statistics(values)
    assert stats is not None
    return stats


def test_quantiles_over_episodes_in_different_places_are_those_of_the_frames() -> None:
    draw = np.random.default_rng(0)
    places = [-1, -1, -1, -1, -1, 1]
    episodes = [place + draw.uniform(-0.1, 0.1, (100, 2)) for place in places]
    whole = combined(list(map(stats_of, episodes)))
    frames = np.quantile(np.concatenate(episodes), list(QUANTILES.values()), axis=0)
    np.testing.assert_allclose([whole[name] for name in QUANTILES], frames, atol=0.01)
    assert whole["count"] == [600]


def test_quantiles_over_chunks_of_episodes_are_within_a_twentieth_of_the_range() -> None:
    draw = np.random.default_rng(0)
    episodes = [draw.normal(size=(200, 2)).cumsum(axis=0) for _ in range(60)]
    stats = list(map(stats_of, episodes))
    # A chunk joins its episodes, and the export its chunks
    whole = combined([combined(stats[start : start + 20]) for start in (0, 20, 40)])
    frames = np.concatenate(episodes)
    frame_quantiles = np.quantile(frames, list(QUANTILES.values()), axis=0)
    differences = np.abs([whole[name] for name in QUANTILES] - frame_quantiles)
    assert (differences < 0.05 * np.ptp(frames, axis=0)).all()


def test_quantiles_of_one_episode_and_of_a_still_joint_stay() -> None:
    episode = stats_of(np.random.default_rng(0).normal(size=(50, 3)))
    assert combined([episode]) == episode
    still = combined([stats_of(np.full((10, 1), 3.0)), stats_of(np.full((30, 1), 3.0))])
    assert [still[name] for name in QUANTILES] == [[3.0]] * len(QUANTILES)


def test_a_histogram_says_of_pictures_what_all_their_pixels_say() -> None:
    rng = np.random.default_rng(2)
    pictures = [rng.integers(0, top, (17, 23, 3), np.uint8) for top in (256, 3, 1)]
    stats = picture_statistics(pictures)
    expected = stats_of(np.concatenate([picture.reshape(-1, 3) for picture in pictures]) / 255)
    assert stats.pop("count") == [3]
    assert all(np.allclose(value, expected[name], atol=1e-12) for name, value in stats.items())
