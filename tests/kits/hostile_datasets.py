"""Datasets that hold little and claim or become much, each by its name: bombs that no change of bytes or of a value in
a file (spoil.py) comes to by chance. Most are a base of the fuzz tests in which one file is another."""

import json
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.kits import lerobot_writer as le
from tests.kits import rlds_writer as rlds
from tests.kits.fuzz_bases import write_base
from tests.kits.hostile_video import claiming_samples, large_pictures, playlists, shown_often, video_of_scans
from tests.kits.zarr_writer import CAMERA

HUGE, MANY, SIDE = 10**12, 2 << 20, 15_000
# By kind, and by the base that is changed, if any
KINDS = {
    ("v2", "lerobot_v2"): "shape robot cameras long_task wide rows video_edits",
    ("v3", "lerobot_v3"): "dictionary tasks listed equal utf8 digits",
    ("video", ""): "playlists concats edits samples pictures scans",
    ("hdf5", "aloha"): "rows pictures black objects",
    ("rlds", "rlds"): "wide large picture keys",
    ("mcap", ""): "claims ratio records topics",
    ("zarr", "zarr"): "rows chunks pickle bomb up",
    ("table30", "table30"): "wide long",
    ("tar", "agibot_tars"): "size",
}
HOSTILE = {f"{kind}_{name}": base for (kind, base), names in KINDS.items() for name in names.split()}


def says(path: Path, **members: Any) -> None:
    """JSON with other members."""
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def repeated(path: Path, count: int, **columns: Any) -> None:
    """A Parquet file of its first row, so many times, with other columns."""
    table = pq.ParquetFile(path).read()
    rows = {name: pa.repeat(table[name][0], count) for name in table.schema.names if not name.startswith("stats/")}
    le.write_parquet(path, rows | columns)


def array(root: Path, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], first: bytes = b"") -> None:
    """Another array in an HDF5 file; `first` is its first chunk, as it is packed."""
    with h5py.File(root / "episode_0.hdf5", "r+") as file:
        kind = file[name].dtype
        del file[name]
        made = file.create_dataset(name, shape, kind, chunks=chunks, compression="gzip" if first else None)
        if first:
            made.id.write_direct_chunk((0,) * len(shape), first)


def record(opcode: int, content: bytes) -> bytes:
    """Of an MCAP recording."""
    return struct.pack("<BQ", opcode, len(content)) + content


def chunk(content: bytes, claimed: int) -> bytes:
    """Records that are packed, and say that they are so many bytes."""
    packed = zstandard.ZstdCompressor().compress(content)
    return record(6, struct.pack("<16xQ4xI4sQ", claimed, 4, b"zstd", len(packed)) + packed)


def channel(number: int) -> bytes:
    name = f"/{number}".encode()
    return record(4, struct.pack("<H2xI", number, len(name)) + name + bytes(8))


def mcap(root: Path, *records: bytes) -> None:
    mark, begin = b"\x89MCAP0\r\n", record(1, struct.pack("<I4s4x", 4, b"ros2"))
    end = record(15, bytes(4)) + record(2, bytes(20))
    (root / "a.mcap").write_bytes(mark + begin + b"".join(records) + end + mark)


def zipped(root: Path, name: str, size: int) -> None:
    """A ZIP file with one member more, or another in its place."""
    with ZipFile(root / "umi.zarr.zip") as old:
        members = {item: old.read(item) for item in old.namelist()} | {name: bytes(size)}
    with ZipFile(root / "umi.zarr.zip", "w", ZIP_DEFLATED) as new:
        for item, data in members.items():
            new.writestr(item, data)


