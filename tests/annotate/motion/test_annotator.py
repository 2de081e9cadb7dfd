"""Labels by motion: what grippers show, and the task's other episodes."""

from dataclasses import replace
from itertools import chain
from operator import attrgetter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.config import MOST_OF_ATTEMPT, MotionConfig
from annotate.motion.annotator import annotate, ends_of_work, way_home
from annotate.motion.observe import GripperCurve, Signals, observe
from annotate.motion.task_text import Transfer, transfers
from benchmarks.way_home import KINDS, Run, runs_of
from core.domain.label import STEP, Label, check_tiling
from ingest.signals.gripper import GripperRun, counted
from tests.kits.files import table
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
def test_any_signals_make_a_label(signals):
    labels = annotate(signals, CONFIG)
    for run, label in zip(signals, labels, strict=True):
        check_tiling(label.segments, len(run), label.num_planned)
        assert len(label.progress) == len(run)
        assert label.progress[0] == 0
        assert np.isfinite(label.progress).all()
        assert ((label.progress >= 0) & (label.progress <= 1)).all()
        assert (np.diff(label.progress) >= 0).all()
        assert run.success is not False or label.progress[-1] <= MOST_OF_ATTEMPT
        assert label.confidence is not None
        assert 0 <= label.confidence <= 1


@pytest.mark.parametrize(
    "task", ["Pick up the yellow bottle", "lift the yellow bottle on the table."]
)
def test_what_is_only_picked_up_is_lifted(task):
    assert transfers(task) == (Transfer("the yellow bottle", is_lifted=True),)


@pytest.mark.parametrize("task", table("tasks_without_transfers"))
def test_no_transfers_where_the_text_is_not_understood(task):
    assert transfers(task) == ()


GOES_HOME = [kind for kind in KINDS if "goes home" in kind and "open end unknown" not in kind]
NEVER_HOME = [kind for kind in KINDS if kind not in GOES_HOME]


def said_and_true(runs: list[Run]) -> tuple[float, float]:
    ends = ends_of_work([observe(run.signals, CONFIG) for run in runs])
    shares = [
        (end / len(run.progress), run.work_end / len(run.progress))
        for end, run in zip(ends, runs, strict=True)
    ]
    found_end, true = np.mean(shares, axis=0)
    return float(found_end), float(true)


def test_the_way_home_begins_where_the_arm_turns():
    there_and_back = np.array([0.0, 1, 2, 3, 3, 2, 1, 0])[:, None]
    way = way_home(there_and_back)
    assert (way.start, way.remoteness) == (4, 0)
    assert way_home(np.zeros((8, 2))) is None


SOME = ("presses, goes home", "presses and stays")


@pytest.mark.parametrize(
    ("kinds", "settings"),
    [(GOES_HOME, {}), (SOME, {"arms": 2}), (SOME, {"base_m": 1.5})],
)
def test_work_ends_where_the_arm_goes_home_whatever_else_the_robot_has(kinds, settings):
    for kind in kinds:
        found_end, true = said_and_true(runs_of(kind, **settings))
        assert found_end == pytest.approx(true, abs=0.05), kind


@pytest.mark.parametrize("kind", NEVER_HOME)
def test_an_arm_that_stays_or_brings_a_thing_along_does_not_go_home(kind):
    found_end, true = said_and_true(runs_of(kind))
    assert found_end >= min(true, 0.9)


def carrying(num: int, task: str | None = None) -> list[Signals]:
    """Runs that grasp a thing, carry it aside, and let it go."""
    runs = [
        run.signals for run in runs_of("carries a thing aside, goes home, open end unknown")[:num]
    ]
    return [
        replace(run, task=task, grippers=[replace(run.grippers[0], has_polarity=True)])
        for run in runs
    ]


def named(labels: list[Label]) -> set[str]:
    return {
        s.name
        for s in chain.from_iterable(map(attrgetter("segments"), labels))
        if s.kind == STEP and s.named
    }


def test_a_single_run_names_nothing_but_what_its_text_asks_for():
    (untold,) = annotate(carrying(1), CONFIG)
    assert (untold.num_planned, untold.named) == (1, False)
    (label,) = annotate(carrying(1, "put the cup on the plate"), CONFIG)
    assert "Grasp the cup" in named([label])
    assert {s.name_confidence for s in label.segments if s.kind == STEP} == {2 / 3}


def test_several_runs_name_what_each_of_them_does():
    labels = annotate(carrying(4), CONFIG)
    assert "Grasp the object" in named(labels)
    assert all(
        s.name_confidence == 4 / 5
        for s in chain.from_iterable(map(attrgetter("segments"), labels))
        if s.kind == STEP
    )


def test_fingers_that_close_and_stay_closed_hold_nothing():
    runs = [run.signals for run in runs_of("presses, goes home, fingers close on the way")]
    labels = annotate(runs, CONFIG)
    assert named(labels) == set()
    assert {label.num_planned for label in labels} == {1}


def test_a_first_pose_is_no_grasp_for_motion_and_for_inspect():
    (run,) = carrying(1, "put the cup on the plate")
    opening = run.grippers[0].opening.copy()
    opening[:3] = 1.0
    opening[3:8] = 0.0  # closed before the arm sets out
    observed = observe(replace(run, grippers=[GripperCurve(opening)]), CONFIG)
    steps = np.linalg.norm(np.diff(run.state, axis=0, prepend=run.state[:1]), axis=1)
    way = np.cumsum(steps) / steps.sum()
    closings = [c for c in counted(GripperRun(opening, way, None, run.fps)) if not c.rises]
    assert len(observed.attempts) == len(closings) == 1
    assert observed.attempts[0].closes > 8
