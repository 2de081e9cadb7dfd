"""Demonstrations on disk: one by one as they are recorded, as a LeRobot dataset, and as what a policy learns from."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.policy.demonstrations import Demonstration, planned, record
from benchmarks.policy.protocol import FPS, PICTURE_PX, Protocol
from core.files import write_file
from samples.making.dataset import write_dataset
from samples.making.runs import Camera, Recipe, read_runs

if TYPE_CHECKING:
    from benchmarks.policy.cell import Cell

DATASET = "policy"
RECIPE = Recipe(
    name=DATASET,
    robot_type="sawyer",
    state_names=("hand_x", "hand_y", "hand_z", "gripper_opening"),
    action_names=("move_x", "move_y", "move_z", "gripper_effort"),
    cameras=(Camera("observation.images.front", "videos", 24),),
    runs_per_data_file=40,
)


def record_task(task: str, counts: Mapping[str, int], folder: Path) -> int:
    """Record what is missing of a task's demonstrations; how many frames all have. Needs Meta-World."""
    from benchmarks.policy.cell import Cell

    task_folder = folder / task
    task_folder.mkdir(parents=True, exist_ok=True)
    cell = None
    frames = 0
    for demonstration in planned(task, counts):
        stem = task_folder / f"{demonstration.number:03d}"
        if not stem.with_suffix(".json").exists():
            cell = cell or Cell(task, PICTURE_PX)
            _keep(stem, demonstration, cell)
        frames += json.loads(stem.with_suffix(".json").read_text())["num_frames"]
    if cell:
        cell.close()
    return frames


def _keep(stem: Path, demonstration: Demonstration, cell: "Cell") -> None:
    """Record one and write it; its .json comes last, and says that it is whole."""
    from benchmarks import simulated
    from benchmarks.policy.cell import generate

    run = record(cell, demonstration)
    np.save(stem.with_suffix(".npy"), run.seen)
    simulated.write_video(stem.with_suffix(".mp4"), run.pictures, FPS, generate.FORM.crf, group=FPS)
    number = demonstration.number
    success = run.rows[-1]["success"]
    facts = {
        "task": cell.spec["text"],
        "env": f"{demonstration.task}-v3",
        "seed": number,
        "start_state": number,
    }
    facts |= {
        "policy": demonstration.quality,
        "success": success,
        "fps": FPS,
        "num_frames": len(run.rows),
    }
    facts["segments"] = generate.annotate(run.rows, cell.spec)  # and adds progress to the rows
    pq.write_table(simulated.table(generate.COLUMNS, [run.rows], FPS), stem.with_suffix(".parquet"))
    write_file(stem.with_suffix(".json"), json.dumps(facts).encode())


def write_lerobot(protocol: Protocol, recorded: Path, out: Path) -> None:
    """All recorded demonstrations as a LeRobot v3.0 dataset at `out`: pictures, state, action and how each run ended.

    What only the simulator knows (objects, progress, quality) is not in it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".making-", dir=out.parent) as scratch:
        source = Path(scratch) / "source"
        (source / "videos").mkdir(parents=True)
        lines = []
        tables = []
        for index, stem in enumerate(_stems(protocol, recorded)):
            facts = json.loads(stem.with_suffix(".json").read_text())
            lines.append(json.dumps({"episode": index} | facts) + "\n")
            rows = pq.read_table(stem.with_suffix(".parquet"))
            column_index = rows.column_names.index("episode_index")
            tables.append(
                rows.set_column(
                    column_index, "episode_index", pa.array([index] * rows.num_rows, pa.int64())
                )
            )
            shutil.copyfile(
                stem.with_suffix(".mp4"), source / "videos" / f"episode_{index:03d}.mp4"
            )
        (source / "episodes.jsonl").write_text("".join(lines))
        pq.write_table(pa.concat_tables(tables), source / "frames.parquet")
        write_dataset(RECIPE, source, read_runs(source), Path(scratch) / "dataset")
        (Path(scratch) / "dataset").rename(out)


@dataclass(frozen=True)
class Frames:
    """All frames of all demonstrations, in the dataset's order; the row is the global index.

    seen [n, d], action [n, 4], truth [n] (the simulator's progress), and of each frame its task, its run's number in
    the dataset, quality and success.
    """

    seen: np.ndarray
    action: np.ndarray
    truth: np.ndarray
    task: np.ndarray
    episode: np.ndarray
    quality: np.ndarray
    success: np.ndarray

    @property
    def lengths(self) -> list[int]:
        """Frames of each run."""
        return np.bincount(self.episode).tolist()


def read_frames(protocol: Protocol, recorded: Path) -> Frames:
    columns: dict[str, list[np.ndarray]] = {
        k: [] for k in ("seen", "action", "truth", "task", "episode", "quality", "success")
    }
    for index, stem in enumerate(_stems(protocol, recorded)):
        facts = json.loads(stem.with_suffix(".json").read_text())
        rows = pq.read_table(stem.with_suffix(".parquet"))
        n = rows.num_rows
        columns["seen"].append(np.load(stem.with_suffix(".npy"), allow_pickle=False))
        columns["action"].append(np.array(rows["action"].to_pylist(), np.float32))
        columns["truth"].append(rows["true_progress"].to_numpy())
        facts_of_all = {
            "task": facts["env"].removesuffix("-v3"),
            "episode": index,
            "quality": facts["policy"],
            "success": facts["success"],
        }
        for name, value in facts_of_all.items():
            columns[name].append(np.full(n, value))
    return Frames(**{name: np.concatenate(parts) for name, parts in columns.items()})


def _stems(protocol: Protocol, recorded: Path) -> Sequence[Path]:
    stems: list[Path] = []
    for task in protocol.tasks:
        demonstrations = planned(task, protocol.demonstrations)
        stems += [recorded / task / f"{d.number:03d}" for d in demonstrations]
    return stems
