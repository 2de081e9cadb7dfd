"""Columns of the rows of LeRobot episodes that steps are read from, and frames by the times of the rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.formats.lerobot_meta import PARQUET_ERRORS, LerobotListing, finite, unreadable, whole
from ingest.formats.lerobot_rows import EpisodeRows
from ingest.formats.tables import CHUNK, batches, check

ROW_BATCH, LANGUAGE_BATCH = 1 << 16, 1 << 12  # rows read at a time; each row repeats all of an episode's texts


@dataclass(frozen=True)
class Annotated:
    """An episode as its metadata and rows show it; either may be missing. `num_frames` None: neither says it."""

    meta: Mapping[str, Any]
    rows: EpisodeRows | None

    @property
    def num_frames(self) -> int | None:
        return whole(self.meta.get("length")) if self.rows is None else self.rows.num_rows


Episodes = Mapping[int, Annotated]


def columns_of(dataset: LerobotListing, episodes: Episodes) -> set[str]:
    """Columns of the rows: those that info.json declares, and those of the first file."""
    declared = set(dataset.info["features"])
    first = next((episode.rows for _, episode in sorted(episodes.items()) if episode.rows), None)
    if first is None:
        return set()
    try:
        return declared | set(pq.read_schema(dataset.source.resolve(first.uri)).names)
    except PARQUET_ERRORS:
        return declared  # the file has its finding already


def cells_of(
    dataset: LerobotListing, episodes: Episodes, columns: Sequence[str], *, first_only: bool = False
) -> Iterator[tuple[int, pa.Table]]:
    """Some columns of each episode's rows, of those files that have them all; `first_only`: of its first row."""
    by_file: dict[str, list[tuple[int, int, int]]] = {}
    for index, episode in episodes.items():
        rows = episode.rows
        if rows and rows.num_rows:
            by_file.setdefault(rows.uri, []).append((rows.row_start, 1 if first_only else rows.num_rows, index))
    for uri, places in sorted(by_file.items()):
        try:
            yield from _cells_of_file(
                dataset, uri, sorted(places), columns, LANGUAGE_BATCH if first_only else ROW_BATCH
            )
        except PARQUET_ERRORS as e:
            reason, detail = unreadable(dataset.source, uri, e)
            dataset.warn("bad_steps" if reason == "unreadable_data" else reason, detail, file=uri)


def _cells_of_file(
    dataset: LerobotListing, uri: str, places: list[tuple[int, int, int]], columns: Sequence[str], size: int
) -> Iterator[tuple[int, pa.Table]]:
    """`places`: (first row, rows, episode), in order of rows. Raises PARQUET_ERRORS."""
    path, limits = dataset.source.resolve(uri), dataset.source.config.limits
    with pq.ParquetFile(path) as file:
        if not set(columns) <= set(file.schema_arrow.names):
            return
        waiting, parts, at = iter(places), [], 0
        place = next(waiting, None)
        for batch in batches(file, path, columns, limits, size):
            end = at + batch.num_rows
            # The episodes that end in this batch, and what it has of one that goes on
            while place is not None and place[0] < end:
                start, count, index = place
                parts.append(batch.slice(max(start - at, 0), min(start + count, end) - max(start, at)))
                held = sum(part.nbytes for part in parts)
                check(limits.excess("max_bytes", held, f"{uri}: bytes of the texts of one episode", CHUNK))
                if start + count > end:
                    break
                yield index, pa.Table.from_batches(parts)
                parts, place = [], next(waiting, None)
            at = end


# Times


class Times:
    """Frames by times: those of the rows, which need not be frame / fps; else by the frame rate."""

    def __init__(self, fps: float, rows_s: np.ndarray | None = None) -> None:
        self.fps = fps
        ordered = rows_s is not None and len(rows_s) > 0 and bool((np.diff(rows_s) >= 0).all())
        self.rows_s = rows_s if ordered else None

    def frame(self, time_s: Any) -> int:
        """The frame whose time is the nearest. Raises ValueError for what is no time."""
        seconds = finite(time_s)
        if seconds is None:
            raise ValueError(f"{time_s!r} is no time of a step")
        rows_s = self.rows_s
        if rows_s is None:
            return round(seconds * self.fps)
        after = int(np.searchsorted(rows_s, seconds))
        near = [k for k in (after - 1, after) if 0 <= k < len(rows_s)]
        return min(near, key=lambda k: abs(rows_s[k] - seconds))

    def end(self, time_s: Any, num_frames: int | None) -> int:
        """As `frame`, of the end of a span, which may be behind the last frame's time."""
        frame = self.frame(time_s)
        if num_frames is None:
            return frame
        seconds = finite(time_s) or 0.0
        last_s = (num_frames - 1) / self.fps if self.rows_s is None else float(self.rows_s[-1])
        return num_frames if seconds > last_s else min(frame, num_frames)


def times_of(dataset: LerobotListing, episodes: Episodes) -> dict[int, Times]:
    """The times of each episode's rows, where it has rows with times."""
    times = {index: Times(dataset.fps) for index in episodes}
    with_rows = {index: episode for index, episode in episodes.items() if episode.rows}
    if "timestamp" in columns_of(dataset, with_rows):
        for index, cells in cells_of(dataset, with_rows, ["timestamp"]):
            times[index] = Times(dataset.fps, _numbers(cells["timestamp"]))
    return times


def _numbers(column: pa.ChunkedArray) -> np.ndarray | None:
    """A column of numbers, or of lists of one number, as float64; None for anything else."""
    values = column.combine_chunks()
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    is_number = pa.types.is_floating(values.type) or pa.types.is_integer(values.type)
    if not is_number or values.null_count or len(values) != len(column):
        return None
    return values.to_numpy(zero_copy_only=False).astype(np.float64)
