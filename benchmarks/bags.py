"""What it takes to read a recording of ROS: CPU minutes per GB, and the ratio to rosbags reading alone.

    python -m benchmarks.bags [--megabytes N]

Over the same bags, in one process, in CPU time (user and system):

- rosbags: its AnyReader, all messages in order of time, each decoded, JPEG pictures to RGB by OpenCV;
- ours: what a build reads: the list of episodes, an episode's rows, and each camera's pictures to RGB.

Each bag has two cameras (30 pictures of 640x480 px a second) and 14 joints (200 messages a second): JPEG in MCAP, in
SQLite and in a ROS 1 bag, and raw pictures in MCAP. We read a file once for each camera and three times more: of raw
pictures, which nothing decodes, that is most of the time.
"""

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from rosbags import rosbag1, rosbag2
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin
from rosbags.typesys import Stores, get_typestore

from benchmarks.decoding import large_pictures
from benchmarks.harness import Figure, measure
from ingest.registry import DatasetConfig
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source

GOAL = 1.5  # times the CPU of rosbags reading alone
RAW_GOAL = 4.0
FPS = 30
JOINT_RATE = 200  # messages a second
JOINTS = 14
START = 1_700_000_000 * 10**9
ROS_1 = get_typestore(Stores.ROS1_NOETIC)
ROS_2 = get_typestore(Stores.ROS2_HUMBLE)
NAMES = [f"joint_{k}" for k in range(JOINTS)]


class Kind(NamedTuple):
    """Of a bag: what opens it to write at a path, its types, and what is measured."""

    name: str
    opened: Callable[[Path], Any]
    store: Any = ROS_2
    is_raw: bool = False
    goal: float = GOAL


def write(writer: Any, store: Any, num_bytes: int, is_raw: bool) -> None:
    """Messages until the pictures of both cameras are so many bytes."""
    types = store.types
    serialize = store.serialize_cdr
    sequence = []
    if store is ROS_1:
        serialize = store.serialize_ros1
        sequence = [0]
    image = "sensor_msgs/msg/CompressedImage"
    if is_raw:
        image = "sensor_msgs/msg/Image"
    joints = "sensor_msgs/msg/JointState"
    topics = {
        name: writer.add_connection(name, type_, typestore=store)
        for name, type_ in (("/left", image), ("/right", image), ("/joint_states", joints))
    }

    def header(time_ns: int) -> Any:
        stamp = types["builtin_interfaces/msg/Time"](*divmod(time_ns, 10**9))
        return types["std_msgs/msg/Header"](*sequence, stamp, "x")

    pictures = [np.ascontiguousarray(picture) for picture in large_pictures(100)]
    jpegs = [cv2.imencode(".jpg", picture)[1].reshape(-1) for picture in pictures]
    written = frame = next_joints = 0
    while written < num_bytes:
        time_ns = START + frame * 10**9 // FPS
        for topic in ("/left", "/right"):
            values = ["jpeg", jpegs[frame % 100]]
            if is_raw:
                values = [480, 640, "rgb8", 0, 1920, pictures[frame % 100].reshape(-1)]
            message = types[image](header(time_ns), *values)
            writer.write(topics[topic], time_ns, serialize(message, image))
            written += len(values[-1])
        while next_joints * FPS < (frame + 1) * JOINT_RATE:
            time_ns = START + next_joints * 10**9 // JOINT_RATE
            positions = np.full(JOINTS, next_joints / 100)
            message = types[joints](header(time_ns), NAMES, positions, positions, positions)
            writer.write(topics["/joint_states"], time_ns, serialize(message, joints))
            next_joints += 1
        frame += 1


def by_rosbags(path: Path) -> int:
    """How many pictures there are."""
    count = 0
    with AnyReader([path]) as reader:
        for connection, _, data in reader.messages():
            message: Any = reader.deserialize(data, connection.msgtype)
            if connection.msgtype.endswith("CompressedImage"):
                bgr = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
                assert bgr is not None
                cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            count += "Image" in connection.msgtype
    return count


def by_us(path: Path) -> int:
    """How many pictures there are."""
    source = Source(DatasetConfig(name="bag", source=str(path.parent)))
    (record,) = list_episodes(source).records
    episode = read_episode(source, record)
    assert episode.state is not None
    count = 0
    for camera in record.cameras:
        for _, _, picture in episode.frames(camera):
            count += picture.rgb().ndim == 3
    return count


def cpu_s(read: Callable[[Path], int], path: Path) -> tuple[float, int]:
    began = time.process_time()
    count = read(path)
    return time.process_time() - began, count


MCAP = partial(rosbag2.Writer, version=9, storage_plugin=StoragePlugin.MCAP)
KINDS = (
    Kind("JPEG, MCAP", MCAP),
    Kind("JPEG, SQLite", partial(rosbag2.Writer, version=9)),
    Kind("JPEG, ROS 1", lambda path: rosbag1.Writer(path.with_suffix(".bag")), store=ROS_1),
    Kind("raw, MCAP", MCAP, is_raw=True, goal=RAW_GOAL),
)


def figures(args: Namespace) -> Iterator[Figure]:
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            writer = kind.opened(Path(folder, "run"))
            with writer:
                write(writer, kind.store, args.megabytes * 10**6, kind.is_raw)
            path = Path(writer.path)
            num_bytes = path.stat().st_size + sum(f.stat().st_size for f in path.glob("*"))
            theirs_s, pictures = cpu_s(by_rosbags, path)
            ours_s, frames = cpu_s(by_us, path)
        assert frames >= pictures - 4, f"{kind.name}: {frames} frames of {pictures} pictures"
        ours, theirs = (seconds / 60 / num_bytes * 1e9 for seconds in (ours_s, theirs_s))
        note = f"{ours:.3f} CPU minutes a GB, rosbags alone {theirs:.3f}"
        title = f"{kind.name}: times the CPU of rosbags"
        yield Figure(title, ours_s / theirs_s, kind.goal, smaller=True, note=note)


if __name__ == "__main__":
    measure(__doc__, figures, megabytes=300)
