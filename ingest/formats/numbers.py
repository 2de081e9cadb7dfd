"""Rows of numbers as Arrow tables: a column of float64 for each dimension, by the name that the source gives it."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.reasons import DataError

MIN_FPS, MAX_FPS = 1e-3, 1e3  # no camera and no robot is slower or faster


def numbers(values: np.ndarray, names: Sequence[str] = ()) -> pa.Table:
    """Of an array [n, ...] of which each row is a vector; "" names the dimensions that nothing names."""
    flat = np.asarray(values, np.float64).reshape(len(values), prod(values.shape[1:]))
    return pa.Table.from_arrays([pa.array(column) for column in flat.T], list(names) or [""] * flat.shape[1])


def numbered(name: str, width: int) -> list[str]:
    """Example: numbered("joint", 2) == ["joint.0", "joint.1"]."""
    return [f"{name}.{k}" for k in range(width)]


def side_by_side(tables: Iterable[pa.Table]) -> pa.Table | None:
    """Tables of the same rows as one; None for none. Raises DataError when their lengths differ."""
    tables = list(tables)
    if len({table.num_rows for table in tables}) > 1:
        raise DataError(f"state or action parts have different lengths: {[table.num_rows for table in tables]}")
    columns = [column for table in tables for column in table.columns]
    return pa.Table.from_arrays(columns, [name for t in tables for name in t.column_names]) if columns else None


def is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def vectors(column: pa.ChunkedArray, name: str) -> np.ndarray | None:
    """float64 [n, d] of a column of numbers, or of lists of them of any depth; None for other things, and for nothing.

    A column of single whole numbers counts something: it is no vector. Raises DataError when rows differ in length.
    """
    flat = column.combine_chunks()
    while is_list(flat.type):
        is_ragged = not pa.types.is_fixed_size_list(flat.type) and len(flat.value_lengths().unique()) > 1
        if flat.null_count or is_ragged:
            raise DataError(f"column {name}: rows of different length")
        flat = flat.flatten()
    is_vector = pa.types.is_floating(flat.type) or (is_list(column.type) and pa.types.is_integer(flat.type))
    if not is_vector or not len(flat):
        return None
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64).reshape(len(column), -1)


def finite(value: Any) -> float | None:
    """A number that the lake can hold, too, as a whole number."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and -(2**53) < value < 2**53
    return float(value) if known else None


def rate_of(value: Any) -> float | None:
    """Frames per second, when a value can be that."""
    fps = finite(value)
    return fps if fps is not None and MIN_FPS <= fps <= MAX_FPS else None
