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
import pytest
import zstandard

from ingest.source import list_episodes, read_episode
from tests.kits.files import Trap
from tests.kits.lerobot_writer import (
    LFS_POINTER,
    film_of,
    source_of,
    write_json_lines,
    write_video,
)
from tests.kits.mcap_writer import FRAMES, RATE, SECOND, START, record, recorder
from tests.kits.rh20t_writer import write_scene, write_texts
from tests.kits.table30_writer import frame, write_task
from tests.kits.told import Told, golden


def write_run(
    path: Path, episode: int = 0, frames: int = 6, notes: Any = None, fps: int = 10
) -> Path:
    """Returns its folder."""
    write_video(path, [episode << 6 | k for k in range(frames)], fps=fps)
    if notes is not None:
        path.with_suffix(".json").write_text(json.dumps(notes))
    return path.parent


@golden
def test_notes(new) -> Told:
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
def test_side_files(new) -> Told:
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


def test_stamps_and_groups_are_of_one_episode(tmp_path):
    # To edit a row, or add a file, is no change of another episode: a split that was given by group stays
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
def test_arrays(new) -> Told:
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


@pytest.mark.parametrize(
    ("file", "names", "keys", "state", "action"),
    [
        ("a.npz", ("target", "action"), {"state": ["target"]}, ["target"], ["action"]),
        ("a.npz", ("joints", "gripper"), {"action": ["joints"]}, ["gripper"], ["joints"]),
        ("a_action.npz", ("qpos",), {"state": ["joints"]}, None, ["qpos"]),
    ],
)
def test_what_the_registry_names_is_nothing_else(tmp_path, file, names, keys, state, action):
    # Whatever its name says; and what it speaks of is told of no other by name, but by the file's
    root = write_run(tmp_path / "a.mp4")
    arrays: dict[str, Any] = dict.fromkeys(names, rows(1))
    np.savez(root / file, **arrays)
    source = source_of(root, keys=keys)
    episode = read_episode(source, list_episodes(source).records[0])
    tables = (episode.states, episode.actions)
    assert [table and table.column_names for table in tables] == [state, action]


def test_an_array_without_a_name_beside_others_is_called_by_its_suffix(tmp_path):
    root = write_run(tmp_path / "a.mp4")
    np.save(root / "a.npy", rows(1))
    np.save(root / "a_joints.npy", rows(1))
    findings = list_episodes(source_of(root)).findings
    assert any(f.detail.startswith("array .npy (") for f in findings)


@golden
def test_arrays_that_cannot_be_used(new) -> Told:
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


@golden
def test_rh20t(new) -> Told:
    cfg = (root := new()) / "RH20T_cfg3"
    write_scene(cfg, 1, cameras={"cam_2": 5, "cam_10": 6}, metadata={"rating": 9, "calib": 17})
    write_scene(cfg, 1, 2, metadata={"rating": 1})
    write_scene(cfg, 2, metadata={"rating": 0})
    write_scene(cfg, 2, suffix="_human")
    write_scene(cfg, 1, suffix="_human")
    write_texts(root / "task_description.json", {1: "press the button", 2: "pull the plug"})
    yield "a configuration", source_of(root, cameras={"wrist": ["cam_10"]})
    root = new()
    write_scene(root, 1, metadata={"rating": 2}, plain=4)
    np.save(
        write_scene(root, 2, metadata={"rating": 2}, plain=6) / "transformed/gripper.npy",
        np.zeros(5),
    )
    yield "plain arrays that do not fit", source_of(root)
    ratings: list[Any] = [{"rating": rating} for rating in (0, 1, 2, 9, 10, -1, True, "9")]
    for metadata in (*ratings, {"rating": 9, "success": False}, [9], "{broken", None):
        root = new()
        write_scene(root, 1, metadata=metadata)
        write_texts(root / "task_description.json", {1: "press"})
        yield f"metadata {metadata}", source_of(root)
    root = new()
    write_scene(root, 1, suffix="_human")
    yield "only people's demonstrations", source_of(root)
    root = new()
    trap = Trap(root / "sprung")
    folder = write_scene(root / "a", 1, metadata={"rating": 3})
    np.save(folder / "transformed/tcp_base.npy", np.array([trap], dtype=object), allow_pickle=True)
    whole = write_scene(root / "a", 2, metadata={"rating": 3})
    (whole / "transformed/tcp_base.npy").write_bytes(pickle.dumps(trap))
    yield "no pickle is loaded, in an array or as a whole file", source_of(root)
    assert not (root / "sprung").exists()


