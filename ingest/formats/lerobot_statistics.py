"""The statistics that a LeRobot dataset stores of its state and action, by which policies normalise them.

`meta/stats.json` has them of all rows, `meta/episodes_stats.jsonl` (v2.1) of each episode. The checkup holds them
against the rows. Those of v3.0's `meta/episodes` are not read: LeRobot itself uses only meta/stats.json there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ingest.episode import StoredStatistics
from ingest.formats.folders import object_of
from ingest.formats.side_files import parse_json_lines, read_json, read_text
from ingest.reasons import DataError
from ingest.sources.files import Source

NAMES = ("min", "max", "mean", "std")
OF_ALL, OF_EPISODES = "meta/stats.json", "meta/episodes_stats.jsonl"


def stored_statistics(source: Source, episode: int, columns: Mapping[str, Mapping[str, str]]) -> list[StoredStatistics]:
    """What is stored of an episode's state and action; of one that is of several columns nothing is compared.

    columns: the source's columns of "state" and of "action", and why each is one.
    """
    of_all, of_episodes = _read(source)
    found = []
    for vector, names in columns.items():
        if len(names) != 1:
            continue
        name = next(iter(names))
        found += _parsed(vector, OF_ALL, of_all.get(name), is_of_episode=False)
        found += _parsed(vector, OF_EPISODES, of_episodes.get(episode, {}).get(name), is_of_episode=True)
    return found


def _read(source: Source) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Statistics by column, of all rows and of each episode, read once; none of a file that cannot be read.

    A file of metadata beyond the limit is not read either.
    """
    if OF_ALL not in source.noted:
        of_all: dict[str, Any] = {}
        of_episodes: dict[int, dict[str, Any]] = {}
        try:
            if OF_ALL in source.files:
                of_all = object_of(read_json(source, OF_ALL))
            if OF_EPISODES in source.files:
                lines, _ = parse_json_lines(read_text(source, OF_EPISODES), strict=False)
                rows = [object_of(value) for _, value in lines]
                of_episodes = {
                    row["episode_index"]: object_of(row.get("stats")) for row in rows if "episode_index" in row
                }
        except DataError:
            of_all = {}  # whether they are the data's cannot be told
        source.noted[OF_ALL] = of_all, of_episodes
    return source.noted[OF_ALL]


def _is_numbered(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("episode_index"), int)


def _parsed(vector: str, file: str, stored: Any, *, is_of_episode: bool) -> list[StoredStatistics]:
    """One column's statistics where they are numbers of one width."""
    values = object_of(stored)
    try:
        low, high, mean, spread = (
            np.atleast_1d(np.array(values[k], np.float64)) for k in ("min", "max", "mean", "std")
        )
        count = int(np.array(values["count"]).ravel()[0]) if values.get("count") else None
    except (KeyError, ValueError, TypeError, IndexError):
        return []
    if {part.shape for part in (low, high, mean, spread)} != {low.shape} or low.ndim != 1:
        return []
    return [StoredStatistics(vector, file, low, high, mean, spread, count, is_of_episode)]
