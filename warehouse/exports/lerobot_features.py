"""Low-dimensional features of exported episodes: those of a LeRobot source as they are, else state and gripper."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import UserError
from ingest.formats.lerobot_rows import picture_columns
from ingest.formats.tables import read_columns
from ingest.reasons import DataError
from warehouse.exports.selection import ExportEpisode
from warehouse.exports.source_reader import SourceReader

OWN = ("timestamp", "frame_index", "episode_index", "index", "task_index")  # LeRobot's, made anew for an export
OURS = ("progress", "subtask", "language_persistent", "language_events")  # our labels
NOT_IN_ROWS = ("video", "image", "language")  # kinds of features that are not numbers in the rows
NAMES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "string")
TYPES = {name: pa.type_for_alias(name) for name in NAMES}
STATE = "observation.state"

Feature = dict[str, Any]  # dtype, shape, names, as info.json has it


def features(reader: SourceReader, first: ExportEpisode) -> tuple[dict[str, Feature], list[str]]:
    """Features that the dataset's episodes have rows for, and sentences about those that are left out.

    `first`: the dataset's first episode, whose rows are looked at.
    """
    dataset = reader.dataset
    if reader.info is None:
        episode = reader.episode(first)
        if episode.state is None:
            return {}, [f"{dataset}: its source has no state; actions are only taken from LeRobot sources"]
        width = episode.state.shape[1]
        names = list(episode.state_names) or [f"state_{k}" for k in range(width)]
        feature = {"dtype": "float32", "shape": [width], "names": names}
        return {STATE: feature}, [f"{dataset}: actions are only taken from LeRobot sources"]

    return _of_lerobot(reader, reader.info["features"], first)


def _of_lerobot(
    reader: SourceReader, declared: Mapping[str, Any], first: ExportEpisode
) -> tuple[dict[str, Feature], list[str]]:
    """Those of a LeRobot source, as its info.json declares them."""
    with pq.ParquetFile(reader.source.resolve(reader.record(first).data_uri or "")) as file:
        in_rows, pictures = set(file.schema_arrow.names), picture_columns(file.schema_arrow)
    taken: dict[str, Feature] = {}
    notes = []
    for name, feature in declared.items():
        kind = feature.get("dtype") if isinstance(feature, dict) else None
        if kind in NOT_IN_ROWS or name in (*OWN, *OURS) or name in pictures:
            continue
        shape = list(feature.get("shape") or [1])
        # What the source declares and cannot be given on is told in the card, not dropped in silence
        if name not in in_rows:
            notes.append(f"{reader.dataset}: the feature {name} is declared, but not in the rows")
        elif kind not in TYPES or len(shape) > 1:
            notes.append(f"{reader.dataset}: the feature {name} ({kind}, shape {shape}) is left out")
        else:
            taken[name] = {"dtype": kind, "shape": shape, "names": feature.get("names")}
    return taken, notes


def columns(reader: SourceReader, e: ExportEpisode, wanted: Mapping[str, Feature]) -> dict[str, pa.Array]:
    """An episode's rows of some features. Raises UserError where the source has changed since it was built."""
    if reader.info is not None:
        return _stored(reader, e, wanted)
    if not wanted:
        return {}
    state, shape = reader.episode(e).state, wanted[STATE]["shape"]
    if state is None or state.shape != (e.num_frames, shape[0]):
        raise UserError(f"the state of {e.dataset} episode {e.episode_index} has another shape than the first's")
    return {STATE: _fixed(pa.array(state.astype(np.float32).ravel()), shape)}


def _stored(reader: SourceReader, e: ExportEpisode, wanted: Mapping[str, Feature]) -> dict[str, pa.Array]:
    """The same of a LeRobot source."""
    record, data = reader.record(e), reader.record(e).data_uri or ""
    if reader.source.stamp([*(video.uri for video in record.videos), data], record.num_rows) != record.source_stamp:
        raise UserError(f"the files of {e.dataset} episode {e.episode_index} have changed: build the dataset again")
    try:
        table = read_columns(reader.source.resolve(data), record.row_start, e.num_frames, tuple(wanted))
        return {name: _cast(table, name, feature, e.num_frames) for name, feature in wanted.items()}
    except (DataError, pa.ArrowException) as error:
        raise UserError(f"rows of {e.dataset} episode {e.episode_index}: {error}") from error


def column_type(feature: Feature) -> pa.DataType:
    """One value per row, or a list of so many."""
    value, size = TYPES[feature["dtype"]], prod(feature["shape"])
    return value if size == 1 else pa.list_(value, size)


def _cast(table: pa.Table, name: str, feature: Feature, num_frames: int) -> pa.Array:
    if name not in table.schema.names:
        raise DataError(f"there is no column {name}")
    flat = table[name].combine_chunks()
    while hasattr(flat.type, "value_type"):
        flat = flat.flatten()
    if len(flat) != num_frames * prod(feature["shape"]):
        raise DataError(f"column {name} has {len(flat)} values in {num_frames} rows, not {feature['shape']} each")
    return _fixed(flat.cast(TYPES[feature["dtype"]]), feature["shape"])


def _fixed(flat: pa.Array, shape: Sequence[int]) -> pa.Array:
    return flat if prod(shape) == 1 else pa.FixedSizeListArray.from_arrays(flat, prod(shape))
