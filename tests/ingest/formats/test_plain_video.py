"""Plain video files: one episode each, with notes and arrays beside them or a table of them."""

import csv
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ingest.source import list_episodes
from tests.kits.files import Trap
from tests.kits.lerobot_writer import LFS_POINTER, source_of, write_video
from tests.kits.told import New, Told, golden


def write_run(
    path: Path, episode: int = 0, frames: int = 6, notes: Any = None, fps: int = 10
) -> Path:
    """Returns its folder."""
    write_video(path, [episode << 6 | k for k in range(frames)], fps=fps)
    if notes is not None:
        path.with_suffix(".json").write_text(json.dumps(notes))
    return path.parent


@golden
def test_notes(new: New) -> Told:
    root = new()
    write_run(root / "b.mkv", 1, 7, {"task": " fold it ", "success": False}, fps=25)
    write_run(root / "a.mp4", 0, 6, {"task": "fold it", "success": True, "site": "x"})
    write_run(root / "c/d.MP4", 2, 8, {"task": "stack"})
    (root / "notes.txt").write_text("not a video")
    yield "a folder of videos", source_of(root, group_field="site")
    for fps in (0, -5, "fast", [], 1e9, "nan"):
        yield (
            f"rate {fps!r}: the file's own counts",
            source_of(write_run(new() / "a.mp4", notes={"fps": fps})),
        )
    whole = {"name": "a", "start_frame": 0}
    for steps in (
        [whole | {"end_frame": 2}, {"name": "b", "start_frame": 2, "end_frame": 6}],
        [{"name": "a", "start_s": 0, "end_s": 0.25}, {"name": "b", "start_s": 0.3, "end_s": 0.6}],
        [{"name": "a", "start_s": 0.1, "end_frame": 2}],
        [],
        [whole | {"end_frame": 7}],  # of 6 frames
        [{"name": "a", "start_s": 0, "end_s": 0.7}],
        [{"name": "a", "start_s": 0, "end_s": float("inf")}],
        [{"name": "a", "start_s": "0", "end_s": "1"}],
        [{"name": "a", "start_frame": 3, "end_frame": 1}],
        [{"start_frame": 0, "end_frame": 1}],
        [{"name": "a"}],
        ["a"],
        "a",
    ):
        root = write_run(new() / "a.mp4", notes={"task": "t", "steps": steps})
        yield f"steps {json.dumps(steps)}", source_of(root, fps=10)
    data = bytearray(write_video(new() / "a.avi", range(12), "mpeg4").read_bytes())
    offset = data.index(b"strh") + 28
    data[offset : offset + 8] = struct.pack("<II", 1, 2**31 - 1)
    (root := new()).joinpath("a.avi").write_bytes(data)
    yield (
        "two thousand million frames a second, by which sizes of arrays would follow",
        source_of(root),
    )


TABLE = [
    {"file": "a.mp4", "task": "fold it", "success": True, "group": "x"},
    {"file": "b.mp4", "task": "stack, then fold", "success": False, "group": "y"},
    {"file": "deep/c.mp4", "task": "stack"},
]
JOINED = [
    {"file": "a.mp4", "episode": 1, "camera": "top", "task": "t"},
    {"file": "b.mp4", "episode": 1, "camera": "side"},
    {"file": "c.mp4", "episode": "two", "camera": "top", "task": "u", "success": True},
]


def write_side(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(list(rows)))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n\n" for r in rows))
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
            writer = csv.DictWriter(file, list(dict.fromkeys(chain.from_iterable(rows))))
            writer.writeheader()
            writer.writerows(rows)


@golden
def test_side_files(new: New) -> Told:
    """One is of its own folder, and a video that it does not name is an episode too."""
    root = new()
    for k, video in enumerate(("s/a.mp4", "s/b.mp4", "s/deep/c.mp4", "s/d.mp4", "a.mp4")):
        write_run(root / video, k)
    for name in ("metadata.json", "metadata.jsonl", "metadata.csv", "episodes.csv"):
        for column in ("file", "file_name", "video"):
            write_side(
                root / "s" / name,
                [{column if k == "file" else k: v for k, v in r.items()} for r in TABLE],
            )
            yield f"{name} by {column}", source_of(root)
        (root / "s" / name).unlink()
    for text in ("true", "FALSE", "1", "0", "?"):
        root = write_run(new() / "a.mp4")
        (root / "metadata.csv").write_text(f"file,task,success\na.mp4,t,{text}\n")
        yield f"success in CSV: {text}", source_of(root)
    root = write_run(new() / "a.mp4", notes={"task": "by the notes"})
    row = {"file": "./a.mp4", "task": "by the row", "success": True, "camera": "top"}
    write_side(root / "metadata.json", [row])
    yield "the notes overrule the row", source_of(root)
    for row in (
        *(
            {"file": name}
            for name in ("none.mp4", "../a.mp4", "x/../../a.mp4", "/etc/passwd", "b.mp4", 7)
        ),
        {"task": "t"},
    ):
        root = write_run(new() / "a.mp4", notes={"task": "t"})
        write_run(root / "s/b.mp4", 1)
        write_side(root / "s/metadata.jsonl", [{"file": "b.mp4", "task": "t"}, row])
        yield f"a row that names no video of its folder: {row}", source_of(root)
    twice = [JOINED[0], JOINED[1] | {"camera": "top"}]
    for title, rows, fps, config in (
        ("two cameras of one episode", JOINED, 10, {}),
        ("in the registry's order", JOINED, 10, {"cameras": {"exo": ["top"]}}),
        ("a camera named twice", twice, 10, {}),
        ("cameras of different rates", JOINED, 20, {}),
    ):
        root = new()
        for k, name in enumerate("abc"):
            write_run(root / f"s/{name}.mp4", k, fps=fps if name == "b" else 10)
        write_side(root / "s/metadata.json", rows)
        yield title, source_of(root, **config)


