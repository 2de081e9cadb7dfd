"""One small dataset in five formats, of recordings that can be told apart without a corpus.

A recording has a number of its own, its `serial`, whatever its episode number is. Its pictures show
it (a strip of eight blocks at their lower edge), its rows hold it (the third channel of the state,
a hundredth of it). So which recording lies under which number is read from a source's own files,
never from a corpus.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.kits import hdf5_writer, rlds_writer
from tests.kits import lerobot_writer as le
from tests.kits.parts import change, put

FPS = 10
SIDE = 64  # px
BLOCK = SIDE // 8  # px, of the strip that shows the serial
CAMERA = "observation.images.front"
WRIST = "observation.images.wrist"
TASKS = ("put the red cube on the plate", "open the upper drawer", "fold the blue towel")
NAMES = ["x", "y", "serial", "gripper"]
SERIAL = NAMES.index("serial")
LENGTHS = (36, 44, 40, 36, 52, 40, 48, 44, 56, 36)  # frames of recordings 1, 2, ...
TRIMMED = 20  # frames
ENCODER = {"crf": "16", "preset": "veryfast", "g": "10"}


@dataclass(frozen=True)
class Recording:
    """A run of the robot; `first` and `length` say which of its frames a source has."""

    serial: int
    length: int
    first: int = 0

    @property
    def task(self) -> str:
        return TASKS[self.serial % len(TASKS)]

    def without_first(self, frames: int) -> "Recording":
        return replace(self, first=self.first + frames, length=self.length - frames)

    def without_last(self, frames: int) -> "Recording":
        return replace(self, length=self.length - frames)


RECORDINGS = tuple(Recording(k, length) for k, length in enumerate(LENGTHS, 1))
OTHERS = tuple(
    Recording(k, length) for k, length in ((21, 40), (22, 36), (23, 48))
)  # of a second dataset
LATER = tuple(
    Recording(k, length) for k, length in ((31, 44), (32, 52), (33, 40))
)  # recorded afterwards
NUM_FRAMES = 60  # that every recording could have


@cache
def rows(serial: int) -> np.ndarray:
    """float32 [NUM_FRAMES, 4] state: the arm goes to an object, closes its gripper, carries it and
    lets go."""
    random = np.random.default_rng(serial)
    t = np.linspace(0.0, 1.0, NUM_FRAMES)
    goal = random.uniform(-0.9, 0.9, 2)
    way = random.uniform(1.5, 4.0, 2)
    x = goal[0] * t + 0.1 * np.sin(way[0] * 3 * t + serial)
    y = goal[1] * (1 - t) + 0.1 * np.cos(way[1] * 3 * t)
    close = random.uniform(0.25, 0.35)
    open_again = random.uniform(0.5, 0.58)
    gripper = np.where((t >= close) & (t < open_again), 0.1, 0.9) + random.normal(
        0, 0.004, NUM_FRAMES
    )
    return np.stack([x, y, np.full(NUM_FRAMES, serial / 100), gripper], 1).astype(np.float32)


def state_of(recording: Recording) -> np.ndarray:
    """float32 [length, 4]"""
    return rows(recording.serial)[recording.first : recording.first + recording.length]


def action_of(recording: Recording) -> np.ndarray:
    """float32 [length, 4]: the state one row later."""
    return np.concatenate([state_of(recording)[1:], state_of(recording)[-1:]]) + np.float32(0.001)


@cache
def all_pictures(serial: int) -> np.ndarray:
    """uint8 [NUM_FRAMES, SIDE, SIDE, 3]"""
    scene = np.random.default_rng(1000 + serial % len(TASKS))
    random = np.random.default_rng(2000 + serial)
    ground = scene.integers(40, 200, (8, 8, 3)).repeat(BLOCK, 0).repeat(BLOCK, 1).astype(np.uint8)
    object_at = random.integers(4, SIDE - 28, 2)
    colour = random.integers(0, 255, 3)
    strip = np.array([255, 0, *(255 * (serial >> bit & 1) for bit in range(6))], np.uint8).repeat(
        BLOCK
    )
    pictures = np.repeat(ground[None], NUM_FRAMES, axis=0)
    for picture, (x, y, _, _) in zip(pictures, rows(serial), strict=True):
        picture[object_at[0] : object_at[0] + 12, object_at[1] : object_at[1] + 12] = colour
        left_px = int(np.clip(26 + 24 * x, 0, SIDE - 14))
        top = int(np.clip(20 + 20 * y, 0, SIDE - 24))
        picture[top : top + 14, left_px : left_px + 14] = (235, 235, 60)
        picture[SIDE - BLOCK :] = strip[None, :, None]
    return pictures


def pictures_of(recording: Recording, camera: str = CAMERA) -> np.ndarray:
    """uint8 [length, SIDE, SIDE, 3]; the second camera sees the scene upside down, but for the
    strip."""
    pictures = all_pictures(recording.serial)[recording.first : recording.first + recording.length]
    if camera == CAMERA:
        return pictures
    turned = pictures[:, :-BLOCK][:, ::-1]
    return np.concatenate([turned, pictures[:, -BLOCK:]], axis=1)


def serial_in(picture: np.ndarray) -> int | None:
    """The serial that a picture shows: uint8 [SIDE, SIDE, 3]; None where it has no strip of its
    own."""
    middle = (
        picture[SIDE - BLOCK + 2 : SIDE - 2]
        .mean(axis=(0, 2))
        .reshape(8, BLOCK)[:, 2:-2]
        .mean(axis=1)
    )
    bits = middle > 128
    if not bits[0] or bits[1]:
        return None
    return sum(1 << k for k, bit in enumerate(bits[2:]) if bit) or None


def with_lerobot() -> Any:
    """LeRobot's class of datasets, which finds all that it needs on this machine."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset


