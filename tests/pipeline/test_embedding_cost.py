"""What embeddings will cost, by the listing, against what a build then looks at."""

from pathlib import Path

import pytest

from core.paths import Workspace
from pipeline.build import run_build
from pipeline.prediction import embedding_cost
from tests.kits.made_corpus import Made
from tests.pipeline.stages.test_embeddings import looking
from warehouse.lake import Lake
from warehouse.lake.similarity import embedded_pictures


def test_what_is_foretold_is_what_a_build_looks_at(made: Made, tmp_path: Path):
    build, space = looking(made.build), Workspace(tmp_path / "ws")
    before = embedding_cost(None, build, tmp_path / "sources")
    assert (before.episodes, before.embedded, before.left_out) == (5, 0, 0)
    assert before.cpu_s == pytest.approx(before.pictures * 0.0004)
    assert not run_build(space, [build], workers=1).failed

    lake = Lake(space, read_only=True)
    assert lake.rows("SELECT count(*) FROM embeddings") == [(before.pictures,)]
    after = embedding_cost(lake, build, space.sources)
    assert (after.pictures, after.episodes, after.embedded) == (0, 0, 5)
    again = embedding_cost(lake, build, space.sources, from_scratch=True)
    assert again.pictures == before.pictures
    other = embedding_cost(lake, looking(build, hz=1000), space.sources)
    frames = lake.rows("SELECT sum(num_frames)::BIGINT FROM episode_content")[0][0]
    assert other.pictures == frames, "another rate is to be done anew"
    assert embedded_pictures(lake) == {"tiny": f"{before.pictures} pictures by grey@64"}
