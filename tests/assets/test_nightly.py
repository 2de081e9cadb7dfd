"""A day passes: sources change, a person corrects; sensors notice, and the schedule's run does what is due.

Also: a changed configuration has the same digest by every way in; a night's error has the reasons of both its halves,
and one dataset's build is what a build of all would do; the job that the asset reward_model hands over; a hub's
dataset in Dagster.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.definitions import defs
from assets.defs.corpus.jobs import new_corrections, new_release, nightly, source_revisions, weekly
from assets.defs.models import assets as models
from assets.defs.resources import CorpusResource, VlmServer
from assets.lib import models as doing
from assets.lib.events import RELEASABLE, UP_TO_DATE, source_key
from assets.lib.launch.job import Job
from assets.lib.model_configs import RewardModelConfig
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.build import run_build
from pipeline.config import DatasetBuild, load_config
from pipeline.reward_model import closing_steps
from tests.assets.defs.corpus.test_assets import ASSETS, materialize, requests
from tests.kits import laptop_kit
from tests.kits.cli_kit import DONE, digest_of, run_here, write_config, write_configs
from tests.kits.files import files_of
from tests.kits.hub_server import Hub, public_hub
from tests.kits.lake_kit import an_hour_ago, opened, say
from tests.kits.lerobot_writer import write_json_lines as write_lines
from tests.kits.made_corpus import Made, build_of
from tests.kits.tiny_lerobot import LENGTHS, TASKS, make_dataset, rows_path, write_rows, write_video
from tests.kits.training_kit import KilledError, kill_at, make_release
from tests.pipeline.test_release_cycle import EPISODES, ROOT
from training.recipe import load_recipe
from training.runs import newest_model, resumable
from training.train import train
from warehouse.lake import Lake, open_lake

NAMES = ("grows", "relabels", "tiny")
CHUNK = ("frames", "demonstrations", "segments", "progress", "samples", "shards")


@pytest.fixture
def space(tmp_path, monkeypatch) -> Workspace:
    """Three tiny datasets and a part of the sample, built, released
    as r1, with a model trained on it."""
    space = Workspace(tmp_path / "w")
    builds = [
        load_config(ROOT / "configs" / "demo.toml")[0].model_copy(update={"episodes": EPISODES})
    ]
    for name in NAMES:
        build = build_of(make_dataset(tmp_path / name))
        licence = (
            "cc-by-4.0" if name == "grows" else None
        )  # the others hold the same pictures: they stay out
        facts = build.dataset.model_copy(update={"name": name, "license": licence})
        builds.append(build.model_copy(update={"dataset": facts}))
    assert run_build(space, builds, workers=1).failed == []
    with opened(space) as lake:
        closing_steps(lake, "r1", laptop_kit.recipe(train={"steps": 2}))
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(space.root))
    return space


@pytest.fixture
def lake(space: Workspace) -> Iterator[Lake]:
    with opened(space) as lake:
        yield lake


def a_source_gains_an_episode(source: Path) -> None:
    episode = len(LENGTHS)
    write_rows(source, episode, 20)
    write_video(source, episode, 20)
    lines = [
        {"episode_index": e, "tasks": [TASKS[e % 2]], "length": n}
        for e, n in enumerate((*LENGTHS, 20))
    ]
    write_lines(source / "meta/episodes.jsonl", lines)


def a_source_changes_a_label(source: Path) -> None:
    """Episode 2 gets another task: its rows name it."""
    texts = (*TASKS, "put the red cube on the plate")
    write_lines(
        source / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(texts)]
    )
    rows = pq.read_table(rows_path(source, 2))
    other_tasks = pa.array([2] * rows.num_rows, pa.int64())
    pq.write_table(
        rows.set_column(rows.schema.get_field_index("task_index"), "task_index", other_tasks),
        rows_path(source, 2),
    )


def request_of(
    schedule: dg.ScheduleDefinition, instance: dg.DagsterInstance, time: datetime
) -> dg.RunRequest:
    """What a schedule asks for. Left open, its context would make its instance the current one when it is collected."""
    with dg.build_schedule_context(instance, scheduled_execution_time=time) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or []
    return request


def run_night(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """The run that the schedule asks for."""
    request = request_of(nightly, instance, datetime(2030, 1, 2, 2, tzinfo=UTC))
    return (
        defs()
        .resolve_job_def("corpus")
        .execute_in_process(run_config=request.run_config, instance=instance)
    )


def built_after(lake: Lake, snapshot: int) -> set[tuple[str, str, int]]:
    rows = lake.rows(
        "SELECT dataset, stage, chunk FROM stage_runs WHERE snapshot > ? AND NOT (stage = 'episodes' AND chunk >= 0)",
        [snapshot],
    )
    return set(rows)


@pytest.mark.stack
def test_a_day_passes(space, lake, tmp_path):
    with dg.instance_for_test() as instance:
        assert requests(source_revisions, instance) == []
        assert requests(new_corrections, instance) == []
        assert requests(new_release, instance) == [], "r1 was scored when it was made"
        snapshot_before = lake.rows("SELECT max(snapshot) FROM stage_runs")[0][0]
        model = newest_model(lake)
        assert model

        a_source_gains_an_episode(tmp_path / "grows")
        a_source_changes_a_label(tmp_path / "relabels")
        say(lake)
        (run_request,) = requests(source_revisions, instance)
        assert run_request.tags["changed"] == "grows, relabels"
        assert requests(source_revisions, instance)[0].run_key == run_request.run_key, (
            "the same state, the same run"
        )
        assert requests(new_corrections, instance) == [], "somebody is at it"
        an_hour_ago(lake)
        (run_request,) = requests(new_corrections, instance)
        assert run_request.tags["corrected"] == "1"

        assert run_night(instance).success
        assert built_after(lake, snapshot_before) == {
            ("grows", "episodes", -1),
            *(("grows", stage, 2) for stage in CHUNK),
            # The new run has another task than some of each chunk's: samples may show it there
            *(("grows", stage, chunk) for stage, chunk in product(("samples", "shards"), (0, 1))),
            ("relabels", "episodes", -1),
            *(("relabels", stage, 1) for stage in CHUNK),
            *(("tiny", stage, 1) for stage in ("corrections", "progress", "samples", "shards")),
            # Runs of the same task are labelled like the one that was corrected
            *(
                ("tiny", stage, chunk)
                for chunk, stage in product((0, 2), ("transfer", "progress", "samples", "shards"))
            ),
        }
        released = lake.rows("SELECT snapshot, config_hash FROM releases WHERE name = 'nightly'")
        assert len(released) == 1
        released_names = lake.rows(
            "SELECT DISTINCT dataset FROM release_shards WHERE name = 'nightly' ORDER BY 1"
        )
        assert [d for (d,) in released_names] == ["grows", "sim_short"]
        scored = lake.rows(
            "SELECT count(*) FROM eval_runs WHERE release = 'nightly' AND model = ?", [model]
        )
        assert scored[0][0] > 0
        for sensor in (source_revisions, new_corrections, new_release):
            assert requests(sensor, instance) == [], f"{sensor.name} has nothing left to ask for"

        snapshot_after = lake.rows("SELECT max(snapshot) FROM stage_runs")[0][0]
        assert run_night(instance).success
        assert built_after(lake, snapshot_after) == set()
        assert (
            lake.rows("SELECT snapshot, config_hash FROM releases WHERE name = 'nightly'")
            == released
        )

        lake.con.execute("DELETE FROM eval_runs WHERE release = 'nightly'")
        (run_request,) = requests(new_release, instance)
        assert (
            defs()
            .resolve_job_def("score")
            .execute_in_process(run_request.run_config, instance)
            .success
        )
        assert requests(new_release, instance) == []

        # Monday: of one group an episode is tested on, and another one trained on
        one_of_a_group = "WHERE dataset = 'sim_short' AND episode_index = 1"
        lake.con.execute(f"UPDATE splits SET split = 'train' {one_of_a_group}")
        request = request_of(weekly, instance, datetime(2030, 1, 7, 6, tzinfo=UTC))
        freeze = defs().resolve_job_def("freeze")
        result = freeze.execute_in_process(request.run_config, instance, raise_on_error=False)
        assert {e.check_name: e.passed for e in result.get_asset_check_evaluations()} == {
            "no_split_leak": False,
            "withdrawals_are_decided": True,
            "corpus_is_sound": True,
        }
        assert not result.success
        assert lake.rows("SELECT name FROM releases WHERE name LIKE 'weekly%'") == []
        # What stays out of releases may hold test episodes that others train on
        lake.con.execute(f"UPDATE splits SET split = 'test_id' {one_of_a_group}")
        assert freeze.execute_in_process(request.run_config, instance).success
        assert lake.rows("SELECT name FROM releases WHERE name LIKE 'weekly%'") == [
            ("weekly-2030-01-07",)
        ]


def checks_of(instance: dg.DagsterInstance, *keys: dg.AssetCheckKey) -> dict[str, tuple[bool, str]]:
    """By asset whether the newest evaluation of a check passed, and what it says."""
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    check_results = {}
    for key, record in records.items():
        evaluation = record.event.dagster_event.event_specific_data
        check_results[key.asset_key.to_user_string()] = (evaluation.passed, evaluation.description)
    return check_results


@pytest.mark.slow
def test_three_troubles_of_a_night_are_in_its_error_its_checks_and_its_report(
    own, tmp_path, monkeypatch
):
    """A source that is gone, one that holds no dataset, and no licence."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "notes.txt").write_text("they went to another place")
    sources = {"tiny": own.source, "other": tmp_path / "gone", "broken": broken}
    entries = {name: f"source: {source}\n" for name, source in sources.items()}
    config = write_configs(tmp_path, entries)
    monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
    resources = {"corpus": CorpusResource(root=str(own.space.root)), "vlm_server": VlmServer()}
    with dg.instance_for_test() as instance:
        job = defs().resolve_job_def("corpus")
        result = job.execute_in_process(
            run_config={"release": "nightly", "train": False, "workers": 1},
            instance=instance,
            resources=resources,
            raise_on_error=False,
        )
        keys = [dg.AssetCheckKey(source_key(name), UP_TO_DATE) for name in sources]
        check_results = checks_of(
            instance, *keys, dg.AssetCheckKey(dg.AssetKey("release"), RELEASABLE)
        )
        fresh = [
            name for name in sources if instance.get_latest_materialization_event(source_key(name))
        ]
    assert fresh == ["tiny"]
    assert not result.success
    [failed] = [event for event in result.all_events if event.is_step_failure]
    text = failed.step_failure_data.error_display_string
    assert "partial: 3 failed" in text
    troubles = {
        "sources/other": str(tmp_path / "gone"),
        "sources/broken": str(broken),
        "release": "nothing is left",
    }
    report = str(failed.step_failure_data.user_failure_data.metadata["failed"].records)
    for asset, reason_text in troubles.items():
        assert reason_text in text
        assert reason_text in report
        assert (check_results[asset][0], reason_text in check_results[asset][1]) == (False, True), (
            check_results[asset]
        )
    assert check_results["sources/tiny"][0]


