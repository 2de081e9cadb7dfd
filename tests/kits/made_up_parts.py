"""Parts that no format knows, added to each base of the fuzz tests: columns, arrays, groups, topics, cameras, texts
and files, each of a name of its own."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from zarr import open_group, storage

from tests.kits import lerobot_writer as le
from tests.kits import mcap_writer as mcap
from tests.kits import rlds_writer as rlds
from tests.kits.agibot_writer import write_tar
from tests.kits.fuzz_datasets import BASES, says, write_base
from tests.kits.lerobot_writer import write_video
from tests.kits.spoil import hdf5, hdf5_tree
from tests.kits.zarr_writer import BLOSC

FILE = "quux_readings.bin"


def write_with_parts(base: str, root: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Write a base with made-up parts; returns fields of its registry entry, and words of each part's name."""
    if base == "mcap":
        root.mkdir(parents=True, exist_ok=True)
        return {}, add_to_mcap(root)
    fields = dict(write_base(base, root))
    return fields, (*ADDED[base](root), add_file(root))


def add_file(root: Path) -> str:
    (root / FILE).write_bytes(bytes(range(64)))
    return FILE


def edit_lines(path: Path, **members: Any) -> None:
    """Add members to each object of JSON lines."""
    le.write_json_lines(
        path, [json.loads(line) | members for line in path.read_text().splitlines()]
    )


def add_columns(path: Path, rows: int) -> None:
    values = np.random.default_rng(0).normal(size=rows).astype(np.float32)
    pictures = pa.array([b"\x89PNG"] * rows)
    words = pa.array(["hm"] * rows)
    columns = {"observation.quux": values, "quux_column": values}
    le.edit_parquet(path, quux_words=words, quux_pictures=pictures, **columns)


def lerobot_v2(root: Path) -> tuple[str, ...]:
    for path in sorted(root.glob("data/*/*.parquet")):
        add_columns(path, le.pq.ParquetFile(path).metadata.num_rows)
    info = json.loads((root / "meta/info.json").read_text())
    feature = {"dtype": "float32", "shape": [1], "names": None}
    declared = dict.fromkeys(("observation.quux", "quux_declared"), feature)
    le.edit_info(root, features=info["features"] | declared)
    (root / "meta/quux_notes.json").write_text(json.dumps({"weather": "rain"}))
    write_video(root / "videos/chunk-000/observation.images.quux/episode_000000.mp4", [0, 1, 2])
    columns = "quux_column", "quux_words", "quux_pictures", "quux_declared", "observation.quux"
    names = *columns, "meta/quux_notes.json", "observation.images.quux"
    if (root / "meta/episodes.jsonl").exists():
        edit_lines(root / "meta/episodes.jsonl", quux_text="with the left hand")
        edit_lines(root / "meta/tasks.jsonl", quux_fact="hm")
        return (*names, "quux_text", "quux_fact")
    le.edit_parquet(le.v3_meta(root), quux_text=["with the left hand"] * num_rows(le.v3_meta(root)))
    return (*names, "quux_text")


def num_rows(path: Path) -> int:
    return le.pq.ParquetFile(path).metadata.num_rows


def robo_dopamine(root: Path) -> tuple[str, ...]:
    write_video(root / "episode_001/quux_view.mp4", range(9))
    np.save(root / "episode_001/quux_forces.npy", np.zeros((9, 6)))
    return "quux_view", "quux_forces.npy"


def video(root: Path) -> tuple[str, ...]:
    with (root / "a/metadata.csv").open(newline="") as file:
        rows = [row | {"quux_text": "slowly"} for row in csv.DictReader(file)]
    table = csv.DictWriter(out := io.StringIO(), rows[0])
    table.writeheader()
    table.writerows(rows)
    (root / "a/metadata.csv").write_text(out.getvalue())
    says(root / "b.json", quux_key=[0.5, 0.25])
    edit_lines(root / "metadata.jsonl", quux_line="twice")
    np.save(root / "a/quux_forces.npy", np.zeros((6, 6)))
    return "quux_text", "quux_key", "quux_line", "quux_forces.npy"


