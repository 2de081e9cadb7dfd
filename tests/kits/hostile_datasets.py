"""Datasets that claim too much, lead out of themselves, or hold what no reader survives, each by its name.

One of them by hand, what it became and how it ends:
    .venv/bin/python -m tests.kits.hostile_datasets v2_info_deep
"""

import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.kits import rlds_writer as rlds
from tests.kits.agibot_writer import write_tar
from tests.kits.hdf5_writer import write_aloha, write_libero
from tests.kits.hostile_video import claiming_samples, large_pictures, playlists, shown_often, video_of_scans
from tests.kits.lerobot_writer import (
    FRONT,
    edit_info,
    edit_parquet,
    episode_rows,
    features,
    v2_data,
    v2_video,
    v3_data,
    v3_meta,
    write_json_lines,
    write_parquet,
    write_v2,
    write_v3,
    write_video,
)
from tests.kits.table30_writer import write_task
from tests.kits.zarr_writer import CAMERA, write_replay

Change = Callable[[Path, Path], object]  # a dataset's folder, and one outside that it must not read
DEEP = "[" * 100_000
HALF = '{"fps": 9, "features": {"\\ud800": {"dtype": "video"}}}'
HUGE = 10**12


def pipe(path: Path) -> None:
    """Nobody writes into it: it would be waited for."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def to(path: Path, target: Path | str) -> None:
    """A link in the place of a file."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def sparse(path: Path) -> None:
    """64 GB that take no room."""
    path.touch()
    os.truncate(path, 1 << 36)


# How any file can be spoilt

IN_PLACE: dict[str, Callable[[Path, Path], object]] = {
    "pipe": lambda file, _: pipe(file),
    "endless": lambda file, _: to(file, "/dev/zero"),
    "loop": lambda file, _: to(file, file.name),
    "outside": lambda file, outside: to(file, outside / f"secret{file.suffix}"),
    "sparse": lambda file, _: sparse(file),
}


def v2(change: Change, root: Path, outside: Path) -> None:
    write_v2(root, [6, 7])
    change(root, outside)


def v3(change: Change, root: Path, outside: Path) -> None:
    write_v3(root, [6, 7])
    change(root, outside)


def spoilt(how: str, file: str) -> Change:
    return lambda root, outside: IN_PLACE[how](root / file, outside)


def text(file: str, content: str) -> Change:
    return lambda root, _: (root / file).write_text(content)


def info(**changes: Any) -> Change:
    return lambda root, _: edit_info(root, **changes)


def rows(**columns: Any) -> Change:
    """Other columns of the first episode's six rows."""
    return lambda root, _: edit_parquet(v2_data(root, 0), **columns)


def wide(root: Path, _: Path, count: int = 3000, width: int = 6000) -> None:
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(count * width, np.float32)), width)
    index = np.zeros(count, np.int64)
    columns = {"observation.state": zeros, "timestamp": np.arange(count) / 10}
    write_parquet(v2_data(root, 0), {**columns, "episode_index": index, "task_index": index}, compression="zstd")


def many_rows(root: Path, _: Path) -> None:
    taken = pa.table(episode_rows(0, 6, 10, 0)).take(pa.repeat(0, 2 << 20))
    write_parquet(v2_data(root, 0), dict(zip(taken.schema.names, taken.columns, strict=True)))


def nested(root: Path, _: Path) -> None:
    value: Any = 1.0
    for _level in range(60):
        value = {"a": value}
    edit_parquet(v2_data(root, 0), **{"observation.state": pa.array([value] * 6)})


def twice(root: Path, _: Path) -> None:
    table = pa.table(episode_rows(0, 6, 10, 0))
    pq.write_table(table.append_column("action", table["action"]), v2_data(root, 0))


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


def many_jsonl(root: Path, _: Path) -> None:
    line = '{{"episode_index":{},"tasks":["pick the cup"],"length":12}}\n'
    (root / "meta/episodes.jsonl").write_text("".join(line.format(k) for k in range(50_000)))


def many_cameras(root: Path, _: Path) -> None:
    video = {"dtype": "video", "shape": [64, 64, 3]}
    edit_info(root, features=features([FRONT], 10) | {f"cam{k}": video for k in range(2000)})


def folder_out(root: Path, outside: Path) -> None:
    shutil.rmtree(root / "data")
    (root / "data").symlink_to(outside)


def folder_up(root: Path, _: Path) -> None:
    (root / "loop").symlink_to(".")
    (root / "data/up").symlink_to("../..")


