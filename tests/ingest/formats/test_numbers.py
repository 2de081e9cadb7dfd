"""Vectors of numbers per row."""

import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import matrix, names_of
from ingest.formats.numbers import numbers, side_by_side
from ingest.reasons import DataError
from ingest.signals.gripper import moving_dimensions


def test_parts_side_by_side() -> None:
    parts = [numbers(np.array([[1, 2], [3, 4]], np.float32)), numbers(np.array([True, False]), ["grip"])]
    both = side_by_side(parts)
    assert both is not None
    assert (names_of(both), set(both.schema.types)) == (("", "", "grip"), {pa.float64()})
    assert matrix(both).tolist() == [[1.0, 2.0, 1.0], [3.0, 4.0, 0.0]]
    assert side_by_side([]) is None
    with pytest.raises(DataError, match=r"different lengths: \[2, 3\]"):
        side_by_side([numbers(np.zeros((2, 1))), numbers(np.zeros(3))])


def test_dimensions_that_move() -> None:
    """Beside the one that moves most, others may only tremble."""
    t = np.linspace(0, 1, 50)
    moving, spread = moving_dimensions(np.column_stack([t, np.full(50, 3.0), 1e-9 * np.sin(40 * t), 5 * t]))
    assert moving.tolist() == [True, False, False, True]
    assert spread[3] == pytest.approx(5 * spread[0])
    moving, _ = moving_dimensions(np.ones((4, 2)))
    assert not moving.any()
