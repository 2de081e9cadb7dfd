"""A segment's confidence: the expected share of its inner ends that are right."""

import pytest

from annotate.segments import Segment
from annotate.transfer.confidence import FAR, MARKED, MARKED_ALONE, UNMARKED, UNMARKED_ALONE, with_confidence

SEGMENTS = [Segment("a", 0, 10, step=0), Segment("b", 10, 20, step=1), Segment("c", 20, 30, step=2)]
NEAR = 0.8  # usual distances


def shares(marked: set[int], distance: float, agreement: list[float | None]) -> list[float]:
    return [s.confidence or 0.0 for s in with_confidence(SEGMENTS, marked, distance, agreement)]


def test_a_mark_is_worth_more_than_pictures():
    """The middle segment has both boundaries, the first and the last have one each."""
    mean = (MARKED_ALONE + UNMARKED_ALONE) / 2
    assert shares({0}, NEAR, [None, None]) == pytest.approx([MARKED_ALONE, mean, UNMARKED_ALONE])


def test_references_that_disagree_lower_it():
    agreed, alone, contradicted = (shares(set(), NEAR, [share, share])[1] for share in (1.0, None, 0.0))
    assert agreed == pytest.approx(UNMARKED[-1])
    assert alone == pytest.approx(UNMARKED_ALONE)
    assert contradicted == pytest.approx(UNMARKED[0])
    assert contradicted < alone < agreed
    assert shares({0, 1}, NEAR, [0.0, 0.0])[1] == pytest.approx(MARKED[0])


def test_a_run_unlike_its_reference_lowers_it():
    assert shares(set(), 1.0, [1.0, 1.0]) == shares(set(), 0.2, [1.0, 1.0])
    assert shares(set(), 2.0, [None, None])[0] == pytest.approx(UNMARKED_ALONE * (1 - FAR))
    assert shares({0, 1}, 50.0, [1.0, 1.0]) == [0.0, 0.0, 0.0]


def test_one_segment_has_no_inner_ends():
    [whole] = with_confidence([Segment("a", 0, 30, step=0)], set(), NEAR, [])
    assert whole.confidence == 1.0
    [far] = with_confidence([Segment("a", 0, 30, step=0)], set(), 1.5, [])
    assert far.confidence == pytest.approx(1 - 0.5 * FAR)


def test_nothing_else_changes():
    rated = with_confidence(SEGMENTS, {0, 1}, NEAR, [1.0, None])
    assert [(s.name, s.start_frame, s.end_frame, s.step) for s in rated] == [
        (s.name, s.start_frame, s.end_frame, s.step) for s in SEGMENTS
    ]
