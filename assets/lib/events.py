"""Runless materialisations: what the build loop did, told to Dagster, so that its UI shows what the lake holds."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import dagster as dg

from assets.defs.corpus.partitions import chunk_key, chunks, datasets
from core.figures import render
from core.paths import Workspace
from core.tables import TABLES
from pipeline.build import stored_build
from pipeline.checks import StageCheck
from pipeline.config import DatasetBuild
from pipeline.outcome import Outcome, outcome_facts, picture_markdown
from pipeline.pictures import contact_sheet
from pipeline.stage import Stage, StageReport
from pipeline.stages import LISTING, STAGES
from warehouse.lake import WHOLE_DATASET, Lake, StageRun, open_lake
from warehouse.lake.checks import CheckOutcome
from warehouse.lake.place import place

MAX_PICTURES = 120  # a build that runs more stages reports the further ones without a picture: 0.1 s each
# Why a chunk has nothing of a stage, by the kind of chunks that have it (Stage.of_chunks)
NOT_IN_CHUNK = {
    "corrected": "nobody corrected anything of the chunk",
    "shown": "no reference shows a task of the chunk",
}
DATASET_KEYS, CHUNK_KEYS = datasets.name or "", chunks.name or ""  # the names of the partition sets
LEFT_OUT = dg.DataVersion("left out")  # of a partition that has nothing of a stage: stages below can name it, too


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
        if _data_version(instance, outcome.asset) != outcome.version:
            instance.report_runless_asset_event(materialization(outcome))


def materialization(outcome: Outcome) -> dg.AssetMaterialization:
    tags = _version_tags(outcome.version)
    return dg.AssetMaterialization(asset_key=outcome.asset, metadata=outcome_metadata(outcome), tags=tags)


def _version_tags(data_version: str) -> dict[str, str]:
    return {"dagster/data_version": data_version, "dagster/data_version_is_user_provided": "true"}


def metadata(lake: Lake, stage: Stage, report: StageReport, *, picture: bool = True) -> dict[str, dg.MetadataValue]:
    """What a materialisation shows: rows, duration, the stage's own numbers, and one picture."""
    run = report.run
    values: dict[str, dg.MetadataValue] = {
        "dagster/partition_row_count": dg.MetadataValue.int(main_rows(stage, report)),
        "dagster/table_name": dg.MetadataValue.text(f"lake.main.{stage.main_table}"),
        "duration_s": dg.MetadataValue.float(round(run.duration_s, 3)),
        "snapshot": dg.MetadataValue.int(report.snapshot),
        "explorer": dg.MetadataValue.url(explorer_url(run)),
    }
    values |= {name.replace(" ", "_"): _value(value) for name, value in report.numbers.items()}
    values["dagster/uri"] = dg.MetadataValue.text(_address(lake, stage))
    # Optional parts: only what there is something to say of
    if left_out := _left_out(lake, run):
        values["left_out_episodes"] = left_out
    if run.stage == "progress" and (worst := _worst(lake, run)):
        values["worst_episodes"] = worst
    if picture:
        values |= _pictures(lake, stage, run)
    return values


def _pictures(lake: Lake, stage: Stage, run: StageRun) -> dict[str, dg.MetadataValue]:
    """The stage's figure, and of frames a contact sheet of one episode."""
    values = {}
    figure = stage.picture(lake, run.dataset, run.chunk)
    if figure is not None:
        values["picture"] = _picture(render(figure), f"{run.stage} of {partition_of(run)}")
    if run.stage == "frames":
        assert run.chunk is not None
        sheet = contact_sheet(lake, run.dataset, run.chunk)
        if sheet:
            values["contact_sheet"] = _picture(sheet, f"an episode of {partition_of(run)}")
    return values


def explorer_url(run: StageRun) -> str:
    """The episodes of a partition in the explorer, at the address that it has unless told otherwise."""
    chosen: dict[str, str | int] = {"dataset": run.dataset}
    if run.chunk is not None:
        chosen["chunk"] = run.chunk
    base = os.environ.get("PROCCORPUS_EXPLORER_URL", "http://127.0.0.1:7680")
    return f"{base.rstrip('/')}/episodes?{urlencode(chosen)}"


def _address(lake: Lake, stage: Stage) -> str:
    """The address below which a stage's rows lie; of shards, the tars."""
    if stage.name == "shards":
        return str(lake.workspace.root / "shards")
    return f"{place(lake.workspace).data}main/{stage.main_table}/"


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
    return _table([_rounded(row) for row in rows])


def _rounded(row: Mapping[str, object]) -> dict[str, object]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


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


