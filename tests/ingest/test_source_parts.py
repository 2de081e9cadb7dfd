"""What a source holds is read, or named as not read: parts of made-up names in each format, and
files of any number."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from zarr import open_group, storage

from ingest.episode import PartCensus, SourcePart, joined, part_text
from ingest.reasons import REASONS
from ingest.source import list_episodes
from ingest.unread_files import MAX_PATTERNS
from pipeline.inspection import inspect_source
from tests.kits import lerobot_writer as le
from tests.kits import mcap_writer as mcap
from tests.kits import parts
from tests.kits import rlds_writer as rlds
from tests.kits.fuzz_datasets import BASES, write_base
from tests.kits.lerobot_writer import source_of, write_v2
from tests.kits.zarr_writer import BLOSC, add

FILE = "quux_readings.bin"
NAMES = re.compile(r"quux_(?:group/)?\w+(?:\.(?:npy|txt|json|bin))?")
FORCES = np.random.default_rng(0).normal(size=(7, 6))
VIEW = np.zeros((7, 64, 64, 3), np.uint8)
TEXT = {"quux_text": "slowly"}
HAND = {"quux_text": "with the left hand"}


def write_with_parts(base: str, root: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    if base == "mcap":
        root.mkdir(parents=True, exist_ok=True)
        fields = {}
    else:
        fields = dict(write_base(base, root))
    added = ADDED[base]
    if isinstance(added, Mapping):
        names = add_parts(root, added)
    else:
        names = added(root)
    return fields, (*names, *add_parts(root, {"": {FILE: bytes(range(64))}}))


def add_parts(root: Path, added: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Parts by a pattern of files that get them, or of folders that get files; returns their
    words."""
    names: list[str] = []
    for pattern, content in added.items():
        places = sorted(root.glob(pattern)) if pattern else [root]
        assert places, pattern
        for place in places:
            if place.is_dir():
                parts.put(place, content)
            else:
                parts.change(place, content)
        for key in content:
            names += NAMES.findall(key.replace(".mp4", ""))
    assert names
    return tuple(names)


def of_hdf5(rows: int, view: str, forces: str, group: str) -> dict[str, Any]:
    return {f"{view}quux_view": VIEW[:rows], f"{forces}quux_forces": FORCES[:rows]} | {
        f"{group}quux_group/readings": FORCES[:rows, :2]
    }


def lerobot(root: Path) -> tuple[str, ...]:
    for path in root.glob("data/*/*.parquet"):
        rows = pq.read_metadata(path).num_rows
        columns = {"quux_words": ["hm"] * rows, "quux_pictures": [b"\x89PNG"] * rows}
        numbers = np.arange(rows, dtype=np.float32) ** 0.5
        columns |= dict.fromkeys(("observation.quux_values", "quux_column"), numbers)
        parts.change(path, columns)
    feature = {"dtype": "float32", "shape": [1], "names": None}
    le.declare(root, dict.fromkeys(("observation.quux_values", "quux_declared"), feature))
    film = "videos/chunk-000/observation.images.quux_view/episode_000000.mp4"
    names = add_parts(root, {"": {"meta/quux_notes.json": {"weather": "rain"}, film: [0, 1, 2]}})
    if (root / "meta/episodes.jsonl").exists():
        of_tasks = {"quux_fact": "hm"}
        names += add_parts(root, {"meta/episodes.jsonl": HAND, "meta/tasks.jsonl": of_tasks})
    else:
        rows = pq.read_metadata(le.v3_meta(root)).num_rows
        names += add_parts(root, {"meta/episodes/*/*": {"quux_text": ["hm"] * rows}})
    return (*names, *columns, "quux_declared")


def rlds_parts(root: Path) -> tuple[str, ...]:
    changes = {
        "steps/observation/quux_forces": np.zeros((6, 3), np.float32),
        "steps/quux_text": [b"slowly"] * 6,
        "steps/observation/quux_view": [rlds.png(number) for number in range(6)],
        "episode_metadata/quux_notes": [b"by night"],
    }
    rlds.write_shard(rlds.shard(root, "train", 1, 2), [rlds.episode(2, 6, changes=changes)])
    observation = {"quux_forces": rlds.tensor("float32", 3), "quux_view": rlds.image()}
    features = rlds.features_json(observation, {"quux_text": rlds.text()})
    metadata = rlds.dict_of(
        file_path=rlds.text(), episode_id=rlds.tensor("int32"), quux_notes=rlds.text()
    )
    features["featuresDict"]["features"]["episode_metadata"] = metadata
    parts.put(root, {"1.0.0/features.json": features})
    return tuple(NAMES.findall(" ".join(changes)))


