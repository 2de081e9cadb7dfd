"""What the fuzz tests build, and where: a tiny dataset of each format, to be spoilt (spoil.py);
datasets that are over a limit, or reach for more than is theirs, as no change of a file comes to by
chance; and a process with limits."""

import ctypes
import faulthandler
import os
import resource
import shutil
import struct
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from core.paths import ROOT, Workspace
from ingest.reasons import REASONS, Limits
from ingest.registry import DatasetConfig
from ingest.source import format_of
from ingest.sources.files import Source
from ingest.sources.types import SourceError
from pipeline.build import BuildListener, run_build
from pipeline.config import DatasetBuild
from pipeline.stage import StageMoment, StageReport
from pipeline.stages import STAGES, Step
from tests.kits import agibot_writer as agibot
from tests.kits import hdf5_writer as hdf5
from tests.kits import lerobot_writer as le
from tests.kits import parts
from tests.kits import rlds_writer as rlds
from tests.kits.files import table
from tests.kits.hostile_video import playlists
from tests.kits.processes import own_peak_mb
from tests.kits.rh20t_writer import write_scene, write_texts
from tests.kits.step_forms import V2_FORMS, V3_FORMS
from tests.kits.table30_writer import write_task
from tests.kits.zarr_writer import BLOSC, write_replay
from warehouse.lake import open_lake

# How many of its episodes can be used as long as nothing is spoilt
BASES = {
    "lerobot_v2": 3, "lerobot_v3": 3, "lerobot_pictures": 2, "lerobot_steps": 2, "lerobot_labels": 2,
    "robo_dopamine": 1, "video": 3, "table30": 2, "rh20t": 2, "rlds": 3, "libero": 3, "aloha": 2, "zarr": 3,
    "robotwin": 2, "agibot": 2, "agibot_tars": 2,
}  # fmt: skip
NATIVE = {"annotator": "native"}
FIELDS: Mapping[str, Mapping[str, Any]] = {  # of the registry entry
    "video": NATIVE, "agibot": NATIVE, "agibot_tars": NATIVE, "rlds": {"fps": 5.0}, "robotwin": {"fps": 16.67}
}  # fmt: skip
TASKS = ("pick the cup", "place it")
SPANS = [("reach", 1, 4), ("grasp", 4, 8), ("place", 8, 11)]


