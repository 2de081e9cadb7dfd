"""Labels by motion: what grippers show, one step elsewhere, and what the other episodes of a task say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.config import MotionConfig
from annotate.motion.annotator import annotate
from annotate.motion.observe import Signals
from annotate.motion.task_text import Transfer, transfers
from annotate.progress import MOST
from core.domain.label import check_tiling
from tests.kits.motion_runs import episodes
from tests.kits.transfer_runs import pace, run_along

CONFIG = MotionConfig()


def test_nothing_is_earned_where_an_episode_is_unlike_all_others():
    runs = [*(run_along(pace(160, k), k) for k in range(6)), run_along(pace(160, 9), 9, course=7)]
    *_, label = annotate([replace(run, grippers=()) for run in runs], CONFIG)
    assert label.progress[-1] < 0.5
    assert any("unlike the others" in note for note in label.notes)


@settings(max_examples=60, deadline=None)
@given(st.lists(episodes(), min_size=1, max_size=5))
def test_any_signals_make_a_label(signals: list[Signals]):
    labels = annotate(signals, CONFIG)
    for run, label in zip(signals, labels, strict=True):
        check_tiling(label.segments, len(run), label.num_planned)
        assert len(label.progress) == len(run)
        assert label.progress[0] == 0
        assert np.isfinite(label.progress).all()
        assert ((label.progress >= 0) & (label.progress <= 1)).all()
        assert (np.diff(label.progress) >= 0).all()
        assert run.success is not False or label.progress[-1] <= MOST
        assert label.confidence is not None
        assert 0 <= label.confidence <= 1


# Task texts


@pytest.mark.parametrize(
    "task", ["Pick up the yellow bottle", "lift the yellow bottle on the table."]
)
def test_what_is_only_picked_up_is_lifted(task: str):
    assert transfers(task) == (Transfer("the yellow bottle", is_lifted=True),)


@pytest.mark.parametrize(
    "task",
    [
        None,
        "...",
        "Open the green drawer.",
        "open the top drawer and put the bowl inside",
        "pick up the cup and the fork and put them in the sink",
        "Put the cup on the plate and the fork in the sink",
        "place it on the shelf and wipe the table",
        "bimanual cloth manipulation",
    ],
)
def test_no_transfers_where_the_text_is_not_understood(task: str | None):
    assert transfers(task) == ()
