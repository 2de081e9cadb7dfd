"""Events of what was made, written into a run of Dagster: one that goes on now, or one of the past.

Upstream stages come first, and each event has the tags that staleness is read from.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.events import StepMaterializationData

from assets.defs.corpus.partitions import chunk_key, chunks, datasets
from assets.lib.events import LEFT_OUT, NOT_IN_CHUNK, check_evaluation, metadata, version_tags
from pipeline.build import stored_build
from pipeline.config import DatasetBuild
from pipeline.stage import Stage, StageReport
from pipeline.stages import LISTING, STAGES
from warehouse.lake import WHOLE_DATASET, Lake, StageRun

DATASET_KEYS, CHUNK_KEYS = datasets.name or "", chunks.name or ""  # the names of the partition sets

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
Tell = Callable[[Event, datetime], None]  # an event, and when it happened


def partition_of(run: StageRun) -> str:
    return run.dataset if run.chunk is None else chunk_key(run.dataset, run.chunk)


def tell_into(instance: dg.DagsterInstance, run_id: str, job: str, step: str | None = None) -> Tell:
    """Adds events to a run: one that goes on now, whose step is `step`, or one of the past."""

    def tell(event: Event, at: datetime) -> None:
        # A run keeps one evaluation of each check, and has one per partition: without a run all are kept
        if isinstance(event, dg.AssetCheckEvaluation):
            store(instance, "", "", at, dg.DagsterEventType.ASSET_CHECK_EVALUATION, data=event)
        else:
            data = StepMaterializationData(event)
            store(instance, run_id, job, at, dg.DagsterEventType.ASSET_MATERIALIZATION, data=data, step=step)

    return tell


def store(
    instance: dg.DagsterInstance,
    run_id: str,
    job: str,
    at: datetime,
    kind: dg.DagsterEventType,
    message: str = "",
    data: Any = None,
    step: str | None = None,
) -> None:
    """One event, as of a time; DagsterInstance has a method for events of now alone."""
    event = dg.DagsterEvent(kind.value, job, step_key=step, event_specific_data=data, message=message)
    entry = dg.EventLogEntry(None, logging.INFO, "", run_id, at.timestamp(), step, job, event)
    instance.handle_new_event(entry)


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
    instance: dg.DagsterInstance,
    lake: Lake,
    done: Sequence[StageReport],
    tell: Tell,
    ended: Callable[[StageRun], datetime],
    detailed: set[tuple[str, str]] | None = None,
) -> None:
    """A materialisation per stage run, upstream stages first, with the tags that staleness is read from.

    detailed: (stage, partition) of those that are shown with pictures, tables and checks; None: all.
    """
    # Partitions have to be known to Dagster before an event may name them
    names = sorted({report.run.dataset for report in done})
    register_partitions(instance, lake, names)
    builds = {name: stored_build(lake, name) for name in names}
    reports_by_stage: defaultdict[str, list[StageReport]] = defaultdict(list)
    for report in done:
        reports_by_stage[report.run.stage].append(report)

    for stage in STAGES:
        _tell_left_out(instance, lake, stage, done, builds, tell, ended)
        reports = sorted(reports_by_stage[stage.name], key=lambda report: ended(report.run))
        # Staleness is read from the events that were the newest of what is upstream
        pointers = {name: event_ids(instance, name) for name in stage.upstream if reports and name != LISTING.name}
        for report in reports:
            run, partition = report.run, partition_of(report.run)
            is_detailed = detailed is None or (stage.name, partition) in detailed
            values = metadata(lake, stage, report, detailed=is_detailed)
            tags = _tags(instance, run, partition, pointers)
            event = dg.AssetMaterialization(asset_key=stage.name, partition=partition, metadata=values, tags=tags)
            tell(event, ended(run))
            build = builds[run.dataset]
            if build and is_detailed:
                for check in stage.all_checks:
                    tell(check_evaluation(run, check, check.run(lake, build, run.chunk)), ended(run))


def _tell_left_out(
    instance: dg.DagsterInstance,
    lake: Lake,
    stage: Stage,
    done: Sequence[StageReport],
    builds: Mapping[str, DatasetBuild | None],
    tell: Tell,
    ended: Callable[[StageRun], datetime],
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
        runs = new[partition]
        why = NOT_IN_CHUNK.get(stage.of_chunks) or f"the build of {runs[0].dataset} has none"
        tell(left_out(stage.name, why, partition), max(map(ended, runs)))


def left_out(asset: str, why: str, partition: str | None = None) -> dg.AssetMaterialization:
    """Says that there is nothing of an asset, and why."""
    tags = version_tags(LEFT_OUT.value)
    return dg.AssetMaterialization(asset, metadata={"left_out": why}, partition=partition, tags=tags)


def _chunks_without(
    stage: Stage, done: Sequence[StageReport], builds: Mapping[str, DatasetBuild | None]
) -> dict[str, list[StageRun]]:
    """Of each chunk that may have nothing of a stage the runs of now of what is upstream of it, by partition."""
    is_optional = {build.name: not stage.applies(build) for build in builds.values() if build}
    without: dict[str, list[StageRun]] = {}
    for report in done:
        run = report.run
        is_upstream = run.chunk is not None and run.stage in stage.upstream
        if is_upstream and (stage.of_chunks != "all" or is_optional.get(run.dataset)):
            without.setdefault(partition_of(run), []).append(run)
    return without


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
