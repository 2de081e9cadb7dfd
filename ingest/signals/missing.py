"""Values that a source does not have, which it writes as NaN: of some rows, or of a dimension in every row."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ingest.episode import EpisodeData, names_of
from ingest.signals.naming import Column

MIN_KNOWN = 0.25  # share of the rows in which a dimension has a value: one with fewer is left out
MAX_NAMED = 6  # dimensions in a message


def lacking(values: np.ndarray) -> np.ndarray:
    """Which dimensions of rows [n, d] have a value in too few rows, bool [d]."""
    return np.isnan(values).mean(axis=0) > 1 - MIN_KNOWN


def known_episode(episode: EpisodeData) -> tuple[EpisodeData, list[str]]:
    """The episode with values in all rows of state and action, and what it lacks, in words.

    A value that is missing in some rows lies on the line between those beside it, or is that of the nearest row. A
    dimension that has too few stays NaN; without any other the episode has no such rows.
    """
    tables: dict[Column, pa.Table | None] = {"state": episode.states, "action": episode.actions}
    problems: list[str] = []
    for column, table in tables.items():
        if table is not None and table.num_columns:
            tables[column], lacks = _known(column, table)
            problems += lacks
    if problems:
        episode = replace(episode, states=tables["state"], actions=tables["action"], statistics=())
    return episode, problems


def _known(column: Column, table: pa.Table) -> tuple[pa.Table | None, list[str]]:
    values = np.column_stack([dimension.to_numpy() for dimension in table.columns])
    is_missing: np.ndarray = np.isnan(values)
    if not is_missing.any():
        return table, []
    is_left_out = lacking(values)
    if is_left_out.all():
        return None, [f"{column} has a value in hardly any row: it is not used"]
    known = values.copy()
    known[:, is_left_out] = np.nan
    rows = np.arange(len(values))
    with_gaps = np.flatnonzero(is_missing.any(axis=0) & ~is_left_out)
    for dimension in with_gaps:
        there = ~is_missing[:, dimension]
        known[:, dimension] = np.interp(rows, rows[there], values[there, dimension])
    filled = pa.Table.from_arrays(
        [pa.array(dimension) for dimension in known.T], table.column_names
    )
    names = names_of(table) or [f"{column}[{k}]" for k in range(len(is_left_out))]
    is_gap = np.asarray(is_missing[:, with_gaps].any(axis=1))
    return filled, [*_words(column, names, is_left_out, is_gap)]


def _words(
    column: Column, names: Sequence[str], is_left_out: np.ndarray, is_gap: np.ndarray
) -> Iterator[str]:
    if is_left_out.any():
        left_out = [name for name, is_out in zip(names, is_left_out, strict=True) if is_out]
        more = " ..." if len(left_out) > MAX_NAMED else ""
        yield f"{', '.join(left_out[:MAX_NAMED])}{more} of the {column} has no value: it is left out"
    if is_gap.any():
        yield (
            f"the {column} lacks values in {is_gap.sum()} of {len(is_gap)} rows, first in row {int(is_gap.argmax())}: "
            "the rows beside them give these"
        )
