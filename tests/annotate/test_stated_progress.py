"""Progress as a person states it: paces, where a run ends, where all is lost."""

import numpy as np
import pytest

from annotate.progress import stated_progress
from core.domain.label import STEP, Segment, StatedEnd
from core.domain.stated import check_stated


def test_without_paces_the_ordinary_curve_is_stretched():
    segments = [Segment("A", 0, 3, step=0), Segment("B", 3, 6, completed=False, step=1)]
    ordinary = np.array([0, 0.2, 0.5, 0.5, 0.6, 0.75], np.float32)
    np.testing.assert_allclose(
        stated_progress(segments, ordinary, StatedEnd(0.6)), ordinary * 0.8, atol=1e-6
    )
    curve_without = stated_progress(segments, ordinary, StatedEnd(None, 4))
    np.testing.assert_allclose(curve_without, [0, 0.2, 0.5, 0.5, 0, 0], atol=1e-6)
    # An arm that was not seen to move came somewhere all the same, if a person says so
    np.testing.assert_allclose(
        stated_progress(segments, np.zeros(6), StatedEnd(0.5)), np.linspace(0, 0.5, 6), atol=1e-6
    )


@pytest.mark.parametrize(
    ("completed", "end", "why"),
    [
        (True, StatedEnd(0.8), "mark the step that failed"),
        (False, StatedEnd(1.0), "a planned step is not completed"),
        (True, StatedEnd(None, 3), "so nothing was lost"),
        (False, StatedEnd(0.5, 6), "none of the frames 1 to 5"),
        (False, StatedEnd(1.5), "not between 0 and 1"),
    ],
)
def test_contradictions_are_refused(completed: bool, end: StatedEnd, why: str):
    with pytest.raises(ValueError, match=why):
        check_stated([Segment("A", 0, 6, completed=completed, step=0)], 1, end)


def test_more_falls_than_rises_are_refused():
    spans = ((0, 2, "slow"), (2, 11, "mistake"))
    with pytest.raises(ValueError, match="fall by more than they rise"):
        check_stated(
            [Segment("Fold", a, b, STEP, False, 0, pace=pace) for a, b, pace in spans],
            1,
            StatedEnd(0.2),
        )