DATA, VIDEO = "data/chunk-000/episode_000000.parquet", f"videos/chunk-000/{FRONT}/episode_000000.mp4"
INFO: dict[str, Change] = {
    **{f"fps_{k}": info(fps=fps) for k, fps in enumerate((1e308, 1e-320, 2**70, 10**400, -5, 1001, "x", None, [1]))},
    **{f"chunks_{k}": info(chunks_size=size) for k, size in enumerate((0, -1, 1e-9, 10**30, "x"))},
    "totals": info(total_episodes=HUGE, total_frames=HUGE, total_chunks=HUGE, splits={"train": f"0:{HUGE}"}),
    **{
        f"template_{k}": info(video_path=path)
        for k, path in enumerate(
            ("{video_key}/{episode_index:99999999d}.mp4", "{video_key.__class__.__mro__}", "{0}{1}", "{", 7)
        )
    },
    "path_up": info(data_path="../outside/secret.parquet"),
    "names": info(
        features=features([FRONT], 10)
        | {"observation.state": {"dtype": "float32", "shape": [3], "names": ["a" * 1_000_000] * 3}}
    ),
    "shape": info(features=features([FRONT], 10) | {"action": {"dtype": "float32", "shape": [HUGE, HUGE]}}),
    "robot": info(robot_type="\x1b]52;c;aGk=\x07<script>" * 50_000),
    "cameras": many_cameras,
    "deep": text("meta/info.json", DEEP),
    "half": text("meta/info.json", HALF),
    **{how: spoilt(how, "meta/info.json") for how in IN_PLACE},
}
LISTS: dict[str, Change] = {
    f"{name}_{how}": change
    for name in ("tasks", "episodes")
    for how, change in {
        "deep": text(f"meta/{name}.jsonl", DEEP),
        "half": text(f"meta/{name}.jsonl", HALF),
        **{how: spoilt(how, f"meta/{name}.jsonl") for how in IN_PLACE},
    }.items()
} | {
    "numbers": lambda root, _: write_json_lines(
        root / "meta/episodes.jsonl",
        [{"episode_index": e, "tasks": ["x"], "length": n} for e, n in ((0, HUGE), (1, -5), (2**31, 2**53), (HUGE, 1))],
    ),
    "long_task": lambda root, _: write_json_lines(
        root / "meta/tasks.jsonl", [{"task_index": 0, "task": "A" * 50_000_000}]
    ),
    "many": many_jsonl,
}
TABLE: dict[str, Change] = {
    "wide": wide,
    "rows": many_rows,
    "nested": nested,
    "twice": twice,
    "times_nan": rows(timestamp=pa.array([np.nan] * 6, pa.float32())),
    "times_inf": rows(timestamp=pa.array([np.inf, -np.inf] * 3, pa.float32())),
    "times_text": rows(timestamp=[str(k) for k in range(6)]),
    "minus": rows(frame_index=[-1] * 6, episode_index=[-1] * 6, task_index=[2**62] * 6),
    "unsigned": rows(episode_index=pa.array([2**64 - 1] * 6, pa.uint64())),
    "state_nan": rows(**{"observation.state": [[np.nan] * 3] * 6}),
    "state_huge": rows(**{"observation.state": [[1e300] * 3] * 6}),
    "garbage": text(DATA, "PAR1" + "x" * 1000 + "PAR1"),
    "empty": text(DATA, ""),
    "folder": folder_out,
    "up": folder_up,
    **{how: spoilt(how, DATA) for how in IN_PLACE},
    **{f"video_{how}": spoilt(how, VIDEO) for how in IN_PLACE},
    "video_edits": lambda root, _: shown_often(v2_video(root, FRONT, 0), 1000, 10_000),
    "video_concat": lambda root, out: v2_video(root, FRONT, 0).write_text(
        playlists(str(out / "secret.mp4"))["ffconcat"]
    ),
}
V3: dict[str, Change] = {
    "dictionary": dictionary,
    "tasks": many_tasks,
    "listed": many_listed,
    "equal": equal_rows,
    "utf8": no_utf8,
    "digits": digits,
    "index": lambda root, _: edit_parquet(v3_data(root, 0), episode_index=[0] * 6 + [2**62] * 7),
    "spans": lambda root, _: edit_parquet(v3_meta(root), length=[HUGE, -1]),
    "starts": lambda root, _: edit_parquet(v3_meta(root), **{f"videos/{FRONT}/from_timestamp": [1e300, -1e300]}),
}


# Videos and notes beside them


def linked(kind: str, suffix: str, root: Path, outside: Path) -> None:
    """A playlist of a link, which leads to a film outside."""
    to(root / "clip.link", outside / "secret.mp4")
    (root / f"a.{suffix}").write_text(playlists("clip.link")[kind])


