"""Samples that show runs of other chunks: independent of what is built, made anew when what they show changes."""

import shutil
from pathlib import Path

import pytest

from core.paths import Workspace
from ingest.splits import SplitConfig
from pipeline.build import run_build
from pipeline.chunk import ChunkTask, run_chunk
from pipeline.config import DatasetBuild
from pipeline.plan import CURRENT, plan
from pipeline.stage import StageContext, run_stage
from pipeline.stages import stage_specs
from tests.kits.made_corpus import build_of
from tests.kits.tiny_lerobot import make_dataset, video_path
from warehouse.lake import Lake
from warehouse.releases.takedown import take_down

EPISODES = 6


def one_split(source: Path) -> DatasetBuild:
    """Chunks of two episodes, one of each task, all for training."""
    build = build_of(source)
    stages = build.stages.model_copy(
        update={
            "splits": SplitConfig(val=0, test_id=0),
            "samples": build.stages.samples.model_copy(update={"unanswerable_per_episode": 6}),
        }
    )
    return build.model_copy(update={"stages": stages})


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    build = one_split(make_dataset(folder / "source", [20] * EPISODES))
    assert not run_build(Workspace(folder / "workspace"), [build], workers=1).failed
    return folder


@pytest.fixture
def built(once: Path, tmp_path: Path) -> tuple[Workspace, DatasetBuild]:
    """A source and a workspace of one's own; times of files are kept, so nothing is stale."""
    source = shutil.copytree(once / "source", tmp_path / "source")
    return Workspace(shutil.copytree(once / "workspace", tmp_path / "workspace")), one_split(source)


def not_current(lake: Lake, build: DatasetBuild) -> set[tuple[str, int | None]]:
    source = build.source(lake.workspace.sources)
    steps = plan(lake, {build.name: stage_specs(build)}, {build.name: source.fingerprint()})
    return {(step.stage.name, step.chunk) for step in steps if step.status != CURRENT}


def beyond(lake: Lake) -> dict[int, set[int]]:
    """Episodes of other chunks that the samples of each chunk show."""
    rows = lake.rows(
        "SELECT chunk, list(DISTINCT p.episode_index) FROM (SELECT chunk, unnest(pictures) AS p FROM samples) "
        "WHERE p.episode_index // 2 <> chunk GROUP BY 1"
    )
    return {chunk: set(episodes) for chunk, episodes in rows}


def shards(lake: Lake) -> list[tuple]:
    return lake.rows("SELECT chunk, sha256, samples FROM shards ORDER BY 1, 2")


def one_chunk(space: Workspace, build: DatasetBuild, chunk: int) -> Lake:
    """A workspace with the listing and one chunk."""
    lake = Lake(space)
    source = build.source(space.sources)
    fingerprint = source.fingerprint()
    (listing,) = plan(lake, {build.name: stage_specs(build)}, {build.name: fingerprint})
    run_stage(StageContext(lake, build, listing, source))
    assert run_chunk(ChunkTask(str(space.root), build, fingerprint, chunk, 1, "")).failed is None
    return lake


def test_samples_do_not_depend_on_which_chunks_are_built(built: tuple[Workspace, DatasetBuild], tmp_path: Path):
    space, build = built
    lake = Lake(space, read_only=True)
    shown = beyond(lake)
    assert shown.keys() == {0, 1, 2}
    before = shards(lake)
    # By several workers, and in a workspace where no other chunk is ever built
    whole, alone = Workspace(tmp_path / "whole"), Workspace(tmp_path / "alone")
    assert not run_build(whole, [build], workers=2).failed
    assert shards(Lake(whole, read_only=True)) == before
    assert shards(one_chunk(alone, build, 1)) == [row for row in before if row[0] == 1]


def test_a_takedown_makes_anew_what_shows_the_episode(built: tuple[Workspace, DatasetBuild]):
    space, build = built
    lake = Lake(space)
    shown = beyond(lake)
    down = 5
    showing = {chunk for chunk, episodes in shown.items() if down in episodes}
    assert showing
    take_down(lake, build.name, [down], "by wish")
    report = run_build(space, [build], workers=1)
    assert not report.failed
    ran = {(r.run.stage, r.run.chunk) for r in report.done}
    assert ("episodes", None) in ran
    assert {("samples", chunk) for chunk in showing} <= ran
    assert not {(stage, chunk) for stage in ("frames", "segments", "progress") for chunk in (0, 1)} & ran
    assert all(down not in episodes for episodes in beyond(Lake(space, read_only=True)).values())


def test_another_file_of_a_shown_run_makes_samples_and_shards_anew(built: tuple[Workspace, DatasetBuild]):
    space, build = built
    lake = Lake(space)
    shown = beyond(lake)
    touched = 4
    video = video_path(Path(build.dataset.source), touched)
    shutil.copy(video_path(Path(build.dataset.source), 2), video)
    report = run_build(space, [build], workers=1)
    ran = {(r.run.stage, r.run.chunk) for r in report.done}
    for chunk in (0, 1):
        offered = {e for (e,) in lake.rows("SELECT episode_index FROM other_tasks WHERE chunk = ?", [chunk])}
        assert shown[chunk] <= offered
        assert (("samples", chunk) in ran) == (("shards", chunk) in ran) == (touched in offered)
        assert ("frames", chunk) not in ran
    assert not_current(Lake(space, read_only=True), build) == set()


def test_a_damaged_run_beyond_costs_the_samples_that_show_it(built: tuple[Workspace, DatasetBuild]):
    space, build = built
    lost = max(beyond(Lake(space, read_only=True))[0])
    video = video_path(Path(build.dataset.source), lost)
    video.write_bytes(video.read_bytes()[:200])
    assert not run_build(space, [build], workers=1).failed
    lake = Lake(space, read_only=True)
    warnings = lake.rows(
        "SELECT episode_index, severity, detail FROM findings WHERE stage = 'shards' AND chunk = 0 ORDER BY 1"
    )
    assert warnings
    assert {severity for _, severity, _ in warnings} == {"warning"}
    assert {episode for episode, _, _ in warnings} <= {0, 1}
    assert all(f"of episode {lost}, camera" in detail for *_, detail in warnings)
    assert lake.rows("SELECT count(*) FROM episodes WHERE chunk = 0 AND status = 'ok'") == [(2,)]


def test_a_workspace_of_before_plans_the_listing_and_then_samples(built: tuple[Workspace, DatasetBuild]):
    space, build = built
    lake = Lake(space)
    # As an earlier version left it: no runs of other chunks were listed, and the listing's code was another
    lake.con.execute("UPDATE stage_runs SET others_hash = NULL")
    lake.con.execute("DELETE FROM other_tasks")
    lake.con.execute("UPDATE stage_runs SET input_hash = 'before' WHERE stage = 'samples'")
    lake.con.execute("UPDATE stage_runs SET input_hash = 'before' WHERE stage = 'episodes' AND chunk = -1")
    report = run_build(space, [build], workers=1)
    assert not report.failed
    # Pictures are not measured again, and samples come out as they were
    assert {r.run.stage for r in report.done} == {"episodes", "samples"}
