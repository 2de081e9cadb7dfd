"""Runless materialisations: what the build loop did, told to Dagster, so that its UI shows what the lake holds."""

import os
from collections.abc import Sequence
from urllib.parse import urlencode

import dagster as dg

from assets.closing import Outcome, outcome_facts, picture_markdown
from assets.config import STAGES
from assets.partitions import chunk_key, chunks, datasets
from assets.pictures import stage_picture
from assets.stages import StageReport
from warehouse.lake import WHOLE_DATASET, Lake, StageRun, open_lake
from warehouse.tables import TABLES
from warehouse.workspace import Workspace

MAX_PICTURES = 120  # a build that runs more stages reports the further ones without a picture: 0.1 s each
MAIN_TABLE = {"episodes": "episode_facts", "frames": "frames"}  # the table a stage is known by, where not its own name
UPSTREAM = {
    "episodes": (),
    "frames": (),
    "segments": ("frames",),
    "corrections": ("frames",),
    "progress": ("frames", "segments", "corrections"),
    "reasoning": ("frames", "segments"),
    "samples": ("segments", "corrections", "progress"),
    "shards": ("frames", "samples"),
}


def partition_of(run: StageRun) -> str:
    return run.dataset if run.chunk is None else chunk_key(run.dataset, run.chunk)


def _value(value: float | str) -> dg.MetadataValue:
    kind = {int: dg.MetadataValue.int, float: dg.MetadataValue.float}.get(type(value))
    return kind(value) if kind else dg.MetadataValue.text(str(value))  # type: ignore[arg-type]


def _picture(image: bytes, title: str) -> dg.MetadataValue:
    return dg.MetadataValue.md(picture_markdown(image, title))


def outcome_metadata(outcome: Outcome) -> dict[str, dg.MetadataValue]:
    """What a materialisation of the second half shows."""
    return {name: getattr(dg.MetadataValue, kind)(value) for name, (kind, value) in outcome_facts(outcome).items()}


def report_outcomes(instance: dg.DagsterInstance, outcomes: Sequence[Outcome]) -> None:
    """Runless materialisations of what the second half made now, and of what Dagster does not know yet."""
    for outcome in outcomes:
        record = instance.get_latest_data_version_record(dg.AssetKey(outcome.asset))
        found = record.asset_materialization if record else None
        if found and (found.tags or {}).get("dagster/data_version") == outcome.version:
            continue
        instance.report_runless_asset_event(materialization(outcome))


def materialization(outcome: Outcome) -> dg.AssetMaterialization:
    tags = {"dagster/data_version": outcome.version, "dagster/data_version_is_user_provided": "true"}
    return dg.AssetMaterialization(asset_key=outcome.asset, metadata=outcome_metadata(outcome), tags=tags)


def metadata(lake: Lake, report: StageReport, *, picture: bool = True) -> dict[str, dg.MetadataValue]:
    """What a materialisation shows: rows, duration, the stage's own numbers, and one picture."""
    run = report.run
    table = MAIN_TABLE.get(run.stage, run.stage)
    values: dict[str, dg.MetadataValue] = {
        "dagster/partition_row_count": dg.MetadataValue.int(report_rows(report)),
        "dagster/table_name": dg.MetadataValue.text(f"lake.main.{table}"),
        "duration_s": dg.MetadataValue.float(round(run.duration_s, 3)),
        "snapshot": dg.MetadataValue.int(report.snapshot),
        "explorer": dg.MetadataValue.url(explorer_url(run)),
    }
    values |= {name.replace(" ", "_"): _value(value) for name, value in report.numbers.items()}
    image = stage_picture(lake, run.stage, run.dataset, run.chunk) if picture else b""
    if image:
        values["picture"] = _picture(image, f"{run.stage} of {partition_of(run)}")
    return values


def explorer_url(run: StageRun) -> str:
    """The episodes of a partition in the explorer, at the address that it has unless told otherwise."""
    chosen = {"dataset": run.dataset} | ({} if run.chunk is None else {"chunk": run.chunk})
    base = os.environ.get("PROCCORPUS_EXPLORER_URL", "http://127.0.0.1:7680")
    return f"{base.rstrip('/')}/episodes?{urlencode(chosen)}"


def report_rows(report: StageReport) -> int:
    """Rows of the stage's main table, as it counted them; all its rows when it was reported without numbers."""
    rows = report.numbers.get(f"rows_{MAIN_TABLE.get(report.run.stage, report.run.stage)}")
    return int(rows) if rows is not None else report.run.rows


