"""What embeddings will cost, by the listing, against what a build then looks at."""

from pathlib import Path

import pytest

from cli.status import status_rows
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.prediction import embedding_cost
from tests.kits.made_corpus import Made
from tests.pipeline.stages.test_embeddings import looking
from warehouse.lake import Lake


def test_what_is_foretold_is_what_a_build_looks_at(made: Made, tmp_path: Path):
    build = looking(made.build)
    space = Workspace(tmp_path / "ws")
    cost_before = embedding_cost(None, build, tmp_path / "sources")
    assert (cost_before.episodes, cost_before.embedded, cost_before.left_out) == (5, 0, 0)
    assert cost_before.cpu_s == pytest.approx(cost_before.pictures * 0.0004)
    assert not run_build(space, [build], workers=1).failed

    lake = Lake(space, read_only=True)
    assert lake.rows("SELECT count(*) FROM embeddings") == [(cost_before.pictures,)]
    cost_after = embedding_cost(lake, build, space.sources)
    assert (cost_after.pictures, cost_after.episodes, cost_after.embedded) == (0, 0, 5)
    repeated_cost = embedding_cost(lake, build, space.sources, from_scratch=True)
    assert repeated_cost.pictures == cost_before.pictures
    other_cost = embedding_cost(lake, looking(build, hz=1000), space.sources)
    frames = lake.rows("SELECT sum(num_frames)::BIGINT FROM episode_content")[0][0]
    assert other_cost.pictures == frames, "another rate is to be done anew"
    [status] = status_rows(lake)
    assert status["embeddings"] == f"{cost_before.pictures} pictures by grey@64"
