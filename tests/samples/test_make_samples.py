"""`samples/make_samples.py`, on tiny recordings made here: equal bytes each time, and no silent mistake."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.paths import ROOT
from tests.kits import lerobot_writer

SCRIPT = ROOT / "samples/make_samples.py"
LENGTHS = (17, 12, 14)  # frames; more than one group of pictures each


def write_video(path: Path, frames: int, fps: int, seed: int) -> None:
    """A grey square that moves over noise, so that the encoder uses B-frames."""
    noise = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
    pictures = [noise.copy() for _ in range(frames)]
    for k, picture in enumerate(pictures):
        picture[8:24, k : k + 16] = 128
    lerobot_writer.write_video(path, pictures, fps=fps, options={"g": "8"})


def rows(state: int, action: int, extra: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for episode, length in enumerate(LENGTHS):
        for k in range(length):
            still = k >= length - 3
            yield {
                "episode_index": episode,
                "frame_index": k,
                "observation.state": [0.1 * k] * state,
                "action": [0.0 if still else 0.5] * action,
                "true_progress": min(1.0, k / (length - 3)),
                "sim.success": still,
            } | extra


def write_source(folder: Path, cameras: tuple[str, ...], fps: int, long: bool) -> None:
    folder.mkdir()
    records = []
    for episode, length in enumerate(LENGTHS):
        for i, camera in enumerate(cameras):
            write_video(folder / camera / f"episode_{episode:03d}.mp4", length, fps, 10 * i + episode)
        spans = [("reach", 0, 4), ("contact", 4, 6), ("move", 6, length - 3), ("hold", length - 3, length)]
        segments = [{"name": n, "text": f"{n} it", "start": a, "end": b} for n, a, b in spans]
        record = {"episode": episode, "task": "Do it.", "env": "toy", "seed": 3, "policy": "expert", "success": True}
        record |= {"fps": fps, "num_frames": length, "start_state": episode % 2, "segments": segments}
        if long:
            ends = {"completed": True, "outcome": "completed", "kind": "step"}
            record |= {"planned_steps": ["reach"], "segments": [{"name": "reach", "start": 0, "end": length} | ends]}
            del record["start_state"]
        records.append(record)
    (folder / "episodes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    table = list(rows(8, 7, {"kind": "step"}) if long else rows(4, 4, {}))
    floats = {"true_progress": pa.float32()}
    schema = pa.schema([(f.name, floats.get(f.name, f.type)) for f in pa.Table.from_pylist(table).schema])
    pq.write_table(pa.Table.from_pylist(table, schema), folder / "frames.parquet")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    write_source(tmp_path / "short", ("videos",), 20, long=False)
    write_source(tmp_path / "long", ("videos", "videos_wrist"), 10, long=True)
    return tmp_path


def make(sources: Path, out: Path) -> subprocess.CompletedProcess[str]:
    folders = ["--sim-short", sources / "short", "--sim-long", sources / "long", "--out", out]
    command = [sys.executable, "-B", str(SCRIPT), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_two_runs_give_equal_bytes_and_replace_what_was_there(sources: Path) -> None:
    stray = sources / "a/sim_short/data/chunk-000/file-009.parquet"
    stray.parent.mkdir(parents=True)
    stray.write_text("an old file that LeRobot would read too")
    for out in ("a", "b"):
        assert make(sources, sources / out).returncode == 0
    first = digests(sources / "a")
    assert first == digests(sources / "b")
    assert len(first) == 2 * 5 + 3 + 2 * 3  # per dataset data, info, stats, tasks, episodes; videos; truth
    episodes = pq.read_table(sources / "a/sim_long/meta/episodes").to_pydict()
    assert episodes["start_state"] == ["toy/3"] * 3
    assert episodes["videos/observation.images.wrist/from_timestamp"] == [0.0, 1.7, 2.9]


def test_a_video_that_is_not_as_long_as_its_rows_is_refused(sources: Path) -> None:
    made_before = sources / "out/sim_short/meta/info.json"
    made_before.parent.mkdir(parents=True)
    made_before.write_text("{}")
    write_video(sources / "short/videos/episode_001.mp4", LENGTHS[1] - 1, 20, 1)
    refused = make(sources, sources / "out")
    assert refused.returncode != 0
    assert "11 frames for the 12 rows of run 1" in refused.stderr
    assert list(digests(sources / "out")) == ["sim_short/meta/info.json"]  # what was there stays, and nothing half-made
