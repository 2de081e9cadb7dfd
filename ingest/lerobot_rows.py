"""Low-dimensional rows of a LeRobot episode: state, and where the gripper is."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.registry import Gripper

STATE_KEYS = ("observation.state", "state")
ACTION_KEYS = ("action", "actions")


class RowsError(Exception):
    """An episode's rows cannot be read."""


def read_rows(path: Path, start: int, count: int) -> pa.Table:
    """Rows start .. start + count of a Parquet file, reading only the row groups that hold them."""
    try:
        with pq.ParquetFile(path) as file:
            ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
            first, last = np.searchsorted(ends, [start, start + count - 1], side="right")
            table = file.read_row_groups(list(range(first, last + 1)))
            before = int(ends[first - 1]) if first else 0
            return table.slice(start - before, count)
    except (OSError, pa.ArrowException, IndexError) as e:
        raise RowsError(f"{path.name}: {str(e).splitlines()[0]}") from e


def vector(rows: pa.Table, keys: tuple[str, ...]) -> tuple[str, np.ndarray] | None:
    """The first of some columns that holds numbers, as float64 [n, d]; raises RowsError when rows differ in length."""
    for key in keys:
        if key not in rows.schema.names:
            continue
        values = rows[key].combine_chunks()
        if pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False), dtype=np.float64)
            if len(values) == 0 or len(flat) % len(values):
                raise RowsError(f"column {key}: rows of different length")
            return key, flat.reshape(len(values), -1)
        if pa.types.is_floating(values.type):
            return key, np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)[:, None]
    return None


def dimension_names(feature: dict[str, Any] | None) -> list[str]:
    """Names of a feature's dimensions; info.json has a list, or a mapping that holds one, or nothing."""
    names = (feature or {}).get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    return [str(n) for n in names] if isinstance(names, list) else []


def gripper_dimensions(config: Gripper | None, names: list[str], column: str) -> list[int]:
    """Which dimensions of `state` or `action` are the gripper: as the registry says, else by name."""
    if config:
        if config.column != column:
            return []
        if isinstance(config.dimension, int):
            return [config.dimension]
        return [i for i, n in enumerate(names) if n == config.dimension]
    return [i for i, n in enumerate(names) if "gripper" in n.lower()]


def state_of(rows: pa.Table, config: Gripper | None, features: dict[str, Any]) -> np.ndarray | None:
    """Joint or hand state without the gripper, float64 [n, d]; None when the rows have none."""
    found = vector(rows, STATE_KEYS)
    if found is None:
        return None
    key, values = found
    grip = gripper_dimensions(config, dimension_names(features.get(key)), "state")
    return np.delete(values, [g for g in grip if g < values.shape[1]], axis=1)


def gripper_of(rows: pa.Table, config: Gripper | None, features: dict[str, Any]) -> np.ndarray | None:
    """Gripper opening per frame, float64 [n] in source units (mean over several grippers); None without one."""
    for column, keys in (("state", STATE_KEYS), ("action", ACTION_KEYS)):
        found = vector(rows, keys)
        if found is None:
            continue
        key, values = found
        dims = [
            d for d in gripper_dimensions(config, dimension_names(features.get(key)), column) if d < values.shape[1]
        ]
        if dims:
            return values[:, dims].mean(axis=1)
    return None
