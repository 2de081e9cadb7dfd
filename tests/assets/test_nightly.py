"""A day passes: sources change, a person corrects; sensors notice, and the schedule's run does what is due."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.definitions import defs
from assets.defs.corpus.jobs import new_corrections, nightly, source_revisions
from assets.defs.models.jobs import new_release, weekly
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import load_config
from pipeline.reward_model import closing_steps
from tests.assets.defs.corpus.test_assets import requests
from tests.kits.lake_kit import an_hour_ago, opened, say
from tests.kits.lerobot_writer import write_json_lines as write_lines
from tests.kits.made_corpus import build_of
from tests.kits.tiny_lerobot import LENGTHS, TASKS, make_dataset, rows_path, write_rows, write_video
from tests.pipeline.test_release_cycle import EPISODES, ROOT, tiny_recipe
from training.runs import newest_model
from warehouse.lake import Lake

pytestmark = pytest.mark.stack
NAMES = ("grows", "relabels", "tiny")
CHUNK = ("frames", "demonstrations", "segments", "progress", "samples", "shards")


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
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
        closing_steps(lake, "r1", tiny_recipe())
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


def run_night(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """The run that the schedule asks for."""
    context = dg.build_schedule_context(
        instance, scheduled_execution_time=datetime(2030, 1, 2, 2, tzinfo=UTC)
    )
    (request,) = nightly.evaluate_tick(context).run_requests or []
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


def test_a_day_passes(space: Workspace, lake: Lake, tmp_path: Path) -> None:
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
        context = dg.build_schedule_context(
            instance, scheduled_execution_time=datetime(2030, 1, 7, 6, tzinfo=UTC)
        )
        (request,) = weekly.evaluate_tick(context).run_requests or []
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
