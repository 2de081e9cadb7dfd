"""What was done outside Dagster, told to it: as runs, with the times at which it was done, who is upstream first.

The truth is in the lake (`stage_runs`); the event log is a copy of it that may be made anew at any time.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.events import StepMaterializationData

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

MAX_DETAILED = 120  # stage runs told with pictures, tables and checks, some 0.2 s each; the older ones with numbers
PAUSE = timedelta(minutes=2)  # between stage runs of one build at most: after it another build began
DATASET_KEYS, CHUNK_KEYS = datasets.name or "", chunks.name or ""  # the names of the partition sets
TOLD = {"told_by": "command line"}  # tags of runs that Dagster did not start
# Assets that nothing makes unless somebody asks: how to ask, and what they are made of
ON_REQUEST = {
    "annotator_comparison": (
        "nobody compared the annotators: proccorpus eval annotators, or Materialize",
        "progress",
    ),
    "rewards": ("no model was asked about the chunk: Materialize asks the newest", "reward_model", "frames"),
}

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
Tell = Callable[[Event, datetime], None]  # an event, and when it happened


def partition_of(run: StageRun) -> str:
    return run.dataset if run.chunk is None else chunk_key(run.dataset, run.chunk)


# Runs


def tell_into(instance: dg.DagsterInstance, run_id: str, job: str, step: str | None = None) -> Tell:
    """Adds events to a run: one that goes on now, whose step is `step`, or one of the past."""

    def tell(event: Event, at: datetime) -> None:
        # A run keeps one evaluation of each check, and has one per partition: without a run all are kept
        if isinstance(event, dg.AssetCheckEvaluation):
            _store(instance, "", "", at, dg.DagsterEventType.ASSET_CHECK_EVALUATION, data=event)
        else:
            data = StepMaterializationData(event)
            _store(instance, run_id, job, at, dg.DagsterEventType.ASSET_MATERIALIZATION, data=data, step=step)

    return tell


@contextmanager
def told_run(instance: dg.DagsterInstance, job: str, began: datetime, ended: datetime) -> Iterator[Tell]:
    """A run of a job that went on outside Dagster, and succeeded; yields what adds its events."""
    run = instance.add_run(dg.DagsterRun(job, tags=TOLD))
    note = "Done by the command line, and told to Dagster afterwards."
    _store(instance, run.run_id, job, began, dg.DagsterEventType.RUN_START, note)
    yield tell_into(instance, run.run_id, job)
    _store(instance, run.run_id, job, ended, dg.DagsterEventType.RUN_SUCCESS, "All of it is in the lake.")


def _store(
    instance: dg.DagsterInstance,
    run_id: str,
    job: str,
    at: datetime,
    kind: dg.DagsterEventType,
    message: str = "",
    data: StepMaterializationData | dg.AssetCheckEvaluation | None = None,
    step: str | None = None,
) -> None:
    """One event, as of a time; DagsterInstance has a method for events of now alone."""
    event = dg.DagsterEvent(kind.value, job, step_key=step, event_specific_data=data, message=message)
    entry = dg.EventLogEntry(None, logging.INFO, "", run_id, at.timestamp(), step, job, event)
    instance.handle_new_event(entry)


# The corpus


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


def report_stages(instance: dg.DagsterInstance, workspace: Workspace, done: Sequence[StageReport]) -> None:
    """What builds outside Dagster did: a run per build, in which each stage run is a materialisation."""
    if not done:
        return
    lake = open_lake(workspace)
    ended = _ends(lake, done)
    detailed = {partition_and_stage(r.run) for r in sorted(done, key=lambda r: ended[_key(r.run)])[-MAX_DETAILED:]}
    for build in _builds(done, ended):
        began = min(ended[_key(r.run)] - timedelta(seconds=r.run.duration_s) for r in build)
        with told_run(instance, "build", began, max(ended[_key(r.run)] for r in build)) as tell:
            tell_stages(instance, lake, build, tell, lambda run: ended[_key(run)], detailed)


def partition_and_stage(run: StageRun) -> tuple[str, str]:
    return run.stage, partition_of(run)


def _key(run: StageRun) -> tuple[str, str, int, str]:
    return run.stage, run.dataset, WHOLE_DATASET if run.chunk is None else run.chunk, run.label_run


def _ends(lake: Lake, done: Sequence[StageReport]) -> dict[tuple[str, str, int, str], datetime]:
    """When each stage run ended; now where another one took its place since."""
    rows = lake.rows("SELECT stage, dataset, chunk, label_run, finished_at FROM stage_runs")
    ends = {(stage, dataset, chunk, label_run): at for stage, dataset, chunk, label_run, at in rows}
    now = datetime.now(UTC)
    return {_key(r.run): ends.get(_key(r.run), now) for r in done}


def _builds(
    done: Sequence[StageReport], ended: Mapping[tuple[str, str, int, str], datetime]
) -> list[list[StageReport]]:
    """Stage runs by the build that they were a part of: one after which nothing went on for a while was its last."""
    builds: list[list[StageReport]] = []
    last = datetime.min.replace(tzinfo=UTC)
    for report in sorted(done, key=lambda r: ended[_key(r.run)]):
        end = ended[_key(report.run)]
        if end - timedelta(seconds=report.run.duration_s) > last + PAUSE:
            builds.append([])
        builds[-1].append(report)
        last = end
    return builds


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
        pointers = {name: _event_ids(instance, name) for name in stage.upstream if reports and name != LISTING.name}
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


def _event_ids(instance: dg.DagsterInstance, asset: str) -> dict[str | None, int]:
    """The newest materialisation by partition; of an asset without partitions by None."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    return {**instance.get_latest_storage_id_by_partition(dg.AssetKey(asset), kind)}


