"""Traces of edits after which the numbers of steps lead to no text, or to another one.

LeRobot's tools that delete, split and merge number the tasks anew, in the rows' `task_index` alone: columns such as
`annotation.*`, which count by the same texts, keep the old numbers. Their files of steps' texts, and further columns of
meta/episodes, they leave out. Not every such edit leaves a trace.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa

from ingest.formats.lerobot_cells import Episodes, cells_of
from ingest.formats.lerobot_meta import META_BATCH, META_EPISODES, LerobotListing
from ingest.formats.tables import batches, opened, whole
from ingest.reasons import DataError

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