def register_partitions(instance: dg.DagsterInstance, lake: Lake, names: Sequence[str]) -> None:
    """Make the partition sets say what the lake holds of some datasets."""
    rows = lake.rows("SELECT dataset, chunk FROM stage_runs WHERE stage = 'episodes' ORDER BY 1, 2")
    instance.add_dynamic_partitions(datasets.name or "", sorted({r[0] for r in rows if r[0] in names}))
    wanted = [chunk_key(d, c) for d, c in rows if d in names and c != WHOLE_DATASET]
    instance.add_dynamic_partitions(chunks.name or "", wanted)
    for key in instance.get_dynamic_partitions(chunks.name or ""):
        if key.rpartition(":")[0] in names and key not in wanted:
            instance.delete_dynamic_partition(chunks.name or "", key)


def report_stages(instance: dg.DagsterInstance, workspace: Workspace, done: Sequence[StageReport]) -> None:
    """One runless materialisation per stage run, upstream stages first, with the tags that staleness reads."""
    if not done:
        return
    lake = open_lake(workspace)
    register_partitions(instance, lake, sorted({r.run.dataset for r in done}))
    pictures = MAX_PICTURES
    for stage in STAGES:
        reports = [r for r in done if r.run.stage == stage]
        if not reports:
            continue
        pointers = {u: _event_ids(instance, u) for u in UPSTREAM[stage]}
        for report in reports:
            partition = partition_of(report.run)
            values = metadata(lake, report, picture=pictures > 0)
            pictures -= 1
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset_key=stage,
                    partition=partition,
                    metadata=values,
                    tags=_tags(instance, report.run, partition, pointers),
                )
            )


def _event_ids(instance: dg.DagsterInstance, asset: str) -> dict[str, int]:
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    return dict(instance.get_latest_storage_id_by_partition(dg.AssetKey(asset), kind))


def _tags(
    instance: dg.DagsterInstance, run: StageRun, partition: str, pointers: dict[str, dict[str, int]]
) -> dict[str, str]:
    tags = {
        "dagster/data_version": run.output_hash,
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": run.code_version,
    }
    for upstream, ids in pointers.items():
        if partition not in ids:
            continue
        event = instance.get_latest_data_version_record(dg.AssetKey(upstream), partition_key=partition)
        found = event.asset_materialization if event else None
        version = (found.tags or {}).get("dagster/data_version") if found else None
        if version:
            tags[f"dagster/input_data_version/{upstream}"] = version
            tags[f"dagster/input_event_pointer/{upstream}"] = str(ids[partition])
    return tags


def reconcile(instance: dg.DagsterInstance, workspace: Workspace, names: Sequence[str]) -> int:
    """Report stage runs that the event log does not know, as after a crash; returns how many."""
    lake = open_lake(workspace)
    known: dict[tuple[str, str], str] = {}
    for stage in STAGES:
        for partition in instance.get_materialized_partitions(dg.AssetKey(stage)):
            if partition.rpartition(":")[0] in names or partition in names:
                record = instance.get_latest_data_version_record(dg.AssetKey(stage), partition_key=partition)
                found = record.asset_materialization if record else None
                known[stage, partition] = (found.tags or {}).get("dagster/data_version", "") if found else ""
    missing = []
    for run, snapshot in stage_runs(lake, names):
        if known.get((run.stage, partition_of(run))) != run.output_hash:
            missing.append(StageReport(run, snapshot))
    report_stages(instance, workspace, missing)
    return len(missing)


def stage_runs(lake: Lake, names: Sequence[str]) -> list[tuple[StageRun, int]]:
    """The newest run of each stage on each partition of some datasets (over all label runs), with its snapshot."""
    columns = list(StageRun.__dataclass_fields__)
    rows = lake.dicts(
        f"SELECT {', '.join(columns)}, snapshot FROM stage_runs "
        "QUALIFY row_number() OVER (PARTITION BY stage, dataset, chunk ORDER BY finished_at DESC) = 1"
    )
    found = []
    for r in rows:
        snapshot, chunk = r.pop("snapshot"), r["chunk"]
        if r["stage"] == "episodes" and chunk != WHOLE_DATASET:
            continue  # the chunks that listing registered: one materialisation per dataset
        r["chunk"] = None if chunk == WHOLE_DATASET else chunk
        run = StageRun(**r)
        if run.dataset in names:
            found.append((run, snapshot))
    return found


SCHEMAS = {
    stage: dg.TableSchema(
        columns=[
            dg.TableColumn(c.name, str(c.type), description=c.comment or None)
            for c in TABLES[MAIN_TABLE.get(stage, stage)].columns
        ]
    )
    for stage in STAGES
}