def write_hostile(name: str, root: Path) -> None:
    """The dataset of a name in a new folder; in ../../outside of it is what it must not read."""
    root.mkdir(parents=True)
    if HOSTILE[name]:
        write_base(HOSTILE[name], root)
    info, tasks, store = root / "meta/info.json", root / "meta/tasks.parquet", root / "more.zarr"
    arm, pictures, gripper = "observations/qpos", "observations/images/cam_high", "data/robot0_gripper_width"
    fields = le.features([le.FRONT], le.RATE)
    match name:
        case "v2_shape":
            says(info, features=fields | {"action": {"dtype": "float32", "shape": [HUGE, HUGE]}})
        case "v2_robot":
            says(info, robot_type="\x1b]52;c;aGk=\x07<script>" * 50_000)
        case "v2_cameras":
            says(info, features=fields | {f"cam{k}": {"dtype": "video", "shape": [64, 64, 3]} for k in range(2000)})
        case "v2_long_task":
            le.write_json_lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": "A" * 50_000_000}])
        case "v2_wide":
            state = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(3000 * 6000, np.float32)), 6000)
            columns = {"observation.state": state, "timestamp": np.arange(3000) / 10}
            columns |= dict.fromkeys(("episode_index", "task_index"), np.zeros(3000, np.int64))
            le.write_parquet(le.v2_data(root, 0), columns, compression="zstd")
        case "v2_rows":
            repeated(le.v2_data(root, 0), MANY)
        case "v2_video_edits":
            shown_often(le.v2_video(root, le.FRONT, 0), 1000, 10_000)
        case "v3_dictionary":  # 5 KB took 18.6 GB
            indices = pa.repeat(pa.scalar(0, pa.int32()), 1024)
            texts = pa.DictionaryArray.from_arrays(indices, pa.array(["A" * 20_000_000]))
            packed = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
            le.write_parquet(tasks, {"task_index": np.arange(1024), "task": texts}, **packed)
        case "v3_tasks":
            repeated(tasks, MANY)
        case "v3_listed":  # a million episodes that are nowhere
            repeated(le.v3_meta(root), 1_000_000, episode_index=np.arange(1_000_000))
        case "v3_equal":
            zeros = np.zeros(400_000, np.int64)
            le.write_parquet(le.v3_data(root, 0), dict.fromkeys(("episode_index", "task_index"), zeros))
        case "v3_utf8":
            le.write_parquet(tasks, {"task_index": [0], "task": pa.array([b"\xff\xe1"]).view(pa.string())})
        case "v3_digits":
            says(info, data_path="data/" + "{chunk_index}{file_index}" * 4 + "x.parquet")
            (root / "data" / ("1" * 220 + ".txt")).write_text("")
        case "video_playlists":  # of a link, which leads to a film outside
            (root / "clip.link").symlink_to("../../outside/secret.mp4")
            for kind, text in playlists("clip.link").items():
                for suffix in ("mp4", "mkv"):
                    (root / f"{kind}.{suffix}").write_text(text)
        case "video_concats":  # ten lists that each name the one before, ten times over: ten thousand million frames
            le.write_video(root / "v0.mp4", range(4))
            for k in range(1, 11):
                (root / f"v{k}.mp4").write_text("ffconcat version 1.0\n" + f"file v{k - 1}.mp4\n" * 10)
        case "video_edits":
            shown_often(root / "a.mp4", 1000, 10_000)
        case "video_samples":
            claiming_samples(root / "a.mp4", 1 << 30)
        case "video_pictures":
            large_pictures(root / "a.mov", 8_000)
        case "video_scans":
            video_of_scans(root / "a.avi", 20_000, 2_000)
        case "hdf5_rows":
            array(root, arm, (HUGE, 14), (1000, 14))
        case "hdf5_pictures":
            array(root, pictures, (6, 1 << 20, 1 << 20, 3), (1, 64, 64, 3))
        case "hdf5_black":  # four gigabytes of them in some megabytes
            packed = zlib.compress(bytes(SIDE * SIDE * 3), 9)
            array(root, pictures, (6, SIDE, SIDE, 3), (1, SIDE, SIDE, 3), packed)
        case "hdf5_objects":
            with h5py.File(root / "episode_0.hdf5", "r+") as file:
                for k in range(12_000):
                    file.create_group(f"g{k}")
        case "rlds_wide":
            says(root / "1.0.0/features.json", **rlds.features_json({"state": rlds.tensor("float32", HUGE, HUGE)}))
        case "rlds_large":
            says(root / "1.0.0/features.json", **rlds.features_json({"image": rlds.image(1 << 20, 1 << 20)}))
        case "rlds_picture" | "rlds_keys":  # a megabyte that is one of 900 MB; many features
            bomb = {"steps/observation/image": [rlds.png(np.zeros((17_000, 17_000, 3), np.uint8))] * 6}
            more = bomb if name == "rlds_picture" else {f"steps/x{k}": [b"x"] for k in range(20_000)}
            rlds.write_shard(rlds.shard(root, "train", 0, 2), [rlds.episode(0, changes=more)])
        case "mcap_claims":
            mcap(root, chunk(b"x", 1 << 40))
        case "mcap_ratio":
            mcap(root, chunk(bytes(1 << 27), 1 << 27))
        case "mcap_records":
            messages = channel(0) + record(5, bytes(22)) * 3_000_000
            mcap(root, chunk(messages, len(messages)), record(128, bytes(100_000)))
        case "mcap_topics":
            mcap(root, *map(channel, range(20_000)))
        case "zarr_rows":
            says(store / "meta/episode_ends/.zarray", shape=[HUGE], chunks=[1000])
        case "zarr_chunks":
            says(store / f"data/{CAMERA}/.zarray", shape=[6, 1 << 20, 1 << 20, 3], chunks=[1, 1 << 20, 1 << 20, 3])
        case "zarr_pickle":
            says(store / gripper / ".zarray", filters=[{"id": "pickle"}])
        case "zarr_bomb":
            zipped(root, f"{gripper}/0.0", 1 << 28)
        case "zarr_up":
            zipped(root, "../../outside/secret.json", 2)
        case "table30_wide" | "table30_long":
            wide = (json.dumps({"joint_positions": [0] * 300_000}) + "\n") * 100
            states = root / "fold_towel/data/episode_000000/states/states.jsonl"
            states.write_text(wide if name == "table30_wide" else "x" * (1 << 24))
        case "tar_size":  # a member of more bytes than there are anywhere
            member = tarfile.TarInfo("648642/videos/head_color.mp4")
            member.size = 1 << 60
            tar = root / "observations/327/648642-648649.tar"
            tar.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