def _tags(
    instance: dg.DagsterInstance, run: StageRun, partition: str, pointers: Mapping[str, Mapping[str | None, int]]
) -> dict[str, str]:
    tags = version_tags(run.output_hash) | {"dagster/code_version": run.code_version}
    for upstream, ids in pointers.items():
        version = _data_version(instance, upstream, partition) if partition in ids else None
        if version:
            tags[f"dagster/input_data_version/{upstream}"] = version
            tags[f"dagster/input_event_pointer/{upstream}"] = str(ids[partition])
    return tags


def reconcile(instance: dg.DagsterInstance, workspace: Workspace, names: Sequence[str]) -> int:
    """Report stage runs that the event log does not know, with what they counted; returns how many."""
    lake = open_lake(workspace)
    reported = _reported_versions(instance, names)
    missing = [
        StageReport(run, snapshot, json.loads(run.numbers or "{}"))
        for run, snapshot in stage_runs(lake, names)
        if reported.get((run.stage, partition_of(run))) != run.output_hash
    ]
    report_stages(instance, workspace, missing)
    return len(missing)


def _reported_versions(instance: dg.DagsterInstance, names: Sequence[str]) -> dict[tuple[str, str], str]:
    """The data version of the newest event, by stage and partition of some datasets."""
    reported: dict[tuple[str, str], str] = {}
    for stage in STAGES:
        for partition in instance.get_materialized_partitions(dg.AssetKey(stage.name)):
            if partition.rpartition(":")[0] in names or partition in names:
                reported[stage.name, partition] = _data_version(instance, stage.name, partition) or ""
    return reported


def _data_version(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> str | None:
    """The data version of an asset's newest materialisation; None where there is none, or it has no version."""
    known = _newest(instance, asset, partition)
    return known[0] if known else None


def _newest(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> tuple[str | None, float] | None:
    """Data version and time of an asset's newest materialisation; None where there is none."""
    record = instance.get_latest_data_version_record(dg.AssetKey(asset), partition_key=partition)
    event = record.asset_materialization if record else None
    return ((event.tags or {}).get("dagster/data_version"), record.timestamp) if record and event else None


def stage_runs(lake: Lake, names: Sequence[str]) -> list[tuple[StageRun, int]]:
    """The newest run of each stage on each partition of some datasets (over all label runs), with its snapshot."""
    columns = list(StageRun.__dataclass_fields__)
    rows = lake.dicts(
        f"SELECT {', '.join(columns)}, snapshot FROM stage_runs "
        "QUALIFY row_number() OVER (PARTITION BY stage, dataset, chunk ORDER BY finished_at DESC) = 1"
    )
    runs = []
    for row in rows:
        snapshot, chunk = row.pop("snapshot"), row["chunk"]
        if row["stage"] == LISTING.name and chunk != WHOLE_DATASET:
            continue  # the chunks that listing registered: one materialisation per dataset
        row["chunk"] = None if chunk == WHOLE_DATASET else chunk
        if row["dataset"] in names:
            runs.append((StageRun(**row), snapshot))
    return runs


# What is made of the corpus


def report_outcomes(instance: dg.DagsterInstance, outcomes: Sequence[Outcome]) -> None:
    """What the second half made now, and what Dagster does not know yet, as a run of the job `close`."""
    # What is made of something new is told, too, also where it came out as before: else it would look stale
    new = [outcome.asset for outcome in outcomes if _data_version(instance, outcome.asset) != outcome.version]
    if not new:
        return
    first = [outcome.asset for outcome in outcomes].index(new[0])
    now = datetime.now(UTC)
    with told_run(instance, "close", now, now) as tell:
        for outcome in outcomes[first:]:
            tell(materialization(outcome), now)


def report_held(instance: dg.DagsterInstance, lake: Lake) -> None:
    """What the lake holds of the second half and Dagster does not know; and why there is nothing of what is missing."""
    new = []
    for held in held_outcomes(lake):
        known = _newest(instance, held.asset)
        if known is None or (known[0] != held.version and known[1] < held.made_at.timestamp()):
            outcome = held.outcome()
            new += [(outcome, held.made_at)] if outcome else []
    if new:
        with told_run(instance, "close", min(at for _, at in new), max(at for _, at in new)) as tell:
            for outcome, at in new:
                tell(materialization(outcome), at)
    report_unasked(instance)


def report_unasked(instance: dg.DagsterInstance) -> None:
    """Of assets that are made on request alone: who has not asked is told how to, once what they need is there.

    Said again after what is upstream was made anew, or Dagster would call it stale.
    """
    for asset, (why, *upstream) in ON_REQUEST.items():
        needed = [_event_ids(instance, name) for name in upstream]
        told = _event_ids(instance, asset)
        for partition in [None] if asset == "annotator_comparison" else instance.get_dynamic_partitions(CHUNK_KEYS):
            newest = [_newest_id(ids, partition) for ids in needed]
            if not all(newest) or max(newest) < _newest_id(told, partition):
                continue
            if _data_version(instance, asset, partition) in (None, LEFT_OUT.value):
                instance.report_runless_asset_event(left_out(asset, why, partition))


def _newest_id(ids: Mapping[str | None, int], partition: str | None) -> int:
    """The newest event of a partition, or of an asset without any; of all, where no partition is asked for."""
    if partition is None:
        return max(ids.values(), default=0)
    return ids.get(partition) or ids.get(None, 0)
