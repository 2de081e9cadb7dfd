"""Stored labels: the segments of episodes by label run, as the lake holds them. The one reader of the table segments.

Every function takes a DuckDB connection with the lake in use: that of a Lake, or a reader's own.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import duckdb

from annotate.label_gate import GateCounts, LabelGate
from annotate.segments import Segment

SEGMENT_COLUMNS = "|".join(field.name for field in fields(Segment))


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
    where = "dataset = ? AND list_contains(?, episode_index)"
    return _by_episode(con, "active_segments", where, [dataset, list(episodes)])


def labels_of_run(con: duckdb.DuckDBPyConnection, dataset: str, chunk: int, label_run: str) -> dict[int, StoredLabel]:
    """The labels of a chunk by one label run, by episode."""
    where = "dataset = ? AND chunk = ? AND label_run = ?"
    return _by_episode(con, "segments", where, [dataset, chunk, label_run])


def labels_of_dataset(
    con: duckdb.DuckDBPyConnection, dataset: str, label_run: str | None = None
) -> dict[int, StoredLabel]:
    """The labels of all chunks of a dataset by one label run, or the active ones, by episode."""
    relation = "active_segments" if label_run is None else "segments"
    return _by_episode(con, relation, "dataset = ? AND label_run = coalesce(?, label_run)", [dataset, label_run])


def labels_of_episode(
    con: duckdb.DuckDBPyConnection, dataset: str, chunk: int, episode_index: int
) -> dict[str, StoredLabel]:
    """Every label of one episode, by label run."""
    where = "dataset = ? AND chunk = ? AND episode_index = ?"
    labels = _read(con, "segments", where, [dataset, chunk, episode_index])
    return {label_run: label for (_, label_run), label in labels.items()}


def dataset_gates(
    con: duckdb.DuckDBPyConnection, min_confidence: float | None = None, min_name_confidence: float | None = None
) -> dict[str, LabelGate]:
    """How sure labels have to be, by dataset: as asked here, else as the dataset's samples were built."""
    asked = {"min_confidence": min_confidence, "min_name_confidence": min_name_confidence}
    asked = {name: value for name, value in asked.items() if value is not None}
    gates = {}
    for dataset, config in con.execute("SELECT dataset, config FROM build_configs ORDER BY 1").fetchall():
        # What an earlier version built has no gate of its own
        built = json.loads(config).get("stages", {}).get("samples", {})
        built = {name: built[name] for name in asdict(LabelGate()) if name in built}
        gates[dataset] = LabelGate(**built | asked)
    return gates


def gate_counts(con: duckdb.DuckDBPyConnection) -> dict[str, GateCounts]:
    """By dataset: how many active labels of usable episodes make no samples, or none of the names of their steps."""
    # A lake of an earlier version does not say which labels have names
    rows = con.execute(
        "SELECT dataset, l.confidence, COLUMNS('^(needs_review|named)$') FROM episodes e "
        "JOIN active_runs a USING (dataset, episode_index) JOIN episode_labels l USING (dataset, episode_index, "
        "label_run) WHERE e.status = 'ok'"
    )
    columns = [name for name, *_ in rows.description or ()]
    labels: dict[str, list[tuple[float | None, bool]]] = {}
    for row in rows.fetchall():
        label = dict(zip(columns, row, strict=True))
        labels.setdefault(label["dataset"], []).append((label["confidence"], label.get("named") is not False))
    gates = dataset_gates(con)
    return {dataset: GateCounts(gates.get(dataset, LabelGate()), labels[dataset]) for dataset in sorted(labels)}


def _by_episode(con: duckdb.DuckDBPyConnection, relation: str, where: str, values: list[Any]) -> dict[int, StoredLabel]:
    """Labels by episode alone; `where` leaves one label run of each."""
    return {episode: label for (episode, _), label in _read(con, relation, where, values).items()}


def _read(
    con: duckdb.DuckDBPyConnection, relation: str, where: str, values: list[Any]
) -> dict[tuple[int, str], StoredLabel]:
    """Labels by episode and label run, in that order, out of the rows of a relation."""
    answer = con.execute(
        f"SELECT episode_index, label_run, num_planned, COLUMNS('^({SEGMENT_COLUMNS})$') FROM {relation} WHERE {where} "
        "ORDER BY episode_index, label_run, segment_index",
        values,
    )
    # A lake of an earlier version, and a release made with it, has not all of the columns
    columns = [name for name, *_ in answer.description or ()][3:]
    labels: dict[tuple[int, str], StoredLabel] = {}
    for episode_index, label_run, num_planned, *segment in answer.fetchall():
        label = labels.setdefault((episode_index, label_run), StoredLabel([], num_planned, label_run))
        label.segments.append(Segment(**dict(zip(columns, segment, strict=True))))
    return labels


def followers(con: duckdb.DuckDBPyConnection, label_run: str) -> set[tuple[str, int]]:
    """Episodes (dataset, episode_index) whose label of a run follows the labels of others."""
    sql = "SELECT DISTINCT dataset, episode_index FROM alignments WHERE label_run = ?"
    return set(con.execute(sql, [label_run]).fetchall())