def h264() -> Any:
    """What LeRobot encodes by: AV1, its default, takes seconds for each recording."""
    from lerobot.configs import RGBEncoderConfig

    return RGBEncoderConfig(vcodec="h264", crf=16, preset="veryfast", g=10)


def write_v3(
    root: Path, recordings: Sequence[Recording], fps: int = FPS, cameras: Sequence[str] = (CAMERA,)
) -> Path:
    """A LeRobot v3.0 dataset by LeRobot's own writer, four recordings to a video file."""
    vector = {"dtype": "float32", "shape": (len(NAMES),), "names": NAMES}
    video = {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector} | dict.fromkeys(cameras, video)
    shutil.rmtree(root, ignore_errors=True)
    dataset = with_lerobot().create(
        "local/arm",
        fps,
        features,
        root=root,
        robot_type="toy_arm",
        rgb_encoder=h264(),
        video_files_size_in_mb=0.06,
    )
    record(dataset, recordings, cameras)
    return root


def record(
    dataset: Any, recordings: Sequence[Recording], cameras: Sequence[str] = (CAMERA,)
) -> None:
    """Let LeRobot's writer add recordings to a dataset, and end it."""
    for recording in recordings:
        pictures = {camera: pictures_of(recording, camera) for camera in cameras}
        for k, (state, action) in enumerate(
            zip(state_of(recording), action_of(recording), strict=True)
        ):
            pictures_shown = {camera: pictures[camera][k] for camera in cameras}
            dataset.add_frame(
                {"observation.state": state, "action": action, "task": recording.task}
                | pictures_shown
            )
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()