def main_rows(stage: Stage, report: StageReport) -> int:
    """Rows of the stage's main table, as it counted them; all its rows when it was reported without numbers."""
    rows = report.numbers.get(f"rows_{stage.main_table}")
    return int(rows) if rows is not None else report.run.rows


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
    """One runless materialisation per stage run, upstream stages first, with the tags that staleness reads."""
    if not done:
        return
    lake = open_lake(workspace)
    # Partitions have to be known to Dagster before an event may name them
    names = sorted({report.run.dataset for report in done})
    register_partitions(instance, lake, names)
    builds = {name: stored_build(lake, name) for name in names}
    reports_by_stage: defaultdict[str, list[StageReport]] = defaultdict(list)
    for report in done:
        reports_by_stage[report.run.stage].append(report)

    pictures_left = MAX_PICTURES
    for stage in STAGES:
        _report_left_out(instance, lake, stage, done, builds)
        reports = reports_by_stage[stage.name]
        _report_runs(instance, lake, stage, reports, builds, pictures_left)
        pictures_left -= len(reports)


def _report_runs(
    instance: dg.DagsterInstance,
    lake: Lake,
    stage: Stage,
    reports: Sequence[StageReport],
    builds: Mapping[str, DatasetBuild | None],
    num_pictures: int,
) -> None:
    """The materialisations of a stage's runs and their checks; the first `num_pictures` show a picture."""
    if not reports:
        return
    # Staleness is read from the events that were the newest of what is upstream
    pointers = {name: _event_ids(instance, name) for name in stage.upstream if name != LISTING.name}
    for nth, report in enumerate(reports):
        partition = partition_of(report.run)
        values = metadata(lake, stage, report, picture=nth < num_pictures)
        tags = _tags(instance, report.run, partition, pointers)
        instance.report_runless_asset_event(
            dg.AssetMaterialization(asset_key=stage.name, partition=partition, metadata=values, tags=tags)
        )
        _report_checks(instance, lake, stage, report.run, builds[report.run.dataset])


def _report_left_out(
    instance: dg.DagsterInstance,
    lake: Lake,
    stage: Stage,
    done: Sequence[StageReport],
    builds: Mapping[str, DatasetBuild | None],
) -> None:
    """Chunks that have nothing of a stage: an event says so once, or Dagster would ask for them first."""
    new = _chunks_without(stage, done, builds)
    if not new:
        return
    # Chunks that have rows of the stage, or an event that says that they have none, are known
    have_rows = lake.rows("SELECT dataset, chunk FROM stage_runs WHERE stage = ?", [stage.name])
    known = {*instance.get_materialized_partitions(dg.AssetKey(stage.name))}
    known |= {chunk_key(dataset, chunk) for dataset, chunk in have_rows}
    tags = _version_tags(LEFT_OUT.value)
    # Each gets its event once; later builds find it among the known ones
    for partition in sorted(new.keys() - known):
        why = NOT_IN_CHUNK.get(stage.of_chunks) or f"the build of {new[partition]} has none"
        event = dg.AssetMaterialization(stage.name, metadata={"left_out": why}, partition=partition, tags=tags)
        instance.report_runless_asset_event(event)


def _chunks_without(
    stage: Stage, done: Sequence[StageReport], builds: Mapping[str, DatasetBuild | None]
) -> dict[str, str]:
    """The dataset of each chunk that was built now (its frames were) and may have nothing of a stage, by partition."""
    is_optional = {build.name: not stage.applies(build) for build in builds.values() if build}
    without = {}
    for report in done:
        run = report.run
        if run.stage == "frames" and (stage.of_chunks != "all" or is_optional.get(run.dataset)):
            without[partition_of(run)] = run.dataset
    return without


def _report_checks(
    instance: dg.DagsterInstance, lake: Lake, stage: Stage, run: StageRun, build: DatasetBuild | None
) -> None:
    """The checks of a partition that was built outside Dagster."""
    if build is None:
        return
    for check in stage.all_checks:
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
    tags = _version_tags(run.output_hash) | {"dagster/code_version": run.code_version}
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
    record = instance.get_latest_data_version_record(dg.AssetKey(asset), partition_key=partition)
    event = record.asset_materialization if record else None
    return (event.tags or {}).get("dagster/data_version") if event else None


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


def described(*tables: str) -> dict[str, dg.TableSchema | str]:
    """Metadata of an asset's definition: the columns of its main table, and the tables it writes."""
    columns = [dg.TableColumn(c.name, str(c.type), description=c.comment or None) for c in TABLES[tables[0]].columns]
    return {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": f"lake.main.{tables[0]}",
        "tables": ", ".join(tables),
    }
