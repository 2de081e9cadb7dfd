"""MCAP recordings of ROS 2: real containers with real CDR messages, frames on one clock, and files that are broken."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mcap_ros2.writer import Writer

from ingest.source import list_episodes, read_episode
from tests.kits.lerobot_writer import number, picture, shown, source_of

SECOND = 10**9
START = 1_700_000_000 * SECOND
FRAMES, RATE = 10, 10  # pictures of a recording, and how many a second
JOINTS_PER_FRAME = 10
CAMERA = "front"
HEADER = (
    f"std_msgs/Header header\n{{}}{'=' * 80}\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
)
IMAGE = HEADER.format("string format\nuint8[] data\n")
JOINTS = HEADER.format("string[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n")


def header(at: int) -> dict[str, Any]:
    return {"stamp": {"sec": at // SECOND, "nanosec": at % SECOND}, "frame_id": "x"}


@contextmanager
def recorder(path: Path) -> Iterator["Recorder"]:
    with path.open("wb") as file, Writer(file) as writer:
        yield Recorder(writer)


class Recorder:
    """Writes messages of three topics as a ROS 2 recorder does."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.image = writer.register_msgdef("sensor_msgs/msg/CompressedImage", IMAGE)
        self.joints = writer.register_msgdef("sensor_msgs/msg/JointState", JOINTS)
        self.text = writer.register_msgdef("std_msgs/msg/String", "string data\n")

    def task(self, text: str) -> None:
        self.writer.write_message("/task", self.text, {"data": text}, START)

    def show(self, frame: int, at: int) -> None:
        data = cv2.imencode(".png", picture(number(0, 0, frame)))[1].tobytes()
        message = {"header": header(at), "format": "png", "data": data}
        self.writer.write_message(f"/{CAMERA}/image_raw/compressed", self.image, message, at)

    def move(self, position: float, gripper: float, at: int) -> None:
        message = {"header": header(at), "name": ["j0", "gripper"], "position": [position, gripper]}
        self.writer.write_message("/joint_states", self.joints, message | {"velocity": [], "effort": []}, at)


def record(folder: Path, name: str = "run.mcap", joints: bool = True, backwards: bool = False) -> Path:
    """A second of a robot: a picture every 100 ms, 1 ms after a message of the joints, which come every 10 ms."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    with recorder(path) as r:
        r.task("pick the cup")
        for k in range(FRAMES * JOINTS_PER_FRAME):
            at = START + k * SECOND // (RATE * JOINTS_PER_FRAME)
            if joints:
                r.move(k / 100, k // 50, START + 7 * SECOND // 100 if backwards and k == 90 else at)
            if k % JOINTS_PER_FRAME == 0:
                r.show(k // JOINTS_PER_FRAME, at + SECOND // 1000)
    return path


def reasons(folder: Path, **registry: Any) -> dict[str, str]:
    return {f.reason: f.detail for f in list_episodes(source_of(folder, **registry)).findings}


def test_frames_and_numbers_are_put_on_one_clock(tmp_path: Path) -> None:
    record(tmp_path)
    source = source_of(tmp_path)
    listing = list_episodes(source)
    assert (listing.format, listing.fps, listing.cameras) == ("mcap", RATE, (CAMERA,))
    (episode,) = listing.records
    assert (episode.task, episode.num_rows) == ("pick the cup", FRAMES)
    assert shown(source, episode, CAMERA) == [(0, 0, k) for k in range(FRAMES)]
    read = read_episode(source, episode)
    assert read.state_names == ("j0", "gripper")
    # The joints' message that is nearest to a picture came 1 ms before it
    assert read.state is not None
    assert np.array_equal(read.state[:, 0], np.arange(FRAMES) / 10)
    assert np.array_equal(read.state[:, 1], np.arange(FRAMES) // 5)


def test_a_topic_that_the_registry_names_and_the_file_lacks(tmp_path: Path) -> None:
    record(tmp_path, joints=False)
    said = reasons(tmp_path, keys={"state": ["/joint_states"]})
    assert "/joint_states" in said["missing_topic"]


def test_a_message_that_comes_late_is_left_out_and_said(tmp_path: Path) -> None:
    record(tmp_path, backwards=True)
    assert "1 of 100 messages" in reasons(tmp_path)["unsorted_stamps"]
    source = source_of(tmp_path)
    state = read_episode(source, list_episodes(source).records[0]).state
    assert state is not None
    assert np.all(np.diff(state[:, 0]) > 0)


def test_a_recording_whose_end_is_missing_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with path.open("wb") as file, Writer(file, chunk_size=2000) as writer:
        r = Recorder(writer)
        for k in range(FRAMES):
            r.show(k, START + k * SECOND // RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])
    assert "before that are used" in reasons(tmp_path)["cut_off"]
    source = source_of(tmp_path)
    (episode,) = list_episodes(source).records
    assert episode.num_rows is not None
    assert 2 <= episode.num_rows < FRAMES
    assert shown(source, episode, CAMERA) == [(0, 0, k) for k in range(episode.num_rows)]


def test_a_file_cut_off_inside_its_only_chunk_is_a_finding(tmp_path: Path) -> None:
    path = record(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = reasons(tmp_path)
    assert "the file ends inside a record" in said["cut_off"]
    assert "no_video" in said


def test_what_is_no_recording_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_bytes(b"not at all" * 100)
    assert reasons(tmp_path)["unreadable_data"] == "a.mcap is no MCAP file"
