"""Assets on the real thing: materialise a dataset's episodes, then one chunk through every stage.

Also: what Dagster does when somebody vouches for a run; sources of datasets in Dagster.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from assets.definitions import defs
from assets.defs.corpus import assets as corpus_assets
from assets.defs.corpus import sources
from assets.defs.corpus.jobs import new_corrections
from assets.defs.resources import CorpusResource, VlmServer
from assets.lib.events import UP_TO_DATE, parse_chunk_key, source_key
from core.paths import Workspace
from core.tables import TABLES
from pipeline.build import BuildReport, run_build
from pipeline.config import DatasetBuild
from pipeline.stage import StageReport, run_stage
from tests.kits.cli_kit import write_configs
from tests.kits.lake_kit import an_hour_ago
from tests.kits.made_corpus import Made, build_of
from tests.kits.tiny_lerobot import LENGTHS, make_dataset, write_rows
from warehouse.lake import content_key, open_lake, references

ASSETS = {asset.key.to_user_string(): asset for asset in corpus_assets.corpus_assets}
NAMES = ("frames", "segments", "progress", "samples", "shards")
CHAIN = tuple(ASSETS[name] for name in (*NAMES, "demonstrations"))


def materialize(
    assets: Sequence[dg.AssetsDefinition],
    partition: str,
    made_corpus: Made,
    instance: dg.DagsterInstance,
) -> dg.ExecuteInProcessResult:
    """Materialise without raising; a partition that Dagster does not know yet is made known to it."""
    instance.add_dynamic_partitions("chunks" if ":" in partition else "datasets", [partition])
    resources = {
        "corpus": CorpusResource(root=str(made_corpus.space.root)),
        "vlm_server": VlmServer(),
    }
    return dg.materialize(
        assets,
        partition_key=partition,
        instance=instance,
        resources=resources,
        raise_on_error=False,
    )


def requests(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, root: str = ""
) -> list[dg.RunRequest]:
    """What a sensor asks for at one look."""
    resources = {"corpus": CorpusResource(root=root) if root else CorpusResource()}
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        return list(sensor.evaluate_tick(context).run_requests or [])


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the failed step says to people."""
    assert not result.success
    (event,) = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def configure(space: Workspace, build: DatasetBuild) -> None:
    row = {
        "dataset": build.name,
        "config": build.model_dump_json(),
        "config_hash": content_key(build.model_dump_json()),
    }
    open_lake(space).upsert("configuration", build_configs=TABLES["build_configs"].rows([row]))


def listed(folder: Path) -> Made:
    """A workspace that knows a dataset's configuration and nothing else."""
    build = build_of(make_dataset(folder / "source"))
    space = Workspace(folder / "workspace")
    configure(space, build)
    return Made(space, build, BuildReport())


@pytest.mark.parametrize(
    "key", ["", "tiny", "tiny:", "tiny:x", "tiny:-1", "tiny:0001x", "tiny 00001", ":00001"]
)
def test_a_bad_chunk_key_is_refused_by_name(key):
    with pytest.raises(ValueError, match="chunk key") as refused:
        parse_chunk_key(key)
    assert repr(key) in str(refused.value)


def test_a_stale_upstream_is_named_and_nothing_is_made(own, instance):
    # the workspace looks for the source where it was built from: let it look at the copy
    configure(own.space, own.build)
    write_rows(own.source, 2, LENGTHS[2], scale=3.0)
    snapshot_before = own.rows("SELECT max(snapshot) FROM stage_runs")
    assert "episodes" in failure(materialize([ASSETS["progress"]], "tiny:00001", own, instance))
    assert own.rows("SELECT max(snapshot) FROM stage_runs") == snapshot_before

    assert materialize([ASSETS["episodes"]], "tiny", own, instance).success
    assert "frames" in failure(materialize([ASSETS["progress"]], "tiny:00001", own, instance))
    assert materialize(CHAIN[:3], "tiny:00001", own, instance).success


def test_made_again_as_asked_it_is_the_same(own, instance):
    query = "SELECT stage, output_hash FROM stage_runs WHERE chunk = 0 ORDER BY 1, label_run"
    rows_before = own.rows(query)
    assert materialize([ASSETS["samples"]], "tiny:00000", own, instance).success
    assert own.rows(query) == rows_before


