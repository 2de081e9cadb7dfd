"""The robot's state as the lake holds it: joints or hand pose at each frame of an episode."""

from collections.abc import Collection

import duckdb
import numpy as np

STATES = """
SELECT episode_index, frame_index, len(state) AS length, unnest(state) AS number FROM states
WHERE dataset = ? AND list_contains(?, episode_index) AND len(state) > 0 ORDER BY episode_index, frame_index
"""


def episode_states(con: duckdb.DuckDBPyConnection, dataset: str, episodes: Collection[int]) -> dict[int, np.ndarray]:
    """The states of some episodes of a dataset, float32 [frames, l], NaN at frames that have none; episodes without any
    are left out, and so are those whose states change their length.

    `con` has the lake in use: that of a Lake, or a reader's own.
    """
    rows = con.execute(STATES, [dataset, sorted(episodes)]).fetchnumpy()
    of_episode, frames, lengths, numbers = (np.asarray(column) for column in rows.values())
    found = {}
    for part in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(of_episode)) + 1):
        if not len(part) or len(set(lengths[part].tolist())) > 1:
            continue
        at = frames[part].reshape(-1, int(lengths[part[0]]))
        states = np.full((int(at[-1, 0]) + 1, at.shape[1]), np.nan, np.float32)
        states[at[:, 0]] = numbers[part].reshape(at.shape)
        found[int(of_episode[part[0]])] = states
    return found


def at_frames(states: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """States [frames, l] at some frames [k], NaN where there are none: [k, l]."""
    whole = np.full((len(frames), states.shape[1]), np.nan, np.float32)
    there = frames < len(states)
    whole[there] = states[frames[there]]
    return whole
