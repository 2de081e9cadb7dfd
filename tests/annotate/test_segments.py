"""Segments tile an episode; and spans of a source that cannot."""

import pytest

from annotate.native import annotate
from annotate.segments import IDLE, STEP, Segment, check_tiling
from ingest.episode import NativeStep


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([Segment("A", 1, 4, step=0)], "covers frames 1-4, expected from 0"),
        (
            [Segment("A", 0, 4, step=0), Segment("B", 5, 10, step=1)],
            "covers frames 5-10, expected from 4",
        ),
        (
            [Segment("A", 0, 4, step=0), Segment("B", 3, 10, step=1)],
            "covers frames 3-10, expected from 4",
        ),
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


@pytest.mark.parametrize(
    "steps",
    [
        [NativeStep("a", 0, 10), NativeStep("b", 9, 20)],  # overlap
        [NativeStep("a", 10, 20), NativeStep("b", 0, 10)],  # backwards
        [NativeStep("a", 5, 5)],
        [NativeStep("a", 8, 5)],
        [NativeStep("a", -1, 5)],
        [NativeStep("a", 30, 40)],  # behind the last frame
    ],
)
def test_spans_that_cannot_be(steps: list[NativeStep]) -> None:
    with pytest.raises(ValueError, match=r"^step \d \('[ab]'\) covers frames"):
        annotate(steps, 30, None)
