"""What an episode is known by: a hash of its contents, and the hashes that earlier versions gave the same contents.

What people say of an episode holds for its contents. Whoever changes how they are hashed keeps the
former way here, or all that people said waits for review; tests/data/workspaces has a workspace of
each version.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ingest.episode import EpisodeData
from ingest.registry import Gripper
from ingest.signals.gripper import GripperSignal

type PictureDigests = Mapping[str, bytes]  # a digest over all pictures, by camera
type Dimensions = tuple[int, ...]  # of a vector


def content_columns(
    episode: EpisodeData,
    pictures: PictureDigests,
    signals: Sequence[GripperSignal],
    stated_grippers: Sequence[Gripper],
) -> dict[str, Any]:
    """Columns of `episode_content`: the hash of task, pictures, and state and action as read
    (version 2, since 0.2.0), and the hashes of the same by version 1, sorted.

    signals: the grippers as they are read now; stated_grippers: what the registry says of them.
    """
    return {
        "content_hash": _hash(episode, pictures, episode.state, episode.action),
        "former_hashes": sorted(
            set(_hashes_of_version_1(episode, pictures, signals, stated_grippers))
        ),
    }


def _hash(episode: EpisodeData, pictures: PictureDigests, *rows: np.ndarray | None) -> str:
    digest = hashlib.sha256((episode.record.task or "").encode())
    for camera, picture_digest in sorted(pictures.items()):
        digest.update(camera.encode() + picture_digest)
    for values in rows:
        digest.update(
            b"-" if values is None else np.ascontiguousarray(values, np.float64).tobytes()
        )
    return digest.hexdigest()


def _hashes_of_version_1(
    episode: EpisodeData,
    pictures: PictureDigests,
    signals: Sequence[GripperSignal],
    stated_grippers: Sequence[Gripper],
) -> Iterator[str]:
    """All hashes that version 1, of 0.1.0, may have given.

    It took the state without its gripper, and the gripper as the mean of its dimensions, scaled.
    Which dimensions these were depended on the format and on names, so there is a hash for each
    choice that it may have made.
    """
    yield _hash(episode, pictures, episode.state, None)
    columns = (
        ("state", episode.state, episode.state_names),
        ("action", episode.action, episode.action_names),
    )
    for column, values, names in columns:
        if values is None:
            continue
        grippers_now = [signal.dimensions for signal in signals if signal.column == column]
        for dimensions in _former_grippers(names, grippers_now, values.shape[1]):
            if column == "state":
                state = np.delete(values, dimensions, axis=1)
            else:
                state = episode.state
            gripper = values[:, dimensions].mean(axis=1)
            for closed, opened in _former_ends(stated_grippers):
                yield _hash(episode, pictures, state, (gripper - closed) / (opened - closed))


def _former_ends(stated_grippers: Sequence[Gripper]) -> list[tuple[float, float]]:
    """Values of a closed and an open gripper by which version 1 may have scaled it."""
    by_registry = [
        (gripper.closed, gripper.open or 0.0)
        for gripper in stated_grippers
        if gripper.closed is not None
    ]
    return [(0.0, 1.0), *by_registry]


def _former_grippers(
    names: Sequence[str], grippers_now: Sequence[Dimensions], width: int
) -> set[Dimensions]:
    """Dimensions, of a vector of `width`, that version 1 may have taken as the gripper.

    Example: names ["arm_0", "gripper_0", "gripper_1"], no grippers now, width 3: (1, 2), (1,) and
    (2,).
    """
    gripper_indices = [index for index, name in enumerate(names) if "gripper" in name.lower()]
    # Where vectors were joined, the names of each end with its numbers: the first named so of each vector
    first_by_vector: dict[str, int] = {}
    for index in gripper_indices:
        first_by_vector.setdefault(names[index].rpartition("_")[0], index)
    all_grippers_now = [*chain.from_iterable(grippers_now)]
    choices = {
        tuple(gripper_indices),
        tuple(sorted(first_by_vector.values())),
        *grippers_now,
        tuple(sorted(all_grippers_now)),
        tuple(dimensions[0] for dimensions in grippers_now),
        (width - 1,),
    }
    return {dimensions for dimensions in choices if dimensions and max(dimensions) < width}
