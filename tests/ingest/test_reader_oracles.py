"""The original libraries beside our readers, over made datasets: mcap's reader for recordings, h5py for HDF5 files,
webdataset for our shards. Numbers, times, states, pictures and texts are those that the library gives."""

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from mcap_ros2.reader import read_ros2_messages
from webdataset.compat import WebDataset

from ingest.episode import EpisodeData, EpisodeRecord
from ingest.source import list_episodes, read_episode
from tests.kits import hdf5_writer as hdf5
from tests.kits.lerobot_writer import read_number, source_of
from tests.kits.mcap_writer import RATE, SECOND, START, Recorder, recorder
from tests.kits.shard_kit import episode as shard_episode
from tests.kits.shard_kit import write as write_shard
from warehouse.shards.shard import read_samples

PICTURES = 20
JOINTS_PER_PICTURE = 10
STEP = SECOND // (RATE * JOINTS_PER_PICTURE)


def read_all(root: Path) -> list[tuple[EpisodeRecord, EpisodeData]]:
    source = source_of(root)
    listing = list_episodes(source)
    assert not [finding for finding in listing.findings if finding.severity == "unusable"]
    return [(record, read_episode(source, record)) for record in listing.records]


def pictures_of(episode: EpisodeData, camera: str) -> list[np.ndarray]:
    return [picture.rgb() for _, _, picture in episode.frames(camera)]


