"""Datasets that hold little and claim or become much, each by its name: bombs that no change of bytes or of a value in
a file (spoil.py) comes to by chance."""

import json
import shutil
import tarfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.kits import rlds_writer as rlds
from tests.kits.fuzz_bases import write_base
from tests.kits.hostile_video import claiming_samples, large_pictures, playlists, shown_often, video_of_scans
from tests.kits.lerobot_writer import (
    FRONT,
    edit_info,
    episode_rows,
    features,
    v2_data,
    v2_video,
    v3_data,
    v3_meta,
    write_json_lines,
    write_parquet,
    write_video,
)
from tests.kits.zarr_writer import CAMERA, write_replay

Change = Callable[[Path, Path], object]  # a dataset's folder, and one outside that it must not read
HUGE = 10**12


def info(**changes: Any) -> Change:
    return lambda root, _: edit_info(root, **changes)


# LeRobot


def wide(root: Path, _: Path, count: int = 3000, width: int = 6000) -> None:
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(count * width, np.float32)), width)
    index = np.zeros(count, np.int64)
    columns = {"observation.state": zeros, "timestamp": np.arange(count) / 10}
    write_parquet(v2_data(root, 0), {**columns, "episode_index": index, "task_index": index}, compression="zstd")


def many_rows(root: Path, _: Path) -> None:
    taken = pa.table(episode_rows(0, 6, 10, 0)).take(pa.repeat(0, 2 << 20))
    write_parquet(v2_data(root, 0), dict(zip(taken.schema.names, taken.columns, strict=True)))


def long_task(root: Path, _: Path) -> None:
    write_json_lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": "A" * 50_000_000}])


def dictionary(root: Path, _: Path) -> None:
    """5 KB took 18.6 GB."""
    places = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 1024), pa.array(["A" * 20_000_000]))
    how = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
    write_parquet(root / "meta/tasks.parquet", {"task_index": np.arange(1024), "task": places}, **how)


def many_tasks(root: Path, _: Path) -> None:
    many = 2 << 20
    write_parquet(root / "meta/tasks.parquet", {"task_index": np.zeros(many, np.int64), "task": pa.repeat("x", many)})


def many_listed(root: Path, _: Path) -> None:
    """A million episodes that are nowhere."""
    table = pq.ParquetFile(v3_meta(root)).read()
    columns = {n: pa.repeat(table[n][0], 1_000_000) for n in table.schema.names if not n.startswith("stats/")}
    write_parquet(v3_meta(root), columns | {"episode_index": np.arange(1_000_000)})


def equal_rows(root: Path, _: Path) -> None:
    zeros = np.zeros(400_000, np.int64)
    write_parquet(v3_data(root, 0), dict.fromkeys(("episode_index", "task_index"), zeros))


