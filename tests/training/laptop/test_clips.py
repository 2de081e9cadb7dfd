"""What training shows: windows as the release has them, and negatives at their rates."""

import numpy as np
import pytest
from pydantic import ValidationError

from tests.kits.laptop_kit import TASKS, make_episode
from training.laptop.clips import ClipSource
from training.negatives.config import NegativesConfig

RUNS = (make_episode(TASKS[0]), make_episode(TASKS[1]))


def source(**rates: float) -> ClipSource:
    return ClipSource(RUNS, 4, NegativesConfig(**rates), seed=1)


def test_contrast_shows_the_clip_before_it_again_under_another_task():
    clips = source(contrast=0.4).draw(300)
    again = [k for k, kind in enumerate(clips.kinds) if kind == "contrast"]
    assert len(again) > 60
    for k in again:
        # Both views of a run's frame differ by a whole number
        apart = clips.numbers[k, 1:, 0] - clips.numbers[k - 1, 1:, 0]
        assert np.abs(apart - np.rint(apart)).max() < 2e-3
        assert clips.kinds[k - 1] == "as_recorded"
        assert clips.tasks[k] != clips.tasks[k - 1]
        assert (clips.label[k] == 0).all()


def test_the_wrong_object_is_worth_nothing():
    clips = source(wrong_object=1).draw(50)
    assert (clips.label == 0).all()
    assert set(clips.tasks) == {"push the curtain to the right", "pull the bar down"}


def test_equal_seeds_draw_equal_clips():
    one, other = source(rewound=0.5).draw(20), source(rewound=0.5).draw(20)
    assert (one.numbers == other.numbers).all()
    assert one.tasks == other.tasks


def test_rates_above_one_together_are_refused():
    with pytest.raises(ValidationError, match=r"the rates are 1\.2 together"):
        NegativesConfig(rewound=0.6, other_task=0.6)