def concats(root: Path, _: Path) -> None:
    """Ten lines that each name the one before, ten times over: ten thousand million frames."""
    write_video(root / "v0.mp4", range(4))
    for k in range(1, 11):
        (root / f"v{k}.mp4").write_text("ffconcat version 1.0\n" + f"file v{k - 1}.mp4\n" * 10)


def pictures_20k(root: Path, _: Path) -> None:
    large_pictures(root / "a.mov", 8_000)


def scans(root: Path, _: Path) -> None:
    video_of_scans(root / "a.avi", 20_000, 2_000)


def notes(**changes: Any) -> Change:
    def write(root: Path, _: Path) -> None:
        write_video(root / "a.mp4", range(6))
        (root / "metadata.jsonl").write_text(json.dumps({"file": "a.mp4", "task": "sort", "fps": 10} | changes) + "\n")

    return write


def cut(root: Path, _: Path) -> None:
    path = write_video(root / "a.mp4", range(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_names(root: Path, _: Path) -> None:
    for name in ("<img src=x>", "a'b\"c&<svg>", "\u202egnp", "a?b#c %3C", "new\nline", "\x1b]52;c;aGk=\x07", "x" * 240):
        (root / f"{name}.mp4").write_bytes(b"no video")


VIDEOS: dict[str, Change] = {
    **{
        f"{kind}_{suffix}": partial(linked, kind, suffix)
        for kind in ("ffconcat", "hls", "dash", "sdp")
        for suffix in ("mp4", "mkv")
    },
    "concats": concats,
    "edits": lambda root, _: shown_often(root / "a.mp4", 1000, 10_000),
    "edits_small": lambda root, _: shown_often(root / "a.mp4", 1000, 1000),
    "samples": lambda root, _: claiming_samples(root / "a.mp4", 1 << 30),
    "pictures": pictures_20k,
    "scans": scans,
    "cut": cut,
    "names": other_names,
    **{how: spoilt(how, "a.mp4") for how in IN_PLACE},
    "notes_up": notes(file="../outside/secret.mp4"),
    "notes_root": notes(file="/etc/passwd"),
    "notes_numbers": notes(fps=1e300, steps=[{"name": "x", "start_frame": 0, "end_frame": HUGE}]),
    "notes_deep": notes(steps=json.loads("[" * 500 + "]" * 500)),
    "notes_long": notes(task="A" * 5_000_000),
    "notes_pipe": lambda root, _: (write_video(root / "a.mp4", range(6)), pipe(root / "metadata.json")),
}

# HDF5, RLDS and archives


def hdf5(change: Callable[[h5py.File, Path], object], root: Path, outside: Path) -> None:
    path = write_aloha(root / "episode_0.hdf5", 0, 6)
    with h5py.File(path, "r+") as file:
        change(file, outside)


def replaced(name: str, **how: Any) -> Callable[[h5py.File, Path], object]:
    """A dataset that claims a shape and holds nothing."""

    def change(file: h5py.File, _: Path) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def link(name: str, made: Callable[[Path], Any]) -> Callable[[h5py.File, Path], object]:
    def change(file: h5py.File, outside: Path) -> None:
        del file[name]
        file[name] = made(outside)

    return change


def virtual(file: h5py.File, outside: Path) -> None:
    with h5py.File(outside / "secret.h5", "w") as other:
        other["qpos"] = np.zeros((6, 14))
    layout = h5py.VirtualLayout((6, 14), np.float64)
    layout[:] = h5py.VirtualSource(str(outside / "secret.h5"), "qpos", (6, 14))
    del file["observations/qpos"]
    file.create_virtual_dataset("observations/qpos", layout)


def many_objects(file: h5py.File, _: Path) -> None:
    for k in range(12_000):
        file.create_group(f"g{k}")


def zeros(file: h5py.File, _: Path) -> None:
    """Four gigabytes of black pictures in some megabytes."""
    del file["observations/images/cam_high"]
    how = {"shape": (6, 15_000, 15_000, 3), "chunks": (1, 15_000, 15_000, 3), "compression": "gzip"}
    pictures = file.create_dataset("observations/images/cam_high", dtype=np.uint8, **how)
    pictures.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(15_000 * 15_000 * 3), 9))


