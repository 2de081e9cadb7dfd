"""What was made, told to Dagster: as events of a run that goes on now, or outside any run for what it did not start.

The truth is in the lake (`stage_runs`); the event log is a copy of it that may be made anew at any time. Upstream
stages come first, and each event has the tags that staleness is read from.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import dagster as dg

from assets.defs.corpus.partitions import chunk_key, chunks, datasets
from assets.lib.events import LEFT_OUT, NOT_IN_CHUNK, check_evaluation, materialization, metadata, version_tags
from core.paths import Workspace
from pipeline.build import stored_build
from pipeline.config import DatasetBuild
from pipeline.held import held_outcomes
from pipeline.outcome import Outcome
from pipeline.stage import Stage, StageReport
from pipeline.stages import LISTING, STAGES
from warehouse.lake import WHOLE_DATASET, Lake, StageRun, open_lake

DATASET_KEYS, CHUNK_KEYS = datasets.name or "", chunks.name or ""  # the names of the partition sets
MAX_DETAILED = 120  # stage runs told with pictures, tables and checks, some 0.2 s each; the older ones with numbers
# Assets that nothing makes unless somebody asks: how to ask, and what they are made of
ON_REQUEST = {
    "annotator_comparison": (
        "nobody compared the annotators: proccorpus eval annotators, or Materialize",
        "progress",
    ),
    "rewards": ("no model was asked about the chunk: Materialize asks the newest", "reward_model", "frames"),
}
Tell = Callable[[dg.AssetMaterialization], object]  # into a run that goes on, or outside any run


def partition_of(run: StageRun) -> str:
    return run.dataset if run.chunk is None else chunk_key(run.dataset, run.chunk)


def register_partitions(instance: dg.DagsterInstance, lake: Lake, names: Sequence[str]) -> None:
    """Make the partition sets say what the lake holds of some datasets."""
    rows = lake.rows("SELECT dataset, chunk FROM stage_runs WHERE stage = 'episodes' ORDER BY 1, 2")
    held = [(dataset, chunk) for dataset, chunk in rows if dataset in names]
    instance.add_dynamic_partitions(DATASET_KEYS, sorted({dataset for dataset, _ in held}))
    keys = [chunk_key(dataset, chunk) for dataset, chunk in held if chunk != WHOLE_DATASET]
    instance.add_dynamic_partitions(CHUNK_KEYS, keys)
    _forget_lost_chunks(instance, names, keys)


def _forget_lost_chunks(instance: dg.DagsterInstance, names: Sequence[str], keys: Sequence[str]) -> None:
    """Delete the partitions of chunks of some datasets that are not among `keys`."""
    for key in instance.get_dynamic_partitions(CHUNK_KEYS):
        if key.rpartition(":")[0] in names and key not in keys:
            instance.delete_dynamic_partition(CHUNK_KEYS, key)


def tell_stages(
    instance: dg.DagsterInstance, lake: Lake, done: Sequence[StageReport], tell: Tell | None = None
) -> None:
    """A materialisation per stage run, upstream stages first, with the tags that staleness is read from.

    done: in the order in which they were done; the last ones are shown with pictures, tables and checks. tell: adds an
    event to a run that goes on; None: outside any run.
    """
    tell = tell or instance.report_runless_asset_event
    # Partitions have to be known to Dagster before an event may name them
    names = sorted({report.run.dataset for report in done})
    register_partitions(instance, lake, names)
    builds = {name: stored_build(lake, name) for name in names}
    detailed = {id(report) for report in done[-MAX_DETAILED:]}
    for stage in STAGES:
        _tell_left_out(instance, lake, stage, done, builds, tell)
        reports = [report for report in done if report.run.stage == stage.name]
        # Staleness is read from the events that were the newest of what is upstream
        pointers = {name: event_ids(instance, name) for name in stage.upstream if reports and name != LISTING.name}
        for report in reports:
            run, partition = report.run, partition_of(report.run)
            values = metadata(lake, stage, report, detailed=id(report) in detailed)
            tags = _tags(instance, run, partition, pointers)
            tell(dg.AssetMaterialization(asset_key=stage.name, partition=partition, metadata=values, tags=tags))
            build = builds[run.dataset]
            if build and id(report) in detailed:
                for check in stage.all_checks:
                    # A run keeps one evaluation of each check, and has one per partition: without a run all are kept
                    outcome = check.run(lake, build, run.chunk)
                    instance.report_runless_asset_event(check_evaluation(run, check, outcome))


def _tell_left_out(
    instance: dg.DagsterInstance,
    lake: Lake,
    stage: Stage,
    done: Sequence[StageReport],
    builds: Mapping[str, DatasetBuild | None],
    tell: Tell,
) -> None:
    """Chunks that have nothing of a stage: an event says so, or Dagster would ask for them first.

    Said again after each run of what is upstream, or Dagster would call it stale.
    """
    new = _chunks_without(stage, done, builds)
    if not new:
        return
    have_rows = lake.rows("SELECT dataset, chunk FROM stage_runs WHERE stage = ?", [stage.name])
    known = {chunk_key(dataset, chunk) for dataset, chunk in have_rows}
    for partition in sorted(new.keys() - known):
        why = NOT_IN_CHUNK.get(stage.of_chunks) or f"the build of {new[partition]} has none"
        tell(left_out(stage.name, why, partition))


def left_out(asset: str, why: str, partition: str | None = None) -> dg.AssetMaterialization:
    """Says that there is nothing of an asset, and why."""
    tags = version_tags(LEFT_OUT.value)
    return dg.AssetMaterialization(asset, metadata={"left_out": why}, partition=partition, tags=tags)


def _chunks_without(
    stage: Stage, done: Sequence[StageReport], builds: Mapping[str, DatasetBuild | None]
) -> dict[str, str]:
    """The chunks that may have nothing of a stage and whose upstream was made now: the dataset by partition."""
    is_optional = {build.name: not stage.applies(build) for build in builds.values() if build}
    return {
        partition_of(report.run): report.run.dataset
        for report in done
        if report.run.chunk is not None
        and report.run.stage in stage.upstream
        and (stage.of_chunks != "all" or is_optional.get(report.run.dataset))
    }


def event_ids(instance: dg.DagsterInstance, asset: str) -> dict[str | None, int]:
    """The newest materialisation by partition; of an asset without partitions by None."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    by_partition: dict[str | None, int] = {**instance.get_latest_storage_id_by_partition(dg.AssetKey(asset), kind)}
    record = None if by_partition else instance.get_latest_data_version_record(dg.AssetKey(asset))
    return {None: record.storage_id} if record else by_partition


