"""Frames and runs by likeness: which come, in which order, and what is said where none can."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.embedded import embed
from warehouse.lake import Lake
from warehouse.lake.embeddings import EmbeddingsError
from warehouse.lake.likeness import frames_like, runs_like

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
    lake.upsert("nobody looked", datasets=TABLES["datasets"].rows([{"dataset": "d", "chunk_size": 100}]))
    lake.con.close()
    return lake.workspace.root


@pytest.fixture
def lake(embedded: Path, tmp_path: Path) -> Iterator[Lake]:
    """Its lake, in a copy."""
    lake = Lake(Workspace(shutil.copytree(embedded, tmp_path / "corpus")))
    yield lake
    lake.con.close()


@pytest.mark.parametrize(
    ("dataset", "episode", "more", "says"),
    [
        ("d", 0, {}, r'no encoder has looked at d: put when = "always" below \[embeddings\]'),
        ("nowhere", 0, {}, "there is no dataset 'nowhere' in this corpus"),
        ("a", 99, {}, "a has no episode 99"),
        ("a", 4, {}, "a episode 4: no encoder has looked at it: put when"),
        ("a", 0, {"camera": "rear"}, "has looked at a camera 'rear', only at front, wrist"),
        ("a", 0, {"among": "d"}, "no encoder has looked at d: put when"),
        ("a", 0, {"among": "c"}, "grey@64 has looked at a, other@64 at c: what two encoders see cannot be compared"),
    ],
)
def test_what_cannot_be_compared_says_why(lake: Lake, dataset: str, episode: int, more: dict, says: str):
    fact = {"dataset": "a", "episode_index": 4, "chunk": 0, "source_id": "4", "fps": 10.0, "cameras": ["front"]}
    lake.upsert("a run that no encoder saw", episode_facts=TABLES["episode_facts"].rows([fact]))
    with pytest.raises(EmbeddingsError, match=says):
        runs_like(lake.con, dataset, episode, **more)
    with pytest.raises(EmbeddingsError, match=says):
        frames_like(lake.con, dataset, episode, 0, **more)


def test_a_lake_from_before_there_was_a_search_says_what_to_do(lake: Lake):
    lake.con.execute("DROP VIEW similar_runs")
    with pytest.raises(EmbeddingsError, match="no encoder has looked at a: put when"):
        runs_like(lake.con, "a", 0)
