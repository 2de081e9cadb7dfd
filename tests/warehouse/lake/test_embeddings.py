"""Embeddings as numpy arrays, and as a view that SQL measures likeness with."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import stage_run
from warehouse.lake import Lake
from warehouse.lake.similarity import episode_embeddings

FRAMES = 5


def seen(episode: int, camera: str, frame: int) -> np.ndarray:
    """256 numbers of the picture and 4 x 64 of its cells, as a float16 holds them."""
    rng = np.random.default_rng([episode, len(camera), frame])
    return rng.normal(size=256 + 4 * 64).astype(np.float16).astype(np.float32)


def row(episode: int, camera: str, frame: int, **changes: object) -> dict:
    numbers = seen(episode, camera, frame)
    key_columns = {
        "dataset": "a",
        "episode_index": episode,
        "camera": camera,
        "frame_index": frame,
        "chunk": 0,
    }
    defaults = {
        "encoder": "grey@64",
        "device": "cpu",
        "embedding": numbers[:256],
        "cells": numbers[256:],
    }
    return key_columns | defaults | changes


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Episodes 0 and 2 by two cameras, of which `wrist` lacks frame 3; episode 1 by one; episode 3 has none."""
    lake = Lake(Workspace(tmp_path))
    rows = [row(e, "front", 3 * k) for e, k in product((0, 1, 2), range(FRAMES))]
    rows += [row(e, "wrist", 3 * k) for e, k in product((0, 2), range(FRAMES)) if k != 1]
    contents = [
        {
            "dataset": "a",
            "episode_index": e,
            "chunk": 0,
            "num_frames": 15,
            "fps": 15.0,
            "usable_cameras": cameras,
        }
        for e, cameras in enumerate((["wrist", "front"], ["front"], ["wrist", "front"], ["front"]))
    ]
    facts = [
        {
            "dataset": "a",
            "episode_index": e,
            "chunk": 0,
            "source_id": str(e),
            "fps": 15.0,
            "task": "Press",
        }
        for e in range(4)
    ]
    lake.publish(stage_run(stage="embeddings"), {"embeddings": TABLES["embeddings"].rows(rows)})
    lake.publish(
        stage_run(stage="frames"), {"episode_content": TABLES["episode_content"].rows(contents)}
    )
    lake.publish(
        stage_run(stage="episodes"), {"episode_facts": TABLES["episode_facts"].rows(facts)}
    )
    return lake


def test_parts_and_cameras_are_as_asked_for(lake: Lake):
    cells = episode_embeddings(lake.con, "a", {1, 2}, parts=("cells",))
    np.testing.assert_array_equal(cells[1].features[2], seen(1, "front", 6)[256:])
    of_wrist = episode_embeddings(lake.con, "a", [0, 1], cameras=["wrist"], parts=("embedding",))
    assert list(of_wrist) == [0], "episode 1 has no such camera"
    np.testing.assert_array_equal(of_wrist[0].features[0], seen(0, "wrist", 0)[:256])


def test_encoders_and_grids_are_not_mixed(lake: Lake):
    def published(*rows: dict) -> None:
        lake.publish(
            stage_run(stage="embeddings", chunk=1),
            {"embeddings": TABLES["embeddings"].rows(list(rows))},
        )

    published(row(7, "front", 0, chunk=1, encoder="other@64"))
    assert list(episode_embeddings(lake.con, "a", [1])) == [1], (
        "another encoder of other episodes is no trouble"
    )
    with pytest.raises(UserError, match=r"several encoders \(grey@64, other@64\); build it again"):
        episode_embeddings(lake.con, "a", [1, 7])
    published(row(1, "wide", 0, chunk=1, cells=np.zeros(64)))
    lake.con.execute("UPDATE episode_content SET usable_cameras = ['wide'] WHERE episode_index = 1")
    with pytest.raises(UserError, match="grids of several sizes"):
        episode_embeddings(lake.con, "a", [1, 2])
