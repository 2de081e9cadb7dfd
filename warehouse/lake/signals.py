"""Grippers and hands as the lake holds them: which there are, how open each is, how far it is behind the pictures.

Every function takes a DuckDB connection with the lake in use: that of a Lake, or a reader's own. A lake that is only
read may be of an earlier version, which told no grippers apart: it has `frames.gripper` alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, product
from operator import itemgetter
from typing import Any

import duckdb

from ingest.signals.gripper import GripperSignal, signal_from_row
from warehouse.lake.connection import has

OF_EPISODE = "dataset = ? AND chunk = ? AND episode_index = ?"


@dataclass(frozen=True)
class GripperOpening:
    """How open one gripper is at each frame, 0..1; None where nothing is known.

    signal: None in episodes that were measured before grippers were told apart.
    """

    signal: GripperSignal | None
    opening: list[float | None]


def stored_signals(con: duckdb.DuckDBPyConnection, dataset: str) -> list[GripperSignal]:
    """The grippers and hands of a dataset, in the order of `frames.grippers`."""
    return signals_by_dataset(con, dataset).get(dataset, [])


def signals_by_dataset(con: duckdb.DuckDBPyConnection, dataset: str | None = None) -> dict[str, list[GripperSignal]]:
    """The grippers and hands of all datasets that have any, or of one, in order."""
    rows = _dicts(con, "signals WHERE dataset = coalesce($1, dataset) ORDER BY dataset, signal_index", [dataset])
    return {name: [signal_from_row(row) for row in of] for name, of in groupby(rows, itemgetter("dataset"))}


def lags_by_dataset(con: duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    """The rows of signal_lags by dataset, in order."""
    rows = _dicts(con, "signal_lags ORDER BY dataset, signal, chunk", [])
    return {dataset: list(of_dataset) for dataset, of_dataset in groupby(rows, itemgetter("dataset"))}


def chunk_lags(con: duckdb.DuckDBPyConnection, dataset: str, chunk: int) -> list[dict[str, Any]]:
    """The rows of signal_lags of one chunk, by signal."""
    return _dicts(con, "signal_lags WHERE dataset = ? AND chunk = ? ORDER BY signal", [dataset, chunk])


def _dicts(con: duckdb.DuckDBPyConnection, sql: str, values: list[Any]) -> list[dict[str, Any]]:
    """The rows that a query gives; none in a lake without the tables of signals."""
    return con.execute(f"FROM {sql}", values).to_arrow_table().to_pylist() if has(con, "signals") else []


def gripper_openings(
    con: duckdb.DuckDBPyConnection, dataset: str, chunk: int, episode_index: int
) -> list[GripperOpening]:
    """How open the grippers of an episode are, in the order of signals; without those that are not used."""
    key = [dataset, chunk, episode_index]
    # Every camera's rows have the same of these
    grippers = "any_value(grippers)" if has(con, "signals") else "NULL"
    frames = con.execute(
        f"SELECT any_value(gripper), {grippers} FROM frames WHERE {OF_EPISODE} GROUP BY frame_index "
        "ORDER BY frame_index",
        key,
    ).fetchall()
    return openings_of(stored_signals(con, dataset), frames)


def openings_of(
    signals: Sequence[GripperSignal], frames: Sequence[tuple[float | None, Sequence[float | None] | None]]
) -> list[GripperOpening]:
    """The same of what is stored of each frame: `gripper` and `grippers` of the table frames."""
    # An episode may have been measured by an earlier survey, which told others apart
    apart = [k for k, (_, of_frame) in enumerate(frames) if of_frame and len(of_frame) == len(signals)]
    curves = [GripperOpening(signal, [None] * len(frames)) for signal in signals]
    for k, curve in product(apart, range(len(signals))):
        curves[curve].opening[k] = (frames[k][1] or [])[curve]
    together = GripperOpening(None, [gripper for gripper, _ in frames])
    return list(filter(_is_measured, curves)) or list(filter(_is_measured, [together]))


def _is_measured(curve: GripperOpening) -> bool:
    return any(value is not None for value in curve.opening)
