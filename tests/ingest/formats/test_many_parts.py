"""Files with more parts than limits.max_features allows: a finding names what there is too much of."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import source_of
from tests.kits.mcap_writer import START, recorder
from tests.kits.zarr_writer import write_replay

LIMIT = 12


def recording_with_joints(folder: Path, num_joints: int, num_topics: int) -> None:
    names = [f"joint_{k}" for k in range(num_joints)]
    with recorder(folder / "run.mcap") as recording:
        for k in range(10):
            time_ns = START + k * 100_000_000
            for topic in range(num_topics):
                message = {
                    "name": names,
                    "position": [0.1 * k] * num_joints,
                    "velocity": [],
                    "effort": [],
                }
                recording.write(f"/arm_{topic}/joint_states", recording.joints, message, time_ns)
            recording.show(k, time_ns)


def joints_of_one_topic(folder: Path) -> None:
    recording_with_joints(folder, LIMIT + 1, num_topics=1)


def joints_of_two_topics(folder: Path) -> None:
    recording_with_joints(folder, LIMIT - 2, num_topics=2)


def arrays_of_a_store(folder: Path) -> None:
    write_replay(folder / "umi.zarr", [6])
    for k in range(LIMIT):
        (folder / f"umi.zarr/data/part_{k}").mkdir()
        (folder / f"umi.zarr/data/part_{k}/0").write_bytes(b"")


def arrays_of_numpy(folder: Path) -> None:
    (folder / "run.mp4").write_bytes(b"")
    np.savez(folder / "run.npz", **{f"part_{k}": np.zeros((6, 2)) for k in range(LIMIT + 1)})


def problems(folder: Path, **limits: int) -> str:
    """All findings of a source, and what reading its first episode raises."""
    source = source_of(folder, limits=limits)
    listing = list_episodes(source)
    details = [finding.detail for finding in listing.findings]
    try:
        read_episode(source, listing.records[0])
    except DataError as e:
        details.append(str(e))
    return "; ".join(details)


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (joints_of_one_topic, "/arm_0/joint_states: numbers of one message: 13"),
        (joints_of_two_topics, "run.mcap: joints: 20"),
        (arrays_of_a_store, "umi.zarr: arrays"),
        (arrays_of_numpy, "run.npz: arrays: 13"),
    ],
)
def test_more_parts_than_the_limit(
    tmp_path: Path, write: Callable[[Path], None], what: str
) -> None:
    write(tmp_path)
    assert what in problems(tmp_path, max_features=LIMIT)
    assert "limits.max_features" not in problems(tmp_path)
