"""Stored labels: the segments of episodes by label run, as the lake holds them. The one reader of the table segments.

Every function takes a DuckDB connection with the lake in use: that of a Lake, or a reader's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from annotate.segments import Segment

SEGMENT_COLUMNS = "name, start_frame, end_frame, kind, completed, step, confidence, notes"  # the fields of Segment


@dataclass(frozen=True)
class StoredLabel:
    """The label of one episode by one label run: segments in order of time, of `num_planned` planned steps."""

    segments: list[Segment]
    num_planned: int
    label_run: str


def active_labels(con: duckdb.DuckDBPyConnection, dataset: str, chunk: int) -> dict[int, StoredLabel]:
    """The active labels of a chunk by episode; episodes without one are missing."""
    return _by_episode(con, "active_segments", "dataset = ? AND chunk = ?", [dataset, chunk])


def active_labels_of(con: duckdb.DuckDBPyConnection, dataset: str, episodes: Sequence[int]) -> dict[int, StoredLabel]:
    """The active labels of some episodes, of any chunks."""
    return _by_episode(
        con, "active_segments", "dataset = ? AND list_contains(?, episode_index)", [dataset, list(episodes)]
    )


def labels_of_run(con: duckdb.DuckDBPyConnection, dataset: str, chunk: int, label_run: str) -> dict[int, StoredLabel]:
    """The labels of a chunk by one label run, by episode."""
    where = "dataset = ? AND chunk = ? AND label_run = ?"
    return _by_episode(con, "segments", where, [dataset, chunk, label_run])


def labels_of_episode(
    con: duckdb.DuckDBPyConnection, dataset: str, chunk: int, episode_index: int
) -> dict[str, StoredLabel]:
    """Every label of one episode, by label run."""
    where = "dataset = ? AND chunk = ? AND episode_index = ?"
    labels = _read(con, "segments", where, [dataset, chunk, episode_index])
    return {label_run: label for (_, label_run), label in labels.items()}


def _by_episode(con: duckdb.DuckDBPyConnection, relation: str, where: str, values: list[Any]) -> dict[int, StoredLabel]:
    """Labels by episode alone; `where` leaves one label run of each."""
    return {episode: label for (episode, _), label in _read(con, relation, where, values).items()}


def _read(
    con: duckdb.DuckDBPyConnection, relation: str, where: str, values: list[Any]
) -> dict[tuple[int, str], StoredLabel]:
    """Labels by episode and label run, in that order, out of the rows of a relation."""
    rows = con.execute(
        f"SELECT episode_index, label_run, num_planned, {SEGMENT_COLUMNS} FROM {relation} WHERE {where} "
        "ORDER BY episode_index, label_run, segment_index",
        values,
    ).fetchall()
    labels: dict[tuple[int, str], StoredLabel] = {}
    for episode_index, label_run, num_planned, *segment in rows:
        label = labels.setdefault((episode_index, label_run), StoredLabel([], num_planned, label_run))
        label.segments.append(Segment(*segment))
    return labels
