"""What the lake holds and Dagster does not know: stage runs, and what is made of the corpus, as events outside any run.

The truth is in the lake (`stage_runs`); the event log is a copy of it that may be made anew at any time. Upstream
stages come first, and each event has the tags that staleness is read from.
"""

import json
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from datetime import datetime
from pathlib import Path

import dagster as dg
from filelock import FileLock

from assets.lib.events import (
    check_evaluation,
    chunk_key,
    chunks,
    datasets,
    materialization,
    metadata,
    partition_of,
    version_tags,
)
from core.files import room_in
from core.paths import ROOT, Workspace
from pipeline.config import stored_build, stored_builds
from pipeline.release import held_outcomes
from pipeline.stage import StageReport, checked
from pipeline.stages import LISTING, STAGES, Stage
from warehouse.lake import WHOLE_DATASET, Lake, StageRun

DATASET_KEYS, CHUNK_KEYS = datasets.name or "", chunks.name or ""  # the names of the partition sets
MOST_CHECKED = 120  # newest stage runs that are shown with their checks, which look into the lake
# What Dagster itself says of an input that was never materialised
NO_VERSION = "INITIAL"
NO_EVENT = "NULL"


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


def register_partitions(instance: dg.DagsterInstance, lake: Lake) -> None:
    """Make the partition sets say what the lake holds of its datasets."""
    rows = lake.rows("SELECT dataset, chunk FROM stage_runs WHERE stage = 'episodes' ORDER BY 1, 2")
    names = sorted({dataset for dataset, _ in rows})
    instance.add_dynamic_partitions(DATASET_KEYS, names)
    keys = [chunk_key(dataset, chunk) for dataset, chunk in rows if chunk != WHOLE_DATASET]
    instance.add_dynamic_partitions(CHUNK_KEYS, keys)
    # Chunks that their dataset lost are no partitions any more
    registered_keys = instance.get_dynamic_partitions(CHUNK_KEYS)
    for key in {key for key in registered_keys if key.rpartition(":")[0] in names} - {*keys}:
        instance.delete_dynamic_partition(CHUNK_KEYS, key)


def observe(instance: dg.DagsterInstance, lake: Lake, since: int = -1) -> int:
    """Add to the event log what it lacks of the lake; how many stage runs that were.

    `since`: stage runs of this snapshot and of earlier ones are known. What was made of the corpus before the newest of
    the missing stage runs comes before these: it is stale.
    """
    register_partitions(instance, lake)
    missing = _missing(instance, lake, since)
    if missing:
        _add_outcomes(instance, lake, lake.column("SELECT max(finished_at) FROM stage_runs")[0])
    newest_reports = sorted(missing, key=lambda report: report.snapshot)[-MOST_CHECKED:]
    # A lake of another version may have stages that are none here
    for stage in STAGES:
        for report in missing:
            if report.run.stage == stage.name:
                _add_run(instance, lake, stage, report, is_checked=report in newest_reports)
    _add_outcomes(instance, lake)
    return len(missing)


def _missing(instance: dg.DagsterInstance, lake: Lake, since: int) -> list[StageReport]:
    """The newest stage runs, of which the event log has another version or none."""
    columns = list(StageRun.__dataclass_fields__)
    rows = lake.dicts(
        f"SELECT {', '.join(columns)}, snapshot FROM stage_runs WHERE list_contains(?, dataset) AND snapshot > ? "
        # The chunks that listing registered: one materialisation per dataset
        "AND NOT (stage = ? AND chunk != ?) "
        "QUALIFY row_number() OVER (PARTITION BY stage, dataset, chunk ORDER BY finished_at DESC) = 1",
        [list(stored_builds(lake)), since, LISTING.name, WHOLE_DATASET],
    )
    missing = []
    for row in rows:
        snapshot = row.pop("snapshot")
        if row["chunk"] == WHOLE_DATASET:
            row["chunk"] = None
        run = StageRun(**row)
        if version_of(newest(instance, run.stage, partition_of(run))) != run.output_hash:
            missing.append(StageReport(run, snapshot, json.loads(run.numbers or "{}")))
    return missing


def _add_run(
    instance: dg.DagsterInstance, lake: Lake, stage: Stage, report: StageReport, *, is_checked: bool
) -> None:
    run = report.run
    partition = partition_of(run)
    tags = version_tags(run.output_hash) | {"dagster/code_version": run.code_version}
    for name in stage.upstream:
        if name == LISTING.name:
            continue
        record = newest(instance, name, partition)
        tags[f"dagster/input_data_version/{name}"] = version_of(record) or NO_VERSION
        tags[f"dagster/input_event_pointer/{name}"] = str(record.storage_id) if record else NO_EVENT
    values = metadata(lake, stage, report, detailed=False)
    event = dg.AssetMaterialization(
        asset_key=stage.name, partition=partition, metadata=values, tags=tags
    )
    instance.report_runless_asset_event(event)
    build = stored_build(lake, run.dataset) if is_checked else None
    if build:
        for check, outcome in checked(stage, lake, build, run.chunk):
            instance.report_runless_asset_event(check_evaluation(run, check, outcome))


def _add_outcomes(
    instance: dg.DagsterInstance, lake: Lake, made_before: datetime | None = None
) -> None:
    """Release, model, evaluation, leaderboard and comparison; `made_before`: only those made before then."""
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
