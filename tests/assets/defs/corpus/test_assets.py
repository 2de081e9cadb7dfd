"""Assets on the real thing: materialise a dataset's episodes, then one chunk through every stage."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import dagster as dg
import duckdb
import numpy as np
import pytest

from assets.defs.corpus import assets as corpus_assets
from assets.defs.resources import Corpus
from assets.lib.vlm_server import VlmServer
from core.files import sha256_file
from core.paths import Workspace
from core.tables import TABLES
from pipeline.build import BuildReport
from pipeline.stage import StageReport, run_stage
from tests.kits.made_corpus import Made, build_of
from tests.kits.tiny_lerobot import LENGTHS, make_dataset, write_rows
from warehouse.lake import content_key, open_lake

ASSETS = {asset.key.to_user_string(): asset for asset in corpus_assets.corpus_assets}
NAMES = ("frames", "segments", "progress", "samples", "shards")
CHAIN = tuple(ASSETS[name] for name in (*NAMES, "demonstrations"))
MAIN = {"episodes": "episode_facts"} | {n: n for n in NAMES}


def materialize(
    assets: Sequence[dg.AssetsDefinition], partition: str, made: Made, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    """Materialise without raising; a partition that Dagster does not know yet is made known to it."""
    instance.add_dynamic_partitions("chunks" if ":" in partition else "datasets", [partition])
    resources = {"corpus": Corpus(root=str(made.space.root)), "vlm_server": VlmServer()}
    return dg.materialize(assets, partition_key=partition, instance=instance, resources=resources, raise_on_error=False)


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the failed step says to people."""
    assert not result.success
    (event,) = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def only(result: dg.ExecuteInProcessResult, asset: str) -> dg.AssetMaterialization:
    (found,) = result.asset_materializations_for_node(asset)
    return found


@dataclass(frozen=True)
class Materialized:
    made: Made
    instance: dg.DagsterInstance
    results: dict[str, dg.ExecuteInProcessResult]  # by asset

    def event(self, asset: str) -> dg.AssetMaterialization:
        return only(self.results[asset], asset)


def listed(folder: Path) -> Made:
    """A workspace that knows a dataset's configuration and nothing else."""
    build = build_of(make_dataset(folder / "source"))
    space = Workspace(folder / "workspace")
    row = {"dataset": build.name, "config": build.json_text(), "config_hash": content_key(build.json_text())}
    open_lake(space).upsert("configuration", build_configs=TABLES["build_configs"].rows([row]))
    return Made(space, build, BuildReport())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Materialized]:
    """Episodes of the dataset, then chunk 1 from frames to shards, by Dagster alone."""
    made = listed(tmp_path_factory.mktemp("listed"))
    with dg.DagsterInstance.ephemeral() as instance:
        first = materialize([ASSETS["episodes"]], "tiny", made, instance)
        assert first.success
        rest = materialize(CHAIN, "tiny:00001", made, instance)
        assert rest.success
        yield Materialized(made, instance, {"episodes": first} | dict.fromkeys(NAMES, rest))


def test_episodes_register_their_chunks(done: Materialized) -> None:
    assert done.instance.get_dynamic_partitions("chunks") == ["tiny:00000", "tiny:00001", "tiny:00002"]


def test_only_the_asked_chunk_is_made_and_as_a_build_makes_it(done: Materialized, made: Made) -> None:
    for table in ("frames", "segments", "progress", "samples", "shards"):
        assert done.made.rows(f"SELECT DISTINCT chunk FROM {table}") == [(1,)]
    query = (
        "SELECT stage, label_run, rows, output_hash FROM stage_runs WHERE chunk = 1 AND stage <> 'episodes' ORDER BY 1"
    )
    assert done.made.rows(query) == made.rows(query)
    for split, shard, sha256 in done.made.rows("SELECT split, shard, sha256 FROM shards"):
        assert sha256_file(done.made.space.shard(split, shard)) == sha256


@pytest.mark.parametrize("asset", ["episodes", *NAMES])
def test_metadata_of_a_materialisation(done: Materialized, asset: str) -> None:
    event = done.event(asset)
    assert event.partition == ("tiny" if asset == "episodes" else "tiny:00001")
    values = event.metadata
    chunk = "" if asset == "episodes" else "WHERE chunk = 1"
    (count,) = done.made.rows(f"SELECT count(*) FROM {MAIN[asset]} {chunk}")[0]
    assert values["dagster/partition_row_count"].value == count > 0
    assert values["dagster/table_name"].value.endswith(MAIN[asset])
    assert 0 <= values["duration_s"].value < 600