@pytest.mark.parametrize(
    ("trouble", "tries"),
    [
        ("Failed to execute query: server closed the connection unexpectedly", 2),
        ("No space left on device", 1),
    ],
)
def test_a_catalog_that_was_away_is_asked_again(tmp_path, monkeypatch, instance, trouble, tries):
    tried = []

    def stage(*arguments: Any) -> StageReport:
        tried.append(arguments)
        if len(tried) == 1:
            raise duckdb.IOException(trouble)
        return run_stage(*arguments)

    monkeypatch.setattr(corpus_assets, "AGAIN_AFTER_S", 0)
    monkeypatch.setattr(corpus_assets, "run_stage", stage)
    result = materialize([ASSETS["episodes"]], "tiny", listed(tmp_path), instance)
    assert result.success == (tries == 2)
    assert len(tried) == tries


def test_a_dataset_of_the_configuration_is_there_when_it_is_loaded(own, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    config = write_configs(tmp_path, {"later": f"source: {own.source}\n"})
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(own.space.root))
    monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
    graph = defs().resolve_asset_graph()
    with dg.DagsterInstance.get() as instance:
        assert sorted(instance.get_dynamic_partitions("datasets")) == ["later", "tiny"]
        # No job has to have run: the new partition can be materialised
        job = defs().resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            asset_selection=[dg.AssetKey("episodes")], partition_key="later", instance=instance
        )
    assert result.success
    assert own.rows("SELECT count(*) FROM episode_facts WHERE dataset = 'later'") == [
        (len(LENGTHS),)
    ]
    for name in ("later", "tiny"):
        node = graph.get(source_key(name))
        assert node.is_observable
        assert node.freshness_policy == sources.NIGHTLY
        assert [key.name for key in node.check_keys] == [UP_TO_DATE]


def test_a_source_is_looked_at_and_told_whether_all_is_made_of_it(
    own, instance, tmp_path, monkeypatch
):
    config = write_configs(
        tmp_path,
        {"tiny": f"source: {own.source}\nchunk_size: 2\n", "other": f"source: {tmp_path}/gone\n"},
    )
    monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
    corpus = CorpusResource(root=str(own.space.root))
    looking = dg.define_asset_job(
        "looking", selection=dg.AssetSelection.assets(*map(source_key, ("other", "tiny")))
    )
    assets = [sources.source_assets(["other", "tiny"])]
    job = dg.Definitions(
        assets=assets, jobs=[looking], resources={"corpus": corpus}
    ).resolve_job_def("looking")

    def looked_at() -> dict[str, tuple[bool, str | None]]:
        """By dataset whether the check passes, and the version that was observed."""
        result = job.execute_in_process(instance=instance)
        assert result.success
        state_by_source = {}
        for check in result.get_asset_check_evaluations():
            event = instance.get_latest_data_version_record(check.asset_key)
            if event and event.asset_observation:
                version = event.asset_observation.data_version
            else:
                version = None
            state_by_source[check.asset_key.path[-1]] = (check.passed, version)
        return state_by_source

    state_before = looked_at()
    assert state_before["other"] == (False, None)
    write_rows(own.source, 2, LENGTHS[2], scale=3.0)
    state_after = looked_at()
    assert not state_after["tiny"][0]
    assert state_after["tiny"][1] != state_before["tiny"][1]


def test_the_sensor_asks_for_chunks_that_a_reference_concerns(own, corpus, instance):
    assert requests(new_corrections, instance, str(own.space.root)) == []
    references.vouch(corpus, "tiny", 2, author="ada")
    assert requests(new_corrections, instance, str(own.space.root)) == [], "somebody is at it"
    an_hour_ago(corpus)
    (first,) = requests(new_corrections, instance, str(own.space.root))
    assert (first.tags["corrected"], first.tags["chunks_shown"]) == ("1", "2")
    run_build(own.space, [own.build], workers=1)
    assert requests(new_corrections, instance, str(own.space.root)) == []

    # Nobody corrected anything, but the runs that followed it have to be labelled otherwise
    references.vouch(corpus, "tiny", 2, author="ada", is_reference=False)
    an_hour_ago(corpus)
    (second,) = requests(new_corrections, instance, str(own.space.root))
    assert (second.tags["corrected"], second.tags["chunks_shown"]) == ("0", "2")
    assert second.run_key != first.run_key


@pytest.mark.parametrize(("chunk", "labelled"), [(0, True), (1, False)])
def test_the_asset_labels_the_runs_of_a_chunk(own, corpus, instance, chunk, labelled):
    references.vouch(corpus, "tiny", 2, author="ada")
    result = materialize([ASSETS["transfer"]], f"tiny:{chunk}", own, instance)
    assert result.success
    (of_transfer,) = [m.metadata for m in result.asset_materializations_for_node("transfer")]
    if labelled:
        assert of_transfer["rows_alignments"].value > 0
    else:
        assert of_transfer["left_out"].value == "no reference shows a task of the chunk"
    assert bool(corpus.rows("FROM alignments")) == labelled