def zarr_parts(root: Path) -> tuple[str, ...]:
    store: Any = open_group(storage.LocalStore(root / "more.zarr"), mode="r+", zarr_format=2)
    forces = FORCES[:6, :3].astype(np.float32)
    for name, rows in (("data/quux_forces", forces), ("data/quux_view", VIEW[:6])):
        add(store, name, rows, rows.shape, BLOSC)
    add(store, "meta/quux_lengths", np.array([6]), (1,), None)
    store.attrs.update(TEXT)
    return "quux_forces", "quux_view", "quux_lengths", "quux_text"


def agibot_tars(root: Path) -> tuple[str, ...]:
    def with_forces(members: Mapping[str, bytes]) -> dict[str, bytes]:
        changed = dict(members)
        for name in members:
            if name.endswith("proprio_stats.h5"):
                tree = parts.hdf5_tree(members[name])
                forces = {"state/quux_forces/value": FORCES[: len(tree["timestamp"])]}
                changed[name] = parts.hdf5(tree | forces)
        return changed

    parts.change(root / "proprio_stats/proprio_stats.tar", with_forces)
    film = parts.put(root, {"film.mp4": range(6)}) / "film.mp4"
    added = {
        "648642/videos/quux_color.mp4": film.read_bytes(),
        "648642/quux_notes.txt": b"slowly",
    }
    film.unlink()
    names = add_parts(root, {"observations/*/*.tar": added, "task_info/*.json": TEXT})
    return (*names, "quux_forces")