def test_stamps_and_groups_are_of_one_episode(tmp_path: Path) -> None:
    """To edit a row, or add a file, is no change of another episode: a split that was given by group stays."""
    for k, name in enumerate("abc"):
        write_run(tmp_path / f"s/{name}.mp4", k)
    write_side(tmp_path / "s/metadata.json", JOINED)
    former_records = list_episodes(source_of(tmp_path)).records
    write_side(tmp_path / "s/metadata.json", [*JOINED[:2], JOINED[2] | {"task": "v"}])
    write_run(tmp_path / "a.mp4", 0)
    first, *later_records = list_episodes(source_of(tmp_path)).records
    assert [
        a.source_stamp == b.source_stamp for a, b in zip(former_records, later_records, strict=True)
    ] == [
        True,
        False,
    ]
    assert [a.group for a in former_records] == [a.group for a in later_records]
    assert first.group not in {a.group for a in later_records}


# Arrays beside videos


def rows(width: int, frames: int = 6, first: float = 0.0) -> np.ndarray:
    """[frames, width]: dimension d of row k is first + k + d / 10."""
    return first + np.arange(frames)[:, None] + np.arange(width) / 10


def packed(member: bytes, name: str = "action.npy") -> bytes:
    with zipfile.ZipFile(out := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, member)
    return out.getvalue()


def claiming(*shape: int) -> bytes:
    """The header of an array."""
    described = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out := io.BytesIO(), described)
    return out.getvalue()


@golden
def test_arrays(new: New) -> Told:
    root = write_run(new() / "a.mp4")
    k = np.arange(6, dtype=np.float32)
    named_arrays = {
        "qpos": rows(6),
        "gripper_position": k / 6,
        "actions": rows(7, first=9),
        "timestamps": k,
        "seen": rows(2),
    }
    np.savez_compressed(
        root / "a.npz", **named_arrays, names=np.array(["x"]), picture=np.zeros((6, 8, 8, 3))
    )
    yield "by their names", source_of(root)
    root = write_run(new() / "a.mp4")
    np.savez(root / "a.npz", rows(10))
    yield "a single one without a name is the action, as in BridgeData V2's sample", source_of(root)
    yield "and the state where the registry says so", source_of(root, keys={"state": ["arr_0"]})
    for files in (
        ("a_states.npy", "a_actions.npy"),
        ("a.action.npy",),
        ("a-qpos.npy",),
        ("a.npy",),
        # Of others, or of no rows
        ("A.npy", "b_states.npy", "a_1.npy", "ab_states.npy", "a_depth.npy"),
        ("states.npy", "actions.npz"),  # alone in the folder
    ):
        root = write_run(new() / "run/a.mp4").parent
        for name in files:
            (np.savez if name.endswith(".npz") else np.save)(root / "run" / name, rows(2))
        yield f"files {files}", source_of(root)
    root = write_run(new() / "a.mp4")
    np.savez(root / "a.npz", first=rows(2), second=rows(3), action=rows(4))
    for keys in ({"state": ["second"], "action": ["first"]}, {"state": ["first"]}):
        yield f"by the registry: {keys}", source_of(root, keys=keys)


@golden
def test_arrays_that_cannot_be_used(new: New) -> Told:
    """They are named, the pictures are used, and nothing is unpickled."""
    np.savez(out := io.BytesIO(), action=rows(50))
    damaged = bytearray(out.getvalue())
    damaged[300] ^= 0xFF  # within the values: the archive's checksum finds it
    for title, data in {
        "empty": b"",
        "no archive": b"PK\x03\x04 no archive",
        "damaged": damaged,
        "more than anybody's rows": packed(claiming(20_000, 1) + bytes(20_000)),
        # NumPy would read it whole, of whatever size, before it looks at it
        "a long header": packed(
            b"\x93NUMPY\x02\x00" + (1 << 17).to_bytes(4, "little") + b" " * (1 << 17)
        ),
        "a header that lies about its size": packed(claiming(6, 1000) + struct.pack("<d", 1.0)),
        "no array": packed(b"no array"),
        "notes": packed(b"x", "notes.txt"),
        "a pickle": packed(pickle.dumps({})),
        "a pointer": LFS_POINTER.encode(),
    }.items():
        root = write_run(new() / "a.mp4")
        (root / "a.npz").write_bytes(data)
        yield title, source_of(root, limits={"max_values": 10_000})
    objects = np.array([Trap(sprung := new() / "sprung")] * 6, dtype=object)
    for name, arrays_beside in (("a.npz", {}), ("a.npy", {}), ("a.npz", {"action": rows(2)})):
        root = write_run(new() / "a.mp4")
        if name == "a.npy":
            np.save(root / name, objects, allow_pickle=True)
        else:
            np.savez(root / name, allow_pickle=True, info=objects, **arrays_beside)
        yield f"objects in {name} beside {[*arrays_beside]}", source_of(root)
    assert not sprung.exists()
