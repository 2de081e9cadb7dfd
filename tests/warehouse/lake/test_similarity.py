"""Frames and runs by likeness: which come, in which order, and what is said where none can."""

import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.paths import Workspace
from tests.kits.embedded import embed
from tests.kits.lake_kit import opened, put_rows, query
from warehouse.lake import Lake
from warehouse.lake.similarity import most_similar
from warehouse.lake.sql import open_for_users

STILL = [0.0] * 8


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def lake(embedded: Path, tmp_path: Path) -> Iterator[Lake]:
    """Its lake, in a copy."""
    with opened(Workspace(shutil.copytree(embedded, tmp_path / "corpus"))) as lake:
        yield lake


def test_runs_are_alike_by_what_is_in_them_in_any_order(lake: Lake):
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


def test_equally_similar_runs_are_in_the_order_of_their_names(lake: Lake):
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


def test_users_ask_the_same_in_one_line_of_sql(lake: Lake):
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
