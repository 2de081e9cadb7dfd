"""Values that a source does not have, which it writes as NaN: of some rows, or of a dimension in every row."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from ingest.episode import EpisodeData, matrix, names_of
from ingest.signals.naming import Column

MIN_KNOWN = 0.25  # share of the rows in which a dimension has a value: one with fewer is left out
MAX_NAMED = 6  # dimensions in a message


def known_episode(episode: EpisodeData) -> tuple[EpisodeData, list[str]]:
    """The episode with values in all rows of state and action, and what it lacks, in words.

    A value that is missing in some rows lies on the line between those beside it, or is that of the nearest row. A
    dimension that has too few stays NaN; without any other the episode has no such rows.
    """
    states, lacks = _known("state", episode.states)
    actions, lacks_of_action = _known("action", episode.actions)
    if not (lacks or lacks_of_action):
        return episode, []
    filled = replace(episode, states=states, actions=actions, statistics=())
    return filled, [*lacks, *lacks_of_action]


def _known(column: Column, table: pa.Table | None) -> tuple[pa.Table | None, list[str]]:
    if table is None or not table.num_columns:
        return table, []
    values = matrix(table)
    is_missing: np.ndarray = np.isnan(values)
    is_left_out = is_missing.mean(axis=0) > 1 - MIN_KNOWN
    if is_left_out.all():
        return None, [f"{column} has a value in hardly any row: it is not used"]
    names = names_of(table) or [f"{column}[{k}]" for k in range(values.shape[1])]
    lost_names = [name for name, is_out in zip(names, is_left_out, strict=True) if is_out]
    is_gap = np.asarray(is_missing[:, ~is_left_out].any(axis=1))
    lacks = []
    if lost_names:
        listed_names = ", ".join(lost_names[:MAX_NAMED]) + (
            " ..." if len(lost_names) > MAX_NAMED else ""
        )
        lacks.append(f"{listed_names} of the {column} has no value: it is left out")
    if is_gap.any():
        place = f"{is_gap.sum()} of {len(is_gap)} rows, first in row {int(is_gap.argmax())}"
        lacks.append(f"the {column} lacks values in {place}: the rows beside them give these")
    values = np.where(is_left_out, np.nan, values)
    filled = [_bridged(dimension) if is_gap.any() else dimension for dimension in values.T]
    return pa.Table.from_arrays(list(map(pa.array, filled)), table.column_names), lacks


def _bridged(values: np.ndarray) -> np.ndarray:
    """Values [n] with those that are missing on the line between their neighbours; without any they stay so."""
    known_rows = np.flatnonzero(~np.isnan(values))
    return (
        np.interp(np.arange(len(values)), known_rows, values[known_rows])
        if len(known_rows)
        else values
    )