def _tags(
    instance: dg.DagsterInstance, run: StageRun, partition: str, pointers: Mapping[str, Mapping[str | None, int]]
) -> dict[str, str]:
    tags = version_tags(run.output_hash) | {"dagster/code_version": run.code_version}
    for upstream, ids in pointers.items():
        version = data_version(instance, upstream, partition) if partition in ids else None
        if version:
            tags[f"dagster/input_data_version/{upstream}"] = version
            tags[f"dagster/input_event_pointer/{upstream}"] = str(ids[partition])
    return tags


def data_version(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> str | None:
    """The data version of an asset's newest materialisation; None where there is none, or it has no version."""
    known = newest_event(instance, asset, partition)
    return known[0] if known else None


def newest_event(
    instance: dg.DagsterInstance, asset: str, partition: str | None = None
) -> tuple[str | None, float] | None:
    """Data version and time of an asset's newest materialisation; None where there is none."""
    record = instance.get_latest_data_version_record(dg.AssetKey(asset), partition_key=partition)
    event = record.asset_materialization if record else None
    return ((event.tags or {}).get("dagster/data_version"), record.timestamp) if record and event else None


# What a workspace holds and Dagster does not know


def reconcile(instance: dg.DagsterInstance, workspace: Workspace, names: Sequence[str]) -> int:
    """Tell the newest stage runs of some datasets that the event log does not know; returns how many."""
    lake = open_lake(workspace)
    columns = list(StageRun.__dataclass_fields__)
    rows = lake.dicts(
        f"SELECT {', '.join(columns)}, snapshot FROM stage_runs WHERE list_contains(?, dataset) QUALIFY "
        "row_number() OVER (PARTITION BY stage, dataset, chunk ORDER BY finished_at DESC) = 1 ORDER BY finished_at",
        [list(names)],
    )
    known = {stage.name: instance.get_materialized_partitions(dg.AssetKey(stage.name)) for stage in STAGES}
    missing = []
    for row in rows:
        snapshot, chunk = row.pop("snapshot"), row["chunk"]
        if row["stage"] == LISTING.name and chunk != WHOLE_DATASET:
            continue  # the chunks that listing registered: one materialisation per dataset
        row["chunk"] = None if chunk == WHOLE_DATASET else chunk
        run = StageRun(**row)
        is_known = partition_of(run) in known[run.stage]
        if not is_known or data_version(instance, run.stage, partition_of(run)) != run.output_hash:
            missing.append(StageReport(run, snapshot, json.loads(run.numbers or "{}")))
    if missing:
        tell_stages(instance, lake, missing)
    return len(missing)


def tell_outcomes(instance: dg.DagsterInstance, outcomes: Sequence[Outcome]) -> None:
    """What the second half made now, from the first that Dagster does not know: else what is below would look stale."""
    new = [k for k, outcome in enumerate(outcomes) if data_version(instance, outcome.asset) != outcome.version]
    for outcome in outcomes[new[0] :] if new else ():
        instance.report_runless_asset_event(materialization(outcome))


def tell_held(instance: dg.DagsterInstance, lake: Lake, before: datetime | None = None) -> None:
    """What the lake holds of the second half and Dagster does not know; `before`: only what was made before then."""
    for held in held_outcomes(lake):
        known = newest_event(instance, held.asset)
        is_new = known is None or (known[0] != held.version and known[1] < held.made_at.timestamp())
        if is_new and (before is None or held.made_at < before) and (outcome := held.outcome()):
            instance.report_runless_asset_event(materialization(outcome))


def tell_unasked(instance: dg.DagsterInstance) -> None:
    """Of assets that are made on request alone: who has not asked is told how to, once what they need is there.

    Said again after what is upstream was made anew, or Dagster would call it stale.
    """
    for asset, (why, *upstream) in ON_REQUEST.items():
        needed = [event_ids(instance, name) for name in upstream]
        told = event_ids(instance, asset)
        for partition in [None] if asset == "annotator_comparison" else instance.get_dynamic_partitions(CHUNK_KEYS):
            newest = [_newest_id(ids, partition) for ids in needed]
            if not all(newest) or max(newest) < _newest_id(told, partition):
                continue
            if data_version(instance, asset, partition) in (None, LEFT_OUT.value):
                instance.report_runless_asset_event(left_out(asset, why, partition))


def _newest_id(ids: Mapping[str | None, int], partition: str | None) -> int:
    """The newest event of a partition, or of an asset without any; of all, where no partition is asked for."""
    if partition is None:
        return max(ids.values(), default=0)
    return ids.get(partition) or ids.get(None, 0)
