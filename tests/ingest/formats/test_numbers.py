"""Vectors of numbers per row."""

import numpy as np
import pyarrow as pa
import pytest

from ingest.episode import matrix, names_of
from ingest.formats.numbers import numbers, side_by_side
from ingest.reasons import DataError


def test_parts_side_by_side() -> None:
    parts = [numbers(np.array([[1, 2], [3, 4]], np.float32)), numbers(np.array([True, False]), ["grip"])]
    both = side_by_side(parts)
    assert both is not None
    assert (names_of(both), set(both.schema.types)) == (("", "", "grip"), {pa.float64()})
    assert matrix(both).tolist() == [[1.0, 2.0, 1.0], [3.0, 4.0, 0.0]]
    assert side_by_side([]) is None
    with pytest.raises(DataError, match=r"different lengths: \[2, 3\]"):
        side_by_side([numbers(np.zeros((2, 1))), numbers(np.zeros(3))])
