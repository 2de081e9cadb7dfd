"""Steps of a few frames join what is beside them, or get frames of it."""

from annotate.motion.slivers import without_slivers
from annotate.segments import DONE, Segment
from tests.kits.made_segments import rest, spans, step

FPS = 10.0  # a step has three frames at least


def test_a_part_of_a_step_joins_the_stand_still_beside_it():
    """What a step ends with behind a stand-still was complete before it; what it begins with is part of the rest."""
    last = [step(0, 20, 0, completed=False), rest(20, 40), step(40, 42, 0), step(42, 80, 1)]
    assert spans(without_slivers(last, FPS)) == [(0, 20, 0, True), (20, 42, None, False), (42, 80, 1, True)]
    first = [step(0, 2, 0, completed=False), rest(2, 20), step(20, 60, 0)]
    assert spans(without_slivers(first, FPS)) == [(0, 20, None, False), (20, 60, 0, True)]


def test_a_part_between_two_stand_stills_makes_them_one():
    parts = [
        step(0, 20, 0, completed=False),
        rest(20, 30),
        step(30, 32, 0, completed=False),
        rest(32, 50),
        step(50, 80, 0),
    ]
    assert spans(without_slivers(parts, FPS)) == [(0, 20, 0, False), (20, 50, None, False), (50, 80, 0, True)]


def test_a_whole_step_gets_frames_of_its_longer_neighbour():
    segments = [step(0, 30, 0), step(30, 31, 1), step(31, 40, 2), Segment("Done", 40, 50, DONE)]
    assert spans(without_slivers(segments, FPS))[:3] == [(0, 28, 0, True), (28, 31, 1, True), (31, 40, 2, True)]
    segments = [step(0, 4, 0), step(4, 5, 1), step(5, 40, 2)]
    assert spans(without_slivers(segments, FPS)) == [(0, 4, 0, True), (4, 7, 1, True), (7, 40, 2, True)]


def test_a_run_too_short_for_its_steps_keeps_them():
    segments = [step(0, 1, 0), step(1, 2, 1)]
    assert without_slivers(segments, FPS) == segments


def test_an_attempt_that_failed_is_no_part_of_the_next():
    """The attempt before the rest was complete; that the step is done again undoes it."""
    segments = [step(0, 20, 0), rest(20, 40), step(40, 42, 0), step(42, 80, 1)]
    assert spans(without_slivers(segments, FPS)) == [
        (0, 20, 0, True),
        (20, 40, None, False),
        (40, 43, 0, True),
        (43, 80, 1, True),
    ]


def test_short_steps_in_a_row_push_what_follows():
    segments = [step(0, 3, 0), step(3, 4, 1), step(4, 5, 2), rest(5, 6), step(6, 20, 3)]
    assert spans(without_slivers(segments, FPS)) == [
        (0, 3, 0, True),
        (3, 6, 1, True),
        (6, 9, 2, True),
        (9, 20, 3, True),
    ]
    segments = [step(0, 10, 0), step(10, 13, 1), step(13, 14, 2), step(14, 15, 3)]
    assert spans(without_slivers(segments, FPS)) == [
        (0, 6, 0, True),
        (6, 9, 1, True),
        (9, 12, 2, True),
        (12, 15, 3, True),
    ]
