"""Vectors of numbers per row."""

import numpy as np
import pytest

from ingest.episode import RowsError
from ingest.formats.proprio import joined, moving_dimensions


def test_parts_side_by_side() -> None:
    parts = [np.array([[1, 2], [3, 4]], np.float32), np.array([True, False])]
    both = joined(parts)
    assert both is not None
    assert (both.dtype, both.tolist()) == (np.float64, [[1.0, 2.0, 1.0], [3.0, 4.0, 0.0]])
    assert joined([]) is None
    with pytest.raises(RowsError, match=r"different lengths: \[2, 3\]"):
        joined([np.zeros((2, 1)), np.zeros(3)])


def test_dimensions_that_move() -> None:
    """Beside the one that moves most, others may only tremble."""
    t = np.linspace(0, 1, 50)
    moving, spread = moving_dimensions(np.column_stack([t, np.full(50, 3.0), 1e-9 * np.sin(40 * t), 5 * t]))
    assert moving.tolist() == [True, False, False, True]
    assert spread[3] == pytest.approx(5 * spread[0])
    moving, _ = moving_dimensions(np.ones((4, 2)))
    assert not moving.any()