@golden
def test_table30(new) -> Told:
    write_task(root := new(), "task", "arx5", {0: 6})
    yield "a root that is one task", source_of(root / "task", format="table30")
    write_task(root := new(), "task", "arx5", {0: 6}, "one way")
    (root / "task/task_desc.json").write_text(json.dumps({"prompt": " another way "}))
    write_task(root, "unsaid", "arx5", {0: 6}, None)
    yield "both files may have an instruction: the first of task_info.json counts", source_of(root)
    states = "task/data/episode_000000/states"
    write_task(root := new(), "task", "aloha", {0: 6})
    write_json_lines(root / states / "right_states.jsonl", [frame("aloha", k) for k in range(5)])
    yield "arms of different length", source_of(root)
    untimed = [frame("arx5", k) for k in range(6)]
    for row in untimed:
        del row["timestamp"]
    first = json.dumps(frame("arx5", 0))
    for title, text in {
        "without times": "".join(json.dumps(row) + "\n" for row in untimed),
        "without a line": "",
        "a pointer": LFS_POINTER,
        "a list": "[1]\n",
        "nothing": "{}\n",
        "too deep": f"{first}\n" + "[" * 3_000,
        "too long": f"{first}\n" + "x" * ((1 << 20) + 1),
        "nothing in the second line": f"{first}\n{{}}\n",
        "a joint less": f"{first}\n" + first.replace("[0.0, 0.1,", "["),
        "a text": first.replace("[0.0, 0.1,", '["0", 0.1,'),
        "no UTF-8": "\x80\n",
    }.items():
        write_task(root := new(), "task", "arx5", {0: 6, 1: 6})
        (root / states / "states.jsonl").write_bytes(text.encode("latin-1"))
        yield f"rows {title}: the episode beside it is read", source_of(root)


@golden
def test_robo_dopamine(new) -> Told:
    """Keyframes that are broken lose no episode."""
    cameras = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    good = [("pick", 1, 4), ("place", 4, 8)]
    for spans in (good, [("a", 0, 5), ("b", 4, 8)], [("a", 0, 11)], [(None, 0, 3)], "{}", "[1]"):
        root = new()
        for episode, episode_cameras in enumerate((cameras, cameras[:2])):
            for c, camera in enumerate(episode_cameras):
                numbers = film_of(c, episode, 10)
                write_video(root / f"episode_00{episode + 1}/{camera}.mp4", numbers)
        keys = ("anotation", "start_frame_id", "end_frame_id")
        if isinstance(spans, str):
            text = spans
        else:
            text = json.dumps([dict(zip(keys, s, strict=True)) for s in spans])
        (root / "episode_001/annotated_keyframes.json").write_text(text)
        (root / "task_instruction.json").write_text(json.dumps(["clear the table", "tidy up"]))
        yield f"keyframes {text}", source_of(root)


@golden
def test_mcap(new) -> Told:
    yield (
        "a topic that the registry names and the file lacks",
        source_of(record(new(), joints=False), keys={"state": ["/joint_states"]}),
    )
    yield "a message that stands late in the file", source_of(record(new(), backwards=True))
    root = new()
    with recorder(root / "run.mcap") as r:
        for k in range(2 * FRAMES):
            time_ns = START + k * SECOND // RATE
            r.show(k, time_ns, time_ns - SECOND if k == FRAMES else time_ns)
    yield "a message whose header is late is left out and said", source_of(root)
    root = new()
    with recorder(root / "run.mcap", chunk_size=2000) as r:
        for k in range(FRAMES):
            r.show(k, START + k * SECOND // RATE)
    for path, title in (
        (root / "run.mcap", "a recording whose end is missing is used as far as it goes"),
        (record(new()) / "run.mcap", "cut off inside its only chunk"),
    ):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])
        yield title, source_of(path.parent)
    (root := new()).joinpath("a.mcap").write_bytes(b"not at all" * 100)
    yield "no recording", source_of(root)
    packed = zstandard.ZstdCompressor().compress((record(root := new()) / "run.mcap").read_bytes())
    (root / "other.mcap.zstd").write_bytes(packed)
    (root / "run.mcap.zstd").write_bytes(packed)
    (root / "short.mcap.zstd").write_bytes(packed[: len(packed) // 2])
    yield "packed files beside a plain one", source_of(root)


@golden
def test_mcap_without_the_times_of_messages(new) -> Told:
    """Recorders may flush several messages at a time; in which order they stand plays no role
    (tests/ingest/test_reader_oracles.py)."""

    def shown(per_chunk: int = 1, stamp: int | None = None) -> Path:
        with recorder((root := new()) / "run.mcap", chunk_size=20_000) as r:
            for k in range(2 * FRAMES):
                # Messages that come until the recorder writes
                flushed = per_chunk - 1 - k % per_chunk
                r.show(k, time_ns := START + (k + flushed) * SECOND // RATE, stamp)
                r.move(k / 100, k // FRAMES, time_ns, stamp)
        return root

    yield "four at a time, without stamps in headers", source_of(shown(per_chunk=4, stamp=0))
    yield "headers of whole seconds", source_of(shown(stamp=START))
    yield "all at once", source_of(shown(per_chunk=2 * FRAMES, stamp=0))
