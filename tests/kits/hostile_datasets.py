"""Datasets that hold little and claim or become much, each by its name: bombs that no change of bytes or of a value in
a file (spoil.py) comes to by chance."""

import json
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.kits import lerobot_writer as le
from tests.kits import rlds_writer as rlds
from tests.kits.fuzz_bases import write_base
from tests.kits.hostile_video import claiming_samples, large_pictures, playlists, shown_often, video_of_scans
from tests.kits.zarr_writer import CAMERA, write_replay

HUGE = 10**12
QPOS, IMAGES = "observations/qpos", "observations/images/cam_high"
# By format, and by the base that is changed, if any
NAMES: dict[tuple[str, str], str] = {
    ("v2", "lerobot_v2"): "shape robot cameras long_task wide rows video_edits",
    ("v3", "lerobot_v3"): "dictionary tasks listed equal utf8 digits",
    ("video", ""): "playlists concats edits samples pictures scans",
    ("hdf5", "aloha"): "rows pictures black objects",
    ("rlds", "rlds"): "wide large picture keys",
    ("mcap", ""): "claims ratio records topics",
    ("zarr", ""): "rows chunks pickle bomb up",
    ("table30", "table30"): "wide long",
    ("tar", "agibot_tars"): "size",
}
HOSTILE = {f"{kind}_{name}": base for (kind, base), names in NAMES.items() for name in names.split()}


def write_hostile(name: str, root: Path, outside: Path) -> None:
    """The dataset of a name in a new folder; there is one outside that it must not read."""
    root.mkdir(parents=True)
    if HOSTILE[name]:
        write_base(HOSTILE[name], root)
    kind, _, how = name.partition("_")
    match kind:
        case "v2":
            lerobot_v2(how, root)
        case "v3":
            lerobot_v3(how, root)
        case "video":
            videos(how, root, outside)
        case "hdf5":
            with h5py.File(root / "episode_0.hdf5", "r+") as file:
                hdf5(how, file)
        case "rlds":
            of_rlds(how, root)
        case "mcap":
            mark, begin = b"\x89MCAP0\r\n", record(1, (4).to_bytes(4, "little") + b"ros2" + bytes(4))
            end = record(15, bytes(4)) + record(2, bytes(20))
            (root / "a.mcap").write_bytes(mark + begin + mcap(how) + end + mark)
        case "zarr":
            zarr(how, root)
        case "table30":
            wide = (json.dumps({"joint_positions": [0] * 300_000}) + "\n") * 100
            states = root / "fold_towel/data/episode_000000/states/states.jsonl"
            states.write_text(wide if how == "wide" else "x" * (1 << 24))
        case "tar":  # a member of more bytes than there are anywhere
            member = tarfile.TarInfo("648642/videos/head_color.mp4")
            member.size = 1 << 60
            tar = root / "observations/327/648642-648649.tar"
            tar.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


def lerobot_v2(how: str, root: Path) -> None:
    features, video = le.features([le.FRONT], 10), {"dtype": "video", "shape": [64, 64, 3]}
    match how:
        case "shape":
            le.edit_info(root, features=features | {"action": {"dtype": "float32", "shape": [HUGE, HUGE]}})
        case "robot":
            le.edit_info(root, robot_type="\x1b]52;c;aGk=\x07<script>" * 50_000)
        case "cameras":
            le.edit_info(root, features=features | {f"cam{k}": video for k in range(2000)})
        case "long_task":
            le.write_json_lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": "A" * 50_000_000}])
        case "wide":
            count, width = 3000, 6000
            zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(count * width, np.float32)), width)
            columns = {"observation.state": zeros, "timestamp": np.arange(count) / 10}
            columns |= dict.fromkeys(("episode_index", "task_index"), np.zeros(count, np.int64))
            le.write_parquet(le.v2_data(root, 0), columns, compression="zstd")
        case "rows":
            taken = pa.table(le.episode_rows(0, 6, 10, 0)).take(pa.repeat(0, 2 << 20))
            le.write_parquet(le.v2_data(root, 0), dict(zip(taken.schema.names, taken.columns, strict=True)))
        case "video_edits":
            shown_often(le.v2_video(root, le.FRONT, 0), 1000, 10_000)


def lerobot_v3(how: str, root: Path) -> None:
    tasks, many = root / "meta/tasks.parquet", 2 << 20
    match how:
        case "dictionary":  # 5 KB took 18.6 GB
            zeros = pa.repeat(pa.scalar(0, pa.int32()), 1024)
            texts = pa.DictionaryArray.from_arrays(zeros, pa.array(["A" * 20_000_000]))
            packed = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
            le.write_parquet(tasks, {"task_index": np.arange(1024), "task": texts}, **packed)
        case "tasks":
            le.write_parquet(tasks, {"task_index": np.zeros(many, np.int64), "task": pa.repeat("x", many)})
        case "listed":  # a million episodes that are nowhere
            table = pq.ParquetFile(le.v3_meta(root)).read()
            columns = {n: pa.repeat(table[n][0], 1_000_000) for n in table.schema.names if not n.startswith("stats/")}
            le.write_parquet(le.v3_meta(root), columns | {"episode_index": np.arange(1_000_000)})
        case "equal":
            zeros = np.zeros(400_000, np.int64)
            le.write_parquet(le.v3_data(root, 0), dict.fromkeys(("episode_index", "task_index"), zeros))
        case "utf8":
            ends = pa.array([0, 2], pa.int32()).buffers()[1]
            wrong = pa.StringArray.from_buffers(1, ends, pa.py_buffer(b"\xff\xe1"))
            le.write_parquet(tasks, {"task_index": [0], "task": wrong})
        case "digits":
            le.edit_info(root, data_path="data/" + "{chunk_index}{file_index}" * 4 + "x.parquet")
            (root / "data" / ("1" * 220 + ".txt")).write_text("")


