"""Segments of a reference carried over to a run along a path."""

import numpy as np
import pytest

from annotate.motion import MotionConfig, Signals
from annotate.segments import DONE, IDLE, STEP, Segment
from annotate.transfer.alignment import Path
from annotate.transfer.carrying_over import (
    Shown,
    at_marks,
    carried_over,
    of_whole_run,
    unfinished,
    with_cuts,
    without_stand_stills,
)
from annotate.transfer.marks import Marks
from annotate.transfer.moments import Moments, task_moments
from annotate.transfer.runs import SeenRun
from tests.kits.made_segments import rest, spans, step


def moments(n: int, *, every: int = 1) -> Moments:
    """A run of `n` frames at 10 fps, with a moment at every so many of them."""
    run = SeenRun(Signals(10.0, np.ones(n), np.ones(n)), np.array([], np.int64))
    return task_moments([run], 10 / every, MotionConfig())[0]


def shown(*segments: Segment, marks: dict | None = None, every: int = 1) -> Shown:
    return Shown(moments(segments[-1].end_frame, every=every), segments, marks or {})


def along(*frames: int, away_from: int | None = None) -> Path:
    """A path through a reference with a moment at each frame; away from it from some moment on."""
    follows = np.ones(len(frames), bool)
    if away_from is not None:
        follows[away_from:] = False
    return Path(np.array(frames), follows)


THREE = shown(step(0, 10, 0), step(10, 20, 1), step(20, 30, 2))


# References


def test_a_stand_still_before_a_step_belongs_to_it():
    assert spans(without_stand_stills([rest(0, 5), step(5, 20, 0), rest(20, 25), step(25, 40, 1)])) == [
        (0, 20, 0, True),
        (20, 40, 1, True),
    ]


def test_one_at_the_end_stays():
    segments = [step(0, 20, 0), rest(20, 25)]
    assert without_stand_stills(segments) == segments
    done = [step(0, 20, 0), rest(20, 22), Segment("Done", 22, 25, DONE)]
    assert without_stand_stills(done) == done


def test_parts_of_an_attempt_become_one():
    """With a stand-still between; two attempts without one stay two, and so do two that were both completed."""
    parts = [step(0, 10, 0, completed=False), rest(10, 15), step(15, 30, 0), step(30, 40, 1)]
    assert spans(without_stand_stills(parts)) == [(0, 30, 0, True), (30, 40, 1, True)]
    thrice = [*parts[:2], step(15, 30, 0, completed=False), rest(30, 40), step(40, 50, 0)]
    assert spans(without_stand_stills(thrice)) == [(0, 50, 0, True)]
    attempts = [step(0, 10, 0, completed=False), step(10, 30, 0)]
    assert without_stand_stills(attempts) == attempts
    again = [step(0, 10, 0), rest(10, 15), step(15, 30, 0)]
    assert spans(without_stand_stills(again)) == [(0, 10, 0, True), (10, 30, 0, True)]


def test_a_detour_leads_from_a_failed_attempt_to_the_next():
    reference = shown(step(0, 10, 0), step(10, 20, 1, completed=False), step(20, 25, 0), step(25, 40, 1))
    assert reference.detours == [(1, 3)]
    assert np.flatnonzero(reference.is_detour).tolist() == list(range(10, 25))
    # Never made again: it is no way round to anything
    ends_failed = shown(step(0, 10, 0), step(10, 20, 1, completed=False))
    assert ends_failed.detours == []
    assert not ends_failed.is_detour.any()


# Runs


def test_each_frame_belongs_to_what_its_moment_belongs_to():
    run = moments(9)
    assert spans(carried_over(run, THREE, along(0, 5, 9, 10, 15, 19, 20, 25, 29))) == [
        (0, 3, 0, True),
        (3, 6, 1, True),
        (6, 9, 2, True),
    ]


def test_boundaries_lie_between_moments():
    """A moment every four frames; the step ends halfway between two."""
    run = moments(13, every=4)
    reference = shown(step(0, 10, 0), step(10, 20, 1))
    assert spans(carried_over(run, reference, along(0, 8, 12, 19))) == [(0, 6, 0, True), (6, 13, 1, True)]