def write_v2(
    root: Path, recordings: Sequence[Recording], fps: int = FPS, cameras: Sequence[str] = (CAMERA,)
) -> Path:
    """The same as LeRobot v2.1, with the statistics that LeRobot's converter asks for."""
    shutil.rmtree(root, ignore_errors=True)
    vector = {"dtype": "float32", "shape": [len(NAMES)], "names": NAMES}
    video_info = {"video.fps": float(fps), "video.codec": "h264"}
    video = {
        "dtype": "video",
        "shape": [SIDE, SIDE, 3],
        "names": ["height", "width", "channels"],
        "info": video_info,
    }
    number = {"dtype": "int64", "shape": [1], "names": None}
    numbers = dict.fromkeys(("episode_index", "frame_index", "index", "task_index"), number)
    time = {"timestamp": {"dtype": "float32", "shape": [1], "names": None}}
    features = (
        {"observation.state": vector, "action": vector}
        | dict.fromkeys(cameras, video)
        | numbers
        | time
    )
    count = {"total_episodes": len(recordings), "total_frames": sum(r.length for r in recordings)}
    count |= {
        "total_tasks": len(TASKS),
        "total_videos": len(recordings) * len(cameras),
        "total_chunks": 1,
    }
    about: dict[str, Any] = {
        "robot_type": "toy_arm",
        "fps": fps,
        "features": features,
        "splits": {},
    } | count
    le.write_v2_meta(root, {}, TASKS, **about)
    lines = [
        {"episode_index": k, "tasks": [r.task], "length": r.length}
        for k, r in enumerate(recordings)
    ]
    le.write_json_lines(root / "meta/episodes.jsonl", lines)
    statistics = []
    begin = 0
    for episode, recording in enumerate(recordings):
        columns = _v2_rows(recording, episode, begin, fps)
        le.write_parquet(le.v2_data(root, episode), columns)
        begin += recording.length
        measured = {"observation.state": state_of(recording), "action": action_of(recording)}
        measured |= {name: np.asarray(columns[name]).reshape(-1, 1) for name in (*numbers, *time)}
        stats = {name: _statistics(values) for name, values in measured.items()}
        for camera in cameras:
            pictures_shown = pictures_of(recording, camera)
            le.write_video(
                le.v2_video(root, camera, episode), pictures_shown, fps=fps, options=ENCODER
            )
            stats[camera] = _statistics(pictures_shown.reshape(-1, 3) / 255, shape=(3, 1, 1))
        statistics.append({"episode_index": episode, "stats": stats})
    le.write_json_lines(root / "meta/episodes_stats.jsonl", statistics)
    return root


def _v2_rows(recording: Recording, episode: int, begin: int, fps: int) -> dict[str, Any]:
    kind = pa.list_(pa.float32(), len(NAMES))
    rows = le.episode_rows(episode, recording.length, fps, TASKS.index(recording.task))
    vectors = {"observation.state": state_of(recording), "action": action_of(recording)}
    rows |= {name: pa.array(values.tolist(), kind) for name, values in vectors.items()}
    return rows | {"index": begin + np.arange(recording.length)}


def _statistics(values: np.ndarray, shape: tuple[int, ...] = (-1,)) -> dict[str, list]:
    measures = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
    }
    return {name: value.reshape(shape).tolist() for name, value in measures.items()} | {
        "count": [len(values)]
    }


def write_hdf5(root: Path, recordings: Sequence[Recording], name: str = "episode") -> Path:
    """As ALOHA stores them: a file for each recording, `<name>_<k>.hdf5`."""
    shutil.rmtree(root, ignore_errors=True)
    for k, recording in enumerate(recordings):
        _write_aloha(root / f"{name}_{k:03d}.hdf5", recording)
    return root


def _write_aloha(path: Path, recording: Recording) -> None:
    times = np.arange(recording.length) / FPS
    hdf5_writer.write_aloha(
        path, 0, recording.length, cameras=(), timestamps=times, language=recording.task
    )
    parts = {
        "observations/qpos": state_of(recording),
        "observations/qvel": None,
        "action": action_of(recording),
        "observations/images/cam_high": pictures_of(recording),
    }
    change(path, parts)


def write_rlds(root: Path, recordings: Sequence[Recording], name: str = "toy") -> Path:
    """Records without names of their own: known by shard and place. `name` is that of the
    dataset."""
    shutil.rmtree(root, ignore_errors=True)
    episodes = [_rlds_episode(recording) for recording in recordings]
    state = {"state": rlds_writer.tensor("float32", len(NAMES)), "wrist_image": None}
    action = {"action": rlds_writer.tensor("float32", len(NAMES))}
    rlds_writer.write_dataset(
        root, {"train": [episodes[:6], episodes[6:]]}, rlds_writer.features_json(state, action)
    )
    if name != "toy":
        change(root / "1.0.0/dataset_info.json", {"name": name})
        for path in sorted((root / "1.0.0").glob("toy-*")):
            path.rename(path.with_name(path.name.replace("toy", name, 1)))
    return root


