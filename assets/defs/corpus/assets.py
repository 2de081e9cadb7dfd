"""The corpus, from episodes to shards: one asset per stage. Each reads the lake, calls the stage and publishes.

What belongs here: what Dagster has to know. What a stage does is in the rooms; what it publishes, in pipeline/stage.py.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from annotate.model_client.calls import VlmError
from assets.lib.events import SCHEMAS, UNCORRECTED, check_result, metadata, register_partitions
from assets.lib.vlm_server import VlmServer
from assets.partitions import chunks, datasets, parse_chunk_key
from assets.resources import Corpus
from pipeline.checks import CHECKS
from pipeline.config import CODE_VERSIONS, with_annotator
from pipeline.plan import CORRECTIONS, CURRENT, WAITING, plan
from pipeline.stage import StageReport, run_stage
from pipeline.vlm_chunk import BUILD_ID
from warehouse.lake import Lake, forget_lakes
from warehouse.lake.place import is_passing

OWNERS = ["team:corpus"]
KINDS = {"ducklake", "parquet"}
# Bounds the partitions that read sources, and so may download, at a time: `dagster instance concurrency set` changes it
DOWNLOADS = "hub_download"
# Bounds the partitions that ask a model's server at a time; each asks VlmConfig.max_concurrency questions at once
ENDPOINT = "vlm_endpoint"
# A server that is gone may be back; what was answered is not asked again
PATIENCE = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
# A team's catalog or bucket that was away for a moment: the step's transaction was undone, and is done again
AGAIN, AGAIN_AFTER_S = 5, 10
COST = "cost"  # tag: what a partition is paid with


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
    corpus: Corpus,
    stage: str,
    dataset: str,
    chunk: int | None,
    vlm_server: VlmServer | None = None,
) -> StageReport | None:
    """Run one stage on one partition; None: nobody corrected anything of the chunk.

    Raises dg.Failure when its upstream is not up to date, or a model gives up.
    """
    lake = corpus.lake()
    build = corpus.build(dataset)
    BUILD_ID.set(context.run_id)
    if vlm_server and vlm_server.is_configured and build.annotator == "vlm" and stage in ("segments", "reasoning"):
        build = with_annotator(build, "vlm", vlm_server.endpoints())
    source = build.source(lake.workspace.sources)
    steps = plan(lake, {dataset: build.specs()}, {dataset: source.fingerprint()}, only_chunk=chunk)
    step = next((s for s in steps if s.stage == stage and s.chunk == chunk), None)
    if step is None and stage == CORRECTIONS and any(s.chunk == chunk for s in steps):
        return None
    if step is None:
        why = f"{dataset} has no chunk {chunk}: materialise episodes of {dataset} first"
        raise dg.Failure(why, allow_retries=False)
    if step.status == WAITING:
        late = next(s.stage for s in steps if s.status not in (CURRENT, WAITING))
        why = f"{stage} of {dataset} waits for {late}, which is not up to date: materialise that first"
        raise dg.Failure(why, allow_retries=False)
    if step.status == CURRENT:
        context.log.info(f"{stage} of {context.partition_key} was up to date; it is made again as asked")
    try:
        return run_stage(lake, build, step, source)
    except VlmError as e:
        raise dg.Failure(str(e), allow_retries=e.reason == "server_gone") from e


def _result(lake: Lake, report: StageReport, checked: Sequence[dg.AssetCheckResult] = ()) -> dg.MaterializeResult:
    version = dg.DataVersion(report.run.output_hash)
    return dg.MaterializeResult(metadata=metadata(lake, report), data_version=version, check_results=checked)


def _check_specs(stage: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(c.name, asset=stage, blocking=c.is_blocking, description=c.description) for c in CHECKS[stage]
    ]


def _checked(corpus: Corpus, stage: str, dataset: str, chunk: int | None) -> list[dg.AssetCheckResult]:
    build = corpus.build(dataset)
    return [check_result(c, c.run(corpus.lake(), build, chunk)) for c in CHECKS[stage]]


def _left_out(stage: str, why: str) -> dg.MaterializeResult:
    passed = [
        dg.AssetCheckResult(passed=True, check_name=c.name, description=f"nothing to check: {why}")
        for c in CHECKS[stage]
    ]
    return dg.MaterializeResult(metadata={"left_out": why}, check_results=passed)


@dg.asset(
    partitions_def=datasets,
    group_name="corpus",
    kinds=KINDS,
    owners=OWNERS,
    pool=DOWNLOADS,
    tags={COST: "cpu"},
    code_version=CODE_VERSIONS["episodes"],
    metadata=SCHEMAS["episodes"],
    check_specs=_check_specs("episodes"),
)
def episodes(context: dg.AssetExecutionContext, corpus: Corpus) -> dg.MaterializeResult:
    """Episodes of a dataset as its metadata lists them, with splits and findings; registers its chunks."""
    with _outlasting(context):
        report = _run(context, corpus, "episodes", context.partition_key, None)
        assert report
        register_partitions(context.instance, corpus.lake(), [context.partition_key])
        return _result(corpus.lake(), report, _checked(corpus, "episodes", context.partition_key, None))


def _chunk_asset(
    stage: str,
    deps: list[dg.AssetDep],
    description: str,
    kinds: set[str],
    pool: str | None = None,
    retry: dg.RetryPolicy | None = None,
) -> dg.AssetsDefinition:
    """The asset of one stage; its checks are run on the chunk and, when a blocking one fails, stop what follows."""

    @dg.asset(
        name=stage,
        deps=deps,
        partitions_def=chunks,
        group_name="corpus",
        kinds=kinds,
        owners=OWNERS,
        description=description,
        pool=pool,
        retry_policy=retry,
        tags={COST: "vlm" if pool == ENDPOINT else "cpu"},
        code_version=CODE_VERSIONS.get(stage),
        metadata=SCHEMAS[stage],
        check_specs=_check_specs(stage),
    )
    def chunk_asset(
        context: dg.AssetExecutionContext, corpus: Corpus, vlm_server: VlmServer
    ) -> Iterator[dg.MaterializeResult]:
        dataset, chunk = parse_chunk_key(context.partition_key)
        with _outlasting(context):
            if stage not in {s.name for s in corpus.build(dataset).specs()}:
                why = f"the annotator of {dataset} makes none"
                context.log.info(f"no {stage}: {why}")
                yield _left_out(stage, why)
                return
            report = _run(context, corpus, stage, dataset, chunk, vlm_server)
            if report is None:
                yield _left_out(stage, UNCORRECTED)
                return
            result = _result(corpus.lake(), report, _checked(corpus, stage, dataset, chunk))
        yield result

    return chunk_asset


def _upstream(*stages: str) -> list[dg.AssetDep]:
    return [dg.AssetDep(s) for s in stages]


# Which datasets' episodes a chunk needs cannot be said with a partition mapping: the edge is there for lineage only
FROM_EPISODES = dg.AssetDep("episodes", partition_mapping=dg.SpecificPartitionsPartitionMapping([]))

frames = _chunk_asset(
    "frames",
    [FROM_EPISODES],
    "Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video.",
    KINDS | {"video"},
    DOWNLOADS,
)
segments = _chunk_asset(
    "segments",
    _upstream("frames"),
    "Subtask spans of each episode, by the configured annotator.",
    KINDS,
    pool=ENDPOINT,
    retry=PATIENCE,
)
corrections = _chunk_asset(
    CORRECTIONS,
    _upstream("frames"),
    "People's labels: segments and progress of the episodes that they corrected, as the run human/<dataset>.",
    KINDS,
)
progress = _chunk_asset(
    "progress",
    _upstream("frames", "segments", CORRECTIONS),
    "The dense label: progress per frame, from segments and visual change; and which label of an episode counts.",
    KINDS,
)
reasoning = _chunk_asset(
    "reasoning",
    _upstream("frames", "segments"),
    "Why the task is as far as it is, in words, for some frames of each episode; only where a VLM annotates.",
    KINDS,
    pool=ENDPOINT,
    retry=PATIENCE,
)
samples = _chunk_asset(
    "samples",
    _upstream("segments", CORRECTIONS, "progress"),
    "Question-answer samples of the ProcVQA and ProgressLM families.",
    KINDS,
)
shards = _chunk_asset(
    "shards",
    _upstream("frames", "samples"),
    "WebDataset tars: one entry per episode, pictures stored once.",
    {"webdataset"},
    pool=DOWNLOADS,
)