def table30(root: Path) -> tuple[str, ...]:
    for path in root.glob("*/data/*/states/*.jsonl"):
        edit_lines(path, quux_forces=[0.5] * 6)
    for folder in root.glob("*/data/*/videos"):
        write_video(folder / "quux_view_rgb.mp4", range(6), fps=30)
    for path in root.glob("*/task_desc.json"):
        says(path, quux_text="slowly")
    return "quux_forces", "quux_view_rgb", "quux_text"


def rh20t(root: Path) -> tuple[str, ...]:
    for folder in root.glob("*/task_*"):
        np.save(folder / "transformed/quux_forces.npy", np.zeros((6, 6)))
        write_video(folder / "quux_view/color.mp4", range(6))
        says(folder / "metadata.json", quux_text="slowly")
    return "quux_forces.npy", "quux_view", "quux_text"


def rlds_parts(root: Path) -> tuple[str, ...]:
    pictures = [rlds.png(number) for number in range(6)]
    changes = {
        "steps/observation/quux_forces": np.zeros((6, 3), np.float32),
        "steps/quux_text": [b"slowly"] * 6,
        "steps/observation/quux_view": pictures,
        "episode_metadata/quux_notes": [b"by night"],
    }
    rlds.write_shard(rlds.shard(root, "train", 1, 2), [rlds.episode(2, 6, changes=changes)])
    observation = {"quux_forces": rlds.tensor("float32", 3), "quux_view": rlds.image()}
    features = rlds.features_json(observation, {"quux_text": rlds.text()})
    metadata = rlds.dict_of(
        file_path=rlds.text(), episode_id=rlds.tensor("int32"), quux_notes=rlds.text()
    )
    features["featuresDict"]["features"]["episode_metadata"] = metadata
    (root / "1.0.0/features.json").write_text(json.dumps(features))
    return "quux_forces", "quux_text", "quux_view", "quux_notes"


def libero(root: Path) -> tuple[str, ...]:
    path = next(root.glob("KITCHEN*.hdf5"))
    with h5py.File(path, "r+") as file:
        demo: Any = file["data/demo_1"]
        length = len(demo["actions"])
        demo["obs/quux_forces"] = np.random.default_rng(0).normal(size=(length, 6))
        demo["obs/quux_view"] = np.zeros((length, 64, 64, 3), np.uint8)
        demo["quux_group/readings"] = np.zeros((length, 2))
        demo.attrs["quux_text"] = "slowly"
    return "quux_forces", "quux_view", "quux_group/readings", "quux_text"


def aloha(root: Path) -> tuple[str, ...]:
    with h5py.File(root / "episode_0.hdf5", "r+") as file:
        file["observations/quux_forces"] = np.random.default_rng(0).normal(size=(6, 6))
        file["observations/images/quux_view"] = np.zeros((6, 64, 64, 3), np.uint8)
        file["quux_group/readings"] = np.zeros((6, 2))
        file.attrs["quux_text"] = "slowly"
    return "quux_forces", "quux_view", "quux_group/readings", "quux_text"


def zarr_parts(root: Path) -> tuple[str, ...]:
    store: Any = open_group(storage.LocalStore(root / "more.zarr"), mode="r+", zarr_format=2)
    values = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    for name, rows in (
        ("data/quux_forces", values),
        ("data/quux_view", np.zeros((6, 64, 64, 3), np.uint8)),
    ):
        store.create_array(
            name, shape=rows.shape, chunks=rows.shape, dtype=rows.dtype, compressors=BLOSC
        )[...] = rows
    store.create_array("meta/quux_lengths", shape=(1,), chunks=(1,), dtype="i8", compressors=None)[
        ...
    ] = 6
    store.attrs["quux_text"] = "slowly"
    return "quux_forces", "quux_view", "quux_lengths", "quux_text"


