"""Boundaries are put beside what marks them: the same event, stand-still or cut in both runs."""

import numpy as np

from annotate.motion import MotionConfig, Signals
from annotate.motion.signals import observe
from annotate.segments import Segment
from annotate.transfer.marks import NEAR_S, REACH_S, at_same_mark, marks
from tests.kits.motion_runs import FPS, curves, gripping, moving

HOLDS, LETS_GO = ("close", "holds"), ("open", "holds")


def moved(cut: int, own: dict, boundary: int, its: dict, fps: float = 10.0, its_fps: float = 10.0) -> int | None:
    return at_same_mark(cut, own, fps, boundary, its, its_fps)


def test_a_boundary_at_a_mark_goes_to_the_same_mark():
    assert moved(33, {HOLDS: [36]}, 50, {HOLDS: [50]}) == 36


def test_what_a_person_leaves_between_mark_and_boundary_is_kept():
    assert moved(33, {HOLDS: [36]}, 52, {HOLDS: [50]}) == 38
    assert moved(33, {HOLDS: [36]}, 47, {HOLDS: [50]}) == 33


def test_the_offset_is_kept_in_seconds():
    """0.2 s behind the mark: 2 frames of the reference, 6 of the run."""
    assert moved(100, {HOLDS: [98]}, 52, {HOLDS: [50]}, fps=30.0) == 104


def test_other_kinds_of_marks_and_far_ones_move_nothing():
    assert moved(33, {LETS_GO: [33]}, 50, {HOLDS: [50]}) is None
    assert moved(33, {}, 50, {HOLDS: [50]}) is None
    assert moved(33, {HOLDS: [33]}, 50, {}) is None
    beside = round(NEAR_S * 10)
    assert moved(33, {HOLDS: [33]}, 50 + beside, {HOLDS: [50]}) == 33 + beside
    assert moved(33, {HOLDS: [33]}, 51 + beside, {HOLDS: [50]}) is None
    reach = round(REACH_S * 10)
    assert moved(33, {HOLDS: [33 + reach]}, 50, {HOLDS: [50]}) == 33 + reach
    assert moved(33, {HOLDS: [34 + reach]}, 50, {HOLDS: [50]}) is None


def test_the_nearest_mark_counts():
    # Of one kind, the one nearest to where pictures put the boundary
    assert moved(33, {HOLDS: [27, 35, 41]}, 50, {HOLDS: [50]}) == 35
    # A mark right at the boundary before one beside it, though the run has that one nearer
    own, its = {HOLDS: [33], LETS_GO: [38]}, {HOLDS: [46], LETS_GO: [50]}
    assert moved(33, own, 50, its) == 38


def test_marks_of_equal_doubt_do_not_depend_on_their_order():
    own = {HOLDS: [30, 36], LETS_GO: [36, 30]}
    its = {HOLDS: [50], LETS_GO: [50]}
    backwards = {kind: frames[::-1] for kind, frames in reversed(own.items())}
    assert moved(33, own, 50, its) == moved(33, backwards, 50, dict(reversed(its.items()))) == 30


def test_marks_of_a_run():
    """A gripper that closes and opens, a pause, a rest at the end, and where motion cuts."""
    n = 100
    signals = Signals(FPS, np.zeros(n), moving(n, (45, 60), (90, n)), curves(gripping(n, (30, "close"), (70, "open"))))
    run = observe(signals, MotionConfig())
    cut = [Segment("a", 0, 31, step=0), Segment("b", 31, n, step=1)]
    frames = marks(run, cut)
    assert frames["close", "holds"] == [30]
    assert frames["close", "begins"][0] < 30 <= frames["close", "ends"][0]
    assert abs(frames["open", "holds"][0] - 70) <= 1
    assert frames["cut", "step", 0, "step", 1] == [31]
    at_rest, sets_out = frames["comes to rest",], frames["sets out",]
    assert [abs(a - b) <= 1 for a, b in zip(at_rest, (45, 90), strict=True)] == [True, True]
    assert [abs(a - b) <= 1 for a, b in zip(sets_out, (60,), strict=True)] == [True]
    assert all(0 < frame < n for of_kind in frames.values() for frame in of_kind)