def mcap_topics(root: Path) -> tuple[str, ...]:
    with mcap.recorder(root / "run.mcap") as recording:
        notes = recording.writer.register_msgdef("std_msgs/msg/String", "string data\n")
        for k in range(mcap.FRAMES * mcap.JOINTS_PER_FRAME):
            time_ns = mcap.START + k * mcap.SECOND // (mcap.RATE * mcap.JOINTS_PER_FRAME)
            recording.move(k / 100, k // 50, time_ns)
            reading = {"layout": {"data_offset": 0}, "data": [float(k), 0.5]}
            recording.writer.write_message("/quux_forces", recording.numbers, reading, time_ns)
            if k % mcap.JOINTS_PER_FRAME == 0:
                recording.show(k // mcap.JOINTS_PER_FRAME, time_ns + mcap.SECOND // 1000)
                text = {"data": f"reading {k}"}
                recording.writer.write_message("/quux_notes", notes, text, time_ns)
    return "/quux_forces", "/quux_notes"


ADDED: Mapping[str, Mapping[str, Mapping[str, Any]] | Callable[[Path], tuple[str, ...]]] = {
    "lerobot_v2": lerobot,
    "lerobot_v3": lerobot,
    "lerobot_pictures": lerobot,
    "lerobot_steps": lerobot,
    "lerobot_labels": lerobot,
    "robo_dopamine": {"episode_001": {"quux_view.mp4": range(9), "quux_forces.npy": FORCES}},
    "video": {
        "a/metadata.csv": TEXT,
        "b.json": {"quux_key": [0.5, 0.25]},
        "metadata.jsonl": {"quux_line": "twice"},
        "a": {"quux_forces.npy": FORCES},
    },
    "table30": {
        "*/data/*/states/*.jsonl": {"quux_forces": [0.5] * 6},
        "*/data/*/videos": {"quux_view_rgb.mp4": range(6)},
        "*/task_desc.json": TEXT,
    },
    "rh20t": {
        "*/task_*": {"transformed/quux_forces.npy": FORCES, "quux_view/color.mp4": range(6)},
        "*/task_*/metadata.json": TEXT,
    },
    "rlds": rlds_parts,
    "libero": {
        "KITCHEN*.hdf5": {
            **of_hdf5(7, "data/demo_1/obs/", "data/demo_1/obs/", "data/demo_1/"),
            "data/demo_1@quux_text": "slowly",
        }
    },
    "aloha": {
        "episode_0.hdf5": {
            **of_hdf5(6, "observations/images/", "observations/", ""),
            "/@quux_text": "slowly",
        }
    },
    "zarr": zarr_parts,
    "robotwin": {
        "**/episode0.hdf5": {
            "quux_group/readings": FORCES[:6, :2],
            "observation/quux_view/rgb": VIEW[:6],
            "joint_action/quux_forces": FORCES[:6, :2],
        },
        "**/instructions/episode0.json": {"quux_text": ["slowly"]},
    },
    "agibot": {
        "task_info/*.json": TEXT,
        "proprio_stats/*/648642/proprio_stats.h5": {"state/quux_forces/value": FORCES[:6]},
        "observations/*/648642/videos": {"quux_color.mp4": range(6)},
    },
    "agibot_tars": agibot_tars,
    "mcap": mcap_topics,
}


@pytest.mark.parametrize("base", [*BASES, "mcap"])
def test_a_part_of_a_made_up_name_is_named(tmp_path, base):
    # Each is in the list of parts or in a finding; what is used for nothing is a finding that names it
    fields, names = write_with_parts(base, root := tmp_path / "set")
    result = inspect_source(root, format=fields.get("format"))
    details = [f"{f['detail']} {f['file']} {f['camera']}" for f in result["findings"]]
    listed = result["parts"]
    silent = [
        name
        for name in names
        if not any(name in part["name"] for part in listed)
        and not any(name in detail for detail in details)
    ]
    assert silent == [], [part["name"] for part in listed]
    unknown = [part for part in listed if part["status"] == "unknown"]
    unsaid = [
        part["name"] for part in unknown if not any(part["name"] in detail for detail in details)
    ]
    assert unsaid == []
    assert any("quux_readings.bin" in part["name"] for part in unknown)


def test_files_that_no_reader_opens_are_named_by_pattern(tmp_path):
    root = write_v2(tmp_path / "set", [6, 7])
    for name in ("README.md", "LICENSE", "md5sum.txt", "docs/paper.pdf"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    for k in range(30):
        (root / f"sound/take_{k}").mkdir(parents=True)
        (root / f"sound/take_{k}/left.wav").write_bytes(b"RIFF")
    (root / "license_plates.npy").write_bytes(b"x")
    listing = list_episodes(source_of(root))
    parts_by_name = {
        part.name: (part.status, part.num_times) for part in listing.parts if part.kind == "file"
    }
    assert parts_by_name["sound/take_*/left.wav"] == ("unknown", 30)
    assert parts_by_name["license_plates.npy"] == ("unknown", 1)
    assert {
        name: parts_by_name[name]
        for name in ("README.md", "LICENSE", "md5sum.txt", "docs/paper.pdf")
    } == {
        "README.md": ("known", 1),
        "LICENSE": ("known", 1),
        "md5sum.txt": ("known", 1),
        "docs/paper.pdf": ("known", 1),
    }
    [finding] = [f for f in listing.findings if "left.wav" in f.detail]
    assert (finding.reason, finding.severity, finding.file) == (
        "part_not_used",
        "warning",
        "sound/take_0/left.wav",
    )
    assert finding.reason in REASONS


def test_many_names_are_one_line_for_each_folder_and_suffix(tmp_path):
    root = write_v2(tmp_path / "set", [6])
    (root / "extra").mkdir()
    for k in range(2 * MAX_PATTERNS):
        letters = "".join(chr(ord("a") + int(digit)) for digit in f"{k:03d}")
        (root / f"extra/{letters}.npy").write_bytes(b"x")
    unknown = [part for part in list_episodes(source_of(root)).parts if part.status == "unknown"]
    assert [(part.name, part.num_times) for part in unknown] == [("extra/*.npy", 2 * MAX_PATTERNS)]


def test_more_parts_than_the_limit_are_a_finding(tmp_path):
    root = write_v2(tmp_path / "set", [6])
    for k in range(30):
        letters = "".join(chr(ord("a") + int(digit)) for digit in f"{k:02d}")
        (root / letters).mkdir()
        (root / letters / "x.npy").write_bytes(b"x")
    listing = list_episodes(source_of(root, limits={"max_features": 20}))
    assert len(listing.parts) == 20
    [finding] = [f for f in listing.findings if f.reason == "over_limit"]
    assert "limits.max_features" in finding.detail


def test_a_census_counts_alike_parts_as_one():
    census = PartCensus()
    for length in (6, 7):
        shape = (length, 3)
        file = f"{length}.h5"
        census.add(
            SourcePart("array", "obs/x", "used", "state", "its name", shape, "float32", file)
        )
    reason = "no key of this format is called so"
    census.add(SourcePart("topic", "/odd", "unknown", "", reason, (4,)))
    first, second = census.listed()
    assert first == SourcePart(
        "array", "obs/x", "used", "state", "its name", (None, 3), "float32", "6.h5", 2
    )
    assert part_text(second) == "topic /odd (4): no key of this format is called so"
    assert joined([first, first, second])[0].num_times == 4
    assert [f.reason for f in census.findings()] == ["part_not_used"]
