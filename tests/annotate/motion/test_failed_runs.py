"""What arm, hand and first picture tell together of how far a failed run came, on made-up ways."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.motion.failed_runs import MISSED_CREDIT, match_failed_runs
from annotate.motion.gripper_events import GripperCurve, GripperEvent
from annotate.motion.reference_runs import ReferenceMatch, learn_references, match
from annotate.motion.signals import MotionRun, Signals

BEGINS, N = 30, 60
CLOSING = [GripperEvent(BEGINS - 3, BEGINS, "close", BEGINS)]


def way(place: float) -> np.ndarray:
    """To (place, 1) and on to where all of them end: [N, 2]."""
    return np.r_[np.linspace((0, 0), (place, 1), BEGINS), np.linspace((place, 1), (0.2, 2), N - BEGINS)]


def run(place: float, success: bool | None = True, level: float = 0.5, target: float | None = None) -> MotionRun:
    """To a thing, or to another place, and up with it; the picture shows where the thing is."""
    state = way(place if target is None else target)
    gripper = np.r_[np.ones(BEGINS - 3), np.full(N - BEGINS + 3, level)]
    picture = np.linspace(0, place, 40)
    signals = Signals(10.0, np.ones(N), None, [GripperCurve(gripper)], success, None, state, picture)
    return MotionRun(signals, np.ones(N), [], CLOSING, np.ones(N, bool), contact=BEGINS if success else None)


def changed(run: MotionRun, **signals: np.ndarray | bool | tuple[()] | None) -> MotionRun:
    return replace(run, signals=replace(run.signals, **signals))


def without_gripper(run: MotionRun) -> MotionRun:
    return replace(changed(run, grippers=()), gripper_events=())


GOOD = [run(p) for p in (0.0, 0.1, 0.2, 0.3, 0.05, 0.15, 0.25)]
SHUT = run(0.1, success=False, level=0.1)


def far(*failed: MotionRun, one_object: bool = True) -> list[ReferenceMatch | None]:
    return match_failed_runs([*GOOD, *failed], one_object=one_object)[len(GOOD) :]


def test_a_hand_that_holds_the_thing_has_not_gone_astray():
    """It fetched its thing from where no other was, farther off than a miss."""
    unusual = run(1.2, success=False)
    free, _ = far(unusual, SHUT, one_object=False)
    assert free is not None
    assert free.diverged_at is not None
    assert free.frame < BEGINS
    holding, empty = far(unusual, SHUT)
    assert holding is not None
    assert holding.diverged_at is None
    assert holding.frame > 50
    assert empty is not None
    assert (empty.frame, empty.diverged_at) == (round(MISSED_CREDIT * (BEGINS // 2)), BEGINS - 3)
    # nobody is seen with an empty hand: what theirs tells is not known
    (alone,) = far(unusual)
    assert alone is not None
    assert alone.diverged_at is not None


def test_one_that_holds_came_at_least_to_where_the_thing_is_grasped():
    slow = changed(run(0.1, success=False), state=np.repeat(way(0.1)[:20], 3, axis=0))
    held, _ = far(slow, SHUT)
    assert held is not None
    assert held.frame == BEGINS


def test_an_empty_hand_that_was_near_nothing_counts_for_a_part_of_half():
    away = changed(SHUT, state=way(0.1) + 50)
    assert far(away) == [ReferenceMatch(0, round(MISSED_CREDIT * (BEGINS // 2)), BEGINS - 3)]
    assert far(away, one_object=False) == [None]


def test_an_approach_that_missed_counts_in_part():
    known = learn_references([r.signals.state for r in GOOD])
    assert known is not None
    early, late = way(0.1), way(0.1)
    early[BEGINS // 2 :] += (3, 0)
    late[BEGINS + 10 :] += (3, 0)
    for state, share in ((early, MISSED_CREDIT), (late, 1.0)):
        alone = match(state, known)
        assert alone is not None
        failed = without_gripper(changed(SHUT, state=state, picture=None))
        (told,) = far(failed, one_object=False)
        assert told == replace(alone, frame=round(share * alone.frame))
        assert (alone.frame < BEGINS) == (share < 1)


def test_one_that_went_where_its_picture_shows_nothing_missed():
    pushed = [without_gripper(r) for r in GOOD]
    beside = without_gripper(run(0.0, success=False, target=0.3))
    (told,) = match_failed_runs([*pushed, beside], one_object=True)[len(GOOD) :]
    assert told is not None
    assert told.diverged_at is not None
    assert told.frame < BEGINS
    (blind,) = match_failed_runs([*pushed, changed(beside, picture=None)], one_object=True)[len(GOOD) :]
    assert blind is not None
    assert blind.frame > 50


@pytest.mark.parametrize("success", [True, None])
def test_only_failed_runs_are_told_of(success: bool | None):
    assert far(changed(SHUT, success=success)) == [None]
    assert match_failed_runs([SHUT], one_object=True) == [None]