def write_even(r: Recorder) -> None:
    for k in range(PICTURES * JOINTS_PER_PICTURE):
        r.move(k / 100, k // 50, START + k * STEP)
        if k % JOINTS_PER_PICTURE == 0:
            r.show(k // JOINTS_PER_PICTURE, START + k * STEP + SECOND // 1000)


def write_late(r: Recorder) -> None:
    """Ten messages of the joints, and two pictures, stand at the end of the file."""
    late = {*range(60, 70)}
    numbers = [*(k for k in range(PICTURES * JOINTS_PER_PICTURE) if k not in late), *late]
    for k in numbers:
        r.move(k / 100, k // 50, START + k * STEP)
    for frame in (*(k for k in range(PICTURES) if k not in (5, 6)), 5, 6):
        r.show(frame, START + frame * SECOND // RATE + SECOND // 1000)


def write_jittered(r: Recorder) -> None:
    """Every message a few milliseconds off, the last picture early."""
    random = np.random.default_rng(0)
    off = random.integers(-2_000_000, 2_000_000, PICTURES * JOINTS_PER_PICTURE)
    off[-JOINTS_PER_PICTURE] = -2_000_000
    for k in range(PICTURES * JOINTS_PER_PICTURE):
        r.move(k / 100, k // 50, START + k * STEP + int(off[-k - 1]))
        if k % JOINTS_PER_PICTURE == 0:
            r.show(k // JOINTS_PER_PICTURE, START + k * STEP + int(off[k]))


def write_delayed(r: Recorder) -> None:
    """The recorder writes pictures down 35 ms after they were taken, as their headers say."""
    for k in range(PICTURES * JOINTS_PER_PICTURE):
        r.move(k / 100, k // 50, START + k * STEP)
        if k % JOINTS_PER_PICTURE == 0:
            time_ns = START + k * STEP + SECOND // 1000
            r.show(k // JOINTS_PER_PICTURE, time_ns + 35 * SECOND // 1000, time_ns)


def write_slow_joints(r: Recorder) -> None:
    """Joints at half the rate of the pictures, and not at their times."""
    for k in range(PICTURES):
        r.show(k, START + k * SECOND // RATE)
        if k % 2 == 0:
            r.move(k / 100, k // 10, START + k * SECOND // RATE + SECOND // 70)


def write_by_topic(r: Recorder) -> None:
    for k in range(PICTURES):
        r.move(k / 100, k // 10, START + k * SECOND // RATE)
    for k in range(PICTURES):
        r.show(k, START + k * SECOND // RATE)


def write_backwards(r: Recorder) -> None:
    for k in reversed(range(PICTURES)):
        r.show(k, START + k * SECOND // RATE)
        r.move(k / 100, k // 10, START + k * SECOND // RATE)


RECORDINGS = [
    write_even,
    write_late,
    write_jittered,
    write_delayed,
    write_slow_joints,
    write_by_topic,
    write_backwards,
]


@pytest.mark.parametrize("record", RECORDINGS)
def test_a_recording_is_what_mcaps_reader_gives(record, tmp_path):
    with recorder(tmp_path / "run.mcap") as r:
        r.writer.write_message("/task", r.text, {"data": "pick the cup"}, START)
        record(r)
    times: dict[str, list[int]] = {}
    values: dict[str, list[Any]] = {}
    for message in read_ros2_messages(str(tmp_path / "run.mcap")):
        topic = message.channel.topic
        stamp = getattr(message.ros_msg, "header", None)
        if stamp is None:
            time_ns = message.log_time_ns
        else:
            time_ns = stamp.stamp.sec * SECOND + stamp.stamp.nanosec
        times.setdefault(topic, []).append(time_ns)
        values.setdefault(topic, []).append(message.ros_msg)
    images = "/front/image_raw/compressed"
    joints = "/joint_states"
    begin = max(times[images][0], times[joints][0])
    end = min(times[images][-1], times[joints][-1])

    ((facts, episode),) = read_all(tmp_path)
    ticks = begin + np.arange(facts.num_rows or 0) / facts.fps * SECOND
    assert facts.fps == pytest.approx(RATE, rel=0.01)
    assert facts.tasks == (values["/task"][0].data,) == ("pick the cup",)
    assert abs(ticks[-1] - end) < SECOND / RATE, (
        "from the first moment of all topics to the last, but for one tick"
    )
    nearest = {}
    for topic in (images, joints):
        stamps = np.array(times[topic])
        nearest[topic] = [int(np.abs(stamps - t).argmin()) for t in ticks]
    states = np.array([values[joints][k].position for k in nearest[joints]])
    assert episode.state is not None
    assert np.array_equal(episode.state, states)
    encoded = [np.frombuffer(bytes(values[images][k].data), np.uint8) for k in nearest[images]]
    theirs = [read_number(_decoded(data).mean(axis=2)) for data in encoded]
    ours = [read_number(rgb.mean(axis=2)) for rgb in pictures_of(episode, "front")]
    assert ours == theirs


def _decoded(data: np.ndarray) -> np.ndarray:
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return picture[:, :, ::-1]


@pytest.mark.parametrize("store", [None, hdf5.padded_rows])
def test_aloha_is_what_h5py_gives(store, tmp_path):
    times = [round(k / 20, 3) for k in range(9)]
    path = hdf5.write_aloha(
        tmp_path / "episode_0.hdf5", 0, 9, store, timestamps=times, language=b"fold the towel"
    )
    ((facts, episode),) = read_all(tmp_path)
    with h5py.File(path) as file:
        names = ("timestamps", "language", "action", "observations/qpos")
        stored: Any = {name: file[name][()] for name in names}  # pyright: ignore
        pictures: Any = file["observations/images/cam_high"][()]  # pyright: ignore
    assert episode.timestamps_s is not None
    assert np.allclose(np.diff(episode.timestamps_s), np.diff(stored["timestamps"]), atol=1e-9)
    assert facts.tasks == (stored["language"].decode(),)
    assert np.array_equal(episode.state, stored["observations/qpos"])  # pyright: ignore
    assert np.array_equal(episode.action, stored["action"])  # pyright: ignore
    if store:
        pictures = map(_decoded, pictures)
    ours = pictures_of(episode, "cam_high")
    assert [read_number(p.mean(axis=2)) for p in ours] == [
        read_number(p.mean(axis=2)) for p in pictures
    ]


def test_a_shard_is_what_webdataset_gives(tmp_path):
    tar = write_shard(tmp_path, [shard_episode(0), shard_episode(3)])
    entries: Any = WebDataset([str(tar)], shardshuffle=False)
    theirs = []
    for entry in entries:
        for row in json.loads(entry["samples.json"]):
            theirs.append((entry["__key__"], row, tuple(map(entry.get, row["pictures"]))))
    ours = [(f"sim-{s.row['episode_index']:06d}", s.row, s.pictures) for s in read_samples([tar])]
    assert ours == theirs
    assert len(theirs) > 2
