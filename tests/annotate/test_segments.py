"""Span algebra: what a valid segmentation is, and when a run is finished."""

import pytest

from annotate.segments import DONE, IDLE, STEP, Segment, check_tiling, finished, undo

GOOD = [
    Segment("A", 0, 4, step=0),
    Segment("rest", 4, 6, IDLE),
    Segment("B", 6, 9, step=1),
    Segment("end", 9, 10, DONE),
]


def test_a_tiling_passes():
    check_tiling(GOOD, 10, 2)
    check_tiling([], 0, 1)
    check_tiling([Segment("Unnamed step 1", 0, 10, step=0, named=False)], 10, 1)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([Segment("A", 1, 4, step=0)], "covers frames 1-4, expected from 0"),
        ([Segment("A", 0, 4, step=0), Segment("B", 5, 10, step=1)], "covers frames 5-10, expected from 4"),
        ([Segment("A", 0, 4, step=0), Segment("B", 3, 10, step=1)], "covers frames 3-10, expected from 4"),
        ([Segment("A", 0, 0, step=0), Segment("B", 0, 10, step=1)], "covers frames 0-0"),
        ([Segment("A", 0, 9, step=0)], "segments end at frame 9, the episode has 10"),
        ([Segment("A", 0, 10, "pause")], "unknown kind 'pause'"),
        ([Segment("A", 0, 10, STEP)], "step None is not one of 2"),
        ([Segment("A", 0, 10, step=2)], "step 2 is not one of 2"),
        ([Segment("A", 0, 10, step=-1)], "step -1 is not one of 2"),
        ([Segment("A", 0, 10, IDLE, step=0)], "step 0 is not one of 2"),
        ([Segment("Unnamed step 1", 0, 10, step=0)], "is a placeholder, so not named"),
        ([Segment("Grasp it", 0, 10, step=0, named=False)], "is a name, so named"),
    ],
)
def test_what_is_no_tiling_is_refused(segments: list[Segment], message: str):
    with pytest.raises(ValueError, match=message):
        check_tiling(segments, 10, 2)


def test_undo():
    assert undo({0, 1, 2}, 1) == {0}
    assert undo({0, 2}, 1) == {0, 2}  # an attempt at a step that was not complete undoes nothing


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ("0+ 1+", True),
        ("0+ 1-", False),
        ("0- 0+ 1+", True),
        ("1+ 0+", True),
        ("0+ 1+ 1-", False),
        ("0+ 1+ 0+", False),
        ("0+ 1+ 0+ 1+", True),
        ("0+", False),
    ],
)
def test_finished(attempts: str, expected: bool):
    segments = [Segment("", i, i + 1, step=int(a[0]), completed=a[1] == "+") for i, a in enumerate(attempts.split())]
    assert finished(segments, 2) is expected
