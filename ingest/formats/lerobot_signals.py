"""State and action of LeRobot episodes, and a name for each of their dimensions.

Most sets have one column of each; some have one column for each part (`observation.state.gripper_position`), or keep a
gripper in a column beside the state. Names are in info.json; GR00T's sets have them in meta/modality.json, as slices.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ingest.episode import RowsError
from ingest.formats.lerobot_rows import dimension_names, vector
from ingest.formats.proprio import joined
from ingest.formats.side_files import read_json
from ingest.signals.naming import named_grippers, names_by_parts
from ingest.sources.files import Source

STATE_KEYS = ("observation.state", "state")
ACTION_KEYS = ("action", "actions")
PARTS_OF_STATE = ("observation.state.", "observation.states.", "state.", "states.")
PARTS_OF_ACTION = ("action.", "actions.")
BESIDE_STATE = ("observation.",)  # where a gripper may stand in a column of its own
NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")
MODALITY = "meta/modality.json"


@dataclass(frozen=True)
class NamedRows:
    """Rows of numbers, float64 [n, d], None where there are none; names: one per dimension, or none."""

    values: np.ndarray | None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class LerobotSignals:
    state: NamedRows
    action: NamedRows
    names_by: Literal["name", "modality.json"] = "name"


def signal_columns(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that state and action may be read from."""
    features = info["features"]
    parts = _numeric(features, (*PARTS_OF_STATE, *PARTS_OF_ACTION))
    beside = [name for name in _numeric(features, BESIDE_STATE) if named_grippers([name])]
    return tuple(dict.fromkeys((*STATE_KEYS, *ACTION_KEYS, *parts, *beside)))


def read_signals(source: Source, info: Mapping[str, Any], rows: pa.Table) -> LerobotSignals:
    """State and action among an episode's rows. Raises RowsError."""
    features = info["features"]
    state = _named_rows(rows, features, STATE_KEYS, PARTS_OF_STATE, BESIDE_STATE)
    action = _named_rows(rows, features, ACTION_KEYS, PARTS_OF_ACTION, ())
    signals = LerobotSignals(state, action)
    if named_grippers([*state.names, *action.names]):
        return signals

    # Names such as motor_12 say nothing, but a file beside may say which of them are a hand
    modality = _modality(source)
    by_parts = [_with_part_names(state, modality.get("state")), _with_part_names(action, modality.get("action"))]
    if by_parts == [state, action]:
        return signals
    return LerobotSignals(*by_parts, names_by="modality.json")


def _numeric(features: Mapping[str, Any], prefixes: Sequence[str]) -> list[str]:
    """Features of numbers whose names begin so."""
    return [
        name
        for name, feature in features.items()
        if name.startswith(tuple(prefixes)) and isinstance(feature, dict) and feature.get("dtype") in NUMBERS
    ]


def _named_rows(
    rows: pa.Table, features: Mapping[str, Any], keys: tuple[str, ...], parts: Sequence[str], beside: Sequence[str]
) -> NamedRows:
    """The first of `keys` that has numbers, else all parts; with the grippers that stand beside it."""
    whole = vector(rows, keys)
    columns: list[NamedRows] = []
    if whole is not None:
        columns.append(NamedRows(whole.values, _names_in(features, whole.name, whole.values.shape[1], "")))
    else:
        columns += _part_columns(rows, features, _numeric(features, parts))
    if not named_grippers([name for column in columns for name in column.names]):
        apart = [name for name in _numeric(features, beside) if named_grippers([name]) and name not in keys]
        columns += _part_columns(rows, features, [name for name in apart if not name.startswith(tuple(parts))])
    return _side_by_side(columns)


def _part_columns(rows: pa.Table, features: Mapping[str, Any], names: Iterable[str]) -> list[NamedRows]:
    columns = []
    for name in names:
        part = vector(rows, (name,))
        if part is not None:
            own = _names_in(features, name, part.values.shape[1], _short(name))
            columns.append(NamedRows(part.values, own))
    return columns


def _short(name: str) -> str:
    """Example: _short("observation.state.gripper_position") == "gripper_position"."""
    prefixes = [p for p in (*PARTS_OF_STATE, *PARTS_OF_ACTION, *BESIDE_STATE) if name.startswith(p)]
    return name.removeprefix(max(prefixes, key=len, default=""))


def _names_in(features: Mapping[str, Any], column: str, width: int, prefix: str) -> tuple[str, ...]:
    """A name per dimension, by info.json; with a prefix each begins with it, and numbers stand in for lacking names."""
    stated = dimension_names(features.get(column))
    if len(stated) != width:
        stated = [str(k) for k in range(width)] if prefix else []
    if not prefix:
        return tuple(stated)
    return (prefix,) if width == 1 else tuple(f"{prefix}.{name}" for name in stated)


def _side_by_side(columns: Sequence[NamedRows]) -> NamedRows:
    """Several columns as one; without names where one of them has none."""
    present = [column for column in columns if column.values is not None]
    values = joined([column.values for column in present if column.values is not None])
    if values is None:
        return NamedRows(None)
    names = [name for column in present for name in _padded(column)]
    return NamedRows(values, tuple(names) if any(names) else ())


def _padded(column: NamedRows) -> list[str]:
    """Its names; "" for each dimension where it has none."""
    assert column.values is not None
    return list(column.names) or [""] * column.values.shape[1]


def _modality(source: Source) -> dict[str, Any]:
    """GR00T's meta/modality.json; {} where it is absent, or cannot be read: the listing has a finding of that."""
    if MODALITY not in source.noted:
        source.noted[MODALITY] = _read_modality(source)
    return source.noted[MODALITY]


def _read_modality(source: Source) -> dict[str, Any]:
    if MODALITY not in source.files:
        return {}
    try:
        content = read_json(source, MODALITY)
    except RowsError:
        return {}
    return content if isinstance(content, dict) else {}


def _with_part_names(rows: NamedRows, parts: Any) -> NamedRows:
    """With the names of modality.json's slices, where they name a gripper or a hand."""
    if rows.values is None or not isinstance(parts, dict):
        return rows
    names = names_by_parts(parts, rows.values.shape[1])
    return replace(rows, names=tuple(names)) if named_grippers(names) else rows
