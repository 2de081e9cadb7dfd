"""Rows as datasets write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.formats.lerobot_rows import dimension_names
from ingest.formats.lerobot_signals import STATE_KEYS, first_vector
from ingest.formats.numbers import vectors
from ingest.formats.tables import read_columns
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import LFS_POINTER, source_of, v2_data, write_parquet, write_v2

COLUMNS = (*STATE_KEYS, "timestamp")


# Reading


@pytest.mark.parametrize(
    ("start", "count"), [(0, 1), (0, 20), (3, 7), (4, 4), (7, 1), (8, 4), (11, 9), (19, 1), (15, 3)]
)
@pytest.mark.parametrize("group", [1, 4, 7, 100])
def test_a_range_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int, count: int, group: int) -> None:
    """Whatever the row groups of the file and the batches that it is read in."""
    monkeypatch.setattr("ingest.formats.tables.BATCH", 3)
    columns = {"state": [[float(k)] for k in range(20)], "timestamp": np.arange(20) / 10, "picture": [b"x"] * 20}
    path = write_parquet(tmp_path / "a.parquet", columns, row_group_size=group)
    table = read_columns(path, start, count, COLUMNS)
    assert table.column_names == ["state", "timestamp"]  # nothing that is not needed
    assert table["state"].to_pylist() == [[float(k)] for k in range(start, start + count)]


@pytest.mark.parametrize(("start", "count"), [(20, 1), (15, 6), (0, 21), (100, 5)])
def test_rows_that_are_not_there(tmp_path: Path, start: int, count: int) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"state": [[float(k)] for k in range(20)]})
    with pytest.raises(DataError, match=r"^a\.parquet"):
        read_columns(path, start, count, COLUMNS)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"state": [[float(k)] for k in range(20)]})
    for content in (path.read_bytes()[:-50], LFS_POINTER.encode(), b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"^a\.parquet: "):
            read_columns(path, 0, 5, COLUMNS)
    with pytest.raises(DataError):
        read_columns(tmp_path / "none.parquet", 0, 5, COLUMNS)


def test_episode_without_low_dimensional_data(tmp_path: Path) -> None:
    root = write_v2(tmp_path, [6])
    write_parquet(v2_data(root, 0), {"task_index": [0] * 6})
    source = source_of(root)
    (record,) = list_episodes(source).records
    episode = read_episode(source, record)
    assert (record.num_rows, episode.state, episode.action, episode.timestamps_s) == (6, None, None, None)


# Columns


@pytest.mark.parametrize(
    "type_",
    [
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float32(), 3),
        pa.list_(pa.int32()),
        pa.list_(pa.list_(pa.float32(), 1)),
    ],
)
def test_vectors(type_: Any) -> None:
    nested = pa.types.is_nested(type_.value_type)
    column = pa.array([[[v] if nested else v for v in row] for row in ([1, 2, 3], [4, 5, 6], [7, 8, 9])], type_)
    table = pa.table({"state": pa.chunked_array([column.slice(0, 1), column.slice(1)])}).slice(1)
    found = vectors(table["state"], "state")
    assert found is not None
    assert (found.dtype, found.tolist()) == (np.float64, [[4, 5, 6], [7, 8, 9]])


def test_scalars_and_nulls() -> None:
    found = vectors(pa.chunked_array([pa.array([1.5, None], pa.float32())]), "state")
    assert found is not None
    assert found.shape == (2, 1)
    assert found[0, 0] == 1.5
    assert np.isnan(found[1, 0])


@pytest.mark.parametrize("values", [[[1.0], [2.0, 3.0, 4.0]], [[1.0, 2.0], None], [None, None], [[], [1.0]]])
def test_rows_of_different_length(values: list) -> None:
    """Even where the sum would do."""
    with pytest.raises(DataError, match="column state: rows of different length"):
        vectors(pa.chunked_array([pa.array(values, pa.list_(pa.float64()))]), "state")


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