def videos(how: str, root: Path, outside: Path) -> None:
    match how:
        case "playlists":  # of a link, which leads to a film outside
            (root / "clip.link").symlink_to(outside / "secret.mp4")
            for kind, text in playlists("clip.link").items():
                for suffix in ("mp4", "mkv"):
                    (root / f"{kind}.{suffix}").write_text(text)
        case "concats":  # ten lines that each name the one before, ten times over: ten thousand million frames
            le.write_video(root / "v0.mp4", range(4))
            for k in range(1, 11):
                (root / f"v{k}.mp4").write_text("ffconcat version 1.0\n" + f"file v{k - 1}.mp4\n" * 10)
        case "edits":
            shown_often(root / "a.mp4", 1000, 10_000)
        case "samples":
            claiming_samples(root / "a.mp4", 1 << 30)
        case "pictures":
            large_pictures(root / "a.mov", 8_000)
        case "scans":
            video_of_scans(root / "a.avi", 20_000, 2_000)


def hdf5(how: str, file: h5py.File) -> None:
    side = 15_000
    black = (1, side, side, 3)
    claims: dict[str, tuple[str, dict[str, Any]]] = {
        "rows": (QPOS, {"shape": (HUGE, 14), "dtype": "f8", "chunks": (1000, 14)}),
        "pictures": (IMAGES, {"shape": (6, 1 << 20, 1 << 20, 3), "dtype": "u1", "chunks": (1, 64, 64, 3)}),
        "black": (IMAGES, {"shape": (6, side, side, 3), "dtype": "u1", "chunks": black, "compression": "gzip"}),
    }
    if how == "objects":
        for k in range(12_000):
            file.create_group(f"g{k}")
        return
    name, claimed = claims[how]
    del file[name]
    made = file.create_dataset(name, **claimed)
    if how == "black":  # four gigabytes of them in some megabytes
        made.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(side * side * 3), 9))


def of_rlds(how: str, root: Path) -> None:
    observations = {
        "wide": {"state": rlds.tensor("float32", HUGE, HUGE)},
        "large": {"image": rlds.image(1 << 20, 1 << 20)},
    }
    if how in observations:
        (root / "1.0.0/features.json").write_text(json.dumps(rlds.features_json(observations[how])))
        return
    found = rlds.episode(0)
    if how == "picture":  # a megabyte that is one of 900 MB
        black = np.zeros((17_000, 17_000, 3), np.uint8)
        bomb = cv2.imencode(".png", black, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
        found["steps/observation/image"] = [bomb] * 6
    else:
        found |= {f"steps/x{k}": [b"x"] for k in range(20_000)}
    rlds.write_shard(rlds.shard(root, "train", 0, 2), [found])


def record(opcode: int, content: bytes) -> bytes:
    """Of an MCAP recording."""
    return bytes([opcode]) + len(content).to_bytes(8, "little") + content


def mcap(how: str) -> bytes:
    """What stands between the beginning and the end of a recording."""

    def chunk(content: bytes, claimed: int) -> bytes:
        """Records that are packed, and say that they are so many bytes."""
        packed = zstandard.ZstdCompressor().compress(content)
        head = bytes(16) + claimed.to_bytes(8, "little") + bytes(4) + (4).to_bytes(4, "little") + b"zstd"
        return record(6, head + len(packed).to_bytes(8, "little") + packed)

    def channel(number: int) -> bytes:
        name = f"/{number}".encode()
        return record(4, number.to_bytes(2, "little") + bytes(2) + len(name).to_bytes(4, "little") + name + bytes(8))

    match how:
        case "claims":
            return chunk(b"x", 1 << 40)
        case "ratio":
            return chunk(bytes(1 << 27), 1 << 27)
        case "records":
            messages = channel(0) + record(5, bytes(22)) * 3_000_000
            return chunk(messages, len(messages)) + record(128, bytes(100_000))
        case _:
            return b"".join(channel(k) for k in range(20_000))


def zarr(how: str, root: Path) -> None:
    """An array whose description says something else; or a ZIP file with one member more, or another in its place."""
    gripper, camera = "data/robot0_gripper_width", f"data/{CAMERA}"
    described: dict[str, tuple[str, dict[str, Any]]] = {
        "rows": ("meta/episode_ends", {"shape": [HUGE], "chunks": [1000]}),
        "chunks": (camera, {"shape": [6, 1 << 20, 1 << 20, 3], "chunks": [1, 1 << 20, 1 << 20, 3]}),
        "pickle": (gripper, {"filters": [{"id": "pickle"}]}),
    }
    if how in described:
        name, changes = described[how]
        path = write_replay(root / "a.zarr", [6]) / name / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return
    name, size = (f"{gripper}/0.0", 1 << 28) if how == "bomb" else ("../../outside/secret.json", 2)
    write_replay(root / "whole/a.zarr.zip", [6])
    with ZipFile(root / "whole/a.zarr.zip") as old, ZipFile(root / "a.zarr.zip", "w", ZIP_DEFLATED) as new:
        for item in old.namelist():
            if item != name:
                new.writestr(item, old.read(item))
        new.writestr(name, bytes(size))
    shutil.rmtree(root / "whole")
