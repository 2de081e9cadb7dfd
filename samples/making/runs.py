"""The simulators' recordings, as read from their output folders."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Camera:
    """One camera. `runs_per_file` differs between cameras and data on purpose: file numbers must not be mixed up."""

    key: str
    folder: str  # of the source mp4 files
    runs_per_file: int


@dataclass(frozen=True)
class Recipe:
    """What a source folder does not say about itself."""

    name: str
    robot_type: str
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    runs_per_data_file: int


@dataclass(frozen=True)
class Run:
    """One recorded episode: its line of `episodes.jsonl` and its rows of `frames.parquet`."""

    record: dict[str, Any]
    rows: pa.Table
    first: int  # global index of its first frame

    @property
    def index(self) -> int:
        return self.record["episode"]

    @property
    def num_frames(self) -> int:
        return self.rows.num_rows

    @property
    def fps(self) -> int:
        return self.record["fps"]

    @property
    def start_state(self) -> str:
        """Runs that share it began in the same scene: keep them in one split."""
        return f"{self.record['env']}/{self.record.get('start_state', self.record['seed'])}"


def read_runs(source: Path) -> list[Run]:
    """All runs in order; fails unless they are numbered 0..n-1 and their rows lie in that order."""
    records = [json.loads(line) for line in (source / "episodes.jsonl").read_text().splitlines()]
    frames = pq.read_table(source / "frames.parquet")
    runs: list[Run] = []
    first = 0
    for i, record in enumerate(records):
        run = Run(record, frames.slice(first, record["num_frames"]), first)
        if run.index != i or set(run.rows["episode_index"].to_pylist()) != {i}:
            raise ValueError(f"{source}: run {i} is not where it should be")
        runs.append(run)
        first += run.num_frames
    if first != frames.num_rows:
        raise ValueError(f"{source}: {frames.num_rows} rows for {first} frames")
    return runs


def in_files(runs: Sequence[Run], per_file: int) -> list[Sequence[Run]]:
    return [runs[i : i + per_file] for i in range(0, len(runs), per_file)]


def video_of(source: Path, camera: Camera, run: Run) -> Path:
    return source / camera.folder / f"episode_{run.index:03d}.mp4"


def feature_values(table: pa.Table, feature: str) -> Array:
    """A column as [frames, dimensions]."""
    return np.array(table[feature].to_pylist()).reshape(table.num_rows, -1)