CHUNKS = ("tiny:00000", "tiny:00001", "tiny:00002")


def by_command(own_corpus: Made, config: Path, instance: dg.DagsterInstance) -> None:
    assert (
        run_here("build", "--config", config, "--workspace", own_corpus.space.root, "--workers", 1)
        == DONE
    )


def by_assets(own_corpus: Made, config: Path, instance: dg.DagsterInstance) -> None:
    assert materialize([ASSETS["episodes"]], "tiny", own_corpus, instance).success
    of_chunk = [asset for name, asset in ASSETS.items() if name != "episodes"]
    for chunk in CHUNKS:
        assert materialize(of_chunk, chunk, own_corpus, instance).success


def by_sensor(own_corpus: Made, config: Path, instance: dg.DagsterInstance) -> None:
    [request] = requests(source_revisions, instance)
    assert defs().resolve_job_def("build").execute_in_process(request.run_config, instance).success


def by_night(own_corpus: Made, config: Path, instance: dg.DagsterInstance) -> None:
    night = {"release": "nightly", "train": False, "workers": 1}
    assert defs().resolve_job_def("corpus").execute_in_process(night, instance).success


@pytest.mark.slow
def test_one_digest(made, instance, tmp_path, monkeypatch):
    digest_before = digest_of(made.space.root)
    digests = {}
    ways: tuple[Callable[[Made, Path, dg.DagsterInstance], None], ...]
    ways = (by_command, by_assets, by_sensor, by_night)
    for way in ways:
        own_copy = made.copy(tmp_path / way.__name__)
        config = write_config(
            tmp_path / way.__name__ / "config",
            own_copy.source,
            '[motion]\nstep_min_s = 1.1\n[release]\nlicences = ["unknown"]',
        )
        monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(own_copy.space.root))
        monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
        # The sensor asks where a source changed; a changed configuration alone waits for what builds next
        write_rows(own_copy.source, 2, LENGTHS[2], scale=3.0)
        way(own_copy, config, instance)
        digests[way.__name__] = digest_of(own_copy.space.root)
    assert digests["by_command"] != digest_before
    for name, digest in digests.items():
        assert digest == digests["by_command"], name


