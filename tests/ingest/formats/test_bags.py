"""Bags as rosbags writes them, beside what it reads of them; and cameras that are videos."""

import io
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import yaml
from rosbags import rosbag1, rosbag2
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ingest.episode import EpisodeData, EpisodeRecord, Listing
from ingest.formats.bag_file import VIDEO_DEFINITION, VIDEO_TYPE
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from tests.kits.fuzz_datasets import BASES, write_base
from tests.kits.lerobot_writer import LFS_POINTER, film_of, number, picture, read_number, source_of
from tests.kits.mcap_writer import RATE, SECOND, START, recorder
from tests.kits.told import check, told
from tests.kits.zarr_writer import write_replay

PICTURES = 12
IMAGES = "/front/image_raw/compressed"
JOINTS = "/joint_states"
STEP = SECOND // RATE
COMPRESSED = "sensor_msgs/msg/CompressedImage"
DEFINED = get_typestore(Stores.ROS2_HUMBLE)
DEFINED.register(get_types_from_msg(VIDEO_DEFINITION, VIDEO_TYPE))
ROS_1 = get_typestore(Stores.ROS1_NOETIC)


def png(frame: int) -> bytes:
    return cv2.imencode(".png", picture(number(0, 0, frame)))[1].tobytes()


@dataclass
class Bag:
    """Writes messages into a bag of ROS 2, or of ROS 1."""

    writer: Any
    store: Any = DEFINED
    connections: dict[str, Any] = field(default_factory=dict)

    def write(self, topic: str, name: str, time_ns: int, *values: Any, **named: Any) -> None:
        """A message of `values`, behind its header or stamp."""
        cls = self.store.types[name]
        if topic not in self.connections:
            connection = self.writer.add_connection(topic, name, typestore=self.store)
            self.connections[topic] = connection
        stamp = self.store.types["builtin_interfaces/msg/Time"](*divmod(time_ns, SECOND))
        if "header" in cls.__dataclass_fields__:
            header = self.store.types["std_msgs/msg/Header"]
            sequence = [0] * (self.store is ROS_1)
            values = (header(*sequence, stamp, "x"), *values)
        if "timestamp" in cls.__dataclass_fields__:
            values = (stamp, *values)
        serialize = self.store.serialize_ros1 if self.store is ROS_1 else self.store.serialize_cdr
        self.writer.write(
            self.connections[topic], time_ns + SECOND // 50, serialize(cls(*values, **named), name)
        )

    def run(self, frames: range) -> None:
        """Pictures, joints ten times as often, and the task."""
        if frames.start == 0:
            self.write("/task", "std_msgs/msg/String", START, "pick the cup")
        for frame in frames:
            time_ns = START + frame * STEP
            for k in range(10):
                positions = np.array([frame + k / 10, -frame])
                nothing = np.zeros(0)
                arguments = ["j0", "gripper"], positions, nothing, nothing
                self.write(
                    JOINTS, "sensor_msgs/msg/JointState", time_ns + k * STEP // 10, *arguments
                )
            data = np.frombuffer(png(frame), np.uint8)
            self.write(IMAGES, COMPRESSED, time_ns + 1000, "png", data)


def ros_2(
    path: Path,
    plugin: StoragePlugin,
    frames: range = range(PICTURES),
    mode: CompressionMode = CompressionMode.NONE,
    **facts: str,
) -> Path:
    writer = rosbag2.Writer(path, version=9, storage_plugin=plugin)
    if mode is not CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    for key, value in facts.items():
        writer.set_custom_data(key, value)
    with writer:
        Bag(writer).run(frames)
    return path


def ros_1(path: Path, packed: rosbag1.Writer.CompressionFormat | None = None) -> Path:
    writer = rosbag1.Writer(path.with_suffix(".bag"))
    if packed:
        writer.set_compression(packed)
    with writer:
        Bag(writer, ROS_1).run(range(PICTURES))
    return writer.path


