"""Where samples show every frame, a build decodes a video once: what is kept of it, used, and not used."""

import numpy as np
import pytest

from annotate.samples.config import SamplesConfig
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import DatasetBuild
from pipeline.picture_cache import PictureCache, picture_cache
from pipeline.plan import STALE
from pipeline.stage import ChunkStep, StageContext, StageReport
from pipeline.stages.shards import STAGE
from tests.kits.made_corpus import Made
from warehouse.lake import Lake


def published(build: DatasetBuild) -> DatasetBuild:
    """Under the recipe that shows every frame, and no edited ones: those are made of what is decoded anew."""
    samples = SamplesConfig(profile="procvlm", unanswerable_per_episode=0)
    stages = build.stages.model_copy(update={"samples": samples})
    return build.model_copy(update={"stages": stages})


def decoded(done: list[StageReport], stage: str) -> int:
    return sum(int(r.numbers["decoded_frames"]) for r in done if r.run.stage == stage)


def shards_of(
    lake: Lake, build: DatasetBuild, chunk: int, pictures: PictureCache | None = None
) -> list[tuple[str, str]]:
    step = ChunkStep(STAGE.spec(build), build.name, STALE, "in", chunk)
    source = build.source(lake.workspace.sources)
    output = STAGE.run(StageContext(lake, build, step, source, pictures=pictures))
    assert output.findings == []
    return sorted((r["shard"], r["sha256"]) for r in output.tables["shards"].to_pylist())


@pytest.fixture(scope="module")
def fresh(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Built from nothing, with all frames stored."""
    space, build = Workspace(tmp_path_factory.mktemp("fresh")), published(made.build)
    report = run_build(space, [build], workers=1)
    assert not report.failed
    return Made(space, build, report)


def test_pictures_of_the_one_decoding_make_the_same_shards(made: Made, fresh: Made):
    frames = fresh.rows("SELECT count(*) FROM frames")[0][0]
    assert (decoded(fresh.report.done, "frames"), decoded(fresh.report.done, "shards")) == (frames, 0)
    assert decoded(made.report.done, "shards") > 0  # under the usual recipe nothing is kept
    lake = Lake(fresh.space)
    again = [shard for chunk in (0, 1, 2) for shard in shards_of(lake, fresh.build, chunk)]  # decodes once more
    assert sorted(again) == fresh.rows("SELECT shard, sha256 FROM shards ORDER BY 1")
    assert {p.suffix for p in (fresh.space.root / "shards").rglob("*.*")} == {".tar", ".json"}
    with picture_cache(made.space, made.build) as pictures:  # the usual recipe again
        assert pictures is None


def test_pictures_of_another_run_of_the_frames_stage_are_not_used(fresh: Made):
    lake = Lake(fresh.space)
    ((camera,),) = lake.rows("SELECT DISTINCT camera FROM frames")
    ((present,),) = lake.rows("SELECT input_hash FROM stage_runs WHERE stage = 'frames' AND chunk = 0")
    right = shards_of(lake, fresh.build, 0)
    found = {}
    with picture_cache(fresh.space, fresh.build) as pictures:
        assert pictures is not None
        for run in ("another", present):
            (kept,) = pictures.keepers(run)
            for frame in (0, 1):
                kept.keep(0, camera, frame, np.zeros((64, 64, 3), np.uint8))
            kept.drop(0, "no such camera")
            found[run] = shards_of(lake, fresh.build, 0, pictures)
    assert found["another"] == right
    assert found[present] != right