QPOS, IMAGES = "observations/qpos", "observations/images/cam_high"
HDF5: dict[str, Callable[[h5py.File, Path], object]] = {
    "rows": replaced(QPOS, shape=(HUGE, 14), dtype=np.float64, chunks=(1000, 14)),
    "width": replaced(QPOS, shape=(6, HUGE), dtype=np.float64, chunks=(1, 1000)),
    "pictures": replaced(IMAGES, shape=(6, 1 << 20, 1 << 20, 3), dtype=np.uint8, chunks=(1, 64, 64, 3)),
    "black": zeros,
    "external": link(QPOS, lambda outside: h5py.ExternalLink(str(outside / "secret.bin"), "/x")),
    "soft": link(QPOS, lambda outside: h5py.SoftLink("/observations/qpos")),
    "around": link(IMAGES, lambda outside: h5py.SoftLink("/")),
    "virtual": virtual,
    "objects": many_objects,
    "text": replaced(QPOS, shape=(6, 14), dtype=h5py.string_dtype()),
    "nothing": replaced(QPOS, shape=(0, 14), dtype=np.float64),
    "empty": replaced(QPOS, data=h5py.Empty(np.float64)),
}


def rlds_of(change: Callable[[Path], object], root: Path, _: Path) -> None:
    rlds.write_dataset(root, {"train": [[rlds.episode(0), rlds.episode(1, 7)]]})
    change(root)


def features_of(**how: Any) -> Callable[[Path], object]:
    return lambda root: (root / "1.0.0/features.json").write_text(json.dumps(rlds.features_json(**how)))


def deep_features(root: Path) -> None:
    (root / "1.0.0/features.json").write_text('{"featuresDict":{"features":{"a":' * 300 + "{}" + "}}}" * 300)


def record_of(content: bytes) -> Callable[[Path], object]:
    return lambda root: rlds.shard(root, "train").write_bytes(content)