def split(path: Path, plugin: StoragePlugin) -> Path:
    """Three files, whose names do not say their order."""
    information: Any = {}
    names = []
    path.mkdir()
    for place, first in {0: 0, 10: 4, 9: 8}.items():
        part = ros_2(path / f"{path.name}_{place}", plugin, range(first, first + 4))
        information = yaml.safe_load((part / "metadata.yaml").read_text())
        (file,) = part.glob(f"{part.name}.*")
        names.append(file.rename(path / file.name).name)
        shutil.rmtree(part)
    information["rosbag2_bagfile_information"]["relative_file_paths"] = names
    (path / "metadata.yaml").write_text(yaml.safe_dump(information))
    return path


def without_definitions(path: Path) -> Path:
    """As ROS 2 wrote them before Iron."""
    ros_2(path, StoragePlugin.SQLITE3)
    with sqlite3.connect(path / f"{path.name}.db3") as database:
        database.execute("DROP TABLE message_definitions")
        database.execute("DROP TABLE schema")
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
    database.close()
    return path


def no_address(path: Path) -> Path:
    return ros_2(path, StoragePlugin.SQLITE3).rename(path.with_name("a#b?c%20d"))


SQLITE = StoragePlugin.SQLITE3
MCAP = StoragePlugin.MCAP
BAGS: dict[str, Callable[[Path], Path]] = {
    "ROS 1": ros_1,
    "ROS 1, bz2": partial(ros_1, packed=rosbag1.Writer.CompressionFormat.BZ2),
    "ROS 1, lz4": partial(ros_1, packed=rosbag1.Writer.CompressionFormat.LZ4),
    "SQLite": partial(ros_2, plugin=SQLITE),
    "MCAP": partial(ros_2, plugin=MCAP),
    "messages packed": partial(ros_2, plugin=SQLITE, mode=CompressionMode.MESSAGE),
    "SQLite, packed": partial(ros_2, plugin=SQLITE, mode=CompressionMode.FILE),
    "MCAP, packed": partial(ros_2, plugin=MCAP, mode=CompressionMode.FILE),
    "SQLite in parts": partial(split, plugin=SQLITE),
    "MCAP in parts": partial(split, plugin=MCAP),
    "SQLite without definitions": without_definitions,
    "a path that is no address": no_address,
}


def read_one(root: Path, **fields: Any) -> tuple[Listing, EpisodeRecord, EpisodeData]:
    source = source_of(root, **fields)
    listing = list_episodes(source)
    (record,) = listing.records
    return listing, record, read_episode(source, record)


def numbers_shown(episode: EpisodeData, camera: str) -> list[int]:
    return [read_number(frame.luma()) for _, _, frame in episode.frames(camera)]


@pytest.mark.parametrize("name", BAGS)
def test_a_bag_is_what_rosbags_gives(name, tmp_path):
    path = BAGS[name](tmp_path / "run")
    listing, record, episode = read_one(tmp_path)
    assert not listing.findings
    assert (record.task, record.fps, record.num_rows) == ("pick the cup", RATE, PICTURES)
    ours = numbers_shown(episode, "front")
    # rosbags takes a path for an address
    if "#" in path.name:
        path = path.rename(tmp_path / "plain")
    seen: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([path], default_typestore=DEFINED) as reader:
        for connection, _, data in reader.messages():
            message: Any = reader.deserialize(data, connection.msgtype)
            if connection.topic != "/task":
                stamp = message.header.stamp
                seen.setdefault(connection.topic, []).append(
                    (stamp.sec * SECOND + stamp.nanosec, message)
                )
    times = np.array([time for time, _ in seen[JOINTS]])
    nearest = [int(np.abs(times - time).argmin()) for time, _ in seen[IMAGES]]
    assert episode.state is not None
    assert np.array_equal(episode.state, [seen[JOINTS][k][1].position for k in nearest])
    pictures = [cv2.imdecode(m.data, cv2.IMREAD_GRAYSCALE) for _, m in seen[IMAGES]]
    assert ours == [read_number(p) for p in pictures if p is not None]


def test_the_recorders_own_words_are_facts(tmp_path):
    ros_2(tmp_path / "run", StoragePlugin.SQLITE3, operator="ada")
    _, record, _ = read_one(tmp_path, group_field="operator")
    assert record.group == "ada"


