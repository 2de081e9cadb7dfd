"""The corpus, from episodes to shards: one asset per stage of `pipeline.stages.STAGES`.

What belongs here: what Dagster has to know. What a stage does and needs is in pipeline/stages/.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import dagster as dg

from annotate.model_client.calls import VlmError
from assets.defs.resources import CorpusResource, VlmServer, is_one_process
from assets.lib.events import (
    LEFT_OUT,
    check_result,
    chunks,
    datasets,
    described,
    metadata,
    parse_chunk_key,
    register_partitions,
    why_not,
)
from core.paths import Workspace
from pipeline.config import DatasetBuild, with_annotator
from pipeline.picture_cache import PictureCache
from pipeline.plan import CURRENT, WAITING, plan
from pipeline.stage import (
    BlockedError,
    ChangedSourceError,
    Stage,
    StageContext,
    StageReport,
    Step,
    checked,
    checks_of,
    run_stage,
)
from pipeline.stages import LISTING, STAGES, stage_specs
from warehouse.lake import forget_lakes, is_passing
from warehouse.lake.place import building

OWNERS = ["team:corpus"]
# Bounds the partitions that read sources, and so may download, at a time: `dagster instance concurrency set` changes it
DOWNLOADS = "hub_download"
# Bounds the partitions that ask a model's server at a time; each asks VlmConfig.max_concurrency questions at once
ENDPOINT = "vlm_endpoint"
# A server that is gone may be back; what was answered is not asked again
PATIENCE = dg.RetryPolicy(
    max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
# A team's catalog or bucket that was away for a moment: the step's transaction was undone, and is done again
AGAIN = 5
AGAIN_AFTER_S = 10
# What a stage's table is made of, as the UI shows it
KINDS = {
    "frames": {"ducklake", "parquet", "video"},
    "shards": {"webdataset"},
}
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
    vlm_server: VlmServer,
) -> StageReport | str:
    """Run one stage on one partition; a text: why the partition has nothing of the stage.

    Raises dg.Failure when its upstream is not up to date or did not pass a blocking check, or a model gives up.
    """
    lake = corpus.lake()
    build = corpus.build(dataset)
    if not stage.applies(build):
        return f"the build of {dataset} has none"
    # Where the resource has servers, a stage that asks a model asks those
    if vlm_server.is_configured and stage.asks_model and build.annotator == "vlm":
        build = with_annotator(build, "vlm", vlm_server.endpoints())
    source = build.source(lake.workspace.sources)
    fingerprint = source.fingerprint()
    build = build.read_at(fingerprint)
    steps = plan(lake, {dataset: stage_specs(build)}, {dataset: fingerprint}, only_chunk=chunk)
    of_chunk = [step for step in steps if step.chunk == chunk]
    step = next((step for step in of_chunk if step.stage is stage), None)
    if step is None and why_not(stage) and of_chunk:
        return why_not(stage)

    if step is None:
        raise dg.Failure(
            f"{dataset} has no chunk {chunk}: materialise episodes of {dataset} first",
            allow_retries=False,
        )
    _check_is_ready(step, steps)
    if step.status == CURRENT:
        context.log.info(
            f"{stage.name} of {context.partition_key} was up to date; it is made again as asked"
        )
    if stage.name in DECODING:
        pictures = _pictures(context, lake.workspace, build, chunk)
    else:
        pictures = None
    try:
        with building(lake.workspace):
            return run_stage(
                StageContext(lake, build, step, source, build_id=context.run_id, pictures=pictures)
            )
    except (ChangedSourceError, BlockedError) as e:
        raise dg.Failure(
            f"{stage.name} of {context.partition_key} is not made: {e}", allow_retries=False
        ) from e
    except VlmError as e:
        raise dg.Failure(str(e), allow_retries=e.reason == "server_gone") from e
    finally:
        if stage.name == DECODING[-1]:
            _let_go()


def _check_is_ready(step: Step, steps: Sequence[Step]) -> None:
    """Raises dg.Failure, which says what to do first; trying again would not help."""
    if step.status == WAITING:
        late = next(
            step_before.stage.name
            for step_before in steps
            if step_before.status not in (CURRENT, WAITING)
        )
        raise dg.Failure(
            f"{step.stage.name} of {step.dataset} waits for {late}, which is not up to date: materialise "
            "that first",
            allow_retries=False,
        )


# What the stages of one chunk keep for one another where one process runs them all: a video is decoded once. Of a run,
# the newest build and chunk
_kept: list[tuple[tuple[str, DatasetBuild, int], PictureCache]] = []


def _pictures(
    context: dg.AssetExecutionContext, workspace: Workspace, build: DatasetBuild, chunk: int | None
) -> PictureCache | None:
    """None where this run does not also make all that would be kept, or makes it in other processes."""
    executable = {key.to_user_string() for key in context.job_def.asset_layer.executable_asset_keys}
    required = {name for name in DECODING if name != "embeddings" or build.has_embeddings}
    if chunk is None or not required <= executable or not is_one_process():
        return None
    key = context.run_id, build, chunk
    if not _kept or _kept[0][0] != key:
        _let_go()
        _kept.append((key, PictureCache(workspace, build)))
    return _kept[0][1]


def _let_go() -> None:
    while _kept:
        _kept.pop()[1].close()


def _place(key: str) -> tuple[str, int | None]:
    """The dataset of a partition, and its chunk; None: it is the dataset as a whole."""
    if ":" in key:
        return parse_chunk_key(key)
    return (key, None)


def _result(
    corpus: CorpusResource, stage: Stage, dataset: str, chunk: int | None, report: StageReport | str
) -> dg.MaterializeResult:
    """What a partition's materialisation shows, with the results of the stage's checks; or why it has nothing of it."""
    if isinstance(report, str):
        message = f"nothing to check: {report}"
        passed = [
            dg.AssetCheckResult(passed=True, check_name=c.name, description=message)
            for c in checks_of(stage)
        ]
        # Dagster has no word for a step that was asked and has nothing to make: it would skip what comes after
        empty = {"left_out": report, "dagster/partition_row_count": 0}
        return dg.MaterializeResult(metadata=empty, data_version=LEFT_OUT, check_results=passed)
    lake = corpus.lake()
    build = corpus.build(dataset)
    results = [check_result(*result) for result in checked(stage, lake, build, chunk)]
    version = dg.DataVersion(report.run.output_hash)
    return dg.MaterializeResult(
        metadata=metadata(lake, stage, report), data_version=version, check_results=results
    )


def _definition(stage: Stage) -> dict[str, Any]:
    """What every asset of the corpus says about itself, as arguments of `dg.asset`."""
    upstream = [
        dg.AssetDep(name, partition_mapping=LINEAGE_ONLY)
        if name == LISTING.name
        else dg.AssetDep(name)
        for name in stage.upstream
    ]
    checks = [
        dg.AssetCheckSpec(
            check.name, asset=stage.name, blocking=check.is_blocking, description=check.description
        )
        for check in checks_of(stage)
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


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of a stage, of a dataset as a whole or of its chunks; a blocking check that fails stops what follows.

    A partition that has nothing of the stage says so.
    """

    @dg.asset(partitions_def=chunks if stage.upstream else datasets, **_definition(stage))
    def made(
        context: dg.AssetExecutionContext, corpus: CorpusResource, vlm_server: VlmServer
    ) -> Iterator[dg.MaterializeResult]:
        dataset, chunk = _place(context.partition_key)
        with _outlasting(context):
            report = _run(context, corpus, stage, dataset, chunk, vlm_server)
            if chunk is None:
                register_partitions(context.instance, corpus.lake())
            result = _result(corpus, stage, dataset, chunk, report)
        yield result

    return cast(dg.AssetsDefinition, made)


corpus_assets = [stage_asset(stage) for stage in STAGES]
