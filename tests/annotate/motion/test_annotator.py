"""Labels by motion: what grippers show, one step elsewhere, and what the other episodes of a task say."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.label import EpisodeLabel
from annotate.motion.annotator import annotate
from annotate.motion.config import MotionConfig
from annotate.progress import MOST
from annotate.segments import STEP, check_tiling
from annotate.signals import Signals
from tests.kits.motion_runs import FPS, curves, episodes, gripping, moving
from tests.kits.transfer_runs import pace, run_along

CONFIG = MotionConfig()
CUP = "Put the cup on the plate."
N = 120


def pick_and_place(*events: tuple[int, str], still: tuple[tuple[int, int], ...] = (), **kwargs) -> Signals:
    """An episode of 12 s; its arm rests for 1.5 s at each closing, so that a grasp is a step of its own."""
    rests = [(moment - 8, moment + 8) for moment, kind in events if kind == "close"]
    speed = moving(N, *rests, *still)
    return Signals(FPS, speed, speed, curves(gripping(N, *events)), task=CUP, **kwargs)


def steps(label: EpisodeLabel) -> list[tuple[str, int, int, bool]]:
    return [(s.name, s.start_frame, s.end_frame, s.completed) for s in label.segments if s.kind == STEP]


def three(*events: tuple[int, str], **kwargs) -> list[Signals]:
    return [pick_and_place(*events, episode_index=k, **kwargs) for k in range(3)]


def by_pictures(episode: int, end: float = 1.0, **kwargs) -> Signals:
    """An episode of a course that no gripper of a known polarity shows, which ends at a phase of it."""
    phases = pace(160, episode) * end
    run = run_along(phases, episode, **kwargs)
    return replace(run, grippers=(replace(run.grippers[0], has_polarity=False),))


def test_nothing_is_earned_where_an_episode_is_unlike_all_others():
    odd = run_along(pace(160, 9), 9, course=7)
    runs = [*(by_pictures(k) for k in range(6)), replace(odd, grippers=())]
    runs = [replace(run, grippers=()) for run in runs]
    *_, label = annotate(runs, CONFIG)
    assert label.curve is not None
    assert label.curve[-1] < 0.5
    assert any("unlike the others" in note for note in label.notes)


@settings(max_examples=60, deadline=None)
@given(st.lists(episodes(), min_size=1, max_size=5))
def test_any_signals_make_a_label(signals: list[Signals]):
    labels = annotate(signals, CONFIG)
    for run, label in zip(signals, labels, strict=True):
        check_tiling(label.segments, len(run), label.num_planned)
        assert label.curve is not None
        assert len(label.curve) == len(run)
        assert label.curve[0] == 0
        assert np.isfinite(label.curve).all()
        assert ((label.curve >= 0) & (label.curve <= 1)).all()
        assert (np.diff(label.curve) >= 0).all()
        assert run.success is not False or label.curve[-1] <= MOST
        assert label.confidence is not None
        assert 0 <= label.confidence <= 1