REPO = "someone/tiny"


@pytest.fixture
def hub(tmp_path) -> Iterator[Hub]:
    with public_hub(REPO) as hub:
        hub.commit(files_of(make_dataset(tmp_path / "tiny")))
        yield hub


@pytest.fixture
def revised_space(hub: Hub, tmp_path, monkeypatch) -> Workspace:
    revised_space = Workspace(tmp_path / "w")
    build = DatasetBuild(dataset=DatasetConfig(name="tiny", source=f"hf://{REPO}"), episodes=(0,))
    assert run_build(revised_space, [build], workers=1).failed == []
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(revised_space.root))
    monkeypatch.delenv("PROCCORPUS_CONFIG", raising=False)
    return revised_space


def test_a_newer_commit_is_read_when_it_is_asked_for(hub, revised_space):
    first = hub.branches["main"]
    build_job = defs().resolve_job_def("build")
    with dg.instance_for_test() as instance:
        assert requests(source_revisions, instance) == []
        second = hub.commit(hub.commits[first] | {"README.md": b"moved on"})

        # A job reads what was read before, unless it is told otherwise
        assert build_job.execute_in_process(instance=instance).success
        assert _revision(revised_space) == first
        assert CorpusResource().build("tiny").commit == first
        (request,) = requests(source_revisions, instance)
        assert build_job.execute_in_process(request.run_config, instance).success
        assert _revision(revised_space) == second
        assert CorpusResource().build("tiny").commit == second
        assert requests(source_revisions, instance) == []


