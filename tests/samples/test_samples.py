"""The shipped demo datasets: whole, true to the recordings, and loadable by lerobot 0.6.1."""

import gc
import hashlib
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from core.paths import ROOT

SAMPLES = ROOT / "samples"
FRONT = "observation.images.front"
WRIST = "observation.images.wrist"


# Of all files below the three folders; who makes them anew (samples/make_samples.py) looks at them and puts it here
DIGEST = "a8f6587b446951b15043fdc6bd09d001336b96a6615893cad17a2b938b1c2664"


@dataclass(frozen=True)
class Expected:
    episodes: int
    frames: int
    fps: int
    state: int
    action: int
    cameras: tuple[str, ...]


EXPECTED = {
    "sim_short": Expected(66, 4216, 20, 4, 4, (FRONT,)),
    "sim_long": Expected(18, 4549, 10, 8, 7, (FRONT, WRIST)),
}

both = pytest.mark.parametrize("name", EXPECTED)


def info_of(name: str) -> dict[str, Any]:
    return json.loads((SAMPLES / name / "meta/info.json").read_text())


def episodes_of(name: str) -> list[dict[str, Any]]:
    return pq.read_table(SAMPLES / name / "meta/episodes").to_pylist()


def video_of(name: str, camera: str, episode: dict[str, Any]) -> Path:
    file_place = {k: episode[f"videos/{camera}/{k}"] for k in ("chunk_index", "file_index")}
    return SAMPLES / name / info_of(name)["video_path"].format(video_key=camera, **file_place)


def test_they_are_as_they_were_published():
    files = {f.relative_to(SAMPLES).as_posix(): f for part in ("sim_short", "sim_long", "truth")
             for f in (SAMPLES / part).rglob("*") if f.is_file()}  # fmt: skip
    lines = [
        f"{name} {hashlib.sha256(f.read_bytes()).hexdigest()}\n"
        for name, f in sorted(files.items())
    ]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == DIGEST
    assert sum(f.stat().st_size for f in files.values()) < 20_000_000


def decoded(path: Path, wanted_frames: set[int]) -> dict[int, np.ndarray]:
    """The frames with these numbers, decoded from the start of the file, as RGB."""
    with av.open(str(path)) as container:
        frames = {
            k: f.to_ndarray(format="rgb24")
            for k, f in enumerate(container.decode(video=0))
            if k in wanted_frames
        }
    return frames


@both
def test_lerobot_opens_and_decodes(name, monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    expected = EXPECTED[name]
    files_before = sorted(SAMPLES.rglob("*"))
    gc.collect()  # what other tests left gives its warnings now
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        dataset = module.LeRobotDataset(
            f"proccorpus/{name}", root=SAMPLES / name, video_backend="pyav"
        )
        assert (len(dataset), dataset.num_episodes, dataset.fps) == (
            expected.frames,
            expected.episodes,
            expected.fps,
        )
        assert set(dataset.meta.video_keys) == set(expected.cameras)
        looks: dict[Path, dict[int, np.ndarray]] = {}
        for e in episodes_of(name):
            for k in (0, e["length"] - 1):  # the joints
                item = dataset[e["dataset_from_index"] + k]
                assert (int(item["episode_index"]), int(item["frame_index"])) == (
                    e["episode_index"],
                    k,
                )
                assert item["task"] == e["tasks"][0]
                assert tuple(item["observation.state"].shape) == (expected.state,)
                assert tuple(item["action"].shape) == (expected.action,)
                for camera in expected.cameras:
                    frame_index = round(e[f"videos/{camera}/from_timestamp"] * expected.fps) + k
                    image = (item[camera].numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
                    looks.setdefault(video_of(name, camera, e), {})[frame_index] = image
    assert [str(w.message) for w in warned] == []
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
    for path, theirs in looks.items():
        own_frames = decoded(path, set(theirs))
        assert sorted(own_frames) == sorted(theirs)
        assert all(np.array_equal(own_frames[k], theirs[k]) for k in theirs), path
    assert sorted(SAMPLES.rglob("*")) == files_before  # nothing was written beside the data
