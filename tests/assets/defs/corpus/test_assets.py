"""Assets on the real thing: materialise a dataset's episodes, then one chunk through every stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from assets.defs.corpus import assets as corpus_assets
from assets.defs.resources import CorpusResource, VlmServer
from assets.lib.events import parse_chunk_key
from core.paths import Workspace
from core.tables import TABLES
from pipeline.build import BuildReport
from pipeline.config import DatasetBuild
from pipeline.stage import StageReport, run_stage
from tests.kits.made_corpus import Made, build_of
from tests.kits.tiny_lerobot import LENGTHS, make_dataset, write_rows
from warehouse.lake import content_key, open_lake

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
    context = dg.build_sensor_context(instance=instance, resources=resources)
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


# Refusals


@pytest.mark.parametrize(
    "key", ["", "tiny", "tiny:", "tiny:x", "tiny:-1", "tiny:0001x", "tiny 00001", ":00001"]
)
def test_a_bad_chunk_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match="chunk key") as refused:
        parse_chunk_key(key)
    assert repr(key) in str(refused.value)


def test_a_stale_upstream_is_named_and_nothing_is_made(
    own: Made, instance: dg.DagsterInstance
) -> None:
    # the workspace looks for the source where it was built from: let it look at the copy
    configure(own.space, own.build)
    write_rows(own.source, 2, LENGTHS[2], scale=3.0)
    snapshot_before = own.rows("SELECT max(snapshot) FROM stage_runs")
    assert "episodes" in failure(materialize([ASSETS["progress"]], "tiny:00001", own, instance))
    assert own.rows("SELECT max(snapshot) FROM stage_runs") == snapshot_before

    assert materialize([ASSETS["episodes"]], "tiny", own, instance).success
    assert "frames" in failure(materialize([ASSETS["progress"]], "tiny:00001", own, instance))
    assert materialize(CHAIN[:3], "tiny:00001", own, instance).success


def test_made_again_as_asked_it_is_the_same(own: Made, instance: dg.DagsterInstance) -> None:
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
def test_a_catalog_that_was_away_is_asked_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instance: dg.DagsterInstance,
    trouble: str,
    tries: int,
):
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
