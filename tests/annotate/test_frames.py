"""The frames stage on tiny real videos: what it measures, keeps, refuses, and how often it decodes."""

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.frames import FramesConfig, FramesResult, frames_stage, timing
from annotate.visual_change import published_phash
from ingest.media.video import decode
from ingest.registry import DatasetConfig
from ingest.source import list_episodes
from ingest.sources.files import Source
from tests.kits.signal_kit import signal_at

SIZE = 64
FPS = 10
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def moving(n: int) -> list[np.ndarray]:
    """A bright square that walks over noise; RGB."""
    ground = np.random.default_rng(0).integers(40, 90, (SIZE, SIZE, 1), np.uint8).repeat(3, axis=2)
    pictures = []
    for k in range(n):
        picture = ground.copy()
        picture[20:36, 2 * k % 48 : 2 * k % 48 + 16] = (230, 40, 40)
        pictures.append(picture)
    return pictures


def write_video(path: Path, pictures: list[np.ndarray], codec: str = "libx264", **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # x264's macroblock trees depend on what happened to lie in fresh memory: with them equal pictures may differ
    options = options or {"crf": "10", "g": "4", "mbtree": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # SVT-AV1 makes its caller a real-time thread


@dataclass
class Dataset:
    """A LeRobot v2.1 folder of a few episodes, each with its rows and videos."""

    root: Path
    cameras: tuple[str, ...] = (FRONT,)
    tasks: list[str] = field(default_factory=list)

    def add(self, rows: int, videos: dict[str, list[np.ndarray]], task: str = "push", **columns: np.ndarray) -> None:
        index = len(self.tasks)
        self.tasks.append(task)
        state = np.stack([np.linspace(0, 1, rows), np.zeros(rows), np.linspace(0.2, 0.8, rows)], axis=1)
        table = {
            "observation.state": list(columns.pop("state", state).astype(np.float32)),
            "timestamp": columns.pop("timestamp", np.arange(rows) / FPS).astype(np.float32),
            "episode_index": np.full(rows, index),
            "task_index": np.full(rows, index),
        }
        path = self.root / "data" / "chunk-000" / f"episode_{index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), path)
        for camera, pictures in videos.items():
            write_video(self.video(index, camera), pictures)

    def video(self, index: int, camera: str = FRONT) -> Path:
        return self.root / "videos" / "chunk-000" / camera / f"episode_{index:06d}.mp4"

    def source(self) -> Source:
        names = ["x", "y", "gripper"]
        features = {"observation.state": {"dtype": "float32", "shape": [3], "names": names}}
        features |= {c: {"dtype": "video", "shape": [SIZE, SIZE, 3]} for c in self.cameras}
        info = {"codebase_version": "v2.1", "fps": FPS, "chunks_size": 1000, "features": features}
        meta = self.root / "meta"
        meta.mkdir(exist_ok=True)
        (meta / "info.json").write_text(json.dumps(info))
        lines = [json.dumps({"task_index": i, "task": t}) for i, t in enumerate(self.tasks)]
        (meta / "tasks.jsonl").write_text("\n".join(lines))
        lines = [json.dumps({"episode_index": i, "tasks": [t]}) for i, t in enumerate(self.tasks)]
        (meta / "episodes.jsonl").write_text("\n".join(lines))
        (meta / "episodes_stats.jsonl").write_text("")
        return Source(DatasetConfig(name="tiny", source=str(self.root)))


@dataclass
class Store:
    """Keyframes by hash, and how often each was handed over."""

    files: dict[str, bytes] = field(default_factory=dict)
    calls: Counter = field(default_factory=Counter)

    def __call__(self, sha256: str, data: bytes) -> None:
        self.files[sha256] = data
        self.calls[sha256] += 1


def measure(
    dataset: Dataset, store: Callable[[str, bytes], None] = Store(), threads: int = 1, **config: object
) -> tuple[FramesResult, Source]:
    source = replace(dataset.source(), decoding_threads=threads)
    records = list_episodes(source).records
    return frames_stage(source, records, 7, FramesConfig(**config), store), source


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "tiny")


# Measurements


def test_the_published_hash_on_request(dataset: Dataset):
    pytest.importorskip("imagehash")
    dataset.add(6, {FRONT: moving(6)})
    result, _ = measure(dataset, published_phash=True)
    expected = [published_phash(f) for f in decode(dataset.video(0))]
    assert result.tables["frames"]["phash"].to_pylist() == expected


# What is refused


@pytest.mark.parametrize(
    ("times", "fps", "drift", "reasons"),
    [
        (None, 20.0, None, []),
        ([0, 0.05, 0.1], 20.0, None, []),  # too few to measure on
        (np.arange(40) / 20 + 3, 20.0, 0.0, []),
        (np.arange(40) / 20.2, 20.0, 39 / 20 - 39 / 20.2, []),  # within the tolerance of the rate
        (np.arange(40) / 16, 16.0, 0.0, ["frame_rate"]),
        (np.cumsum([0.04, 0.06] * 20) - 0.04, 20.0, 0.01, []),  # jitter
        (np.array([*range(20), *range(24, 44)]) / 20, 20.0, 0.2, ["timestamp_drift"]),  # four frames dropped
        (np.zeros(40), 20.0, None, ["timestamp_drift"]),
        (np.arange(40)[::-1] / 20, 20.0, None, ["timestamp_drift"]),
        (np.array([0.0, np.nan, *range(2, 40)]) / 20, 20.0, None, ["timestamp_drift"]),
    ],
)
def test_rate_and_drift(times: Any, fps: float, drift: float | None, reasons: list[str]):
    rate, off_s, findings = timing(None if times is None else np.array(times, np.float64), 20.0, certain=False)
    assert (rate, [r for r, _ in findings]) == (fps, reasons)
    assert off_s == (None if drift is None else pytest.approx(drift, abs=1e-9))


def test_a_rate_that_the_registry_gives_is_kept():
    fps, drift_s, findings = timing(np.arange(40) / 16, 20.0, certain=True)
    assert (fps, [r for r, _ in findings]) == (20.0, ["frame_rate", "timestamp_drift"])
    assert drift_s == pytest.approx(39 / 16 - 39 / 20)


# Signals


@pytest.mark.parametrize(("dimension", "what"), [(0, "state"), (2, "gripper")])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_finite_numbers(dataset: Dataset, dimension: int, what: str, bad: float):
    state = np.zeros((8, 3))
    state[3, dimension] = bad
    dataset.add(8, {FRONT: moving(8)}, state=state)
    source = dataset.source()
    records = list_episodes(source).records
    result = frames_stage(source, records, 0, FramesConfig(), Store(), signals=[signal_at(2)])
    (finding,) = result.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("nan_state", "unusable", 0)
    assert finding.detail == f"{what} is not a finite number in row 3"
    assert (result.decoded_frames, result.tables["frames"].num_rows) == (0, 0)


# Damage


def damage(path: Path, where: float, count: int) -> None:
    """Overwrite some bytes of a video's pictures."""
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 8 + int(where * (len(data) - data.index(b"mdat") - 8))
    data[at : at + count] = b"\xa5" * count
    path.write_bytes(bytes(data))


@pytest.fixture
def damaged(dataset: Dataset) -> Dataset:
    noise = list(np.random.default_rng(0).integers(0, 255, (60, SIZE, SIZE, 3), np.uint8))
    dataset.add(60, {FRONT: noise})
    return dataset


def test_damage_is_measured_the_same_on_several_threads(damaged: Dataset):
    damage(damaged.video(0, FRONT), 0.5, 20)
    one, _ = measure(damaged)
    several, _ = measure(damaged, threads=4)
    assert several.tables["frames"] == one.tables["frames"]
    assert several.tables["episode_content"] == one.tables["episode_content"]
    assert several.findings == one.findings != []
