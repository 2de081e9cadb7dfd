"""What an episode's contents are known by, in this version and in those before.

What people say of an episode holds for its contents. Whoever changes how they are hashed keeps the former way here, or
all that people said waits for review; tests/data/workspaces has a workspace of each version.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ingest.episode import EpisodeData
from ingest.registry import Gripper
from ingest.signals.gripper import GripperSignal

type Pictures = Mapping[str, bytes]  # a digest over all pictures by camera


def content_columns(
    episode: EpisodeData, pictures: Pictures, signals: Sequence[GripperSignal], stated: Sequence[Gripper]
) -> dict[str, Any]:
    """Columns of `episode_content`: the hash of task, pictures, and state and action as read (version 2, since 0.2.0),
    and the hashes of the same by earlier versions, sorted.

    Version 1, of 0.1.0, took the state without its gripper, and the gripper as the mean of its dimensions. Which ones
    these were depended on the format and on names: all that they may have been are here.
    """
    former, ends = {_hash(episode, pictures, episode.state, None)}, _ends(stated)
    of_state, of_action = (episode.state, episode.state_names), (episode.action, episode.action_names)
    for column, (values, names) in {"state": of_state, "action": of_action}.items():
        if values is None:
            continue
        of_signals = [signal.dimensions for signal in signals if signal.column == column]
        for dimensions in _grippers(names, of_signals, values.shape[1]):
            rest = np.delete(values, dimensions, axis=1) if column == "state" else episode.state
            gripper = values[:, dimensions].mean(axis=1)
            former |= {_hash(episode, pictures, rest, (gripper - low) / (high - low)) for low, high in ends}
    hashed = _hash(episode, pictures, episode.state, episode.action)
    return {"content_hash": hashed, "former_hashes": sorted(former)}


def _ends(stated: Sequence[Gripper]) -> list[tuple[float, float]]:
    """Values of a closed and an open gripper by which version 1 may have scaled it."""
    return [(0.0, 1.0), *((g.closed, g.open or 0.0) for g in stated if g.closed is not None)]


def _grippers(names: Sequence[str], of_signals: Sequence[tuple[int, ...]], width: int) -> set[tuple[int, ...]]:
    """Dimensions that version 1 may have taken as the gripper: those named so, the first of each vector that was
    joined, those that stand for grippers now, the last one."""
    named = [k for k, name in enumerate(names) if "gripper" in name.lower()]
    first_of = {names[k].rpartition("_")[0]: k for k in reversed(named)}
    firsts, joined = sorted(first_of.values()), sorted(chain(*of_signals))
    ways = map(tuple, (named, firsts, *of_signals, joined, [d[0] for d in of_signals], [width - 1]))
    return {way for way in ways if way and max(way) < width}


def _hash(episode: EpisodeData, pictures: Pictures, *rows: np.ndarray | None) -> str:
    h = hashlib.sha256((episode.record.task or "").encode())
    for camera, digest in sorted(pictures.items()):
        h.update(camera.encode() + digest)
    for values in rows:
        h.update(b"-" if values is None else np.ascontiguousarray(values, np.float64).tobytes())
    return h.hexdigest()
