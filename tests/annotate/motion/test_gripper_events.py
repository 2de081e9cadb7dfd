"""When grippers and hands close and open, in exact frames, and which of that grasps and releases something."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.motion import GripperCurve, MotionConfig
from annotate.motion.gripper_events import GripperEvent, events_of_arms, gripper_events, joined_hands, next_opening

CONFIG = MotionConfig()
FPS = 10.0


def level(*parts: tuple[int, float]) -> np.ndarray:
    """So many frames at each level, four frames between them."""
    values = [np.full(parts[0][0], parts[0][1])]
    for (_, before), (count, after) in pairwise(parts):
        values += [np.linspace(before, after, 6)[1:5], np.full(count, after)]
    return np.concatenate(values)


def events_of(opening: np.ndarray, *, is_hand: bool = False) -> list[GripperEvent]:
    return gripper_events(GripperCurve(opening, is_hand=is_hand), CONFIG, FPS)


def grasps(
    *openings: np.ndarray, may_end_closed: bool = False, has_polarity: bool = True, is_hand: bool = False
) -> list[tuple[str, tuple[int, ...], int]]:
    """Of arms that move evenly."""
    curves = [GripperCurve(opening, has_polarity, is_hand) for opening in openings]
    way = np.linspace(0, 1, len(openings[0]))
    events = events_of_arms(curves, way, CONFIG, FPS, may_end_closed=may_end_closed)
    return [(event.kind, event.arms, event.moment) for event in events]


CARRY = level((20, 1.0), (30, 0.4), (30, 1.0))
SLOW = np.r_[np.ones(20), np.linspace(1, 0, 40), np.zeros(20)]  # four seconds to close


def test_an_event_is_from_rest_to_rest():
    closing, opening = events_of(CARRY)
    assert (closing.kind, closing.start, closing.end) == ("close", 19, 24)
    assert (opening.kind, opening.start, opening.end) == ("open", 53, 58)
    assert closing.moment == 24  # fingers hold when they rest
    assert opening.moment == 55  # and let go a quarter of a second after they begin to move


def test_the_fingers_of_a_hand_hold_before_they_rest():
    [closing] = events_of(SLOW, is_hand=True)
    [of_gripper] = events_of(SLOW)
    assert closing.start == of_gripper.start
    assert closing.moment == closing.start + 5
    assert of_gripper.moment == of_gripper.start + 20
    assert closing.end <= closing.moment + 5


def test_closed_and_open_exchanged_are_the_other_events():
    kinds = [event.kind for event in events_of(1 - CARRY)]
    assert kinds == ["open", "close"]


@given(st.floats(0.4, 1.0), st.floats(0.0, 0.4))
def test_any_part_of_the_range_shows_the_same_events(size: float, lowest: float):
    """A finger that moves little of what it could has grasped all the same."""
    scaled = lowest + size * CARRY * (1 - lowest)
    assert [(e.kind, e.start, e.moment, e.end) for e in events_of(scaled)] == [
        (e.kind, e.start, e.moment, e.end) for e in events_of(CARRY)
    ]


@given(st.integers(0, 2**32))
def test_noise_has_no_events(seed: int):
    noise = 0.5 + 0.03 * np.random.default_rng(seed).standard_normal(200).clip(-1.5, 1.5)
    assert events_of(noise) == []


def test_a_move_that_is_taken_back_at_once_is_none():
    twitch = level((20, 1.0), (1, 0.6), (30, 1.0), (30, 0.0), (20, 1.0))
    assert [event.kind for event in events_of(twitch)] == ["close", "open"]
    held = level((20, 1.0), (10, 0.6), (30, 1.0), (30, 0.0), (20, 1.0))
    assert [event.kind for event in events_of(held)] == ["close", "open", "close", "open"]


def test_the_end_of_the_run_may_cut_an_opening_off():
    cut = np.r_[CARRY[:54], np.linspace(0.45, 0.52, 3)]
    assert [event.kind for event in events_of(cut)] == ["close", "open"]


def test_an_empty_gripper_that_closes_on_the_way_home_grasps_nothing():
    home = level((20, 1.0), (30, 0.4), (30, 1.0), (30, 0.0))
    assert [kind for kind, _, _ in grasps(home)] == ["close", "open"]
    # It stays wider than when it is empty: it holds a second thing
    holds = level((20, 1.0), (30, 0.0), (30, 1.0), (30, 0.4))
    assert [kind for kind, _, _ in grasps(holds)] == ["close", "open", "close"]
    # How far the fingers of a hand stay open shows nothing
    assert [kind for kind, _, _ in grasps(holds, is_hand=True)] == ["close", "open"]
    assert [kind for kind, _, _ in grasps(home, may_end_closed=True)] == ["close", "open", "close"]


def test_what_a_gripper_does_before_the_arm_sets_out_only_makes_ready():
    pose = level((1, 1.0), (30, 0.0), (30, 1.0), (30, 0.4), (40, 1.0))
    assert [kind for kind, _, _ in grasps(pose)] == ["close", "open"]
    opens_first = level((20, 0.0), (30, 1.0), (30, 0.4), (30, 1.0))
    assert [kind for kind, _, _ in grasps(opens_first)] == ["close", "open"]


def test_a_single_grasp_is_kept_though_the_run_ends_with_it():
    assert [kind for kind, _, _ in grasps(level((20, 1.0), (30, 0.0)))] == ["close"]


def test_two_arms_are_two_grippers():
    second = np.r_[np.ones(10), CARRY[:-10]]
    arms = grasps(CARRY, second)
    assert arms == [("close", (0,), 24), ("close", (1,), 34), ("open", (0,), 55), ("open", (1,), 65)]
    # Their mean would have neither a closing of one second nor an opening of one
    assert grasps(CARRY, np.ones(len(CARRY))) == [("close", (0,), 24), ("open", (0,), 55)]


def test_without_a_polarity_there_are_moves_and_no_grasps():
    assert grasps(CARRY, has_polarity=False) == [("move", (0,), 24), ("move", (0,), 55)]
    # Nothing but the known gripper counts where one is known
    curves = [GripperCurve(CARRY, has_polarity=False), GripperCurve(1 - CARRY)]
    events = events_of_arms(curves, np.linspace(0, 1, len(CARRY)), CONFIG, FPS, may_end_closed=True)
    assert {event.arms for event in events} <= {(1,)}


FIRST = GripperEvent(10, 14, "close", 14, (0,))
SECOND = GripperEvent(12, 25, "close", 24, (1,))
LETS_GO = GripperEvent(60, 65, "open", 62, (0,))
LETS_GO_TOO = GripperEvent(70, 76, "open", 72, (1,))


def test_hands_that_act_together_hold_with_the_second_and_let_go_with_the_first():
    closing, opening = joined_hands([FIRST, SECOND, LETS_GO, LETS_GO_TOO], FPS)
    assert (closing.start, closing.moment, closing.arms) == (10, 24, (0, 1))
    assert (opening.start, opening.moment, opening.arms) == (60, 62, (0, 1))


@pytest.mark.parametrize(
    "second",
    [
        replace(SECOND, moment=30),  # later than hands that act together
        replace(SECOND, arms=(0,)),  # the same hand
        replace(SECOND, kind="open"),
    ],
)
def test_other_events_stay_two(second: GripperEvent):
    assert joined_hands([FIRST, second], FPS) == [FIRST, second]


def test_a_closing_ends_when_one_of_its_hands_opens():
    events = [FIRST, SECOND, LETS_GO_TOO, replace(LETS_GO, start=80, moment=82, end=85)]
    assert next_opening(events, FIRST) == events[3]
    assert next_opening(events, SECOND) == LETS_GO_TOO
    assert next_opening(events[:2], FIRST) is None
