"""Columns of the rows of LeRobot episodes that steps are read from, and frames by the times of the rows."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.formats.lerobot_meta import LerobotListing
from ingest.formats.lerobot_rows import EpisodeRows
from ingest.formats.tables import finite, opened, ranges, vectors, whole
from ingest.reasons import LIMITS, DataError


@dataclass(frozen=True)
class Annotated:
    """An episode as its metadata and rows show it; either may be missing. `num_frames` None: neither says it."""

    meta: Mapping[str, Any]
    rows: EpisodeRows | None

    @property
    def num_frames(self) -> int | None:
        if self.rows is None:
            return whole(self.meta.get("length"))
        return self.rows.num_rows

    @property
    def task_indices(self) -> tuple[int, ...]:
        """The tasks that its rows name, in order of appearance."""
        if self.rows is None:
            return ()
        return self.rows.task_indices


Episodes = Mapping[int, Annotated]


def columns_of(dataset: LerobotListing) -> set[str]:
    """Columns of the rows: those that info.json declares, and those of any data file that was opened."""
    if not dataset.schemas:
        return set()
    stored = chain.from_iterable(schema.names for schema, _ in dataset.schemas)
    return {*dataset.info["features"], *stored}


def cells_of(
    dataset: LerobotListing, episodes: Episodes, column: str, most_rows: int = LIMITS.max_rows
) -> Iterator[tuple[int, pa.ChunkedArray]]:
    """A column of each episode's rows, of those files that have it; `most_rows`: of its first ones."""
    with_rows = [
        (rows, index)
        for index, episode in episodes.items()
        if (rows := episode.rows) and rows.num_rows
    ]
    with_rows.sort(key=lambda pair: (pair[0].uri, pair[0].row_start))
    for uri, of_file in groupby(with_rows, key=lambda pair: pair[0].uri):
        places = {index: (rows.row_start, min(rows.num_rows, most_rows)) for rows, index in of_file}
        try:
            with opened(dataset.source.resolve(uri)) as file:
                if column in file.schema_arrow.names:
                    tables = ranges(file, list(places.values()), [column])
                    yield from (
                        (index, table[column]) for index, table in zip(places, tables, strict=False)
                    )
        except DataError as e:
            dataset.warn(
                "bad_steps" if e.reason == "unreadable_data" else e.reason, str(e), file=uri
            )


class Times:
    """Frames by times: those of the rows, which need not be frame / fps; else by the frame rate."""

    def __init__(self, fps: float, rows_s: np.ndarray | None = None) -> None:
        self.fps = fps
        ordered = rows_s is not None and len(rows_s) > 0 and bool((np.diff(rows_s) >= 0).all())
        self.rows_s = rows_s if ordered else None

    def frame(self, time_s: Any) -> int:
        """The frame whose time is the nearest. Raises ValueError for what is no time."""
        seconds = finite(time_s)
        if seconds is None or (self.rows_s is None and math.isnan(self.fps)):
            raise ValueError(f"{time_s!r} is no time or frame of a step")
        if self.rows_s is None:
            return round(seconds * self.fps)
        return int(np.abs(self.rows_s - seconds).argmin())

    def end(self, time_s: Any, num_frames: int | None) -> int:
        """As `frame`, of the end of a span, which may be behind the last frame's time."""
        frame = self.frame(time_s)
        if num_frames is None:
            return frame
        last_s = (num_frames - 1) / self.fps if self.rows_s is None else float(self.rows_s[-1])
        if (finite(time_s) or 0.0) > last_s:
            return num_frames
        return min(frame, num_frames)


def times_of(dataset: LerobotListing, episodes: Episodes) -> dict[int, Times]:
    """The times of each episode's rows, where it has rows with times."""
    times = {index: Times(dataset.rate) for index in episodes}
    for index, column in cells_of(dataset, episodes, "timestamp"):
        if pa.types.is_integer(column.type):
            numbers = column.cast(pa.float64(), safe=False)
        else:
            numbers = column
        with suppress(DataError):  # rows of different length are no times
            values = vectors(numbers, "timestamp")
            if values is not None and values.shape[1] == 1 and not column.null_count:
                times[index] = Times(dataset.rate, values[:, 0])
    return times
