"""What contents are known by stays what it was in each version."""

import hashlib
from pathlib import Path

import numpy as np

from annotate.frames_contents import content_columns
from ingest.registry import DatasetConfig
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from tests.kits.tiny_lerobot import make_dataset

# Of episode 0 of the tiny dataset, whose pictures are known by these bytes
PICTURES = {"observation.images.front": b"pictures"}


def test_a_version_knows_the_contents_of_those_before(tmp_path: Path) -> None:
    source = Source(DatasetConfig(name="tiny", source=str(make_dataset(tmp_path / "tiny"))))
    episode = read_episode(source, list_episodes(source).records[0])
    known = content_columns(episode, PICTURES, (), ())
    assert known["former_hashes"] == sorted(set(known["former_hashes"]))
    # Version 1: the state without what is named gripper, and that
    assert episode.state is not None
    state, gripper = episode.state[:, :2], episode.state[:, 2]
    assert version_1(episode.record.task or "", state, gripper) in known["former_hashes"]
    other = content_columns(episode, {"observation.images.front": b"others"}, (), ())
    assert {other["content_hash"], *other["former_hashes"]}.isdisjoint({known["content_hash"], *known["former_hashes"]})


def version_1(task: str, state: np.ndarray, gripper: np.ndarray) -> str:
    h = hashlib.sha256(task.encode())
    h.update(b"observation.images.frontpictures")
    for values in (state, gripper):
        h.update(np.ascontiguousarray(values, np.float64).tobytes())
    return h.hexdigest()
