"""What arm, hand and first picture tell together of how far a failed run came, on made-up ways."""

from dataclasses import replace

import numpy as np
import pytest

from annotate.motion.carrying import Swing
from annotate.motion.nearness import Reached, reached, ways
from annotate.motion.unfinished import KEPT, Run, how_far

BEGINS, N = 30, 60
CLOSING = [Swing(BEGINS - 3, BEGINS, "close")]


def way(place: float) -> np.ndarray:
    """To (place, 1) and on to where all of them end: [N, 2]."""
    return np.r_[np.linspace((0, 0), (place, 1), BEGINS), np.linspace((place, 1), (0.2, 2), N - BEGINS)]


def run(place: float, success: bool | None = True, level: float = 0.5, target: float | None = None) -> Run:
    """To a thing, or to another place, and up with it; the picture shows where the thing is."""
    state = way(place if target is None else target)
    gripper = np.r_[np.ones(BEGINS - 3), np.full(N - BEGINS + 3, level)]
    return Run(success, state, gripper, np.linspace(0, place, 40), CLOSING, BEGINS if success else None)


GOOD = [run(p) for p in (0.0, 0.1, 0.2, 0.3, 0.05, 0.15, 0.25)]
SHUT = run(0.1, success=False, level=0.1)


def far(*failed: Run, one_thing: bool = True) -> list[Reached | None]:
    return how_far([*GOOD, *failed], one_thing=one_thing)[len(GOOD) :]


def test_a_hand_that_holds_the_thing_has_not_gone_astray():
    """It fetched its thing from where no other was, farther off than a miss."""
    unusual = run(1.2, success=False)
    free, _ = far(unusual, SHUT, one_thing=False)
    assert free is not None
    assert free.left is not None
    assert free.frame < BEGINS
    holding, empty = far(unusual, SHUT)
    assert holding is not None
    assert holding.left is None
    assert holding.frame > 50
    assert empty is not None
    assert (empty.frame, empty.left) == (round(KEPT * (BEGINS // 2)), BEGINS - 3)
    # nobody is seen with an empty hand: what theirs tells is not known
    (alone,) = far(unusual)
    assert alone is not None
    assert alone.left is not None


def test_one_that_holds_came_at_least_to_where_the_thing_is_grasped():
    slow = replace(run(0.1, success=False), state=np.repeat(way(0.1)[:20], 3, axis=0))
    held, _ = far(slow, SHUT)
    assert held is not None
    assert held.frame == BEGINS


def test_an_empty_hand_that_was_never_near_anybody_came_half_of_the_way_and_of_that_a_part_counts():
    away = replace(SHUT, state=way(0.1) + 50)
    assert far(away) == [Reached(0, round(KEPT * (BEGINS // 2)), BEGINS - 3)]
    assert far(away, one_thing=False) == [None]


def test_of_an_approach_that_missed_a_part_counts_and_all_of_what_went_astray_later():
    known = ways([r.state for r in GOOD])
    assert known is not None
    early, late = way(0.1), way(0.1)
    early[BEGINS // 2 :] += (3, 0)
    late[BEGINS + 10 :] += (3, 0)
    for state, share in ((early, KEPT), (late, 1.0)):
        alone = reached(state, known)
        assert alone is not None
        failed = Run(False, state, None, None, (), None)
        (told,) = far(failed, one_thing=False)
        assert told == replace(alone, frame=round(share * alone.frame))
        assert (alone.frame < BEGINS) == (share < 1)


def test_one_that_went_where_its_picture_shows_nothing_missed():
    pushed = [replace(r, gripper=None, swings=()) for r in GOOD]
    beside = replace(run(0.0, success=False, target=0.3), gripper=None, swings=())
    (told,) = how_far([*pushed, beside], one_thing=True)[len(GOOD) :]
    assert told is not None
    assert told.left is not None
    assert told.frame < BEGINS
    (blind,) = how_far([*pushed, replace(beside, picture=None)], one_thing=True)[len(GOOD) :]
    assert blind is not None
    assert blind.frame > 50


@pytest.mark.parametrize("success", [True, None])
def test_only_failed_runs_are_told_of(success: bool | None):
    assert far(replace(SHUT, success=success)) == [None]
    assert how_far([SHUT], one_thing=True) == [None]