def test_metadata_counts_what_was_done(done: Materialized) -> None:
    assert done.event("frames").metadata["decoded_frames"].value == LENGTHS[2] + LENGTHS[3]
    assert done.event("shards").metadata["decoded_frames"].value < LENGTHS[2] + LENGTHS[3], "but for what is covered"
    assert done.event("episodes").metadata["episodes"].value == len(LENGTHS)
    run = done.made.build.label_run().id
    assert done.event("segments").metadata["label_run"].value == run
    (stored,) = done.made.rows("SELECT sum(bytes) FROM shards")[0]
    assert done.event("shards").metadata["bytes"].value == stored


@pytest.mark.parametrize("asset", ["episodes", *NAMES])
def test_the_picture_is_small_and_can_be_shown(done: Materialized, asset: str) -> None:
    text = done.event(asset).metadata["picture"].value
    shown = re.fullmatch(r"!\[([^\]]+)\]\(data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)\)", text)
    assert shown
    assert asset in shown[1]
    data = base64.b64decode(shown[3], validate=True)
    assert len(data) < 20_000
    assert data.startswith({"png": b"\x89PNG", "jpeg": b"\xff\xd8"}[shown[2]])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.std() > 1, "there is something to see"


@pytest.mark.parametrize("asset", ["episodes", *NAMES])
def test_the_data_version_is_the_stages_output_hash(done: Materialized, asset: str) -> None:
    chunk = -1 if asset == "episodes" else 1
    (expected,) = done.made.rows(f"SELECT output_hash FROM stage_runs WHERE stage = '{asset}' AND chunk = {chunk}")[0]
    assert (done.event(asset).tags or {})["dagster/data_version"] == expected


# Refusals


def test_a_chunk_waits_for_the_stage_before_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    made = listed(tmp_path)
    assert materialize([ASSETS["episodes"]], "tiny", made, instance).success
    told = failure(materialize([ASSETS["segments"]], "tiny:00001", made, instance))
    assert "segments" in told
    assert "frames" in told
    assert made.rows("SELECT count(*) FROM segments") == [(0,)]


def test_a_stale_upstream_is_named_and_nothing_is_made(
    made: Made, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    own = made.copy(tmp_path)
    # the workspace looks for the source where it was built from: let it look at the copy
    row = {"dataset": "tiny", "config": own.build.json_text(), "config_hash": content_key(own.build.json_text())}
    open_lake(own.space).upsert("configuration", build_configs=TABLES["build_configs"].rows([row]))
    write_rows(own.source, 2, LENGTHS[2], scale=3.0)
    before = own.rows("SELECT max(snapshot) FROM stage_runs")
    assert "episodes" in failure(materialize([ASSETS["progress"]], "tiny:00001", own, instance))
    assert own.rows("SELECT max(snapshot) FROM stage_runs") == before

    assert materialize([ASSETS["episodes"]], "tiny", own, instance).success
    assert "frames" in failure(materialize([ASSETS["progress"]], "tiny:00001", own, instance))
    assert materialize(CHAIN[:3], "tiny:00001", own, instance).success


def test_an_unknown_chunk_is_refused(made: Made, instance: dg.DagsterInstance) -> None:
    told = failure(materialize([ASSETS["frames"]], "tiny:00009", made, instance))
    assert "tiny" in told
    assert "9" in told


def test_an_unknown_dataset_is_refused_with_what_to_do(made: Made, instance: dg.DagsterInstance) -> None:
    told = failure(materialize([ASSETS["episodes"]], "nobody", made, instance))
    assert "nobody" in told
    assert "proccorpus build" in told


def test_made_again_as_asked_it_is_the_same(made: Made, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    own = made.copy(tmp_path)
    query = "SELECT stage, output_hash FROM stage_runs WHERE chunk = 0 ORDER BY 1, label_run"
    before = own.rows(query)
    assert materialize([ASSETS["samples"]], "tiny:00000", own, instance).success
    assert own.rows(query) == before


def test_the_workspace_may_come_from_the_environment(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(made.space.root))
    assert Corpus().workspace() == made.space
    assert Corpus(root="/elsewhere").workspace() == Workspace(Path("/elsewhere"))
    monkeypatch.delenv("PROCCORPUS_WORKSPACE")
    assert Corpus().workspace().root.name == "workspace"


@pytest.mark.parametrize(
    ("trouble", "tries"),
    [("Failed to execute query: server closed the connection unexpectedly", 2), ("No space left on device", 1)],
)
def test_a_catalog_that_was_away_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance, trouble: str, tries: int
):
    tried = []

    def stage(*given: Any) -> StageReport:
        tried.append(given)
        if len(tried) == 1:
            raise duckdb.IOException(trouble)
        return run_stage(*given)

    monkeypatch.setattr(corpus_assets, "AGAIN_AFTER_S", 0)
    monkeypatch.setattr(corpus_assets, "run_stage", stage)
    result = materialize([ASSETS["episodes"]], "tiny", listed(tmp_path), instance)
    assert result.success == (tries == 2)
    assert len(tried) == tries