def bomb_png() -> bytes:
    """A megabyte that is a picture of 900 MB."""
    import cv2

    return cv2.imencode(".png", np.zeros((17_000, 17_000, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


RLDS: dict[str, Callable[[Path], object]] = {
    "length": record_of((1 << 60).to_bytes(8, "little") + bytes(100)),
    "minus": record_of(b"\xff" * 200),
    "zeros": record_of(bytes(1 << 20)),
    "counts": lambda root: rlds.write_info(root / "1.0.0", {"train": [HUGE, HUGE]}),
    "deep": deep_features,
    "deep_json": lambda root: (root / "1.0.0/features.json").write_text(DEEP),
    "wide": features_of(observation={"state": rlds.tensor("float32", HUGE, HUGE)}),
    "large": features_of(observation={"image": rlds.image(1 << 20, 1 << 20)}),
    "picture": lambda root: rlds.write_shard(
        rlds.shard(root, "train"), [rlds.episode(0, steps__observation__image=[bomb_png()] * 6)]
    ),
    "task": lambda root: rlds.write_shard(rlds.shard(root, "train"), [rlds.episode(0, task="A" * 5_000_000)]),
    "keys": lambda root: rlds.write_shard(
        rlds.shard(root, "train"), [rlds.episode(0) | {f"steps/x{k}": [b"x"] for k in range(20_000)}]
    ),
    "endless": lambda root: to(rlds.shard(root, "train"), "/dev/zero"),
    "pipe": lambda root: pipe(rlds.shard(root, "train")),
}


def archive(header: dict[str, Any], root: Path, _: Path) -> None:
    import tarfile

    (root / "observations/327").mkdir(parents=True)
    member = tarfile.TarInfo("648642/videos/head_color.mp4")
    for name, value in header.items():
        setattr(member, name, value)
    tar = root / "observations/327/648642-648649.tar"
    if "size" in header:
        tar.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    else:
        write_tar(tar, [(member, b"")])


ARCHIVES: dict[str, dict[str, Any]] = {
    "size": {"size": 1 << 60},
    "minus": {"size": -512},
    "up": {"name": "../../outside/secret.mp4"},
    "link": {"type": b"2", "linkname": "/etc/passwd"},
    "pipe": {"type": b"6"},
}

# MCAP, Zarr and Table30


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


def messages(count: int) -> bytes:
    return channel(0) + record(5, bytes(22)) * count


def zipped(name: str, content: bytes) -> Change:
    """A store in a ZIP file with one member more, or another one in its place."""

    def change(root: Path, _: Path) -> None:
        write_replay(root / "whole/a.zarr.zip", [6])
        with ZipFile(root / "whole/a.zarr.zip") as old, ZipFile(root / "a.zarr.zip", "w", ZIP_DEFLATED) as new:
            for item in old.namelist():
                if item != name:
                    new.writestr(item, old.read(item))
            new.writestr(name, content)
        shutil.rmtree(root / "whole")

    return change


def zarr(change: Change) -> Change:
    def write(root: Path, outside: Path) -> None:
        write_replay(root / "a.zarr", [6])
        change(root / "a.zarr", outside)

    return write


def described(name: str, **changes: Any) -> Change:
    """An array whose description says something else."""

    def change(store: Path, _: Path) -> None:
        path = store / name / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return zarr(change)


def table30(change: Change) -> Change:
    def write(root: Path, outside: Path) -> None:
        write_task(root, "task", "arx5", {0: 6, 1: 6})
        change(root, outside)

    return write


ENDS, GRIPPER, STATES = "meta/episode_ends", "data/robot0_gripper_width", "task/data/episode_000000/states/states.jsonl"
OTHERS: dict[str, Change] = {
    "mcap_claims": mcap_of(chunk(b"x", 1 << 40)),
    "mcap_ratio": mcap_of(chunk(bytes(1 << 27), 1 << 27)),
    "mcap_records": mcap_of(chunk(messages(3_000_000), 31 * 3_000_000 + len(channel(0))) + record(128, bytes(100_000))),
    "mcap_topics": mcap_of(b"".join(channel(k) for k in range(20_000))),
    "mcap_metadata": mcap_of(record(12, bytes(4 << 20))),
    "mcap_length": mcap_of(b"\x06" + (1 << 60).to_bytes(8, "little")),
    "zarr_ends": described(ENDS, shape=[HUGE], chunks=[HUGE]),
    "zarr_rows": described(ENDS, shape=[HUGE], chunks=[1000]),
    "zarr_wide": described(GRIPPER, shape=[6, HUGE // 1000], chunks=[6, 1]),
    "zarr_chunks": described(f"data/{CAMERA}", shape=[6, 1 << 20, 1 << 20, 3], chunks=[1, 1 << 20, 1 << 20, 3]),
    "zarr_pickle": described(GRIPPER, filters=[{"id": "pickle"}]),
    "zarr_deep": zarr(text(".zattrs", DEEP)),
    "zarr_attributes": zipped(".zattrs", bytes(1 << 28)),
    "zarr_bomb": zipped(f"{GRIPPER}/0.0", bytes(1 << 28)),
    "zarr_up": zipped("../../outside/secret.json", b"{}"),
    **{f"zarr_{how}": zarr(spoilt(how, f"{GRIPPER}/0.0")) for how in IN_PLACE},
    "table30_lines": table30(text(STATES, "\n" * (2 << 20))),
    "table30_wide": table30(text(STATES, (json.dumps({"joint_positions": [0] * 300_000}) + "\n") * 100)),
    "table30_deep": table30(text(STATES, DEEP)),
    "table30_long": table30(text(STATES, "x" * (1 << 24))),
    **{f"table30_{how}": table30(spoilt(how, STATES)) for how in IN_PLACE},
}

HOSTILE: dict[str, Change] = {
    **{f"v2_info_{name}": partial(v2, change) for name, change in INFO.items()},
    **{f"v2_{name}": partial(v2, change) for name, change in (LISTS | TABLE).items()},
    **{f"v3_{name}": partial(v3, change) for name, change in V3.items()},
    **{f"video_{name}": change for name, change in VIDEOS.items()},
    **{f"hdf5_{name}": partial(hdf5, change) for name, change in HDF5.items()},
    **{f"rlds_{name}": partial(rlds_of, change) for name, change in RLDS.items()},
    **{f"tar_{name}": partial(archive, header) for name, header in ARCHIVES.items()},
    **OTHERS,
    "libero_deep": lambda root, _: write_libero(root / "a_demo.hdf5", {0: 6}, env_args=DEEP),
}


def write_hostile(name: str, root: Path, outside: Path) -> None:
    """The dataset of a name in a new folder."""
    root.mkdir(parents=True)
    HOSTILE[name](root, outside)


def main(name: str) -> None:
    from tests.kits.fuzz_batch import Batch, run_batch
    from tests.kits.spoil import write_outside

    batch = Batch(Path(tempfile.mkdtemp(prefix="hostile-")))
    write_outside(batch.outside)
    root = batch.folder / "mutants" / name
    write_hostile(name, root, batch.outside)
    batch.mutants[name] = root, {}
    outcomes, peak_mb = run_batch(batch)
    outcome = outcomes[name]
    print(
        root, outcome.kind, f"{outcome.usable} usable episodes, {peak_mb} MB", *outcome.faults, *outcome.why, sep="\n"
    )


if __name__ == "__main__":
    main(sys.argv[1])
