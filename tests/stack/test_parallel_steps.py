"""Steps side by side, on Dagster's multiprocess executor: a stage starts when all that it reads is there."""

import os
from pathlib import Path

import dagster as dg
import pytest

from assets.defs.corpus.assets import corpus_assets
from assets.defs.resources import CorpusResource, VlmServer
from assets.lib.events import chunks
from core.paths import Workspace
from tests.kits.cli_kit import write_config
from tests.kits.tiny_lerobot import make_dataset
from tests.kits.vlm_standin import StandIn, serving
from warehouse.lake import Lake

pytestmark = pytest.mark.stack
CHUNK = "tiny:00000"
MODEL_URL = "STAND_IN_URL"  # of the model's server, in the environment
SETTINGS = 'annotator = "vlm"\nvlm = {model = "stand-in", reason_interval_s = 0.5}'
# Longer than progress needs with the start of its process: samples would be next, were it not for the reasons
SLOW_S = 20.0


def after_segments() -> dg.JobDefinition:
    """What a chunk goes through once it has segments, as far as its samples."""
    job = dg.define_asset_job(
        "after_segments",
        selection=dg.AssetSelection.assets("progress", "reasoning", "samples"),
        partitions_def=chunks,
        executor_def=dg.multiprocess_executor,
    )
    resources = {"corpus": CorpusResource(), "vlm_server": VlmServer(urls=[os.environ[MODEL_URL]])}
    return dg.Definitions(assets=corpus_assets, jobs=[job], resources=resources).resolve_job_def(
        "after_segments"
    )


@pytest.mark.long
def test_samples_wait_for_reasons_that_come_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / "project", make_dataset(tmp_path / "source"), SETTINGS)
    space = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("PROCCORPUS_CONFIG", str(config))
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(space.root))

    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        instance.add_dynamic_partitions("datasets", ["tiny"])
        instance.add_dynamic_partitions("chunks", [CHUNK])
        with serving(StandIn()) as quick:
            resources = {"corpus": CorpusResource(), "vlm_server": VlmServer(urls=[quick.url])}
            for names, partition in ((["episodes"], "tiny"), (["frames", "segments"], CHUNK)):
                chosen = [asset for asset in corpus_assets if asset.key.to_user_string() in names]
                assert dg.materialize(
                    chosen, partition_key=partition, instance=instance, resources=resources
                ).success

        with serving(StandIn(latency_s=SLOW_S)) as slow:
            monkeypatch.setenv(MODEL_URL, slow.url)
            job = dg.reconstructable(after_segments)
            result = dg.execute_job(job, instance=instance, tags={"dagster/partition": CHUNK})
            assert slow.answered, "reasons were asked for"
        assert result.success

    stages_run = [
        run
        for (run,) in Lake(space).rows(
            "SELECT stage FROM stage_runs WHERE chunk = 0 ORDER BY snapshot"
        )
    ]
    assert stages_run == ["episodes", "frames", "segments", "progress", "reasoning", "samples"]
