"""Imported steps whose names repeat, without numbers, are attempts at the same step."""

import numpy as np
import pytest

from annotate.imported import Annotation
from annotate.progress import ProgressConfig, progress
from ingest.episode import NativeStep


@pytest.mark.parametrize(
    ("names", "success", "planned", "completed", "end"),
    [
        (["reach", "grasp", "grasp", "place"], None, [0, 1, 1, 2], [True, False, True, True], 1.0),
        (["reach", "place", "reach", "place"], None, [0, 1, 0, 1], [True, True, True, True], 1.0),
        # A plan may name a step twice: what follows the first attempt is not done again
        (["open", "place", "open"], None, [0, 1, 2], [True, True, True], 1.0),
        (["reach", "grasp", "grasp"], False, [0, 1, 1], [True, False, False], 0.75),
    ],
)
def test_steps_of_one_name(
    names: list[str], success: bool | None, planned: list[int], completed: list[bool], end: float
) -> None:
    steps = tuple(NativeStep(name, 10 * k, 10 * k + 10) for k, name in enumerate(names))
    n = 10 * len(names)
    label = Annotation(0, n, steps).label(n, 10.0, success)
    assert [s.step for s in label.segments] == planned
    assert [s.completed for s in label.segments] == completed
    curve = progress(label.segments, label.num_planned, np.full(n, 0.1), 10.0, ProgressConfig())
    assert curve[-1] == pytest.approx(end, abs=0.1) if end < 1 else curve[-1] == 1.0