def no_utf8(root: Path, _: Path) -> None:
    wrong = pa.StringArray.from_buffers(1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xe1"))
    write_parquet(root / "meta/tasks.parquet", {"task_index": [0], "task": wrong})


def digits(root: Path, _: Path) -> None:
    edit_info(root, data_path="data/" + "{chunk_index}{file_index}" * 4 + "x.parquet")
    (root / "data" / ("1" * 220 + ".txt")).write_text("")


VIDEO = {"dtype": "video", "shape": [64, 64, 3]}
V2: dict[str, Change] = {
    "shape": info(features=features([FRONT], 10) | {"action": {"dtype": "float32", "shape": [HUGE, HUGE]}}),
    "robot": info(robot_type="\x1b]52;c;aGk=\x07<script>" * 50_000),
    "cameras": info(features=features([FRONT], 10) | {f"cam{k}": VIDEO for k in range(2000)}),
    "long_task": long_task,
    "wide": wide,
    "rows": many_rows,
    "video_edits": lambda root, _: shown_often(v2_video(root, FRONT, 0), 1000, 10_000),
}
V3: dict[str, Change] = {
    "dictionary": dictionary,
    "tasks": many_tasks,
    "listed": many_listed,
    "equal": equal_rows,
    "utf8": no_utf8,
    "digits": digits,
}


# Videos


def lists(root: Path, outside: Path) -> None:
    """Playlists of a link, which leads to a film outside."""
    (root / "clip.link").symlink_to(outside / "secret.mp4")
    for kind, text in playlists("clip.link").items():
        for suffix in ("mp4", "mkv"):
            (root / f"{kind}.{suffix}").write_text(text)


def concats(root: Path, _: Path) -> None:
    """Ten lines that each name the one before, ten times over: ten thousand million frames."""
    write_video(root / "v0.mp4", range(4))
    for k in range(1, 11):
        (root / f"v{k}.mp4").write_text("ffconcat version 1.0\n" + f"file v{k - 1}.mp4\n" * 10)


VIDEOS: dict[str, Change] = {
    "playlists": lists,
    "concats": concats,
    "edits": lambda root, _: shown_often(root / "a.mp4", 1000, 10_000),
    "samples": lambda root, _: claiming_samples(root / "a.mp4", 1 << 30),
    "pictures": lambda root, _: large_pictures(root / "a.mov", 8_000),
    "scans": lambda root, _: video_of_scans(root / "a.avi", 20_000, 2_000),
}


# HDF5 and RLDS


def hdf5(change: Callable[[h5py.File], object], root: Path, _: Path) -> None:
    with h5py.File(root / "episode_0.hdf5", "r+") as file:
        change(file)


def claimed(name: str, **how: Any) -> Callable[[h5py.File], object]:
    """A dataset that claims a shape and holds nothing."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def many_objects(file: h5py.File) -> None:
    for k in range(12_000):
        file.create_group(f"g{k}")


def black(file: h5py.File) -> None:
    """Four gigabytes of black pictures in some megabytes."""
    side = 15_000
    claimed(IMAGES, shape=(6, side, side, 3), chunks=(1, side, side, 3), compression="gzip", dtype=np.uint8)(file)
    pictures: Any = file[IMAGES]
    pictures.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(side * side * 3), 9))


QPOS, IMAGES = "observations/qpos", "observations/images/cam_high"
HDF5: dict[str, Callable[[h5py.File], object]] = {
    "rows": claimed(QPOS, shape=(HUGE, 14), dtype=np.float64, chunks=(1000, 14)),
    "pictures": claimed(IMAGES, shape=(6, 1 << 20, 1 << 20, 3), dtype=np.uint8, chunks=(1, 64, 64, 3)),
    "black": black,
    "objects": many_objects,
}


def shard_of(*episodes: Any) -> Change:
    return lambda root, _: rlds.write_shard(rlds.shard(root, "train", 0, 2), list(episodes))


def features_of(**how: Any) -> Change:
    return lambda root, _: (root / "1.0.0/features.json").write_text(json.dumps(rlds.features_json(**how)))


def bomb_png() -> bytes:
    """A megabyte that is a picture of 900 MB."""
    return cv2.imencode(".png", np.zeros((17_000, 17_000, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


RLDS: dict[str, Change] = {
    "wide": features_of(observation={"state": rlds.tensor("float32", HUGE, HUGE)}),
    "large": features_of(observation={"image": rlds.image(1 << 20, 1 << 20)}),
    "picture": lambda root, out: shard_of(rlds.episode(0, steps__observation__image=[bomb_png()] * 6))(root, out),
    "keys": shard_of(rlds.episode(0) | {f"steps/x{k}": [b"x"] for k in range(20_000)}),
}


# MCAP, Zarr, Table30 and archives


def record(opcode: int, content: bytes) -> bytes:
    return bytes([opcode]) + len(content).to_bytes(8, "little") + content


def chunk(content: bytes, claimed: int) -> bytes:
    """Records that are packed, and say that they are so many bytes."""
    packed = zstandard.ZstdCompressor().compress(content)
    head = bytes(16) + claimed.to_bytes(8, "little") + bytes(4) + (4).to_bytes(4, "little") + b"zstd"
    return record(6, head + len(packed).to_bytes(8, "little") + packed)


def mcap_of(stored: bytes) -> Change:
    """A recording with some records between its beginning and its end."""
    mark, begin = b"\x89MCAP0\r\n", record(1, (4).to_bytes(4, "little") + b"ros2" + bytes(4))
    end = record(15, bytes(4)) + record(2, bytes(20))
    return lambda root, _: (root / "a.mcap").write_bytes(mark + begin + stored + end + mark)


def channel(number: int) -> bytes:
    name = f"/{number}".encode()
    return record(4, number.to_bytes(2, "little") + bytes(2) + len(name).to_bytes(4, "little") + name + bytes(8))


def many_messages(root: Path, outside: Path) -> None:
    messages = channel(0) + record(5, bytes(22)) * 3_000_000
    mcap_of(chunk(messages, len(messages)) + record(128, bytes(100_000)))(root, outside)


MCAP: dict[str, Change] = {
    "claims": mcap_of(chunk(b"x", 1 << 40)),
    "ratio": lambda root, out: mcap_of(chunk(bytes(1 << 27), 1 << 27))(root, out),
    "records": many_messages,
    "topics": mcap_of(b"".join(channel(k) for k in range(20_000))),
}


def zipped(name: str, size: int) -> Change:
    """A store in a ZIP file with one member more, or another one in its place."""

    def change(root: Path, _: Path) -> None:
        write_replay(root / "whole/a.zarr.zip", [6])
        with ZipFile(root / "whole/a.zarr.zip") as old, ZipFile(root / "a.zarr.zip", "w", ZIP_DEFLATED) as new:
            for item in old.namelist():
                if item != name:
                    new.writestr(item, old.read(item))
            new.writestr(name, bytes(size))
        shutil.rmtree(root / "whole")

    return change


def described(name: str, **changes: Any) -> Change:
    """An array whose description says something else."""

    def change(root: Path, _: Path) -> None:
        path = write_replay(root / "a.zarr", [6]) / name / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


GRIPPER, ENDS = "data/robot0_gripper_width", "meta/episode_ends"
ZARR: dict[str, Change] = {
    "rows": described(ENDS, shape=[HUGE], chunks=[1000]),
    "chunks": described(f"data/{CAMERA}", shape=[6, 1 << 20, 1 << 20, 3], chunks=[1, 1 << 20, 1 << 20, 3]),
    "pickle": described(GRIPPER, filters=[{"id": "pickle"}]),
    "bomb": zipped(f"{GRIPPER}/0.0", 1 << 28),
    "up": zipped("../../outside/secret.json", 2),
}


def table30(text: str) -> Change:
    return lambda root, _: (root / "fold_towel/data/episode_000000/states/states.jsonl").write_text(text)


TABLE30: dict[str, Change] = {
    "wide": table30((json.dumps({"joint_positions": [0] * 300_000}) + "\n") * 100),
    "long": table30("x" * (1 << 24)),
}


def tar_size(root: Path, _: Path) -> None:
    """A member of more bytes than there are anywhere."""
    member = tarfile.TarInfo("648642/videos/head_color.mp4")
    member.size = 1 << 60
    tar = root / "observations/327/648642-648649.tar"
    tar.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


# Of each name the base that is changed, if any, and the change
HOSTILE: dict[str, tuple[str | None, Change]] = {
    f"{kind}_{name}": (base, change)
    for kind, base, changes in (
        ("v2", "lerobot_v2", V2),
        ("v3", "lerobot_v3", V3),
        ("video", None, VIDEOS),
        ("hdf5", "aloha", {name: partial(hdf5, change) for name, change in HDF5.items()}),
        ("rlds", "rlds", RLDS),
        ("mcap", None, MCAP),
        ("zarr", None, ZARR),
        ("table30", "table30", TABLE30),
        ("tar", "agibot_tars", {"size": tar_size}),
    )
    for name, change in changes.items()
}


def write_hostile(name: str, root: Path, outside: Path) -> None:
    """The dataset of a name in a new folder."""
    base, change = HOSTILE[name]
    if base:
        write_base(base, root)
    else:
        root.mkdir(parents=True)
    change(root, outside)
