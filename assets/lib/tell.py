"""What was made, told to Dagster: as events of a run that goes on now, or outside any run for what it did not start.

The truth is in the lake (`stage_runs`); the event log is a copy of it that may be made anew at any time. Upstream
stages come first, and each event has the tags that staleness is read from.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from datetime import datetime
from pathlib import Path

import dagster as dg
from filelock import FileLock

from assets.lib.events import (
    UP_TO_DATE,
    check_evaluation,
    chunk_key,
    chunks,
    datasets,
    materialization,
    metadata,
    partition_of,
    source_key,
    version_tags,
)
from core.files import room_in
from core.paths import ROOT, Workspace
from pipeline.config import stored_build, stored_builds
from pipeline.outcome import StepOutcome
from pipeline.release import held_outcomes
from pipeline.stage import Stage, StageReport
from pipeline.stages import LISTING, STAGES
from warehouse.lake import WHOLE_DATASET, Lake, StageRun

DATASET_KEYS, CHUNK_KEYS = datasets.name or "", chunks.name or ""  # the names of the partition sets
MAX_DETAILED = 120  # stage runs told with pictures, tables and checks, some 0.2 s each; the older ones with numbers
# What Dagster itself says of an input that was never materialised
NO_VERSION = "INITIAL"
NO_EVENT = "NULL"
Tell = Callable[[dg.AssetMaterialization], object]  # into a run that goes on, or outside any run


@contextmanager
def instance_at(home: Path, workspace: Workspace) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a workspace; the working directory is the project's meanwhile (dagster.yaml's paths)."""
    with chdir(ROOT), room_in(home):
        # Two that come first would both make Dagster's tables
        with FileLock(workspace.root / ".dagster.lock"):
            instance = dg.DagsterInstance.from_config(str(home))
        with instance:
            yield instance


def newest(
    instance: dg.DagsterInstance, asset: str, partition: str | None = None
) -> dg.EventLogRecord | None:
    """The newest materialisation of an asset, or of one of its partitions."""
    records_filter = dg.AssetRecordsFilter(
        dg.AssetKey(asset), asset_partitions=[partition] if partition else None
    )
    return next(iter(instance.fetch_materializations(records_filter, limit=1).records), None)


def version_of(record: dg.EventLogRecord | None) -> str | None:
    """The data version of a materialisation."""
    event = record.asset_materialization if record else None
    if event:
        return (event.tags or {}).get("dagster/data_version")
    return None


def register_partitions(instance: dg.DagsterInstance, lake: Lake, names: Sequence[str]) -> None:
    """Make the partition sets say what the lake holds of some datasets."""
    rows = lake.rows("SELECT dataset, chunk FROM stage_runs WHERE stage = 'episodes' ORDER BY 1, 2")
    chunks = [(dataset, chunk) for dataset, chunk in rows if dataset in names]
    instance.add_dynamic_partitions(DATASET_KEYS, sorted({dataset for dataset, _ in chunks}))
    keys = [chunk_key(dataset, chunk) for dataset, chunk in chunks if chunk != WHOLE_DATASET]
    instance.add_dynamic_partitions(CHUNK_KEYS, keys)
    # Chunks that their dataset lost are no partitions any more
    for key in instance.get_dynamic_partitions(CHUNK_KEYS):
        if key.rpartition(":")[0] in names and key not in keys:
            instance.delete_dynamic_partition(CHUNK_KEYS, key)


def tell_stages(
    instance: dg.DagsterInstance,
    lake: Lake,
    reports: Sequence[StageReport],
    send_event: Tell | None = None,
) -> None:
    """A materialisation per stage run, with the tags that staleness is read from: partition by partition, upstream
    stages first. What a chunk has nothing of stays without one: nothing was made.

    reports: in the order in which they were done; the last ones are shown with pictures, tables and checks.
    send_event: adds an event to a run that goes on; None: outside any run.
    """
    send_event = send_event or instance.report_runless_asset_event
    # Partitions have to be known to Dagster before an event may name them
    names = sorted({report.run.dataset for report in reports})
    register_partitions(instance, lake, names)
    builds = {name: stored_build(lake, name) for name in names}
    first_detailed = len(reports) - MAX_DETAILED
    by_partition: dict[str, dict[str, tuple[StageReport, bool]]] = {}
    for number, report in enumerate(reports):
        by_stage = by_partition.setdefault(partition_of(report.run), {})
        by_stage[report.run.stage] = (report, number >= first_detailed)
    for by_stage in by_partition.values():
        # A lake of another version may have stages that are none here
        for stage in STAGES:
            if stage.name not in by_stage:
                continue
            report, is_detailed = by_stage[stage.name]
            run = report.run
            build = builds[run.dataset] if is_detailed else None
            send_event(_stage_event(instance, lake, stage, report, detailed=build is not None))
            if build is not None:
                # A run keeps one evaluation of each check, and has one per partition: without a run all are kept
                for check, outcome in stage.checked(lake, build, run.chunk):
                    instance.report_runless_asset_event(check_evaluation(run, check, outcome))


