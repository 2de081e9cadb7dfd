"""Frames and runs by likeness: which come, in which order, and what is said where none can."""

import math
import random
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.paths import Workspace
from core.tables import TABLES
from tests.kits.embedded import embed
from tests.kits.lake_kit import opened, put_rows, query, stage_run
from warehouse.lake import Lake
from warehouse.lake.lists import LISTS
from warehouse.lake.similarity import episode_embeddings, most_similar
from warehouse.lake.sql import open_for_users

STILL = [0.0] * 8


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    """Two datasets by one encoder, a third by another one, and one at which none has looked; not for changing."""
    lake = Lake(Workspace(tmp_path_factory.mktemp("embedded") / "corpus"))
    turning = [10.0 * k for k in range(8)]
    embed(
        lake,
        "a",
        {
            0: {"front": turning, "wrist": [90.0 + angle for angle in turning]},
            1: {"front": [angle + 2 for angle in turning]},
            2: {"front": STILL},
            3: {"front": turning[::-1]},
        },
    )
    embed(lake, "b", {5: {"top": [angle + 1 for angle in turning]}, 6: {"top": [180.0] * 8}})
    embed(lake, "c", {0: {"front": turning}}, encoder="other@64")
    put_rows(lake, datasets=[{"dataset": "d", "chunk_size": 100}])
    lake.con.close()
    return lake.workspace.root


@pytest.fixture
def lake(embedded: Path, tmp_path) -> Iterator[Lake]:
    """Its lake, in a copy."""
    with opened(Workspace(shutil.copytree(embedded, tmp_path / "corpus"))) as lake:
        yield lake


def test_runs_are_alike_by_what_is_in_them_in_any_order(lake):
    _, similar = most_similar(lake.con, "a", 0)
    assert [(s["dataset"], s["episode_index"]) for s in similar] == [
        ("a", 3),
        ("b", 5),
        ("a", 1),
        ("a", 2),
        ("b", 6),
    ]
    assert similar[0]["likeness"] == pytest.approx(1)
    against_still = sum(math.cos(math.radians(10 * k)) for k in range(8)) / 8
    assert similar[3]["likeness"] == pytest.approx(against_still, abs=1e-5)


def test_equally_similar_runs_are_in_the_order_of_their_names(lake):
    numbers = list(range(14))
    random.Random(0).shuffle(numbers)
    for chunk, number in enumerate(numbers):
        embed(lake, "same", {number: {"front": STILL}}, chunk=chunk)
    expected = [n for n in range(14) if n != 7][:12]
    lake.con.execute("SET threads = 4")
    assert [
        s["episode_index"]
        for s in most_similar(lake.con, "same", 7, 0, among="same", max_matches=12)[1]
    ] == expected
    assert [
        s["episode_index"]
        for s in most_similar(lake.con, "same", 7, among="same", max_matches=12)[1]
    ] == expected


def test_users_ask_the_same_in_one_line_of_sql(lake):
    lake.con.close()
    con = open_for_users(lake.workspace)
    condition = "dataset = 'a' AND episode_index = 0 AND camera = 'front'"
    sql = (
        f"FROM similar_frames WHERE {condition} AND frame_index = 6 ORDER BY likeness DESC LIMIT 2"
    )
    frames = query(con, sql).to_pylist()
    assert [(r["other_dataset"], r["other_episode"], r["other_frame"]) for r in frames] == [
        ("a", 3, 8),
        ("b", 5, 6),
    ]
    runs = query(con, f"FROM similar_runs WHERE {condition} ORDER BY likeness DESC").to_pylist()
    assert [(r["other_dataset"], r["other_episode"]) for r in runs][:2] == [("a", 3), ("b", 5)]


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
def vector_lake(tmp_path) -> Lake:
    """Episodes 0 and 2 by two cameras, of which `wrist` lacks frame 3; episode 1 by one; episode 3 has none."""
    vector_lake = Lake(Workspace(tmp_path))
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
    vector_lake.publish(
        stage_run(stage="embeddings"), {"embeddings": TABLES["embeddings"].rows(rows)}
    )
    vector_lake.publish(
        stage_run(stage="frames"), {"episode_content": TABLES["episode_content"].rows(contents)}
    )
    vector_lake.publish(
        stage_run(stage="episodes"), {"episode_facts": TABLES["episode_facts"].rows(facts)}
    )
    return vector_lake


def test_parts_and_cameras_are_as_asked_for(vector_lake):
    cells = episode_embeddings(vector_lake.con, "a", {1, 2}, parts=("cells",))
    np.testing.assert_array_equal(cells[1].features[2], seen(1, "front", 6)[256:])
    of_wrist = episode_embeddings(
        vector_lake.con, "a", [0, 1], cameras=["wrist"], parts=("embedding",)
    )
    assert list(of_wrist) == [0], "episode 1 has no such camera"
    np.testing.assert_array_equal(of_wrist[0].features[0], seen(0, "wrist", 0)[:256])


def test_encoders_and_grids_are_not_mixed(vector_lake):
    def published(*rows: dict) -> None:
        vector_lake.publish(
            stage_run(stage="embeddings", chunk=1),
            {"embeddings": TABLES["embeddings"].rows(list(rows))},
        )

    published(row(7, "front", 0, chunk=1, encoder="other@64"))
    assert list(episode_embeddings(vector_lake.con, "a", [1])) == [1], (
        "another encoder of other episodes is no trouble"
    )
    with pytest.raises(UserError, match=r"several encoders \(grey@64, other@64\); build it again"):
        episode_embeddings(vector_lake.con, "a", [1, 7])
    published(row(1, "wide", 0, chunk=1, cells=np.zeros(64)))
    vector_lake.con.execute(
        "UPDATE episode_content SET usable_cameras = ['wide'] WHERE episode_index = 1"
    )
    with pytest.raises(UserError, match="grids of several sizes"):
        episode_embeddings(vector_lake.con, "a", [1, 2])


def test_a_last_answer_that_cannot_be_read_is_no_former_answer(tmp_path):
    answer = {"eval_run": "new", "dataset": "d", "episode_index": 0, "target": 0.5}
    answers = [
        answer | {"frame_index": 4, "prediction": 0.75},
        answer | {"frame_index": 8},
    ]
    with opened(Workspace(tmp_path)) as lake:
        put_rows(lake, eval_predictions=answers)
        [behind] = lake.dicts(LISTS["scored_episodes"].sql)
    assert [behind[name] for name in ("readable", "last", "last_target")] == [1, None, 0.5]
