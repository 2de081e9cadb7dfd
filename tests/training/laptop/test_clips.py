"""What training shows: windows as the release has them, and negatives at their rates."""

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from tests.kits.laptop_kit import TASKS, make_episode
from training.laptop.clips import WITHOUT_TASK, ClipSource
from training.negatives.config import NegativesConfig

RUNS = (make_episode(TASKS[0]), make_episode(TASKS[1]))


def source(**rates: float) -> ClipSource:
    return ClipSource(RUNS, 4, NegativesConfig(**rates), seed=1)


def test_a_window_as_recorded_rises_and_is_labelled_at_each_picture():
    clips = source().draw(200)
    assert clips.numbers.shape == (200, 5, 8)
    assert clips.label.shape == (200, 4)
    assert (np.diff(clips.label, axis=1) >= 0).all()
    # The kit's numbers are the label plus the view, so both are of one frame
    shown = clips.numbers[:, 1:, 0] - np.floor(clips.numbers[:, 1:2, 0])
    assert np.abs(shown - clips.label).max() < 1.01
    assert set(clips.kinds) == {"as_recorded"}


def test_pictures_stand_a_window_s_step_apart_and_closer_near_the_start():
    clips = source().draw(300)
    frames = np.rint(clips.label * 19)
    late = frames[frames[:, -1] >= 6]
    assert (np.diff(late, axis=1) == 2).all()
    early = frames[frames[:, -1] < 6]
    assert len(early) > 0
    assert (early[:, 0] <= 1).all()


def test_rewound_windows_turn_back():
    steps = np.diff(source(rewound=1).draw(50).label, axis=1)
    assert (steps[:, -1] <= 0).all()
    assert (steps < 0).any(1).mean() > 0.9
    # Some turn within the window, some before it
    assert 0 < (steps > 0).any(1).mean() < 1


def test_a_window_that_is_cut_short_stays_where_it_stops():
    clips = source(cut_short=1).draw(50)
    assert (np.diff(clips.label, axis=1)[:, -1] == 0).all()
    assert (clips.label[:, 0] < clips.label[:, -1]).any()


def test_a_run_that_stands_still_shows_one_moment():
    clips = source(stood_still=1).draw(50)
    assert (np.diff(clips.label, axis=1) == 0).all()
    assert (np.diff(clips.numbers[:, 1:], axis=1) == 0).all()


@pytest.mark.parametrize("kind", ["other_task", "shuffled"])
def test_another_task_s_instruction_is_worth_nothing_and_is_never_left_out(kind: str):
    clips = source(**{kind: 1}).draw(50)
    assert (clips.label == 0).all()
    assert set(clips.tasks) == set(TASKS)


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


def test_where_no_task_differs_none_is_made_up():
    alone = ClipSource(RUNS[:1], 4, NegativesConfig(other_task=1), seed=1)
    assert set(alone.draw(20).kinds) == {"as_recorded"}


def test_other_speeds_change_the_distance():
    frames = np.rint(source(other_speed=1).draw(200).label * 19)
    apart = np.diff(frames[frames[:, -1] >= 14], axis=1)
    assert {1.0, 2.0, 3.0} <= set(np.unique(apart))
    assert 4.0 >= apart.max() > 2


def test_rates_are_kept_and_counted():
    drawn = source(rewound=0.25, other_task=0.25)
    clips = drawn.draw(2000)
    assert drawn.counts == Counter(clips.kinds)
    assert drawn.counts["rewound"] / 2000 == pytest.approx(0.25, abs=0.04)
    assert drawn.counts["other_task"] / 2000 == pytest.approx(0.25, abs=0.04)
    untold = sum(task == "" for task in clips.tasks)
    assert untold / 1500 == pytest.approx(WITHOUT_TASK, abs=0.04)


def test_equal_seeds_draw_equal_clips():
    one, other = source(rewound=0.5).draw(20), source(rewound=0.5).draw(20)
    assert (one.numbers == other.numbers).all()
    assert one.tasks == other.tasks


def test_rates_above_one_together_are_refused():
    with pytest.raises(ValidationError, match=r"the rates are 1\.2 together"):
        NegativesConfig(rewound=0.6, other_task=0.6)