def tell_built(
    instance: dg.DagsterInstance, names: Collection[str], failed: Mapping[str, Sequence[str]]
) -> None:
    """Of each dataset that a build was asked to bring up to date, whether it did; `failed`: the reasons, by dataset.

    A failed check of its source, or a time from which on it counts as late.
    """
    for name in sorted(names | failed.keys()):
        reasons = failed.get(name, ())
        tell_check(instance, source_key(name), UP_TO_DATE, reasons)
        if not reasons:
            instance.report_runless_asset_event(dg.AssetMaterialization(source_key(name)))


def tell_check(
    instance: dg.DagsterInstance, asset: dg.AssetKey, check: str, reasons: Sequence[str]
) -> None:
    """A check that did not pass for some reasons, or passed: there are none."""
    text = "; ".join(reasons) or "a job has done it"
    event = dg.AssetCheckEvaluation(
        asset, check, passed=not reasons, description=text, metadata={"reasons": [*reasons]}
    )
    instance.report_runless_asset_event(event)


def _stage_event(
    instance: dg.DagsterInstance, lake: Lake, stage: Stage, report: StageReport, *, detailed: bool
) -> dg.AssetMaterialization:
    partition = partition_of(report.run)
    tags = version_tags(report.run.output_hash) | {"dagster/code_version": report.run.code_version}
    for name in stage.upstream:
        if name == LISTING.name:
            continue
        record = newest(instance, name, partition)
        tags[f"dagster/input_data_version/{name}"] = version_of(record) or NO_VERSION
        if record:
            tags[f"dagster/input_event_pointer/{name}"] = str(record.storage_id)
        else:
            tags[f"dagster/input_event_pointer/{name}"] = NO_EVENT
    values = metadata(lake, stage, report, detailed=detailed)
    return dg.AssetMaterialization(
        asset_key=stage.name, partition=partition, metadata=values, tags=tags
    )


# What a workspace holds and Dagster does not know


def reconcile(instance: dg.DagsterInstance, lake: Lake, names: Sequence[str] | None = None) -> int:
    """Tell the newest stage runs of some datasets, or of all, that the event log does not know; returns how many."""
    columns = list(StageRun.__dataclass_fields__)
    rows = lake.dicts(
        f"SELECT {', '.join(columns)}, snapshot FROM stage_runs WHERE list_contains(?, dataset) QUALIFY "
        "row_number() OVER (PARTITION BY stage, dataset, chunk ORDER BY finished_at DESC) = 1 ORDER BY finished_at",
        [list(stored_builds(lake) if names is None else names)],
    )
    missing = []
    for row in rows:
        snapshot = row.pop("snapshot")
        chunk = row["chunk"]
        if row["stage"] == LISTING.name and chunk != WHOLE_DATASET:
            continue  # the chunks that listing registered: one materialisation per dataset
        row["chunk"] = None if chunk == WHOLE_DATASET else chunk
        run = StageRun(**row)
        if version_of(newest(instance, run.stage, partition_of(run))) != run.output_hash:
            missing.append(StageReport(run, snapshot, json.loads(run.numbers or "{}")))
    if missing:
        tell_stages(instance, lake, missing)
    return len(missing)


def tell_outcomes(instance: dg.DagsterInstance, outcomes: Sequence[StepOutcome]) -> None:
    """What the second half made now, from the first that Dagster does not know: else what is below would look stale."""
    is_reported = [
        version_of(newest(instance, outcome.asset)) == outcome.version for outcome in outcomes
    ]
    for outcome in outcomes[is_reported.index(False) :] if False in is_reported else ():
        instance.report_runless_asset_event(materialization(outcome))


def tell_held(
    instance: dg.DagsterInstance, lake: Lake, made_before: datetime | None = None
) -> None:
    """What the lake holds of the second half and Dagster does not know; `made_before`: only what was made before
    then."""
    for held_outcome in held_outcomes(lake):
        record = newest(instance, held_outcome.asset)
        is_new = not record or (
            version_of(record) != held_outcome.version
            and record.timestamp < held_outcome.made_at.timestamp()
        )
        if (
            is_new
            and (made_before is None or held_outcome.made_at < made_before)
            and (outcome := held_outcome.outcome())
        ):
            instance.report_runless_asset_event(materialization(outcome))