def write_base(name: str, root: Path) -> Mapping[str, Any]:
    """Write the dataset of a name into a folder, new or empty; returns fields of its registry
    entry."""
    match name:
        case "lerobot_v2":
            le.write_v2(root, [6, 7, 8], cameras=(le.FRONT, le.WRIST), tasks=TASKS)
        case "lerobot_v3":
            le.write_v3(root, [6, 7, 8], cameras={le.FRONT: 3, le.WRIST: 1}, tasks=TASKS)
        case "lerobot_pictures":  # in the rows of one camera, beside them for the other
            le.write_v2(root, [6, 7], cameras=())
            names = ["height", "width", "channel"]
            image = {"dtype": "image", "shape": [64, 64, 3], "names": names}
            le.declare(root, {le.FRONT: image, le.WRIST: image})
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            for episode, length in enumerate((6, 7)):
                named_files = {
                    f"images/{episode}_{k}.jpg": hdf5.jpeg(le.picture(le.number(1, episode, k)))
                    for k in range(length)
                }
                parts.put(root, named_files)
                encoded = [rlds.png(le.number(0, episode, k)) for k in range(length)]
                pictures = {
                    le.FRONT: pa.array([{"bytes": b, "path": None} for b in encoded], kind),
                    le.WRIST: pa.array([{"bytes": None, "path": p} for p in named_files], kind),
                }
                le.edit_parquet(le.v2_data(root, episode), **pictures)
        case (
            "lerobot_steps" | "lerobot_labels"
        ):  # every form of steps that a dataset of its version may bring, at once
            is_v2 = name == "lerobot_steps"
            if is_v2:
                le.write_v2(root, [12, 9], tasks=TASKS)
            else:
                le.write_v3(root, [12, 9], cameras={le.FRONT: 2})
            for write in (V2_FORMS if is_v2 else V3_FORMS).values():
                write(root, SPANS)
        case "robo_dopamine":
            keys = ("anotation", "start_frame_id", "end_frame_id")
            spans = [dict(zip(keys, span, strict=True)) for span in (("x", 1, 4), ("y", 4, 8))]
            files: dict[str, Any] = {
                "episode_001/cam_0.mp4": le.film_of(0, 0, 9),
                "episode_001/cam_1.mp4": le.film_of(1, 0, 9),
            }
            files["episode_001/annotated_keyframes.json"] = spans
            files["task_instruction.json"] = ["clear the table", "tidy up"]
            parts.put(root, files)
        case "video":  # a table with two cameras of one episode, notes with steps beside a video, and one by itself
            films = ("a/left.mp4", "a/right.mp4", "b.mp4", "c.mkv")
            files = {film: le.film_of(0, k, 6) for k, film in enumerate(films)}
            row = {"episode": "1", "task": "stack", "success": "true"}
            cameras = [{"file": f"{name}.mp4", "camera": name} | row for name in ("left", "right")]
            steps = [
                {"name": "reach", "start_s": 0, "end_s": 0.3},
                {"name": "grasp", "start_frame": 3, "end_frame": 6},
            ]
            files["a/metadata.csv"] = cameras
            files["b.json"] = {"task": "fold", "fps": 10, "steps": steps, "success": True}
            files["metadata.jsonl"] = [{"file": "c.mkv", "task": "sort", "group": "g"}]
            parts.put(root, files)
        case "table30":
            write_task(root, "fold_towel", "aloha", {0: 6})
            write_task(root, "press_button", "franka", {0: 7})
        case "rh20t":
            metadata = {"rating": 7, "calib": 3}
            write_scene(
                root / "RH20T_cfg3", 1, cameras={"cam_1": 6, "cam_2": 7}, metadata=metadata, plain=6
            )
            write_scene(root / "RH20T_cfg3", 2, cameras={"cam_1": 6}, metadata=metadata)
            write_texts(root / "task_description.json", {1: "press the button", 2: "open the door"})
        case "rlds":
            records = [[rlds.episode(0), rlds.episode(1, 7)], [rlds.episode(2, 8)]]
            rlds.write_dataset(root, {"train": records})
        case "libero":
            hdf5.write_libero(root / "KITCHEN_SCENE1_turn_on_the_stove_demo.hdf5", {0: 6, 1: 7})
            hdf5.write_libero(root / "LIVING_ROOM_SCENE2_pick_up_the_cup_demo.hdf5", {0: 8}, None)
        case "aloha":
            hdf5.write_aloha(
                root / "episode_0.hdf5",
                0,
                6,
                hdf5.padded_rows,
                timestamps=[k / 50 for k in range(6)],
            )
            hdf5.write_aloha(root / "episode_1.hdf5", 1, 7)
        case "zarr":
            write_replay(root / "umi.zarr.zip", [6, 7], task="fold the towel", fps=20)
            write_replay(root / "more.zarr", [6], BLOSC, 4, fps=20)
        case "robotwin":
            for episode, length in enumerate((6, 7)):
                texts = {"seen": ["hit the block"], "unseen": ["knock"]}
                hdf5.write_robotwin(root / "beat_block/clean", episode, length, texts)
        case "agibot":
            agibot.write_agibot(root)
        case "agibot_tars":  # as on the hub
            loose = agibot.write_agibot(
                root.parent / f"{root.name}.loose", cameras=agibot.GRIPPER_CAMERAS[:2]
            )
            spans = {
                e: [agibot.span(0, 2), agibot.span(2, n)] for e, n in {648642: 6, 648649: 8}.items()
            }
            agibot.write_tasks(
                root, 327, [agibot.entry(e, frames_spec) for e, frames_spec in spans.items()]
            )
            tar = root / "observations/327/648642-648649.tar"
            agibot.pack(tar, loose / "observations/327", ["648642", "648649"])
            agibot.pack(root / "proprio_stats/proprio_stats.tar", loose / "proprio_stats", ["327"])
            shutil.rmtree(loose)
    return FIELDS.get(name, {})


# Beyond what is allowed. Real ones had millions of rows, episodes or objects, texts of gigabytes in a few KB, pictures
# larger than memory. These are tiny, and the limits lower


@dataclass(frozen=True)
class Excess:
    """A dataset, the lowered limits of its registry entry, and words of the finding that says
    so."""

    base: str  # of which one file is another, if any
    words: str
    limits: Mapping[str, int] = field(default_factory=dict)


EXCESSES = {name: Excess(*values) for name, values in table("excesses").items()}


def repeated(path: Path, count: int, **columns: Any) -> None:
    """A Parquet file of its first row, so many times, with other columns."""
    table = pq.ParquetFile(path).read()
    rows = {
        name: pa.repeat(table[name][0], count)
        for name in table.schema.names
        if not name.startswith("stats/")
    }
    le.write_parquet(path, rows | columns)


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
    mark = b"\x89MCAP0\r\n"
    begin = record(1, struct.pack("<I4s4x", 4, b"ros2"))
    end = record(15, bytes(4)) + record(2, bytes(20))
    (root / "a.mcap").write_bytes(mark + begin + b"".join(records) + end + mark)


def zipped(root: Path, name: str, size: int) -> None:
    """A ZIP file with one member more, or another in its place: the last of a name counts."""
    with ZipFile(root / "umi.zarr.zip", "a", ZIP_DEFLATED) as file:
        file.writestr(name, bytes(size))


