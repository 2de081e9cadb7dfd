"""A workspace that Dagster never saw: what its UI shows is what the lake holds, and who made it when."""

import os
from pathlib import Path

import dagster as dg
import pytest

from assets.defs.corpus.jobs import build_job
from assets.defs.resources import Corpus
from assets.lib.report import instance_of, mirror
from assets.lib.tell import ON_REQUEST
from pipeline.build import run_build
from pipeline.config import config_rows
from pipeline.release import release_step
from tests.assets.lib.test_report import ALL, CHUNKS, counted
from tests.kits.made_corpus import Made
from tests.kits.staleness import not_fresh
from tests.kits.tiny_lerobot import video_path
from warehouse.lake import Lake

NOBODY_MADE = [(name, None) for name in ("reward_model", "evaluation", "leaderboard")]
NOBODY_MADE += [("rewards", chunk) for chunk in CHUNKS]  # for want of a model


@pytest.fixture(scope="module")
def copied(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A workspace with a release, of another machine: Dagster has nothing of it before its UI opens."""
    own = made.copy(tmp_path_factory.mktemp("copied"))
    lake = Lake(own.space)
    release_step(lake, "first", allow=("unknown",))
    lake.con.close()
    mirror(own.space)
    return own


def test_nothing_of_a_copied_workspace_is_stale_and_missing_is_what_nobody_made(copied: Made) -> None:
    with instance_of(copied.space) as instance:
        assert instance.get_dynamic_partitions("chunks") == CHUNKS
        assert {key: status for key, (status, _) in not_fresh(instance).items()} == dict.fromkeys(
            NOBODY_MADE, "MISSING"
        )


def test_opening_it_again_tells_nothing_twice(copied: Made) -> None:
    mirror(copied.space)
    assert set(counted(copied.space).values()) == {1}
    assert set(counted(copied.space)) == ALL
    with instance_of(copied.space) as instance:
        assert instance.get_runs() == []


def test_what_is_made_on_request_alone_says_how_to_ask(copied: Made) -> None:
    with instance_of(copied.space) as instance:
        (record,) = instance.fetch_materializations(dg.AssetKey("annotator_comparison"), limit=10).records
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["left_out"].value == ON_REQUEST["annotator_comparison"][0]


def test_a_release_older_than_the_corpus_is_stale_on_a_copy_too(copied: Made, tmp_path: Path) -> None:
    own = copied.copy(tmp_path)
    fewer = own.build.stages.samples.model_copy(update={"progress_per_episode": 2})
    build = own.build.model_copy(update={"stages": own.build.stages.model_copy(update={"samples": fewer})})
    assert not run_build(own.space, [build], workers=1).failed
    (own.space.root / "dagster").rename(tmp_path / "dagster of another machine")
    mirror(own.space)
    with instance_of(own.space) as instance:
        status, why = not_fresh(instance)["release", None]
        assert status == "STALE"
        assert any("shards" in cause for cause in why)


def test_a_job_shows_each_stage_as_it_is_done(copied: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copied.copy(tmp_path)
    lake = Lake(own.space)
    lake.upsert("the copy's own source", build_configs=config_rows([own.build]))
    lake.con.close()
    os.utime(video_path(own.source, 0), (1, 1))
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(own.space.root))
    with instance_of(own.space) as instance:
        run = build_job.execute_in_process({"workers": 1}, instance, resources={"corpus": Corpus()})
        events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        told = [(e.step_key, e.get_dagster_event().asset_key, e.get_dagster_event().partition) for e in events]
        assert told[:2] == [
            ("build_corpus", dg.AssetKey("episodes"), "tiny"),
            ("build_corpus", dg.AssetKey("frames"), "tiny:00000"),
        ]
        assert {partition for *_, partition in told} == {"tiny", "tiny:00000"}
        assert {asset for asset, _ in not_fresh(instance)} <= {"release", "rewards", *dict(NOBODY_MADE)}
