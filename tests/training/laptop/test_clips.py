"""What training shows: windows as the release has them, and negatives at their rates."""

import pytest
from pydantic import ValidationError

from tests.kits.laptop_kit import TASKS, make_episode
from training.laptop.clips import ClipSource
from training.negatives.config import NegativesConfig

RUNS = (make_episode(TASKS[0]), make_episode(TASKS[1]))


def source(**rates: float) -> ClipSource:
    return ClipSource(RUNS, 4, NegativesConfig(**rates), seed=1)


def test_another_task_is_worth_nothing():
    clips = source(other_task=1).draw(50)
    assert (clips.label == 0).all()
    assert set(clips.tasks) == {e.task for e in RUNS}


def test_equal_seeds_draw_equal_clips():
    one, other = source(rewound=0.5).draw(20), source(rewound=0.5).draw(20)
    assert (one.numbers == other.numbers).all()
    assert one.tasks == other.tasks


def test_rates_above_one_together_are_refused():
    with pytest.raises(ValidationError, match=r"the rates are 1\.2 together"):
        NegativesConfig(rewound=0.6, other_task=0.6)