def _revision(revised_space: Workspace) -> str:
    return open_lake(revised_space).rows("SELECT source_revision FROM datasets")[0][0]


RECIPE = """name: short
model: {tiny: {vocabulary: 400, hidden: 64, layers: 2, vision_hidden: 64, vision_layers: 2, max_px: 64}}
train: {steps: 3, batch: 2, lr: 1.0e-3, save_every: 1}
"""


def handed_over(lake: Lake, recipe: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Job:
    """The job, which is not run."""
    jobs: list[Job] = []

    def launch(
        context: dg.AssetExecutionContext, launcher: object, job: Job
    ) -> dg.MaterializeResult:
        jobs.append(job)
        return dg.MaterializeResult()

    monkeypatch.setattr(doing, "launch", launch)
    settings = RewardModelConfig(name="bars1", recipe=str(recipe), **config)
    result = dg.materialize(
        [models.reward_model],
        resources={"corpus": CorpusResource(root=str(lake.workspace.root))},
        run_config=dg.RunConfig(ops={"reward_model": settings}),
    )
    assert result.success
    return jobs[0]


def test_a_job_goes_on_where_a_killed_one_was(tmp_path, monkeypatch):
    lake, release = make_release(tmp_path / "w")
    path = tmp_path / "short.yaml"
    path.write_text(RECIPE)
    recipe = load_recipe(str(path))
    assert not resumable(lake.workspace, recipe, release)

    with pytest.raises(KilledError):
        train(lake, release, recipe, kill_at(2))
    assert resumable(lake.workspace, recipe, release)
    job = handed_over(lake, path, monkeypatch)
    assert job.arguments[:2] == ("train", "--auto-resume")
    assert resumable(lake.workspace, recipe, release)
    # What it goes on from is taken away before the job is handed over: also a restart then begins where the job began
    handed_over(lake, path, monkeypatch, resume=False)
    assert not resumable(lake.workspace, recipe, release)
    train(lake, release, recipe)
    assert resumable(lake.workspace, recipe, release)
    assert "--wandb" not in job.arguments
    assert "--wandb" in handed_over(lake, path, monkeypatch, always=True, wandb=True).arguments
    assert not resumable(lake.workspace, recipe, release)
