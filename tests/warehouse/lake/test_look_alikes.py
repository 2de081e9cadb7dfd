"""Look-alikes are named, and a takedown reaches them; different runs are not."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from core.paths import Workspace
from core.tables import TABLES
from ingest.recordings import MOMENTS, VERSION, Likeness
from tests.kits.lake_kit import opened, put_rows, stage_run
from warehouse.lake import Lake
from warehouse.lake.checks import no_split_leak
from warehouse.lake.recordings import decide, decided_apart, withdraw
from warehouse.lake.statements import undo_takedown

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


SHOWN = [(k * 0x9E3779B97F4A7C15) % 2**64 for k in range(1, MOMENTS + 1)]
ENCODED_ANEW = [SHOWN[0], *(picture ^ 5 for picture in SHOWN[1:])]
OTHER = [picture ^ 0xFFFFFFFF for picture in SHOWN]
# By dataset and episode the hash of the rows, frames and pictures
RUNS = {
    ("arm", 4): ("rows", 40, SHOWN),
    ("copied", 4): ("rows", 40, ENCODED_ANEW),
    ("half_rate", 4): (None, 20, ENCODED_ANEW),
    ("other", 4): (None, 40, OTHER),
    ("other_rows", 4): ("others", 20, ENCODED_ANEW),
    ("video", 4): (None, 40, ENCODED_ANEW),
}
DOWN_SQL = "SELECT dataset, is_sure FROM current_takedowns ORDER BY 1"


def put_runs(lake: Lake, runs: Mapping[tuple[str, int], tuple], **rows: list[dict]) -> None:
    tables = {"datasets": [{"dataset": name, "chunk_size": 8} for name in {d for d, _ in runs}]}
    for (dataset, number), (rows_hash, frames, moments) in runs.items():
        place = {"dataset": dataset, "episode_index": number}
        of_recording = place | {"recording": f"r {dataset} {number}", "source_id": str(number)}
        layers = {"rows_hash": rows_hash, "num_frames": frames, "moments": moments}
        layers |= {"fingerprint_version": VERSION, "usable_cameras": ["front"]}
        content = of_recording | layers | {"chunk": 0, "content_hash": str(place)}
        for table in ("episode_facts", "episode_content", "recordings"):
            columns = TABLES[table].schema.names
            tables.setdefault(table, []).append({k: v for k, v in content.items() if k in columns})
    tables |= rows
    put_rows(lake, **tables)


def test_copies_are_taken_down_or_not_used_until_a_person_decides(tmp_path: Path):
    with opened(Workspace(tmp_path)) as lake:
        put_runs(lake, RUNS)
        assert withdraw(lake, "arm", [4], "withdrawn") == [
            ("copied", 4, Likeness.SAME),
            ("half_rate", 4, Likeness.PROBABLE),
            ("video", 4, Likeness.PROBABLE),
        ]
        unsure = [("half_rate", False), ("video", False)]
        assert lake.rows(DOWN_SQL) == [("arm", True), ("copied", True), *unsure]

        decide(lake, "video", 4, is_same=True, author="dora")
        decide(lake, "half_rate", 4, is_same=False, author="dora")
        assert lake.rows(DOWN_SQL) == [("arm", True), ("copied", True), ("video", True)]
        numbers = "SELECT episode_index FROM recordings WHERE left_at IS NULL"
        assert lake.column(numbers) == [4] * len(RUNS), "each keeps its number"

        # What a person said of it holds when it is taken down again
        # With it, marks of its copies go, the one that a person named included
        marks = undo_takedown(lake, "arm", None)
        assert marks == {"arm": 1, "copied": 1, "video": 1}
        assert lake.rows(DOWN_SQL) == []
        assert "half_rate" not in {name for name, _, _ in withdraw(lake, "arm", [4], "again")}


@pytest.mark.parametrize(
    ("of_rows", "of_cells", "degree"),
    [
        (0.5, 60, Likeness.OTHER),
        (0.5, 10, Likeness.PROBABLE),
        (0.0, 60, Likeness.PROBABLE),
        (None, 60, Likeness.PROBABLE),
    ],
    ids=["another start", "pictures encoded anew", "the same rows", "no rows"],
)
def test_of_one_dataset_rows_decide_where_pictures_differ_by_more_than_encoding(
    tmp_path: Path, of_rows: float | None, of_cells: int, degree: Likeness
) -> None:
    frames = [
        {"dataset": "arm", "chunk": 0, "episode_index": k // 40, "frame_index": k % 40}
        for k in range(80)
    ]
    pictures = [
        frame | {"camera": "front", "luma": bytes([of_cells * frame["episode_index"]] * 256)}
        for frame in frames
    ]
    states = [
        frame | {"state": [frame["frame_index"] / 40 + of_rows * frame["episode_index"], 1.0]}
        for frame in frames
        if of_rows is not None
    ]
    with opened(Workspace(tmp_path)) as lake:
        runs = {("arm", number): (f"rows {number}", 40, SHOWN) for number in (0, 1)}
        put_runs(lake, runs, states=states, tiny_pictures=pictures)
        assert withdraw(lake, "arm", [0], "withdrawn") == [("arm", 1, degree)]
        unsure = lake.column("SELECT episode_index FROM current_takedowns WHERE NOT is_sure")
        assert unsure == [1] * (degree == Likeness.PROBABLE)
        # A build that looks at its pictures again is told so, too
        assert ("r arm 1" in decided_apart(lake)) == (degree == Likeness.OTHER)
