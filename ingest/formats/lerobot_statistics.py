"""The statistics that a LeRobot dataset stores of its state and action, by which policies normalise them.

`meta/stats.json` has them of all rows, `meta/episodes_stats.jsonl` (v2.1) of each episode. The
checkup holds them against the rows. Those of v3.0's `meta/episodes` are not read: LeRobot itself
uses only meta/stats.json there.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from ingest.episode import StoredStatistics
from ingest.formats.folders import object_of
from ingest.formats.side_files import parse_json_lines, read_json, read_text
from ingest.reasons import DataError
from ingest.sources.files import Source

NAMES = ("min", "max", "mean", "std")
OF_ALL = "meta/stats.json"
OF_EPISODES = "meta/episodes_stats.jsonl"


class _Stored(NamedTuple):
    """What the files state: statistics by column, of all rows and of each episode; `problem`: why one was not read."""

    of_all: Mapping[str, Any]
    of_episodes: Mapping[int, Mapping[str, Any]]
    problem: str = ""


def stored_statistics(
    source: Source, episode: int, columns: Mapping[str, Mapping[str, str]]
) -> list[StoredStatistics]:
    """What is stored of an episode's state and action; of one that is of several columns nothing is compared.

    columns: the source's columns of "state" and of "action", and why each is one.
    """
    stored = _read(source)
    this_episode = stored.of_episodes.get(episode, {})
    statistics = [StoredStatistics(problem=stored.problem)] if stored.problem else []
    for vector, names in columns.items():
        if len(names) == 1:
            name = next(iter(names))
            statistics += _parsed(vector, OF_ALL, stored.of_all.get(name), is_of_episode=False)
            statistics += _parsed(vector, OF_EPISODES, this_episode.get(name), is_of_episode=True)
    return statistics


def counted_rows(source: Source) -> Any:
    """How many rows meta/stats.json is of, as it counts the values of a column with one for each; None: not said."""
    # Those of episodes may be large, and no listing needs them
    of_all: Mapping[str, Any] = {}
    if OF_ALL in source.files:
        with suppress(DataError):  # `stored_statistics` says so of each run
            of_all = object_of(read_json(source, OF_ALL))
    count = object_of(of_all.get("index")).get("count")
    return count[0] if isinstance(count, list) and count else count


def _read(source: Source) -> _Stored:
    """The files' statistics, read once; also a file beyond the limits of metadata is a problem."""
    if OF_ALL not in source.noted:
        of_all: Mapping[str, Any] = {}
        of_episodes: Mapping[int, Mapping[str, Any]] = {}
        problem = ""
        try:
            if OF_ALL in source.files:
                of_all = object_of(read_json(source, OF_ALL))
            if OF_EPISODES in source.files:
                of_episodes = _by_episode(read_text(source, OF_EPISODES))
        except DataError as e:
            problem = str(e)
        source.noted[OF_ALL] = _Stored(of_all, of_episodes, problem)
    return source.noted[OF_ALL]


def _by_episode(text: str) -> dict[int, dict[str, Any]]:
    """Statistics by episode of lines of JSON; lines that are of no episode say nothing."""
    lines, _ = parse_json_lines(text, strict=False)
    rows = [object_of(value) for _, value in lines]
    return {
        row["episode_index"]: object_of(row.get("stats"))
        for row in rows
        if type(row.get("episode_index")) is int
    }


def _parsed(vector: str, file: str, stored: Any, *, is_of_episode: bool) -> list[StoredStatistics]:
    """One column's statistics where they are numbers of one width."""
    values = object_of(stored)
    try:
        numbers = [np.atleast_1d(np.array(values[name], np.float64)) for name in NAMES]
    except (KeyError, ValueError, TypeError, OverflowError):
        return []
    low, high, mean, spread = numbers
    if low.ndim != 1 or any(part.shape != low.shape for part in numbers):
        return []
    return [StoredStatistics(vector, file, low, high, mean, spread, is_of_episode)]