def test_persons_words_stay_and_doubts_do_not():
    said = Segment("Reach", 0, 10, STEP, True, 0, confidence=0.3, notes="slipped")
    [carried] = carried_over(moments(10), shown(said), along(*range(10)))
    assert (carried.name, carried.confidence, carried.notes) == ("Reach", None, None)


def test_a_run_that_stops_has_not_completed_its_step():
    run = moments(6)
    assert spans(carried_over(run, THREE, along(0, 5, 9, 10, 12, 14))) == [(0, 3, 0, True), (3, 6, 1, False)]
    # Nearly at its end: it has
    assert spans(carried_over(run, THREE, along(0, 5, 9, 10, 15, 19))) == [(0, 3, 0, True), (3, 6, 1, True)]
    # Unless it went away there
    left = carried_over(run, THREE, along(0, 5, 9, 10, 15, 19, away_from=5))
    assert spans(left) == [(0, 3, 0, True), (3, 6, 1, False)]


def test_a_step_that_a_run_goes_back_from_was_not_completed():
    run = moments(10)
    assert spans(carried_over(run, THREE, along(0, 5, 9, 11, 13, 2, 9, 10, 19, 29))) == [
        (0, 3, 0, True),
        (3, 5, 1, False),
        (5, 7, 0, True),
        (7, 9, 1, True),
        (9, 10, 2, True),
    ]
    # It was if the run was nearly through it, unless it does it again
    through = carried_over(run, THREE, along(0, 5, 9, 11, 18, 2, 3, 5, 7, 9))
    assert spans(through)[1] == (3, 5, 1, True)
    again = carried_over(run, THREE, along(0, 5, 9, 11, 18, 2, 9, 10, 19, 29))
    assert spans(again)[1] == (3, 5, 1, False)


def test_what_a_run_goes_back_to_was_completed():
    """It reaches, grasps nothing and lifts, reaches again: the first reach was one, grasp and lift were not."""
    run = moments(12)
    carried = carried_over(run, THREE, along(0, 5, 9, 11, 18, 21, 28, 5, 9, 15, 19, 29))
    assert spans(carried) == [
        (0, 3, 0, True),
        (3, 5, 1, False),
        (5, 7, 2, False),
        (7, 9, 0, True),
        (9, 11, 1, True),
        (11, 12, 2, True),
    ]


def test_a_closing_in_vain_makes_a_failed_attempt_of_the_step_it_belongs_to():
    """The run seems to do the second step, then goes back into the first."""
    run = moments(37, every=4)
    there_and_back = along(0, 5, 9, 11, 13, 2, 9, 10, 19, 29)
    rest = [(20, 28, 0, True), (28, 33, 1, True), (33, 37, 2, True)]
    assert spans(carried_over(run, THREE, there_and_back, vain=[2])) == [(0, 20, 0, False), *rest]
    # Closed for the second step, shortly before the first one ends; or in a step that is not done again
    for closes in (7, 30):
        carried = carried_over(run, THREE, there_and_back, vain=[closes])
        assert spans(carried) == [(0, 10, 0, True), (10, 20, 1, False), *rest]
    # Such an attempt is not one with the next
    failed, again, *_ = carried_over(run, THREE, there_and_back, vain=[2])
    assert spans(of_whole_run([failed, again], [2], ended_well=True)) == [(0, 20, 0, False), (20, 28, 0, True)]
    assert spans(of_whole_run([failed, again], ended_well=True)) == [(0, 28, 0, True)]


def test_a_run_goes_back_in_one_go():
    """From the third step to the first: no frame between the two moments shows the second."""
    run = moments(29, every=4)
    carried = carried_over(run, THREE, along(0, 9, 15, 25, 1, 9, 19, 29))
    assert [s.step for s in carried][:4] == [0, 1, 2, 0]
    assert carried[3].start_frame == 16


def test_planned_steps_that_are_passed_over_get_a_frame_each():
    """What comes after needs them."""
    run = moments(10)
    reference = shown(*(step(10 * k, 10 * k + 10, k) for k in range(5)))
    carried = carried_over(run, reference, along(0, 2, 4, 6, 9, 41, 43, 45, 47, 49))
    assert spans(carried) == [
        (0, 2, 0, True),
        (2, 3, 1, True),
        (3, 4, 2, True),
        (4, 5, 3, True),
        (5, 10, 4, True),
    ]


