"""Columns of the rows of LeRobot episodes that steps are read from, and frames by the times of the rows."""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.formats.lerobot_meta import META_BATCH, META_EPISODES, LerobotListing
from ingest.formats.lerobot_rows import EpisodeRows
from ingest.formats.tables import batches, finite, opened, ranges, vectors, whole
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


# Traces of edits after which the numbers of steps lead to no text, or to another one: LeRobot's tools that delete,
# split and merge number the tasks anew, in the rows' `task_index` alone. Columns such as `annotation.*`, which count by
# the same texts, keep the old numbers. Files of steps' texts, and further columns of meta/episodes, they leave out. Not
# every such edit leaves a trace

# LeRobot 0.6.1 copies these as they are when it deletes or splits
LEAST = "stats/task_index/min"
MOST = "stats/task_index/max"


def changing_episodes(dataset: LerobotListing, episodes: Episodes, column: str) -> int:
    """In how many episodes a column has several values: what is the same in all rows is no step."""
    return sum(_changes(cells) for _, cells in cells_of(dataset, episodes, column))


def _changes(cells: pa.ChunkedArray) -> bool:
    if pa.types.is_nested(cells.type):
        return len({*map(str, cells.to_pylist())}) > 1
    return len(cells.unique()) > 1


def report_renumbered_tasks(dataset: LerobotListing, episodes: Episodes, column: str) -> bool:
    """Were the tasks numbered anew after a column was filled with their numbers? Then a finding says so."""
    task_numbers = {
        index: lowest
        for index, lowest, highest in _stored_ranges(dataset)
        if lowest == highest and index in episodes
    }
    renumbered = {
        index: n
        for index, n in task_numbers.items()
        if episodes[index].task_indices not in ((), (n,))
    }
    if renumbered:
        index, number = min(renumbered.items())
        dataset.warn(
            "steps_lost",
            f"{column} is not used: the tasks were numbered anew in {len(renumbered)} of {len(task_numbers)} episodes "
            f"(episode {index}: task_index is {episodes[index].task_indices[0]}, and was {number} when its statistics "
            "were made), as LeRobot's tools do that delete and split; this column keeps the old numbers",
        )
    return bool(renumbered)


def report_merged_tasks(dataset: LerobotListing, episodes: Episodes) -> None:
    """Say in which episodes the rows name one task, and named several when their statistics were made."""
    # A number below 0 is none of a task
    merged = {
        index
        for index, lowest, highest in _stored_ranges(dataset)
        if 0 <= lowest < highest and index in episodes and len(episodes[index].task_indices) == 1
    }
    if merged:
        dataset.warn(
            "steps_lost",
            f"task_index is one task in {len(merged)} of {len(episodes)} episodes (the first: {min(merged)}) that had "
            "several when their statistics were made, as LeRobot's modify_tasks() leaves an episode one of its tasks: "
            "the steps that it named are lost, and the task may be that of one step",
        )


def _stored_ranges(dataset: LerobotListing) -> Iterator[tuple[int, int, int]]:
    """Episodes, and the least and the greatest number of their tasks by their stored statistics."""
    for uri in filter(META_EPISODES.match, dataset.source.files):
        try:
            with opened(dataset.source.resolve(uri)) as file:
                if {LEAST, MOST} <= {*file.schema_arrow.names}:
                    for batch in batches(file, ["episode_index", LEAST, MOST], META_BATCH):
                        yield from _known_ranges(batch.to_pylist())
        except DataError as e:
            # The file may have been read before: then a finding says so already
            if all(finding.file != uri for finding in dataset.findings):
                dataset.warn(e.reason, str(e), file=uri)


def _known_ranges(rows: list[dict[str, Any]]) -> Iterator[tuple[int, int, int]]:
    """Episode, least and greatest number of its tasks, of the rows in which all three are whole numbers."""
    for row in rows:
        index = whole(row["episode_index"])
        lowest = whole(_single_value(row[LEAST]))
        highest = whole(_single_value(row[MOST]))
        if index is not None and lowest is not None and highest is not None:
            yield index, lowest, highest


def _single_value(value: Any) -> Any:
    """Statistics of one number are lists of one, too."""
    if isinstance(value, list) and value:
        return value[0]
    return value


def episodes_named_otherwise(
    dataset: LerobotListing, episodes: Episodes, columns: Collection[str], steps_from: str
) -> set[int]:
    """Episodes of which a column that names the task names another one than the rows' `task_index` does; a finding says
    so. The numbers of `steps_from` are then not those of the tasks' texts either.

    Such a column is the same in all rows of an episode. It is held against `task_index` only where the two agree in
    other episodes, or have the same numbers in another order: else it holds other wordings.
    """
    doubtful: set[int] = set()
    for column in columns:
        pairs = _task_numbers(dataset, episodes, column)
        wrong = sorted(index for index, (task, number) in pairs.items() if task != number)
        agreeing = len(pairs) - len(wrong)
        if wrong and (agreeing or _is_other_order(pairs)):
            task, number = pairs[wrong[0]]
            dataset.warn(
                "steps_lost",
                f"{steps_from} is not used for {len(wrong)} of {len(pairs)} episodes: there {column} has another task "
                f"than task_index (episode {wrong[0]}: {number}, not {task}), and the same in the other {agreeing}; "
                "the tasks were numbered anew, as LeRobot's tools do, and these columns keep the old numbers",
            )
            doubtful |= {*wrong}
    return doubtful


def _task_numbers(
    dataset: LerobotListing, episodes: Episodes, column: str
) -> dict[int, tuple[int, int]]:
    """By episode of one task, its `task_index` and its number in a column; none where the column changes."""
    pairs: dict[int, tuple[int, int]] = {}
    for index, cells in cells_of(dataset, episodes, column):
        numbers = cells.unique().to_pylist() if pa.types.is_integer(cells.type) else []
        if len(numbers) != 1 or numbers[0] is None:
            return {}
        tasks = episodes[index].task_indices
        if len(tasks) == 1:
            pairs[index] = tasks[0], numbers[0]
    return pairs


def _is_other_order(pairs: Mapping[int, tuple[int, int]]) -> bool:
    """Are the columns' numbers those of the tasks, one to one?"""
    mapping = {*pairs.values()}
    tasks = {task for task, _ in mapping}
    return len(mapping) == len(tasks) and tasks == {number for _, number in mapping}
