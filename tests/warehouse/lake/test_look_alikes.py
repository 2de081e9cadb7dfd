"""Look-alikes: a copy in another dataset at another frame rate is named, and different runs are not."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import opened, put_rows, stage_run
from warehouse.lake import Lake
from warehouse.lake.checks import no_split_leak

SECONDS = 8
CELLS = 4
CAMERA = "front"
ENCODER = "mobilenet_v2@64"
TEXTURE = np.random.default_rng(0).integers(60, 120, (48, 64)).astype(np.float32)


@dataclass(frozen=True)
class Shown:
    """A run of eight seconds: `scene` decides what is seen of it, `thing` where an object lies.

    fps: of its rows, a half of which an encoder looked at; noise: of coding.
    """

    scene: int
    thing: int = 10
    fps: float = 10.0
    split: str = "train"
    noise: float = 0.0
    seed: int = 0
    moves: bool = True
    encoder: str = ENCODER

    @property
    def num_frames(self) -> int:
        return round(SECONDS * self.fps)

    def seen(self, seconds: float) -> np.ndarray:
        """Of each cell 64 numbers, which turn as the scene moves on."""
        rng = np.random.default_rng(self.scene)
        first_axis, second_axis = rng.normal(size=(2, CELLS, 64))
        angle = seconds / SECONDS * np.pi if self.moves else 0.0
        noise = np.random.default_rng([self.seed, self.scene, round(100 * seconds)]).normal(
            size=(CELLS, 64)
        )
        return np.cos(angle) * first_axis + np.sin(angle) * second_axis + self.noise * noise

    def picture(self, seconds: float) -> np.ndarray:
        """The arm goes from left to right below the object."""
        grey = TEXTURE.copy()
        x = 4 + round(50 * seconds / SECONDS)
        grey[30:40, x : x + 6] = 220
        grey[10:16, self.thing : self.thing + 8] = 250
        return cv2.resize(grey, (256, 192), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def publish(lake: Lake, dataset: str, runs: Sequence[Shown]) -> None:
    """A dataset of runs, numbered from 0, as the stages would leave it."""
    tables: dict[str, list[dict]] = {
        name: []
        for name in ("episode_facts", "episode_content", "splits", "embeddings", "keyframes")
    }
    for episode, run in enumerate(runs):
        key_columns = {"dataset": dataset, "episode_index": episode, "chunk": 0}
        tables["episode_facts"].append(
            key_columns
            | {
                "source_id": str(episode),
                "fps": run.fps,
                "task": "Put it away",
                "cameras": [CAMERA],
            }
        )
        content = {"num_frames": run.num_frames, "fps": run.fps, "usable_cameras": [CAMERA]}
        tables["episode_content"].append(
            key_columns | content | {"content_hash": f"{dataset} {episode}"}
        )
        tables["splits"].append(key_columns | {"split": run.split, "group": f"{episode}"})
        for frame in range(0, run.num_frames, 2):
            cells = run.seen(frame / run.fps).astype(np.float16).astype(np.float32)
            embedding_row = {
                "camera": CAMERA,
                "frame_index": frame,
                "encoder": run.encoder,
                "device": "cpu",
            }
            whole = np.tile(cells.mean(axis=0), 4)
            tables["embeddings"].append(
                key_columns | embedding_row | {"embedding": whole, "cells": cells.ravel()}
            )
        for second in range(SECONDS):
            jpeg = cv2.imencode(".jpg", run.picture(second))[1].tobytes()
            sha256 = hashlib.sha256(jpeg).hexdigest()
            path = lake.workspace.keyframe(sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)
            keyframe_row = {
                "camera": CAMERA,
                "frame_index": round(second * run.fps),
                "purpose": "coarse",
                "sha256": sha256,
            }
            tables["keyframes"].append(key_columns | keyframe_row | {"label_run": ""})
    put_rows(lake, datasets=[{"dataset": dataset, "chunk_size": 100}])
    for stage, names in {
        "episodes": ("episode_facts", "splits"),
        "frames": ("episode_content", "keyframes"),
        "embeddings": ("embeddings",),
    }.items():
        chunk = None if stage == "episodes" else 0
        parts = [stage_run(dataset=dataset, stage=stage)] if chunk is None else []
        rows = {name: TABLES[name].rows(tables[name]) for name in names if tables[name]}
        lake.publish(stage_run(dataset=dataset, stage=stage, chunk=chunk), rows, parts=parts)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out runs of four scenes in the dataset `held`; not for changing."""
    lake = Lake(Workspace(tmp_path_factory.mktemp("held") / "corpus"))
    publish(lake, "held", [Shown(scene, split="test_id") for scene in range(4)])
    lake.con.close()
    return lake.workspace.root


@pytest.fixture
def lake(held_out: Path, tmp_path: Path) -> Iterator[Lake]:
    """Their lake, in a copy."""
    with opened(Workspace(shutil.copytree(held_out, tmp_path / "corpus"))) as lake:
        yield lake


@pytest.mark.parametrize("fps", [5.0, 7.0, 10.0, 20.0])
def test_a_copy_at_another_rate_is_named(lake: Lake, fps: float):
    publish(lake, "other", [Shown(9), Shown(2, fps=fps, noise=0.1), Shown(8)])
    outcome = no_split_leak(lake)
    assert not outcome.passed
    assert outcome.numbers["look_alikes"] == 1
    detail = "held episode 2 (test_id) looks to mobilenet_v2@64 like other episode 1 (train) from beginning to end"
    assert detail in outcome.detail


def test_runs_in_which_nothing_moves_all_look_alike(tmp_path: Path):
    lake = Lake(Workspace(tmp_path))
    publish(lake, "held", [Shown(1, split="val", moves=False)])
    publish(lake, "other", [Shown(1, fps=5.0, moves=False)])
    assert no_split_leak(lake).numbers["look_alikes"] == 0


def test_what_was_not_compared_is_said(lake: Lake):
    copy = Shown(2, fps=5.0, encoder="grey@64")
    publish(lake, "other", [copy])
    outcome = no_split_leak(lake)
    assert (outcome.passed, outcome.numbers["look_alikes"]) == (True, 0)
    assert (
        "another encoder than at the others has looked at held, by mobilenet_v2@64 (grid 2)"
        in outcome.detail
    )
    lake.con.execute("DELETE FROM embeddings WHERE dataset = 'other'")
    outcome = no_split_leak(lake)
    assert (outcome.passed, outcome.numbers["look_alikes"]) == (True, 0)
    assert (
        'what an encoder saw: no encoder has looked at other (embeddings.when = "always")'
        in outcome.detail
    )
    assert no_split_leak(lake, ["held"]).detail == "no leak", (
        "one dataset has no other to be compared with"
    )