def write_excess(name: str, root: Path) -> None:
    """The dataset of a name in a new folder; in ../../outside of it is what it must not read."""
    root.mkdir(parents=True)
    if EXCESSES[name].base:
        write_base(EXCESSES[name].base, root)
    info = root / "meta/info.json"
    tasks = root / "meta/tasks.parquet"
    arm = "observations/qpos"
    films = "observations/images/cam_high"
    gripper = "data/robot0_gripper_width"
    match name:
        case "v2_cameras":
            parts.change(info, {"features": le.features([f"cam{k}" for k in range(20)], 10)})
        case "v2_wide":
            state = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(6 * 20, np.float32)), 20)
            columns = {"observation.state": state, "timestamp": np.arange(6) / 10}
            columns |= dict.fromkeys(("episode_index", "task_index"), np.zeros(6, np.int64))
            le.write_parquet(le.v2_data(root, 0), columns, compression="zstd")
        case "v2_rows":
            repeated(le.v2_data(root, 0), 50)
        case "v3_dictionary":  # one text, which every row repeats
            indices = pa.repeat(pa.scalar(0, pa.int32()), 32)
            texts = pa.DictionaryArray.from_arrays(indices, pa.array(["A" * 10_000]))
            packed = {"compression": "zstd", "store_schema": False}
            le.write_parquet(tasks, {"task_index": np.arange(32), "task": texts}, **packed)
        case "v3_tasks":
            repeated(tasks, 50)
        case "v3_listed":  # episodes that are nowhere
            repeated(le.v3_meta(root), 50, episode_index=np.arange(50))
        case "v3_equal":
            zeros = np.zeros(50, np.int64)
            le.write_parquet(
                le.v3_data(root, 0), dict.fromkeys(("episode_index", "task_index"), zeros)
            )
        case "v3_digits":  # where one number ends and the other begins nobody knows
            parts.change(info, {"data_path": "data/{chunk_index}{file_index}x.parquet"})
        case "video_playlists":  # of a link, which leads to a film outside
            (root / "clip.link").symlink_to("../../outside/secret.mp4")
            for kind, text in playlists("clip.link").items():
                for suffix in ("mp4", "mkv"):
                    (root / f"{kind}.{suffix}").write_text(text)
        case "hdf5_rows" | "hdf5_pictures":
            forms = {
                "hdf5_rows": (arm, (6, 14), np.float64),
                "hdf5_pictures": (films, (6, 64, 64, 3), np.uint8),
            }
            array, size, dtype = forms[name]
            about = {"shape": size, "chunks": tuple(min(n, 14) for n in size), "dtype": dtype}
            parts.change(root / "episode_0.hdf5", {array: about})
        case "hdf5_objects":
            parts.change(root / "episode_0.hdf5", {f"g{k}@x": 1 for k in range(30)})
        case "rlds_picture" | "rlds_keys":
            large = {"steps/observation/image": [rlds.png(np.zeros((70, 70, 3), np.uint8))] * 6}
            if name == "rlds_picture":
                added_parts = large
            else:
                added_parts = {f"steps/x{k}": [b"x"] for k in range(30)}
            rlds.write_shard(
                rlds.shard(root, "train", 0, 2), [rlds.episode(0, changes=added_parts)]
            )
        case "mcap_claims":
            mcap(root, chunk(b"x", 2000))
        case "mcap_topics":
            mcap(root, *map(channel, range(20)))
        case "zarr_pickle":
            pickled = {"filters": [{"id": "pickle"}]}
            parts.change(root / "more.zarr" / gripper / ".zarray", pickled)
        case "zarr_large":
            zipped(root, f"{gripper}/0.0", 30_000)
        case "zarr_up":
            zipped(root, "../../outside/secret.json", 2)
        case "table30_wide":
            states = root / "fold_towel/data/episode_000000/states/states.jsonl"
            le.write_json_lines(states, [{"joint_positions": [0] * 100}] * 6)
        case "tar_size":  # a member of more bytes than the file has
            member = tarfile.TarInfo("648642/videos/head_color.mp4")
            member.size = 1 << 20
            tar = root / "observations/327/648642-648649.tar"
            tar.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


# Apart

ADDRESS_SPACE_BYTES = 8 << 30
FILE_BYTES = 1 << 28  # that a build may write at most
PEAK_MB = 2000  # that a build of tiny datasets may have in memory
ALL_EVENTS, CHANGES = (
    0xFFF,
    0x3C6,
)  # of inotify; contents, attributes, what is moved, made or deleted
SILENCE_S = 240  # between two words of what runs, on a machine that is busy