def test_a_stretch_that_is_passed_over_takes_no_step_from_the_run():
    """The only frame of the second step is not given to the third."""
    run = moments(6)
    reference = shown(*(step(10 * k, 10 * k + 10, k) for k in range(4)))
    carried = carried_over(run, reference, along(0, 5, 9, 15, 35, 39))
    assert {s.step for s in carried} >= {0, 1, 3}


def test_a_failed_attempt_that_the_run_has_not_gets_no_frame():
    run = moments(9)
    reference = shown(step(0, 10, 0), step(10, 20, 1, completed=False), step(20, 25, 0), step(25, 40, 1))
    carried = carried_over(run, reference, along(0, 5, 7, 9, 25, 28, 32, 36, 39))
    assert spans(carried) == [(0, 4, 0, True), (4, 9, 1, True)]


# Runs that are finished


def test_an_attempt_of_which_the_run_shows_two_parts_is_one():
    failed = [step(0, 10, 0), step(10, 14, 1, completed=False), step(14, 30, 1), step(30, 40, 2)]
    assert spans(of_whole_run(failed)) == [(0, 10, 0, True), (10, 30, 1, True), (30, 40, 2, True)]


def test_what_led_on_was_completed():
    """The failed attempt at step 1 is not made again, and step 2 was."""
    led_on = [step(0, 10, 0), step(10, 20, 1, completed=False), step(20, 40, 2)]
    assert spans(of_whole_run(led_on))[1] == (10, 20, 1, True)
    made_again = [step(0, 10, 0), step(10, 20, 1, completed=False), step(20, 30, 0), step(30, 40, 1)]
    assert spans(of_whole_run(made_again))[1] == (10, 20, 1, False)
    last = [step(0, 10, 0), step(10, 20, 1, completed=False)]
    assert spans(of_whole_run(last))[1] == (10, 20, 1, False)


# Marks


def test_boundaries_move_to_the_marks_that_the_reference_has_too():
    reference = shown(step(0, 10, 0), step(10, 20, 1), step(20, 30, 2), marks={("close",): [10]})
    run = moments(30)
    segments = [step(0, 12, 0), step(12, 22, 1), step(22, 30, 2)]
    moved, marked = at_marks(segments, run, {("close",): [9], ("open",): [24]}, reference)
    assert spans(moved) == [(0, 9, 0, True), (9, 22, 1, True), (22, 30, 2, True)]
    assert marked == {0}


def test_boundaries_that_would_cross_stay():
    reference = shown(step(0, 10, 0), step(10, 13, 1), step(13, 30, 2), marks={("a",): [10], ("b",): [13]})
    segments = [step(0, 10, 0), step(10, 13, 1), step(13, 30, 2)]
    crossing: Marks = {("a",): [14], ("b",): [9]}
    assert at_marks(segments, moments(30), crossing, reference) == (segments, set())


def test_other_cuts():
    assert spans(with_cuts([step(0, 10, 0), step(10, 20, 1)], [7])) == [(0, 7, 0, True), (7, 20, 1, True)]


# Unfinished runs


def test_a_step_that_ended_otherwise_was_not_completed():
    """And what follows earns nothing."""
    segments = [step(0, 10, 0), step(10, 20, 1), step(20, 30, 2)]
    failed = unfinished(segments, {1}, 3)
    assert spans(failed) == [(0, 10, 0, True), (10, 20, 1, False), (20, 30, None, False)]
    assert failed[-1].kind == IDLE
    assert spans(unfinished(segments, {2}, 3)) == [*spans(segments)[:2], (20, 30, 2, False)]


def test_an_unfinished_run_has_not_completed_all():
    segments = [step(0, 10, 0), step(10, 20, 1), Segment("Done", 20, 30, DONE)]
    assert spans(unfinished(segments, set(), 2)) == [(0, 10, 0, True), (10, 20, 1, False), (20, 30, None, False)]
    assert [s.kind for s in unfinished(segments, set(), 2)] == [STEP, STEP, IDLE]
    # One that lacks a step anyway stays as it is
    assert spans(unfinished(segments[:2], set(), 3)) == spans(segments[:2])


@pytest.mark.parametrize("incomplete", [set(), {0}])
def test_a_run_without_steps(incomplete: set[int]):
    assert unfinished([rest(0, 10)], incomplete, 0) == [rest(0, 10)]