def _rlds_episode(recording: Recording) -> dict[str, Any]:
    changes = {
        "steps/observation/image": [rlds_writer.png(picture) for picture in pictures_of(recording)],
        "steps/observation/wrist_image": None,
        "steps/observation/state": state_of(recording),
        "steps/action": action_of(recording),
        "episode_metadata/file_path": None,
        "episode_metadata/episode_id": None,
    }
    return rlds_writer.episode(0, recording.length, recording.task, changes)


def write_videos(root: Path, recordings: Sequence[Recording], name: str = "run") -> Path:
    """Plain videos, `<name>_<k>.mp4`, with a table of their tasks beside them."""
    shutil.rmtree(root, ignore_errors=True)
    by_name = {f"{name}_{k:03d}.mp4": recording for k, recording in enumerate(recordings)}
    for video, recording in by_name.items():
        le.write_video(root / video, pictures_of(recording), fps=FPS, options=ENCODER)
    write_side_file(root, by_name)
    return root


def write_side_file(root: Path, recordings: Mapping[str, Recording]) -> None:
    rows = [{"file": name, "task": recording.task} for name, recording in recordings.items()]
    put(root, {"metadata.csv": rows})


WRITERS: Mapping[str, Callable[..., Path]] = {
    "lerobot_v3": write_v3, "lerobot_v2": write_v2, "hdf5": write_hdf5, "rlds": write_rlds, "videos": write_videos,
}  # fmt: skip
# What a registry entry has to say of a format
ENTRIES = {"rlds": f"fps: {FPS}\n"}


def serials(root: Path, form: str) -> dict[str, int]:
    """The serial of each episode by the name that its format gives it, in the source's order.

    LeRobot: `episode_000003`; HDF5 and videos: the file; RLDS: its split, shard and place,
    `train/toy-train.tfrecord-00000-of-00002/000003`.
    """
    readers = {"hdf5": _hdf5_serials, "rlds": _rlds_serials, "videos": _video_serials}
    return dict(readers.get(form, _lerobot_serials)(root))


def _lerobot_serials(root: Path) -> Iterator[tuple[str, int]]:
    serial_by_episode: dict[int, int] = {}
    for path in sorted((root / "data").glob("*/*.parquet")):
        table = pq.ParquetFile(path).read(columns=["episode_index", "observation.state"])
        states = table["observation.state"].to_pylist()
        for episode, state in zip(table["episode_index"].to_pylist(), states, strict=True):
            serial_by_episode.setdefault(episode, round(100 * state[SERIAL]))
    return (
        (f"episode_{episode:06d}", serial_by_episode[episode])
        for episode in sorted(serial_by_episode)
    )


def _hdf5_serials(root: Path) -> Iterator[tuple[str, int]]:
    for path in sorted(root.glob("*.hdf5")):
        with h5py.File(path) as file:
            yield path.name, round(100 * float(np.asarray(file["observations/qpos"])[0, SERIAL]))


def _rlds_serials(root: Path) -> Iterator[tuple[str, int]]:
    """By the first PNG of each record: what lies between its marks of begin and end."""
    for path in sorted(root.glob("*/*.tfrecord-*")):
        data = path.read_bytes()
        begin = 0
        place = 0
        while begin < len(data):
            size = int.from_bytes(data[begin : begin + 8], "little")
            record = data[begin + 12 : begin + 12 + size]
            png = record[record.index(b"\x89PNG") :]
            yield (
                f"train/{path.name}/{place:06d}",
                serial_in(decoded(png[: png.index(b"IEND") + 8])) or 0,
            )
            begin += 12 + size + 4
            place += 1


def decoded(encoded: bytes) -> np.ndarray:
    """uint8 [height, width, 3] of a JPEG or PNG, in RGB."""
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.ascontiguousarray(picture[:, :, ::-1])


def _video_serials(root: Path) -> Iterator[tuple[str, int]]:
    for path in sorted(root.rglob("*.mp4")):
        with av.open(str(path)) as container:
            picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
        yield path.relative_to(root).as_posix(), serial_in(picture) or 0
