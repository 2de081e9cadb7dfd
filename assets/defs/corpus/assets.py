"""The corpus, from episodes to shards: one asset per stage of `pipeline.stages.STAGES`.

What belongs here: what Dagster has to know. What a stage does and needs is in pipeline/stages/.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import dagster as dg

from annotate.model_client.calls import VlmError
from assets.defs.corpus.partitions import chunks, datasets, parse_chunk_key
from assets.defs.resources import CorpusResource
from assets.lib.events import LEFT_OUT, check_result, described, metadata, why_not
from assets.lib.executors import is_one_process
from assets.lib.tell import register_partitions
from assets.lib.vlm_server import VlmServer
from core.paths import Workspace
from pipeline.config import DatasetBuild, with_annotator
from pipeline.picture_cache import PictureCache
from pipeline.plan import CURRENT, WAITING, plan
from pipeline.stage import Stage, StageContext, StageReport, run_stage
from pipeline.stages import LISTING, STAGES, stage_specs
from warehouse.lake import forget_lakes, is_passing

OWNERS = ["team:corpus"]
# Bounds the partitions that read sources, and so may download, at a time: `dagster instance concurrency set` changes it
DOWNLOADS = "hub_download"
# Bounds the partitions that ask a model's server at a time; each asks VlmConfig.max_concurrency questions at once
ENDPOINT = "vlm_endpoint"
# A server that is gone may be back; what was answered is not asked again
PATIENCE = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
# A team's catalog or bucket that was away for a moment: the step's transaction was undone, and is done again
AGAIN, AGAIN_AFTER_S = 5, 10
KINDS = {"frames": {"ducklake", "parquet", "video"}, "shards": {"webdataset"}}  # what it is made of, as the UI shows it
COST = "cost"  # tag: what a partition is paid with
DECODING = ("frames", "embeddings", "shards")  # stages that look into videos, in the order of a run
# Which datasets' episodes a chunk needs cannot be said with a partition mapping: the edge is there for lineage only
LINEAGE_ONLY = dg.SpecificPartitionsPartitionMapping([])


@contextmanager
def _outlasting(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Asks for another try where the lake's servers were away."""
    try:
        yield
    except Exception as e:
        if not is_passing(e):
            raise
        forget_lakes()
        context.log.warning(f"tried again after {AGAIN_AFTER_S} s, at most {AGAIN} times: {e}")
        raise dg.RetryRequested(max_retries=AGAIN, seconds_to_wait=AGAIN_AFTER_S) from e


def _run(
    context: dg.AssetExecutionContext,
    corpus: CorpusResource,
    stage: Stage,
    dataset: str,
    chunk: int | None,
    vlm_server: VlmServer | None = None,
) -> StageReport | None:
    """Run one stage on one partition; None: the chunk has no such stage (Stage.reads).

    Raises dg.Failure when its upstream is not up to date, or a model gives up.
    """
    lake = corpus.lake()
    build = _asking(corpus.build(dataset), stage, vlm_server)
    source = build.source(lake.workspace.sources)
    fingerprint = source.fingerprint()
    build = build.read_at(fingerprint)
    steps = plan(lake, {dataset: stage_specs(build)}, {dataset: fingerprint}, only_chunk=chunk)
    of_chunk = [step for step in steps if step.chunk == chunk]
    step = next((step for step in of_chunk if step.stage is stage), None)
    if step is None and why_not(stage) and of_chunk:
        return None

    # What cannot be run now says what to do first; trying again would not help
    if step is None:
        why = f"{dataset} has no chunk {chunk}: materialise episodes of {dataset} first"
        raise dg.Failure(why, allow_retries=False)
    if step.status == WAITING:
        late = next(step.stage.name for step in steps if step.status not in (CURRENT, WAITING))
        why = f"{stage.name} of {dataset} waits for {late}, which is not up to date: materialise that first"
        raise dg.Failure(why, allow_retries=False)
    if step.status == CURRENT:
        context.log.info(f"{stage.name} of {context.partition_key} was up to date; it is made again as asked")
    pictures = _pictures.of(context, lake.workspace, build, chunk) if stage.name in DECODING else None
    try:
        return run_stage(StageContext(lake, build, step, source, build_id=context.run_id, pictures=pictures))
    except VlmError as e:
        raise dg.Failure(str(e), allow_retries=e.reason == "server_gone") from e
    finally:
        if stage.name == DECODING[-1]:
            _pictures.close()


