"""Labels by motion: what grippers show, one step elsewhere, and what the other episodes of a task say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.label import EpisodeLabel
from annotate.motion.annotator import PRIOR_CONFIDENCE, annotate
from annotate.motion.config import MotionConfig
from annotate.motion.gripper_events import gripper_moves
from annotate.motion.structure import over_goal
from annotate.progress import MOST
from annotate.segments import IDLE, STEP, check_tiling
from annotate.signals import Signals
from tests.kits.motion_runs import FPS, curves, episodes, going, gripping, moving
from tests.kits.transfer_runs import cuts_of, pace, run_along

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


def test_a_slow_grasp_is_a_step_of_its_own():
    [label, *_] = annotate(three((40, "close"), (90, "open")), CONFIG)
    assert [name for name, *_ in steps(label)] == [
        "Reach for the cup",
        "Grasp the cup",
        "Place the cup on the plate",
        "Release the cup",
    ]
    [reach, grasp, place, _] = steps(label)
    assert reach[2] == pytest.approx(37, abs=1)  # the last frame before the fingers close
    assert grasp[2] == 40  # where it holds, and rests
    assert place[2] == pytest.approx(88, abs=1)
    assert label.confidence == 0.75  # three observations that agree


def test_a_quick_gripper_and_several_objects_have_two_steps_each():
    speed = moving(N)
    two = "Put the cup and the fork into the sink."
    events = gripping(N, (20, "close"), (45, "open"), (60, "close"), (90, "open"))
    label = annotate([Signals(FPS, speed, speed, curves(events), task=two)], CONFIG)[0]
    assert label.plan == (
        "Grasp the cup",
        "Place the cup into the sink",
        "Grasp the fork",
        "Place the fork into the sink",
    )
    assert label.curve is not None
    assert label.curve[-1] == 1.0


def test_an_attempt_that_carried_nothing_has_failed():
    failed = (30, "close"), (42, "open")
    [label, *_] = annotate(three(*failed, (60, "close"), (100, "open")), CONFIG)
    done = steps(label)
    grasps = [completed for name, _, _, completed in done if name == "Grasp the cup"]
    assert grasps[-1]
    assert not any(grasps[:-1])
    assert len(grasps) > 1
    assert not done[0][3]  # it had not reached the cup either


def test_progress_gives_each_step_an_equal_share_as_far_as_it_is_sure():
    [label, *_] = annotate(three((40, "close"), (90, "open")), CONFIG)
    [reach, grasp, *_] = steps(label)
    assert label.curve is not None
    moved = 32 / 104  # of its moving frames that the reach takes
    assert label.curve[reach[2] - 1] == pytest.approx(0.75 / 4 + 0.25 * moved, abs=0.03)
    assert label.curve[grasp[2] - 1] > label.curve[reach[2] - 1] + 0.15


@pytest.mark.parametrize("task", ["Press the button.", "turn the knob"])
def test_no_deed_is_invented_for_what_no_gripper_shows(task: str):
    labels = annotate([replace(e, task=task) for e in three((40, "close"), (90, "open"))], CONFIG)
    assert {label.plan for label in labels} == {(task.rstrip("."),)}
    assert all(label.confidence <= PRIOR_CONFIDENCE and "one step" in label.notes[-1] for label in labels)


def test_grippers_that_contradict_each_other_show_nothing():
    times = [(25, 60), (60, 110), (95, 115)]
    runs = [pick_and_place((a, "close"), (b, "open"), episode_index=k) for k, (a, b) in enumerate(times)]
    assert annotate(runs, CONFIG)[0].num_planned == 1


def test_a_hand_that_yields_while_it_holds_has_not_opened():
    n = 100
    opening = np.ones(n)
    opening[30:34] = [0.8, 0.5, 0.2, 0.0]
    opening[34:80] = np.linspace(0, 0.35, 46)
    opening[80:84] = [0.5, 0.7, 0.9, 1.0]
    [(_, closed, closes), (opens, opened, rises)] = gripper_moves(opening, CONFIG, FPS)
    assert (closes, rises) == (True, False)
    assert abs(closed - 33) <= 1
    assert abs(opens - 79) <= 1
    assert abs(opened - 83) <= 1


def test_two_hands_that_close_on_one_thing_are_one_attempt():
    both = curves(gripping(N, (40, "close"), (90, "open")), gripping(N, (48, "close"), (95, "open")))
    runs = [replace(e, grippers=both, task="fold the towel there") for e in three((40, "close"), (90, "open"))]
    runs = [replace(e, task=None) for e in runs]
    [label, *_] = annotate(runs, CONFIG)
    assert sum(name == "Grasp the object" for name, *_ in steps(label)) == 1


def test_one_step_follows_the_moving_time():
    speed = moving(100, (0, 20), (50, 70), (90, 100))
    [label] = annotate([Signals(FPS, speed, speed, task="wave")], CONFIG)
    assert label.curve is not None
    assert label.curve[19] == pytest.approx(0, abs=0.03)
    assert label.curve[60] == pytest.approx(0.6, abs=0.03)
    assert label.curve[89] == pytest.approx(1, abs=0.03)
    assert [s.kind for s in label.segments] == [IDLE, STEP, IDLE, STEP, "done"]


def test_an_arm_that_comes_down_at_its_goal():
    way = going((10, (0, 1)), (20, (1, 0)), (10, (0, -1)))
    assert over_goal(way, 0, 39) == pytest.approx(30, abs=2)


def by_pictures(episode: int, end: float = 1.0, **kwargs) -> Signals:
    """An episode of a course that no gripper of a known polarity shows, which ends at a phase of it."""
    phases = pace(160, episode) * end
    run = run_along(phases, episode, **kwargs)
    return replace(run, grippers=(replace(run.grippers[0], has_polarity=False),))


def test_the_others_say_how_far_an_episode_came_that_stopped():
    runs = [*(by_pictures(k) for k in range(5)), by_pictures(5, 0.6)]
    *whole, stopped = annotate(runs, CONFIG)
    assert all(label.curve is not None and label.curve[-1] == 1 for label in whole)
    assert stopped.curve is not None
    assert 0.5 < stopped.curve[-1] < 0.85
    assert not stopped.segments[-1].completed


def test_nothing_is_earned_where_an_episode_is_unlike_all_others():
    odd = run_along(pace(160, 9), 9, course=7)
    runs = [*(by_pictures(k) for k in range(6)), replace(odd, grippers=())]
    runs = [replace(run, grippers=()) for run in runs]
    *_, label = annotate(runs, CONFIG)
    assert label.curve is not None
    assert label.curve[-1] < 0.5
    assert any("unlike the others" in note for note in label.notes)


def test_an_episode_without_steps_of_its_own_gets_those_of_the_others():
    runs = [run_along(pace(160, k), k) for k in range(6)]
    runs[5] = replace(runs[5], grippers=(replace(runs[5].grippers[0], has_polarity=False),))
    *_, label = annotate([replace(run, task=CUP) for run in runs], CONFIG)
    assert label.num_planned > 1
    assert "labelled by the other episodes of its task" in label.notes
    ends = [s.end_frame for s in label.segments if s.kind == STEP]
    assert min(abs(end - cuts_of(pace(160, 5))[1]) for end in ends) <= 10


def test_what_is_known_of_the_outcome_is_kept():
    runs = [replace(run, success=k > 0) for k, run in enumerate(three((40, "close"), (90, "open")))]
    failed, *succeeded = annotate(runs, CONFIG)
    assert failed.curve is not None
    assert failed.curve[-1] <= MOST
    assert all(label.curve is not None and label.curve[-1] == 1 for label in succeeded)


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


def test_labels_do_not_depend_on_what_other_tasks_are_beside():
    runs = [by_pictures(k) for k in range(4)]
    alone = annotate(runs, CONFIG)
    others = [replace(run, task="Wipe the table.") for run in three((40, "close"), (90, "open"))]
    beside = annotate([others[0], *runs, *others[1:]], CONFIG)[1:5]
    for a, b in zip(alone, beside, strict=True):
        assert np.array_equal(a.curve, b.curve)
        assert a.segments == b.segments