@pytest.mark.parametrize("part", ["run/run_9.db3", "run/run_0.db3"])
def test_a_part_that_is_gone_is_named(part, tmp_path):
    split(tmp_path / "run", StoragePlugin.SQLITE3)
    (tmp_path / part).unlink()
    listing, record, _ = read_one(tmp_path)
    details = [f.detail for f in listing.findings if f.reason == "cut_off"]
    assert details == [f"run/metadata.yaml names files that are not there: {part}"]
    assert record.num_rows == 8


def test_a_write_ahead_log_is_told(tmp_path):
    """A recorder that was killed leaves it."""
    path = ros_2(tmp_path / "run", StoragePlugin.SQLITE3) / "run.db3"
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("INSERT INTO messages SELECT NULL, topic_id, timestamp, data FROM messages")
    database.commit()
    finding = next(f for f in read_one(tmp_path)[0].findings if f.reason == "cut_off")
    assert "run.db3-wal" in finding.detail
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    assert "cut_off" not in {f.reason for f in read_one(tmp_path)[0].findings}


@pytest.mark.parametrize("written", ["a.bag", "run/run.db3"])
@pytest.mark.parametrize("name", ["b.bag", "b.db3"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.9])
def test_a_file_that_rosbags_cannot_read_is_named(written, name, share, tmp_path):
    ros_1(tmp_path / "a.bag")
    ros_2(tmp_path / "run", StoragePlugin.SQLITE3)
    data = (tmp_path / written).read_bytes()
    bad = tmp_path / name
    bad.write_bytes(data[: int(share * len(data))])
    listing = list_episodes(source_of(tmp_path))
    (finding,) = [f for f in listing.findings if f.file == bad.name]
    assert (finding.reason, finding.severity) == ("unreadable_data", "unusable")
    assert f"{bad.name} cannot be read: " in finding.detail
    assert "/tmp" not in finding.detail


def test_a_database_that_breaks_amid_its_messages_is_named(tmp_path):
    with rosbag2.Writer(tmp_path / "run", version=9) as writer:
        bag = Bag(writer)
        for k in range(3):
            bag.write("/task", "std_msgs/msg/String", START + k * STEP, "x" * 40_000)
    path = tmp_path / "run/run.db3"
    data = path.read_bytes()
    path.write_bytes(data[: 7 << 12] + b"\x5a" * 4096 + data[8 << 12 :])
    findings = list_episodes(source_of(tmp_path)).findings
    assert "unreadable_data" in {f.reason for f in findings}


def packets(codec: str, count: int = PICTURES) -> Iterator[bytes]:
    """Of one picture each, a key frame every four."""
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width = encoder.height = 64
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 10)
    encoder.options = {"tune": "zerolatency", "preset": "ultrafast", "g": "4", "bf": "0"}
    if codec == "libx265":
        encoder.options |= {"x265-params": "keyint=4:min-keyint=4:bframes=0:log-level=none"}
    for frame in range(count):
        frames = av.VideoFrame.from_ndarray(picture(number(0, 0, frame), 64), "rgb24")
        frames.pts = frame
        yield from (bytes(packet) for packet in encoder.encode(frames))
    yield from (bytes(packet) for packet in encoder.encode(None))


VIDEOS = [
    ("libx264", VIDEO_TYPE, "h264"),
    ("libx265", VIDEO_TYPE, "h265"),
    ("libx264", COMPRESSED, "h264"),
    ("libx265", COMPRESSED, "hevc"),
]
RAW = {"libx264": "h264", "libx265": "hevc"}  # containers of packets alone


