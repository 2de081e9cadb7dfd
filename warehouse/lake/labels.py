"""Stored labels: the segments of episodes by label run, as the lake holds them. The one reader of the table segments.

Every function takes a DuckDB connection with the lake in use: that of a Lake, or a reader's own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import duckdb
import numpy as np

from annotate.label_run import GateCounts, LabelGate
from annotate.segments import Segment
from warehouse.lake.connection import has

SEGMENT_COLUMNS = "|".join(f.name for f in fields(Segment))
COUNTING = "SEMI JOIN active_runs USING (dataset, episode_index, label_run)"
RUNS = """
SELECT e.dataset, e.episode_index, coalesce(j.same_as, e.task, ''), e.success, {quality}, a.label_run
FROM episodes e
LEFT JOIN current_joined_tasks j ON j.dataset = e.dataset AND j.task = e.task
LEFT JOIN active_runs a ON a.dataset = e.dataset AND a.episode_index = e.episode_index
{measured}
WHERE e.status = 'ok'"""
MEASURED = "LEFT JOIN demonstration_quality q ON q.dataset = e.dataset AND q.episode_index = e.episode_index"


@dataclass(frozen=True)
class StoredLabel:
    """The label of one episode by one label run: segments in order of time, of `num_planned` planned steps.

    Of one that was asked for as a `whole`: its row of episode_labels, without its curve, and its progress, float32 [k].
    """

    segments: list[Segment]
    num_planned: int
    label_run: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    progress: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


def labels_of(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    chunk: int | None = None,
    *,
    episodes: Sequence[int] | None = None,
    label_run: str | None = None,
    whole: bool = False,
) -> dict[int, StoredLabel]:
    """The labels of a dataset, of one chunk of it, or of some episodes, by episode; those without one are missing.

    label_run: whose labels; None: the active ones. whole: with facts and progress.
    """
    asked = {"dataset = ?": dataset, "chunk = ?": chunk, "label_run = ?": label_run}
    asked["list_contains(?, episode_index)"] = None if episodes is None else list(episodes)
    active = "active_" if label_run is None else ""
    labels = {episode: label for (episode, _), label in _read(con, f"{active}segments", asked).items()}
    if not whole:
        return labels
    # A lake of an earlier version has not all of the columns
    where, values = _where(asked)
    rows = con.execute(
        f"SELECT COLUMNS(c -> c <> 'curve') FROM episode_labels {active and COUNTING} WHERE {where}", values
    )
    facts = {row["episode_index"]: row for row in rows.to_arrow_table().to_pylist()}
    curves = con.execute(
        f"SELECT episode_index, progress FROM {active}progress WHERE {where} ORDER BY episode_index, frame_index",
        values,
    ).to_arrow_table()
    index, progress = curves["episode_index"].to_numpy(), curves["progress"].to_numpy()
    return {
        episode: replace(label, facts=facts.get(episode, {}), progress=progress[rows_of_episode(index, episode)])
        for episode, label in labels.items()
    }


def rows_of_episode(episode_of_row: np.ndarray, episode_index: int) -> slice:
    """The rows of an episode in a table that is ordered by episode.

    Example: rows_of_episode(np.array([0, 0, 2, 2, 2]), 2) == slice(2, 5)
    """
    start, end = np.searchsorted(episode_of_row, [episode_index, episode_index + 1])
    return slice(int(start), int(end))


def labels_of_episode(
    con: duckdb.DuckDBPyConnection, dataset: str, chunk: int, episode_index: int
) -> dict[str, StoredLabel]:
    """Every label of one episode, by label run."""
    labels = _read(con, "segments", {"dataset = ?": dataset, "chunk = ?": chunk, "episode_index = ?": episode_index})
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


def _read(
    con: duckdb.DuckDBPyConnection, relation: str, asked: Mapping[str, Any]
) -> dict[tuple[int, str], StoredLabel]:
    """Labels by episode and label run, in that order, out of a relation's rows that fit; asked: None is any value."""
    where, values = _where(asked)
    answer = con.execute(
        f"SELECT episode_index, label_run, num_planned, COLUMNS('^({SEGMENT_COLUMNS})$') FROM {relation} "
        f"WHERE {where} ORDER BY episode_index, label_run, segment_index",
        values,
    )
    # A lake of an earlier version, and a release made with it, has not all of the columns
    columns = [name for name, *_ in answer.description or ()][3:]
    labels: dict[tuple[int, str], StoredLabel] = {}
    for episode_index, run, num_planned, *segment in answer.fetchall():
        label = labels.setdefault((episode_index, run), StoredLabel([], num_planned, run))
        label.segments.append(Segment(**dict(zip(columns, segment, strict=True))))
    return labels


def _where(asked: Mapping[str, Any]) -> tuple[str, list[Any]]:
    given = {condition: value for condition, value in asked.items() if value is not None}
    return " AND ".join(given), [*given.values()]


def followers(con: duckdb.DuckDBPyConnection, label_run: str) -> set[tuple[str, int]]:
    """Episodes (dataset, episode_index) whose label of a run follows the labels of others."""
    sql = "SELECT DISTINCT dataset, episode_index FROM alignments WHERE label_run = ?"
    return set(con.execute(sql, [label_run]).fetchall())


@dataclass(frozen=True)
class RunFacts:
    """same_as: the task in words, that of several texts which means the same. quality: the score of
    demonstration_quality, None where too few runs show what is usual."""

    same_as: str
    success: bool | None
    quality: float | None
    label_run: str | None


def run_facts(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, int], RunFacts]:
    """By (dataset, episode_index), of all usable episodes."""
    # A lake that is only read may be of a version that measured no demonstrations
    is_measured = has(con, "demonstration_quality")
    sql = RUNS.format(quality="q.score" if is_measured else "NULL", measured=MEASURED if is_measured else "")
    return {(dataset, episode): RunFacts(*facts) for dataset, episode, *facts in con.execute(sql).fetchall()}
