"""Rows as datasets write them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest.formats.lerobot_rows import dimension_names
from ingest.formats.lerobot_signals import STATE_KEYS, first_vector
from ingest.formats.tables import read_columns
from ingest.reasons import DataError
from tests.kits.lerobot_writer import write_parquet

COLUMNS = (*STATE_KEYS, "timestamp")


# Reading


@pytest.mark.parametrize(("start", "count"), [(20, 1), (15, 6), (0, 21), (100, 5)])
def test_rows_that_are_not_there(tmp_path: Path, start: int, count: int) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"state": [[float(k)] for k in range(20)]})
    with pytest.raises(DataError, match=r"^a\.parquet"):
        read_columns(path, start, count, COLUMNS)


# Columns


def test_columns_that_hold_no_numbers() -> None:
    table = pa.table({"observation.state": [["a"], ["b"]], "state": [[1.0], [2.0]], "action": [1, 2]})
    found = first_vector(table, {"state": {"names": ["x"]}}, STATE_KEYS)
    assert found is not None
    assert found.to_pydict() == {"x": [1.0, 2.0]}
    assert first_vector(table, {}, ("action",)) is None
    assert first_vector(table, {}, ("none",)) is None


# Names


@pytest.mark.parametrize(
    ("feature", "names"),
    [
        ({"names": ["a", "b"]}, ["a", "b"]),
        ({"names": {"motors": ["a", "b"]}}, ["a", "b"]),
        ({"names": {"left": ["a", "b"], "right": ["a"]}}, ["left.a", "left.b", "right.a"]),
        ({"names": {"b": 1, "c": 2, "a": 0}}, ["a", "b", "c"]),
        ({"names": {"b": True, "c": False}}, []),
        ({"names": {"motors": "a"}}, []),
        ({"names": {}}, []),
        ({"names": None}, []),
        ({}, []),
        (None, []),
        ([], []),
    ],
)
def test_dimension_names(feature: Any, names: list[str]) -> None:
    assert dimension_names(feature) == names