def robotwin(root: Path) -> tuple[str, ...]:
    with h5py.File(next(root.rglob("episode0.hdf5")), "r+") as file:
        file["quux_group/readings"] = np.random.default_rng(0).normal(size=(6, 2))
        file["observation/quux_view/rgb"] = np.zeros((6, 64, 64, 3), np.uint8)
        file["joint_action/quux_forces"] = np.random.default_rng(0).normal(size=(6, 2))
    says(next(root.rglob("instructions/episode0.json")), quux_text=["slowly"])
    return "quux_group/readings", "quux_view", "quux_forces", "quux_text"


def agibot(root: Path) -> tuple[str, ...]:
    add_agibot_text(root)
    path = next(root.glob("proprio_stats/*/*/proprio_stats.h5"))
    path.write_bytes(with_forces(path.read_bytes()))
    episode = next(root.glob("observations/*/*"))
    write_video(episode / "videos/quux_color.mp4", range(6), fps=30)
    return "quux_forces", "quux_color", "quux_text"


def agibot_tars(root: Path) -> tuple[str, ...]:
    add_agibot_text(root)
    edit_tar(root / "proprio_stats/proprio_stats.tar", "proprio_stats.h5", with_forces, {})
    film = write_video(root / "film.mp4", range(6), fps=30)
    added_files = {
        "648642/videos/quux_color.mp4": film.read_bytes(),
        "648642/quux_notes.txt": b"slowly",
    }
    film.unlink()
    edit_tar(next(root.glob("observations/*/*.tar")), "", bytes, added_files)
    return "quux_forces", "quux_color", "quux_notes.txt", "quux_text"


def add_agibot_text(root: Path) -> None:
    path = next(root.glob("task_info/*.json"))
    path.write_text(
        json.dumps([entry | {"quux_text": "slowly"} for entry in json.loads(path.read_text())])
    )


def with_forces(data: bytes) -> bytes:
    tree = hdf5_tree(data)
    rows = len(tree["timestamp"])
    return hdf5(tree | {"state/quux_forces/value": np.random.default_rng(0).normal(size=(rows, 6))})


def edit_tar(
    path: Path, ending: str, edit: Callable[[bytes], bytes], added_files: dict[str, bytes]
) -> None:
    """Change the members of a tar whose names end so, and add others."""
    members: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for info in archive:
            content = archive.extractfile(info)
            if content is not None:
                members[info.name] = content.read()
    changed = {
        name: edit(data) if ending and name.endswith(ending) else data
        for name, data in members.items()
    }
    write_tar(path, (changed | added_files).items())


def add_to_mcap(root: Path) -> tuple[str, ...]:
    """A recording with a topic of numbers and one of texts that no role has."""
    with mcap.recorder(root / "run.mcap") as recording:
        notes = recording.writer.register_msgdef("std_msgs/msg/String", "string data\n")
        for k in range(mcap.FRAMES * mcap.JOINTS_PER_FRAME):
            time_ns = mcap.START + k * mcap.SECOND // (mcap.RATE * mcap.JOINTS_PER_FRAME)
            recording.move(k / 100, k // 50, time_ns)
            reading = {"layout": {"data_offset": 0}, "data": [float(k), 0.5]}
            recording.writer.write_message("/quux_forces", recording.numbers, reading, time_ns)
            if k % mcap.JOINTS_PER_FRAME == 0:
                recording.show(k // mcap.JOINTS_PER_FRAME, time_ns + mcap.SECOND // 1000)
                recording.writer.write_message(
                    "/quux_notes", notes, {"data": f"reading {k}"}, time_ns
                )
    return "/quux_forces", "/quux_notes", add_file(root)


ADDED: dict[str, Callable[[Path], tuple[str, ...]]] = {
    **dict.fromkeys(
        ("lerobot_v2", "lerobot_v3", "lerobot_pictures", "lerobot_steps", "lerobot_labels"),
        lerobot_v2,
    ),
    "robo_dopamine": robo_dopamine,
    "video": video,
    "table30": table30,
    "rh20t": rh20t,
    "rlds": rlds_parts,
    "libero": libero,
    "aloha": aloha,
    "zarr": zarr_parts,
    "robotwin": robotwin,
    "agibot": agibot,
    "agibot_tars": agibot_tars,
}
assert ADDED.keys() == BASES.keys()
