"""State and action of LeRobot episodes, and a name for each of their dimensions.

Most sets have one column of each; some have one column for each part (`observation.state.gripper_position`), or keep a
gripper in a column beside the state. Names are in info.json; GR00T's sets have them in meta/modality.json, as slices.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from ingest.episode import names_of
from ingest.formats.folders import object_of
from ingest.formats.lerobot_rows import dimension_names
from ingest.formats.numbers import numbers, side_by_side, vectors
from ingest.formats.side_files import read_json
from ingest.reasons import DataError
from ingest.signals.naming import named_grippers, names_by_parts
from ingest.sources.files import Source

STATE_KEYS = ("observation.state", "state")
ACTION_KEYS = ("action", "actions")
PARTS_OF_STATE = ("observation.state.", "observation.states.", "state.", "states.")
PARTS_OF_ACTION = ("action.", "actions.")
BESIDE_STATE = ("observation.",)  # where a gripper may stand in a column of its own
NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")
MODALITY = "meta/modality.json"


def signal_columns(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that state and action may be read from."""
    parts = _numeric(info["features"], (*PARTS_OF_STATE, *PARTS_OF_ACTION))
    beside = [name for name in _numeric(info["features"], BESIDE_STATE) if named_grippers([name])]
    return tuple(dict.fromkeys((*STATE_KEYS, *ACTION_KEYS, *parts, *beside)))


def read_signals(
    source: Source, info: Mapping[str, Any], rows: pa.Table
) -> tuple[pa.Table | None, pa.Table | None, Literal["name", "modality.json"]]:
    """State and action among an episode's rows, and where their names are from. Raises DataError."""
    state = _vector(rows, info["features"], STATE_KEYS, PARTS_OF_STATE, BESIDE_STATE)
    action = _vector(rows, info["features"], ACTION_KEYS, PARTS_OF_ACTION, ())
    if named_grippers([*names_of(state), *names_of(action)]):
        return state, action, "name"
    # Names such as motor_12 say nothing, but GR00T's file beside may say which of them are a hand
    if MODALITY not in source.noted:
        try:
            source.noted[MODALITY] = object_of(read_json(source, MODALITY)) if MODALITY in source.files else {}
        except DataError:
            source.noted[MODALITY] = {}  # the listing has a finding of that
    modality = source.noted[MODALITY]
    named = _named_by_parts(state, modality.get("state")), _named_by_parts(action, modality.get("action"))
    return (*named, "modality.json" if named != (state, action) else "name")


def _numeric(features: Mapping[str, Any], prefixes: Sequence[str]) -> list[str]:
    """Features of numbers whose names begin so."""
    begin = [name for name in features if name.startswith(tuple(prefixes))]
    return [name for name in begin if object_of(features[name]).get("dtype") in NUMBERS]


def _vector(
    rows: pa.Table, features: Mapping[str, Any], keys: tuple[str, ...], parts: Sequence[str], beside: Sequence[str]
) -> pa.Table | None:
    """The first of `keys` that has numbers, else all parts; with the grippers that stand beside it."""
    whole = first_vector(rows, features, keys)
    columns = [whole] if whole is not None else _parts(rows, features, _numeric(features, parts))
    if not named_grippers([name for column in columns for name in column.column_names]):
        apart = [name for name in _numeric(features, beside) if named_grippers([name]) and name not in keys]
        columns += _parts(rows, features, [name for name in apart if not name.startswith(tuple(parts))])
    return side_by_side(columns)


def first_vector(rows: pa.Table, features: Mapping[str, Any], names: Iterable[str]) -> pa.Table | None:
    """The first of some columns that holds numbers, with names where info.json has one for each dimension."""
    for name in names:
        values = vectors(rows[name], name) if name in rows.column_names else None
        if values is not None:
            stated = dimension_names(features.get(name))
            return numbers(values, stated if len(stated) == values.shape[1] else ())
    return None


def _parts(rows: pa.Table, features: Mapping[str, Any], names: Iterable[str]) -> list[pa.Table]:
    """Columns that are parts of one vector: the names of dimensions begin with that of their part."""
    tables = []
    for name in names:
        if (table := first_vector(rows, features, [name])) is None:
            continue
        # Example: observation.state.gripper_position is gripper_position
        prefixes = [p for p in (*PARTS_OF_STATE, *PARTS_OF_ACTION, *BESIDE_STATE) if name.startswith(p)]
        part = name.removeprefix(max(prefixes, key=len, default=""))
        inner = [f"{part}.{own or k}" for k, own in enumerate(table.column_names)]
        tables.append(table.rename_columns([part] if len(inner) == 1 else inner))
    return tables


def _named_by_parts(table: pa.Table | None, parts: Any) -> pa.Table | None:
    """With the names of modality.json's slices, where they name a gripper or a hand."""
    if table is None or not isinstance(parts, dict):
        return table
    names = names_by_parts(parts, table.num_columns)
    return table.rename_columns(names) if named_grippers(names) else table