def apart[T](folder: Path, function: Callable[..., T], *arguments: Any) -> T:
    """What a function of a workspace returns in its own process, beside which nothing is touched.

    It is forked from one that has imported what builds use, which costs more than a build.
    """
    environment = {
        "PYTHONPATH": str(ROOT),
        "HOME": f"{folder}/empty",
        "TMPDIR": f"{folder}/temporary",
    }
    # Who imports torchvision makes this folder, by default in TMPDIR
    environment["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/torch"
    for name in ("workspace", "empty", "temporary", "torch"):
        (folder / name).mkdir(exist_ok=True)
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *(f"pipeline.stages.{s.name}" for s in STAGES)])
    process = ProcessPoolExecutor(1, context, limited, (folder / "empty", environment))
    with watched(folder) as events, process:
        result = process.submit(function, folder / "workspace", *arguments).result()
        peak_mb = process.submit(own_peak_mb).result()
    assert events == [], f"files beside the workspace were touched: {events}"
    # Python and torch try whether TMPDIR can be written to; nothing may stay there
    assert os.listdir(folder / "temporary") == []
    assert peak_mb < PEAK_MB, peak_mb
    return result


@contextmanager
def watched(folder: Path) -> Iterator[list[bytes]]:
    """What is changed or made beside a folder's workspace, and, in `outside`, also opened or read,
    by any process: one item, of inotify's events, or none."""
    libc = ctypes.CDLL(None, use_errno=True)
    events = []
    handles = []
    handle = libc.inotify_init1(os.O_NONBLOCK)
    for directory in [
        Path(directory) for directory, *_ in os.walk(folder)
    ]:  # all of them first: to list a folder is an event of its parent
        top = directory.relative_to(folder).parts[:1]
        if top not in (("workspace",), ("temporary",), ("torch",)):
            kinds = ALL_EVENTS if top == ("outside",) else CHANGES
            handles.append(libc.inotify_add_watch(handle, os.fsencode(directory), kinds))
    assert min(handle, *handles) >= 0, os.strerror(ctypes.get_errno())
    yield events
    with suppress(BlockingIOError):
        events.append(os.read(handle, 1 << 20))
    os.close(handle)


def limited(folder: Path, environment: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    tempfile.tempdir = None  # where it was before this environment
    faulthandler.enable()
    for limit, value in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
    ):
        resource.setrlimit(limit, (value, value))
    warnings.simplefilter("ignore")


class StillAlive(BuildListener):
    """Each thing that a build tells shows that it does not hang."""

    def planned(self, num_stages: int, steps: Sequence[Step]) -> None:
        alive()

    def stage_done(self, report: StageReport) -> None:
        alive()

    def moment(self, moment: StageMoment) -> None:
        alive()


def alive() -> None:
    """At each word of what runs; where it is silent for too long, the process ends and says where
    it hangs."""
    faulthandler.dump_traceback_later(SILENCE_S, exit=True)


@dataclass
class Outcome:
    """How one dataset ended (built, quarantined, refused), why, and what contradicts the
    contract."""

    kind: str = "quarantined"
    why: list[str] = field(default_factory=list)
    usable: int = 0
    faults: list[str] = field(default_factory=list)


FAULTS = (Path(__file__).parent / "contract_faults.sql").read_text()


def build(
    folder: Path,
    mutants: Path,
    names: list[str],
    fields: Mapping[str, Any],
    limits: Mapping[str, Any] | None = None,
) -> dict[str, Outcome]:
    """Outcomes of datasets in a folder, built in one workspace, by name; so are `limits`."""
    outcomes = {name: Outcome() for name in names}
    builds = []
    for name in names:
        alive()
        entry = dict(fields) | {"limits": Limits(**(limits or {}).get(name, {}))}
        builds.append(
            DatasetBuild(dataset=DatasetConfig(name=name, source=str(mutants / name), **entry))
        )
        try:
            format_of(Source(builds[-1].dataset))
        except SourceError as e:
            outcomes[builds.pop().name] = Outcome("refused", [str(e)])
    workspace = Workspace(folder)
    for f in run_build(workspace, builds, 1, StillAlive()).failed:
        outcomes[f.dataset].faults.append(f"{f.stage} failed: {f.trace}")
    alive()
    lake = open_lake(workspace)
    parameters = {"reasons": [*REASONS], "datasets": [b.name for b in builds]}
    for name, fault in lake.con.execute(FAULTS, parameters).fetchall():
        outcomes[name].faults.append(fault)
    for name, *details in lake.rows(
        "SELECT dataset, reason, severity, episode_index, detail FROM findings ORDER BY ALL"
    ):
        outcomes[name].why.append(" ".join(str(part)[:200] for part in details))
    for name, usable in lake.rows(
        "SELECT dataset, count(*) FROM episodes WHERE status = 'ok' GROUP BY ALL"
    ):
        outcomes[name].kind = "built"
        outcomes[name].usable = usable
    return outcomes