@dataclass
class _RunPictures:
    """What the stages of one chunk keep for one another where one process runs them all: a video is decoded once."""

    key: tuple[str, DatasetBuild, int] | None = None
    cache: PictureCache | None = None

    def of(
        self, context: dg.AssetExecutionContext, workspace: Workspace, build: DatasetBuild, chunk: int | None
    ) -> PictureCache | None:
        """None where this run does not also make all that would be kept, or makes it in other processes."""
        made = {key.to_user_string() for key in context.job_def.asset_layer.executable_asset_keys}
        wanted = {name for name in DECODING if name != "embeddings" or build.has_embeddings}
        if chunk is None or not wanted <= made or not is_one_process():
            return None
        key = context.run_id, build, chunk
        if key != self.key:
            self.close()
            self.key, self.cache = key, PictureCache(workspace, build)
        return self.cache

    def close(self) -> None:
        if self.cache:
            self.cache.close()
        self.key = self.cache = None


_pictures = _RunPictures()


def _asking(build: DatasetBuild, stage: Stage, vlm_server: VlmServer | None) -> DatasetBuild:
    """A build whose stage asks the servers of the resource, where there are any and it asks a model at all."""
    if vlm_server and vlm_server.is_configured and stage.asks_model and build.annotator == "vlm":
        return with_annotator(build, "vlm", vlm_server.endpoints())
    return build


def _result(
    corpus: CorpusResource, build: DatasetBuild, stage: Stage, chunk: int | None, report: StageReport
) -> dg.MaterializeResult:
    """What a partition's materialisation shows, with the results of the stage's checks."""
    lake = corpus.lake()
    checked = [check_result(check, outcome) for check, outcome in stage.checked(lake, build, chunk)]
    version = dg.DataVersion(report.run.output_hash)
    return dg.MaterializeResult(metadata=metadata(lake, stage, report), data_version=version, check_results=checked)


def _left_out(stage: Stage, why: str) -> dg.MaterializeResult:
    """A partition that has nothing of the stage."""
    passed = [
        dg.AssetCheckResult(passed=True, check_name=check.name, description=f"nothing to check: {why}")
        for check in stage.checks
    ]
    return dg.MaterializeResult(metadata={"left_out": why}, data_version=LEFT_OUT, check_results=passed)


def _definition(stage: Stage) -> dict[str, Any]:
    """What every asset of the corpus says about itself, as arguments of `dg.asset`."""
    upstream = [
        dg.AssetDep(name, partition_mapping=LINEAGE_ONLY) if name == LISTING.name else dg.AssetDep(name)
        for name in stage.upstream
    ]
    checks = [
        dg.AssetCheckSpec(check.name, asset=stage.name, blocking=check.is_blocking, description=check.description)
        for check in stage.checks
    ]
    return {
        "name": stage.name,
        "deps": upstream,
        "group_name": "corpus",
        "kinds": KINDS.get(stage.name, {"ducklake", "parquet"}),
        "owners": OWNERS,
        "description": stage.description,
        # What bounds how many partitions of a stage are worked on at a time
        "pool": DOWNLOADS if stage.reads_source else ENDPOINT if stage.asks_model else None,
        "retry_policy": PATIENCE if stage.asks_model else None,
        "tags": {COST: "vlm" if stage.asks_model else "cpu"},
        # A stage whose code is the annotator's says its version in each materialisation's tags
        "code_version": stage.code_version if isinstance(stage.code_version, str) else None,
        "metadata": described(*stage.tables, code=stage.run),
        "check_specs": checks,
    }


def dataset_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of a stage that works on a dataset as a whole."""

    @dg.asset(partitions_def=datasets, **_definition(stage))
    def dataset_stage(context: dg.AssetExecutionContext, corpus: CorpusResource) -> dg.MaterializeResult:
        dataset = context.partition_key
        with _outlasting(context):
            report = _run(context, corpus, stage, dataset, None)
            assert report
            register_partitions(context.instance, corpus.lake(), [dataset])
            return _result(corpus, corpus.build(dataset), stage, None, report)

    return cast(dg.AssetsDefinition, dataset_stage)


def chunk_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of a stage that works on a chunk; a blocking check that fails stops what follows."""

    @dg.asset(partitions_def=chunks, **_definition(stage))
    def chunk_stage(
        context: dg.AssetExecutionContext, corpus: CorpusResource, vlm_server: VlmServer
    ) -> Iterator[dg.MaterializeResult]:
        dataset, chunk = parse_chunk_key(context.partition_key)
        with _outlasting(context):
            build = corpus.build(dataset)
            if not stage.applies(build):
                why = f"the build of {dataset} has none"
                context.log.info(f"no {stage.name}: {why}")
                yield _left_out(stage, why)
                return
            report = _run(context, corpus, stage, dataset, chunk, vlm_server)
            if report is None:
                yield _left_out(stage, why_not(stage))
                return
            result = _result(corpus, build, stage, chunk, report)
        yield result

    return cast(dg.AssetsDefinition, chunk_stage)


corpus_assets = [dataset_asset(stage) if not stage.upstream else chunk_asset(stage) for stage in STAGES]
