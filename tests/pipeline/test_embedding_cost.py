"""What embeddings will cost, by the listing, against what a build then looks at."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import make_app
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.prediction import embedding_cost
from tests.kits.made_corpus import Made
from tests.pipeline.stages.test_embeddings import looking
from warehouse.lake import Lake
from warehouse.lake.embedded import embedded_pictures


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
    again = embedding_cost(lake, build, space.sources, again=True)
    assert again.pictures == before.pictures
    other = embedding_cost(lake, looking(build, hz=1000), space.sources)
    frames = lake.rows("SELECT sum(num_frames)::BIGINT FROM episode_content")[0][0]
    assert other.pictures == frames, "another rate is to be done anew"
    assert embedded_pictures(lake) == {"tiny": f"{before.pictures} pictures by grey@64"}
    lake.con.close()


def test_the_command_says_it(tmp_path: Path):
    config = tmp_path / "build.toml"
    config.write_text('datasets = ["sim_short"]\n[embeddings]\nwhen = "always"\nencoder = "grey"\n')
    arguments = ["dry-run", "--config", str(config), "--workspace", str(tmp_path / "none"), "--episodes", "0-2"]
    result = CliRunner().invoke(make_app(), [*arguments, "--format", "json"], catch_exceptions=False)
    (facts,) = json.loads(result.stdout)
    assert (facts["dataset"], facts["embeddings"]["episodes"]) == ("sim_short", 3)
    assert facts["embeddings"]["pictures"] > 3
    words = CliRunner().invoke(make_app(), arguments, catch_exceptions=False).stdout
    assert f"sim_short: grey looks at {facts['embeddings']['pictures']} pictures of 3 episodes" in words