@pytest.mark.parametrize(("codec", "type_", "format_"), VIDEOS)
@pytest.mark.parametrize(("first", "skipped"), [(0, 0), (2, 2)])
def test_a_video_is_what_ffmpeg_shows_of_its_packets(
    codec, type_, format_, first, skipped, tmp_path
):
    """Also of one that begins before a key frame."""
    made = list(packets(codec))
    with rosbag2.Writer(tmp_path / "run", version=9) as writer:
        bag = Bag(writer)
        bag.run(range(PICTURES))
        for frame in range(first, PICTURES):
            arguments = [format_, np.frombuffer(made[frame], np.uint8)]
            if type_ == VIDEO_TYPE:
                arguments = ["x", arguments[1], format_]
            bag.write("/wrist/video", type_, START + frame * STEP, *arguments)
    with av.open(io.BytesIO(b"".join(made)), "r", RAW[codec]) as container:
        pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    theirs = [read_number(gray) for gray in pictures]
    assert theirs == film_of(0, 0, PICTURES)
    listing, record, episode = read_one(tmp_path)
    details = [f.detail for f in listing.findings if f.reason == "cut_off"]
    words = f"/wrist/video: {skipped} messages before its first key frame are left out"
    assert details == [words] * bool(skipped)
    (camera,) = {*record.cameras} - {"front"}
    numbers = numbers_shown(episode, camera)
    assert numbers == theirs[first + skipped :]


def test_depth_is_known_by_its_format_alone(tmp_path):
    with rosbag2.Writer(tmp_path / "run", version=9) as writer:
        bag = Bag(writer)
        bag.run(range(PICTURES))
        for frame in range(PICTURES):
            data = np.frombuffer(bytes(12) + png(frame), np.uint8)
            arguments = "16UC1; compressedDepth png", data
            bag.write("/range", COMPRESSED, START + frame * STEP, *arguments)
    listing, record, _ = read_one(tmp_path)
    (part,) = [part for part in listing.parts if part.name == "/range"]
    assert (part.status, record.cameras) == ("known", ["front"])
    assert "its pictures are depth (16UC1)" in part.why


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


def arrays_of_a_store(folder: Path) -> None:
    write_replay(folder / "umi.zarr", [6])
    for k in range(LIMIT):
        (folder / f"umi.zarr/data/part_{k}").mkdir()
        (folder / f"umi.zarr/data/part_{k}/0").write_bytes(b"")


def arrays_of_numpy(folder: Path) -> None:
    (folder / "run.mp4").write_bytes(b"")
    np.savez(folder / "run.npz", **{f"part_{k}": np.zeros((6, 2)) for k in range(LIMIT + 1)})


def problems(folder: Path, **limits: int) -> str:
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
        (
            partial(recording_with_joints, num_joints=LIMIT + 1, num_topics=1),
            "/arm_0/joint_states: numbers of one message: 13",
        ),
        (
            partial(recording_with_joints, num_joints=LIMIT - 2, num_topics=2),
            "run.mcap: joints: 20",
        ),
        (arrays_of_a_store, "umi.zarr: arrays"),
        (arrays_of_numpy, "run.npz: arrays: 13"),
    ],
)
def test_more_parts_than_the_limit(tmp_path, write, what):
    write(tmp_path)
    assert what in problems(tmp_path, max_features=LIMIT)
    assert "limits.max_features" not in problems(tmp_path)


@pytest.mark.parametrize("name", BASES)
def test_what_is_said_of_damage(name, tmp_path):
    # By file and way what is said else, and what no longer. Of files that are numbered, and of arrays of a state, the
    # first of each kind
    fields = write_base(name, root := tmp_path / "set")
    source = source_of(root, **fields)
    texts_by_damage = {"whole": told(source)}
    whole_lines = told(source, pictures=False, grippers=False)
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    kinds = {re.sub(r"robot0_\w+|\d+", "#", str(path)): path for path in reversed(files)}
    for path in sorted(kinds.values()):
        data = (root / path).read_bytes()
        ways = {
            "gone": None,
            "cut": data[: len(data) // 2],
            "a pointer": LFS_POINTER.encode(),
            "text": b"no such\n",
        }
        for way, content in ways.items():
            (root / path).unlink()
            if content is not None:
                (root / path).write_bytes(content)
            lines = told(source_of(root, **fields), pictures=False, grippers=False)
            lines_gone = [f"not: {line}" for line in whole_lines if line not in lines]
            texts_by_damage[f"{path} {way}"] = [
                line for line in lines if line not in whole_lines
            ] + lines_gone
            (root / path).write_bytes(data)
    check("bags", name, texts_by_damage, BASES)
