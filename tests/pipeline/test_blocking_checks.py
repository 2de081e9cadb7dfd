"""A blocking check that fails: no shards and no release of that dataset; the others go on."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import dagster as dg
import pytest

from assets.defs.corpus.jobs import build_job
from assets.defs.models.assets import release
from assets.defs.resources import CorpusResource, VlmServer
from core.paths import Workspace
from core.tables import TABLES
from ingest.sources.types import SourceError
from pipeline.build import BuildReport, run_build
from pipeline.config import ChecksConfig, DatasetBuild, load_config
from pipeline.doctor import diagnose
from pipeline.stage import Output, StageContext, StepFailure
from pipeline.stages import STAGES
from tests.assets.defs.corpus.test_assets import ASSETS, failure, materialize
from tests.kits.cli_kit import command, write_configs
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made, build_of, with_stages
from tests.kits.tiny_lerobot import LENGTHS, make_dataset, write_video
from warehouse.lake.references import stored_builds
from warehouse.lake.renaming import rename
from warehouse.lake.statements import take_down
from warehouse.releases.contents import ReleaseError, contents
from warehouse.releases.release import create_release

DECODABLE = "the check decodable_coverage of frames failed in chunk 0"


def make_broken(folder: Path) -> Path:
    """A dataset of which only two of five videos show all of their episode."""
    source = make_dataset(folder)
    for episode in (1, 2, 4):
        write_video(source, episode, LENGTHS[episode] // 2)
    return source


def named(build: DatasetBuild, name: str) -> DatasetBuild:
    """The build with all of its episodes in one chunk, and an open licence."""
    facts = {"name": name, "license": "cc-by-4.0", "chunk_size": 10}
    return build.model_copy(update={"dataset": build.dataset.model_copy(update=facts)})


@pytest.fixture(scope="module")
def made_both(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("blocking")
    make_broken(folder / "broken")
    make_dataset(folder / "sound", [length + 3 for length in LENGTHS])
    entries = {name: f"source: ../{name}\nlicense: cc-by-4.0\n" for name in ("broken", "sound")}
    builds = load_config(write_configs(folder, entries, 'embeddings = {when = "never"}'))
    space = Workspace(folder / "workspace")
    return Made(space, builds[0], run_build(space, builds, workers=1))


@pytest.fixture
def both(made_both: Made, tmp_path: Path) -> Made:
    """A workspace into which the datasets `broken` and `sound` were built."""
    copied = shutil.copytree(made_both.space.root, tmp_path / "workspace")
    return replace(made_both, space=Workspace(copied))


def in_shards(made_corpus: Made) -> list[str]:
    return [
        dataset for (dataset,) in made_corpus.rows("SELECT DISTINCT dataset FROM shards ORDER BY 1")
    ]


def run_job(
    job: dg.JobDefinition, made_corpus: Made, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    resources = {
        "corpus": CorpusResource(root=str(made_corpus.space.root)),
        "vlm_server": VlmServer(),
    }
    return job.execute_in_process(
        run_config={"workers": 1}, instance=instance, resources=resources, raise_on_error=False
    )


def test_a_build_and_a_release_leave_it_out(both: Made):
    (failed,) = both.report.failed
    assert (failed.dataset, failed.stage) == ("broken", "demonstrations")
    assert f"{DECODABLE}: 2 of 5 episodes" in failed.message
    assert "(min_labelled); until it passes" in failed.message
    assert "demonstrations is not run" in failed.message
    assert both.report.is_partial is False
    sql = "SELECT DISTINCT stage FROM stage_runs WHERE dataset = 'broken' ORDER BY 1"
    assert both.rows(sql) == [("episodes",), ("frames",)]
    assert in_shards(both) == ["sound"]
    with opened(both.space) as lake:
        assert {shard.dataset for shard in create_release(lake, "r1").shard_list} == {"sound"}
    card = (both.space.root / "releases/r1/card.md").read_text()
    left_out = f"- broken with 0 samples: {DECODABLE}"
    assert left_out in card
    assert "(min_labelled); mend the source" in card


@pytest.mark.slow
def test_a_bad_episode_stops_nothing(tmp_path: Path):
    """The last chunk of a dataset may hold one episode alone."""
    source = make_dataset(tmp_path / "source")
    last = len(LENGTHS) - 1
    write_video(source, last, LENGTHS[last] // 2)
    build = named(build_of(source), "tiny")
    build = build.model_copy(
        update={"dataset": build.dataset.model_copy(update={"chunk_size": last})}
    )
    space = Workspace(tmp_path / "workspace")
    assert run_build(space, [build], workers=1).failed == []
    with opened(space) as lake:
        assert lake.rows("SELECT episode_index FROM quarantine") == [(last,)]
        assert {shard.dataset for shard in create_release(lake, "r1").shard_list} == {"tiny"}


@pytest.mark.parametrize("stage", [pytest.param("progress", marks=pytest.mark.slow), "samples"])
def test_a_broken_episode_is_left_out_alone(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    facts = vars(next(s for s in STAGES if s.name == stage))
    sound_run = facts["run"]

    def spoilt_run(context: StageContext) -> Output:
        output = sound_run(context)
        rows = output.tables[stage].to_pylist()
        rows[0]["progress"] = -1.0
        return replace(output, tables={**output.tables, stage: TABLES[stage].rows(rows)})

    monkeypatch.setitem(facts, "run", spoilt_run)
    build = named(build_of(make_dataset(tmp_path / "source")), "tiny")
    space = Workspace(tmp_path / "workspace")
    # The next build makes it again, and takes the finding back
    for findings, episodes in (([0], [1, 2, 3, 4]), ([], [0, 1, 2, 3, 4])):
        assert run_build(space, [build], workers=1).failed == []
        with opened(space) as lake:
            sql = "SELECT episode_index FROM findings WHERE detail LIKE '%: 1 rows against %'"
            assert lake.column(sql) == findings
            assert lake.column("SELECT DISTINCT episode_index FROM samples ORDER BY 1") == episodes
            assert create_release(lake, f"r{len(episodes)}").shard_list
        monkeypatch.undo()


@pytest.mark.slow
def test_broken_rows_are_not_released(both: Made):
    """Shards of rows that somebody changed since."""
    with opened(both.space) as lake:
        lake.con.execute(
            "UPDATE progress SET progress = 0.5 WHERE dataset = 'sound' AND frame_index = 0"
        )
        with pytest.raises(
            ReleaseError, match=r"nothing is left.*sound .*progress of sound: 5 rows against"
        ):
            create_release(lake, "r1")
    # The remedy that is named
    commands = (("doctor", "--hashes", "--repair"), ("build", "--dataset", "sound"))
    for words in commands:
        command(*words, cwd=both.space.root, workspace=both.space.root)
    with opened(both.space) as lake:
        assert {shard.dataset for shard in create_release(lake, "r1").shard_list} == {"sound"}


@pytest.mark.slow
def test_the_remedy_is_one(both: Made):
    with opened(both.space) as lake:
        take_down(lake, "broken", [1, 2, 4], "videos are cut off")
    report: BuildReport = run_build(both.space, [both.build], workers=1)
    assert report.failed == []
    assert in_shards(both) == ["broken", "sound"]


def test_dagster_asks_too(both: Made, instance: dg.DagsterInstance):
    """An asset alone, whose run holds no check; the job of ops; and the release."""
    for name in ("demonstrations", "segments"):
        failure_text = failure(materialize([ASSETS[name]], "broken:00000", both, instance))
        assert f"{name} of broken:00000 is not made: {DECODABLE}" in failure_text
    for name in ("progress", "samples", "shards"):
        assert f"{name} of broken waits for" in failure(
            materialize([ASSETS[name]], "broken:00000", both, instance)
        )
    result = run_job(build_job, both, instance)
    assert DECODABLE in failure(result)
    assert in_shards(both) == ["sound"]

    resources = {"corpus": CorpusResource(root=str(both.space.root))}
    released = dg.materialize(
        [cast(dg.AssetsDefinition, release)], instance=instance, resources=resources
    )
    (materialization,) = released.asset_materializations_for_node("release")
    assert DECODABLE in str(materialization.metadata["left_out"].value)
    assert both.rows("SELECT DISTINCT dataset FROM release_shards") == [("sound",)]


@pytest.mark.slow
def test_an_asset_alone_is_stopped_by_a_check(both: Made, instance: dg.DagsterInstance):
    """All inputs are up to date, and only the check speaks against it."""
    with opened(both.space) as lake:
        lake.con.execute(
            "UPDATE progress SET progress = 0.5 WHERE dataset = 'sound' AND frame_index = 0"
        )
    for name in ("samples", "shards"):
        failure_text = failure(materialize([ASSETS[name]], "sound:00000", both, instance))
        assert (
            f"{name} of sound:00000 is not made: the check follows_schema of progress failed"
            in failure_text
        )
    # The remedy: the stage anew
    assert materialize([ASSETS["progress"]], "sound:00000", both, instance).success
    assert materialize([ASSETS["samples"]], "sound:00000", both, instance).success


def test_commands_and_the_night_ask_too(both: Made, tmp_path: Path):
    config = both.source.with_name("build.toml")
    space = both.space
    words = ("nightly", "--config", config, "--workers", 1)
    night = command(*words, cwd=tmp_path, workspace=space.root)
    assert night.code == 1, night
    assert (
        f"error: demonstrations of broken chunk 0 failed: BlockedError: {DECODABLE}: 2 of 5"
        in night.err
    )
    assert f"left out: broken with 0 samples: {DECODABLE}" in night.err
    with opened(space) as lake:
        assert lake.column("SELECT DISTINCT dataset FROM shards") == ["sound"]
        assert lake.column("SELECT DISTINCT dataset FROM release_shards") == ["sound"]
    result = command("release", "create", "r1", cwd=tmp_path, workspace=space.root)
    assert result.code == 0, result
    assert f"left out: broken with 0 samples: {DECODABLE}" in result.err


def test_the_doctor_names_what_blocks_a_chunk(both: Made):
    [blocked] = [trouble for trouble in diagnose(both.space) if trouble.reason == "blocked"]
    assert (blocked.severity, blocked.file) == ("error", "broken chunk 0")
    assert blocked.detail.startswith(DECODABLE)


def test_a_lower_limit_lets_a_chunk_go_on(both: Made):
    """Another way out; the limit is asked by the build, its doctor and the release."""
    lower = with_stages(both.build, checks=ChecksConfig(min_labelled=0.4))
    report = run_build(both.space, [lower], workers=1)
    assert (report.failed, in_shards(both)) == ([], ["broken", "sound"])
    assert not [trouble for trouble in diagnose(both.space) if trouble.reason == "blocked"]
    with opened(both.space) as lake:
        assert {s.dataset for s in create_release(lake, "r1").shard_list} == {"broken", "sound"}
        again = DatasetBuild.model_validate_json(stored_builds(lake)["broken"][0])
        assert again.stages.checks.min_labelled == 0.4
        assert again.hash() == both.build.hash(), "it changes no label"
        # A release asks about what is not built
        rename(lake, "sound", "renamed")
        with pytest.raises(ReleaseError, match=r"renamed .*it is not built; proccorpus build"):
            contents(lake, without_unbuilt=False)
        left_out = contents(lake, without_unbuilt=True).left_out
    assert [(item.dataset, item.why) for item in left_out] == [("renamed", "it is not built")]


def test_a_corpus_without_shards_has_nothing_to_release(both: Made):
    with opened(both.space) as lake:
        rename(lake, "sound", "renamed")
        with pytest.raises(ReleaseError, match=r"the corpus has no shards yet"):
            contents(lake, without_unbuilt=False)


def test_a_build_is_partial_without_sources():
    unreachable = StepFailure.of("d", None, "episodes", SourceError("no such file or folder"))
    wrong = StepFailure.of("d", None, "episodes", ValueError("a listing went wrong"))
    assert BuildReport(failed=[unreachable]).is_partial
    assert not BuildReport(failed=[wrong]).is_partial
    assert not BuildReport(failed=[unreachable, wrong]).is_partial
