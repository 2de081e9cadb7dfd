"""When a goal counts as missed."""

import pytest

from benchmarks.harness import is_missed


@pytest.mark.parametrize(("found", "goal", "missed"), [(3.0, 4.0, False), (4.5, 4.0, False), (4.7, 4.0, True)])
def test_a_time(found: float, goal: float, missed: bool):
    assert is_missed(found, goal, smaller_is_better=True) is missed
