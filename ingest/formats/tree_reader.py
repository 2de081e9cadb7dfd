"""Rows and frames of episodes that are rows of a tree (`tree.Tree`), whatever format gives it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from math import prod

import numpy as np
import pyarrow as pa

from ingest.episode import EpisodeData, EpisodeRecord, TimedPicture, timed
from ingest.formats.array_roles import dimension_names
from ingest.formats.row_times import times_of_rows
from ingest.formats.tables import numbers, side_by_side
from ingest.formats.tree import ALL_ROWS, Roles, Tree
from ingest.media.frames import DECODE_ALL, DecodeOptions
from ingest.reasons import DataError
from ingest.signals.naming import Column


def read_tree(
    record: EpisodeRecord,
    opened: Callable[[], AbstractContextManager[Tree]],
    rows: slice = ALL_ROWS,
) -> EpisodeData:
    """The episode that is some rows of a tree: its vectors and times, and its pictures as they are asked for. Raises
    DataError.
    """
    with opened() as tree:
        roles = tree.roles()
        state = vector_of(tree, "state", roles, rows)
        action = vector_of(tree, "action", roles, rows)
        times = stored_times(tree, roles, rows)

    def frames(camera: str, options: DecodeOptions = DECODE_ALL) -> Iterator[TimedPicture]:
        with opened() as tree:
            if (path := tree.cameras().get(camera)) is None:
                detail = f"{record.data_uri}: there are no pictures of {camera} any more"
                raise DataError(detail, "missing_camera")
            yield from timed(tree.pictures(path, rows), record.fps)

    num_rows = record.num_rows
    if num_rows is None:  # that of a remote file is only known now
        counts = [len(part) for part in (state, action, times) if part is not None]
        if not counts:
            raise DataError(f"{record.data_uri} has no rows", "no_data")
        num_rows = counts[0]
    action = action and _with_last(action, num_rows)
    times_s = times_of_rows(times, num_rows, record.fps)
    record = replace(record, num_rows=num_rows)
    names_by = roles.writer.names_by if roles.writer else ""
    return EpisodeData(record, state, action, times_s, frames, writer=names_by)


def stored_times(tree: Tree, roles: Roles, rows: slice) -> np.ndarray | None:
    """Times of rows in the unit that they are stored in; None for none. Raises DataError."""
    if not roles.times:
        return None
    times = tree.read(roles.times, rows)
    if roles.writer and roles.writer.times_from_start:
        return times - times[:1]
    return times


def vector_of(tree: Tree, column: Column, roles: Roles, rows: slice) -> pa.Table | None:
    """The parts of a vector side by side; None for none. Raises DataError."""
    paths = {"state": roles.state, "action": roles.action}[column].paths
    values = {path: tree.read(path, rows) for path in paths}
    table = side_by_side(map(numbers, values.values()))
    widths = {path: prod(stored.shape[1:]) for path, stored in values.items()}
    return table and table.rename_columns(dimension_names(column, widths, roles.writer))


def _with_last(action: pa.Table, num_rows: int) -> pa.Table | None:
    """Actions of so many rows: where the last observation has none it keeps the one before. Those of another length
    were found when the dataset was listed, and are not used.
    """
    if action.num_rows and action.num_rows + 1 == num_rows:
        action = pa.concat_tables([action, action.slice(action.num_rows - 1)]).combine_chunks()
    if action.num_rows == num_rows:
        return action
    return None
