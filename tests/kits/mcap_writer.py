"""Tiny MCAP recordings of ROS 2: real containers with real CDR messages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
from mcap_ros2.writer import Writer

from tests.kits.lerobot_writer import number, picture

SECOND = 10**9
START = 1_700_000_000 * SECOND
FRAMES = RATE = 10  # pictures of a recording, and how many a second
JOINTS_PER_FRAME = 10
HEADER = (
    f"std_msgs/Header header\n{{}}{'=' * 80}\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring "
    "frame_id\n"
)
IMAGE = HEADER.format("string format\nuint8[] data\n")
NUMBERS = f"MultiArrayLayout layout\nfloat64[] data\n{'=' * 80}\nMSG: std_msgs/MultiArrayLayout\nuint32 data_offset\n"
JOINTS = HEADER.format("string[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n")


class Recorder:
    """Writes messages of three topics as a ROS 2 recorder does."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.image = writer.register_msgdef("sensor_msgs/msg/CompressedImage", IMAGE)
        self.joints = writer.register_msgdef("sensor_msgs/msg/JointState", JOINTS)
        self.numbers = writer.register_msgdef("std_msgs/msg/Float64MultiArray", NUMBERS)
        self.text = writer.register_msgdef("std_msgs/msg/String", "string data\n")

    def write(
        self,
        topic: str,
        kind: Any,
        message: dict[str, Any],
        log_time: int,
        stamp: int | None = None,
    ) -> None:
        """`log_time`: when the recorder wrote it down."""
        stamp = log_time if stamp is None else stamp
        header = {"stamp": {"sec": stamp // SECOND, "nanosec": stamp % SECOND}, "frame_id": "x"}
        self.writer.write_message(topic, kind, {"header": header} | message, log_time)

    def show(self, frame: int, log_time: int, stamp: int | None = None) -> None:
        data = cv2.imencode(".png", picture(number(0, 0, frame)))[1].tobytes()
        self.write(
            "/front/image_raw/compressed",
            self.image,
            {"format": "png", "data": data},
            log_time,
            stamp,
        )

    def move(
        self, position: float, gripper: float, log_time: int, stamp: int | None = None
    ) -> None:
        message = {
            "name": ["j0", "gripper"],
            "position": [position, gripper],
            "velocity": [],
            "effort": [],
        }
        self.write("/joint_states", self.joints, message, log_time, stamp)

    def command(self, values: Sequence[float], log_time: int) -> None:
        message = {"layout": {"data_offset": 0}, "data": list(values)}
        self.writer.write_message("/arm/command", self.numbers, message, log_time)


@contextmanager
def recorder(path: Path, **writer_options: Any) -> Iterator[Recorder]:
    with path.open("wb") as file, Writer(file, **writer_options) as writer:
        yield Recorder(writer)


def record(folder: Path, joints: bool = True, backwards: bool = False) -> Path:
    """A second of a robot: joints every 10 ms, a picture every 100 ms, 1 ms after them."""
    with recorder(folder / "run.mcap") as r:
        r.writer.write_message("/task", r.text, {"data": "pick the cup"}, START)
        for k in range(FRAMES * JOINTS_PER_FRAME):
            time_ns = START + k * SECOND // (RATE * JOINTS_PER_FRAME)
            if joints:
                r.move(
                    k / 100,
                    k // 50,
                    START + 7 * SECOND // 100 if backwards and k == 90 else time_ns,
                )
            if k % JOINTS_PER_FRAME == 0:
                r.show(k // JOINTS_PER_FRAME, time_ns + SECOND // 1000)
    return folder
