"""Runless materialisations: what the build loop did, told to Dagster, so that its UI shows what the lake holds."""

import os
from collections.abc import Sequence
from urllib.parse import urlencode

import dagster as dg

from assets.partitions import chunk_key, chunks, datasets
from core.paths import Workspace
from core.tables import STAGE_TABLES, TABLES
from pipeline.build import stored_build
from pipeline.checks import CHECKS, StageCheck
from pipeline.config import STAGES, DatasetBuild
from pipeline.pictures import contact_sheet, stage_picture
from pipeline.plan import CORRECTIONS
from pipeline.release_cycle import Outcome, outcome_facts, picture_markdown
from pipeline.stage import StageReport
from warehouse.lake import WHOLE_DATASET, Lake, StageRun, open_lake
from warehouse.lake.checks import CheckOutcome
from warehouse.lake.place import place

MAX_PICTURES = 120  # a build that runs more stages reports the further ones without a picture: 0.1 s each
MAIN_TABLE = {"episodes": "episode_facts", "frames": "frames"}  # the table a stage is known by, where not its own name
UNCORRECTED = "nobody corrected anything of the chunk"
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
    values["dagster/uri"] = dg.MetadataValue.text(_address(lake, run.stage, table))
    if left_out := _left_out(lake, run):
        values["left_out_episodes"] = left_out
    if run.stage == "progress" and (worst := _worst(lake, run)):
        values["worst_episodes"] = worst
    if not picture:
        return values
    image = stage_picture(lake, run.stage, run.dataset, run.chunk)
    if image:
        values["picture"] = _picture(image, f"{run.stage} of {partition_of(run)}")
    if run.stage == "frames" and (sheet := contact_sheet(lake, run.dataset, run.chunk or 0)):
        values["contact_sheet"] = _picture(sheet, f"an episode of {partition_of(run)}")
    return values


def explorer_url(run: StageRun) -> str:
    """The episodes of a partition in the explorer, at the address that it has unless told otherwise."""
    chosen = {"dataset": run.dataset} | ({} if run.chunk is None else {"chunk": run.chunk})
    base = os.environ.get("PROCCORPUS_EXPLORER_URL", "http://127.0.0.1:7680")
    return f"{base.rstrip('/')}/episodes?{urlencode(chosen)}"


def _address(lake: Lake, stage: str, table: str) -> str:
    """Below which address a stage's rows lie; of shards, the tars."""
    return str(lake.workspace.root / "shards") if stage == "shards" else f"{place(lake.workspace).data}main/{table}/"


def _left_out(lake: Lake, run: StageRun) -> dg.MetadataValue | None:
    """Episodes that the stage found unusable in the partition: which, why, and where; a hundred at most."""
    here = "true" if run.chunk is None else f"chunk = {run.chunk}"
    rows = lake.dicts(
        "SELECT coalesce(episode_index::VARCHAR, 'all') AS episode, reason, coalesce(detail, '') AS detail, "
        "coalesce(file, '') AS file FROM findings WHERE dataset = ? AND stage = ? AND severity = 'unusable' "
        f"AND {here} ORDER BY episode_index, reason LIMIT 100",
        [run.dataset, run.stage],
    )
    return _table(rows)


def _worst(lake: Lake, run: StageRun) -> dg.MetadataValue | None:
    """The ten episodes whose labels a person should look at first."""
    rows = lake.dicts(
        "SELECT a.episode_index::VARCHAR AS episode, contradicts AS contradicts_source, jump AS largest_jump, "
        "end_progress, length_z AS odd_length, order_rarity AS odd_order, l.confidence FROM active_runs a "
        "JOIN label_quality q USING (dataset, episode_index, chunk, label_run) "
        "JOIN episode_labels l USING (dataset, episode_index, chunk, label_run) WHERE a.dataset = ? AND a.chunk = ? "
        "ORDER BY contradicts DESC NULLS LAST, l.confidence NULLS LAST, jump DESC NULLS LAST, a.episode_index LIMIT 10",
        [run.dataset, run.chunk],
    )
    return _table([{k: round(v, 3) if isinstance(v, float) else v for k, v in r.items()} for r in rows])


def _table(rows: Sequence[dict]) -> dg.MetadataValue | None:
    return dg.MetadataValue.table([dg.TableRecord(r) for r in rows]) if rows else None


def check_result(check: StageCheck, outcome: CheckOutcome) -> dg.AssetCheckResult:
    """One of our checks as Dagster wants it: one that does not block is a warning."""
    return dg.AssetCheckResult(
        passed=outcome.passed,
        check_name=check.name,
        description=outcome.detail,
        severity=_severity(check),
        metadata=dict(outcome.numbers),
    )


def _severity(check: StageCheck) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if check.is_blocking else dg.AssetCheckSeverity.WARN


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
    builds = {name: stored_build(lake, name) for name in {r.run.dataset for r in done}}
    for stage in STAGES:
        if stage == CORRECTIONS:
            _report_uncorrected(instance, lake, done)
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
            _report_checks(instance, lake, report.run, builds[report.run.dataset])


def _report_uncorrected(instance: dg.DagsterInstance, lake: Lake, done: Sequence[StageReport]) -> None:
    """Chunks of which nobody said anything have no corrections: said once, or Dagster would ask for them first."""
    known = {*instance.get_materialized_partitions(dg.AssetKey(CORRECTIONS))}
    said = {
        chunk_key(d, c) for d, c in lake.rows("SELECT dataset, chunk FROM stage_runs WHERE stage = ?", [CORRECTIONS])
    }
    new = {partition_of(r.run) for r in done if r.run.stage == "frames"} - known - said
    for partition in sorted(new):
        values = {"left_out": UNCORRECTED}
        instance.report_runless_asset_event(dg.AssetMaterialization(CORRECTIONS, metadata=values, partition=partition))


def _report_checks(instance: dg.DagsterInstance, lake: Lake, run: StageRun, build: DatasetBuild | None) -> None:
    """The checks of a partition that was built outside Dagster."""
    if build is None:
        return
    for check in CHECKS[run.stage]:
        outcome = check.run(lake, build, run.chunk)
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(run.stage),
                check_name=check.name,
                passed=outcome.passed,
                metadata=dict(outcome.numbers) | {"partition": partition_of(run)},
                severity=_severity(check),
                description=outcome.detail,
                blocking=check.is_blocking,
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


def described(*tables: str) -> dict[str, dg.TableSchema | str]:
    """Metadata of an asset's definition: the columns of its main table, and the tables it writes."""
    columns = [dg.TableColumn(c.name, str(c.type), description=c.comment or None) for c in TABLES[tables[0]].columns]
    return {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": f"lake.main.{tables[0]}",
        "tables": ", ".join(tables),
    }


SCHEMAS = {
    stage: described(main := MAIN_TABLE.get(stage, stage), *(t for t in STAGE_TABLES[stage] if t != main))
    for stage in STAGES
}
