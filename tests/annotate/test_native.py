"""The native annotator: spans of the source as segments that tile the episode."""

import pytest

from annotate.native import annotate
from annotate.segments import check_tiling, finished
from ingest.episode import NativeStep

STEPS = [NativeStep("Reach", 5, 20), NativeStep("Grasp", 20, 30), NativeStep("Place", 40, 70)]


def told(steps: list[NativeStep], n: int, success: bool | None) -> list[tuple]:
    segments, planned = annotate(steps, n, success)
    check_tiling(segments, n, planned)
    assert planned == len(steps)
    return [(s.name, s.start_frame, s.end_frame, s.kind, s.completed, s.step) for s in segments]


def test_spans_and_what_is_between_them() -> None:
    assert told(STEPS, 80, None) == [
        ("Between steps", 0, 5, "idle", False, None),
        ("Reach", 5, 20, "step", True, 0),
        ("Grasp", 20, 30, "step", True, 1),
        ("Between steps", 30, 40, "idle", False, None),
        ("Place", 40, 70, "step", True, 2),
        ("Done", 70, 80, "done", True, None),
    ]
    assert finished(*annotate(STEPS, 80, None))


def test_a_failed_run_does_not_complete_its_last_step() -> None:
    assert told(STEPS, 80, False)[-2:] == [
        ("Place", 40, 70, "step", False, 2),
        ("Between steps", 70, 80, "idle", False, None),
    ]
    assert not finished(*annotate(STEPS, 80, False))


def test_a_last_span_that_runs_on_is_cut_and_says_so() -> None:
    segments, _ = annotate(STEPS, 68, None)
    assert (segments[-1].end_frame, segments[-1].notes) == (68, "the source ends it at frame 70")
    assert [s.notes for s in segments[:-1]] == [None] * 4


def test_no_spans() -> None:
    assert annotate([], 10, None)[1] == 0


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
