"""What materialisations and checks say of a stage's run, or of what is made of the corpus, as Dagster shows it.

And what the lake holds and Dagster does not know, as events outside any run. The truth is in the lake (`stage_runs`);
the event log is a copy of it that may be made anew at any time. Upstream stages come first, and each event has the tags
that staleness is read from.
"""

import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import dagster as dg
from filelock import FileLock

from core.errors import without_secrets
from core.figures import render
from core.files import room_in
from core.paths import ROOT, Workspace
from core.tables import TABLES
from ingest.episode import Finding
from pipeline.config import stored_build, stored_builds
from pipeline.outcome import StepOutcome, identifier, number_fact, outcome_facts, picture_markdown
from pipeline.pictures import contact_sheet
from pipeline.release import held_outcomes
from pipeline.stage import Numbers, StageReport, checked
from pipeline.stages import LISTING, STAGES, Stage
from warehouse.lake import WHOLE_DATASET, Lake, StageRun
from warehouse.lake.checks import Check

# Columns that are handed down as they are, wherever an upstream table has them
HANDED_DOWN = ("dataset", "episode_index", "chunk", "camera", "frame_index", "label_run")
# What else is computed from what: columns by asset, as asset.column
COMPUTED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "frames": {
        "camera": ("episodes.cameras",),
        "timestamp_s": ("episodes.videos", "episodes.fps"),
        **dict.fromkeys(("visual_change", "phash", "luma_mean", "is_black"), ("episodes.videos",)),
        **dict.fromkeys(
            ("gripper", "grippers", "speed"), ("episodes.data_uri", "episodes.row_start")
        ),
    },
    "demonstrations": {
        "duration_s": ("frames.timestamp_s",),
        "gripper_moves": ("frames.gripper",),
        "end_phash": ("frames.phash",),
    },
    "segments": {
        "name": ("episodes.task", "episodes.steps"),
        "start_frame": ("frames.visual_change", "frames.gripper", "frames.speed", "episodes.steps"),
        "end_frame": ("frames.visual_change", "frames.gripper", "frames.speed", "episodes.steps"),
    },
    "transfer": dict.fromkeys(("name", "start_frame", "end_frame"), ("embeddings.embedding",)),
    "progress": {
        "segment_index": (
            "segments.segment_index",
            "transfer.segment_index",
            "corrections.segment_index",
        ),
        "progress": (
            *(
                f"{labels}.{c}"
                for labels in ("segments", "transfer", "corrections")
                for c in ("start_frame", "step")
            ),
            "frames.visual_change",
        ),
    },
    "samples": {
        "progress": ("progress.progress",),
        "answer": ("progress.progress", "segments.name"),
        "reason": ("reasoning.text",),
    },
    "shards": {
        "split": ("samples.split",),
        "episodes": ("samples.episode_index",),
        "samples": ("samples.sample_id",),
    },
}
BY_NAME = {stage.name: stage for stage in STAGES}
RELEASABLE = "releasable"  # check of the release: is anything there that may be in one?
UP_TO_DATE = "up_to_date"  # check of a dataset's source: is all made of it?
datasets = dg.DynamicPartitionsDefinition(name="datasets")
chunks = dg.DynamicPartitionsDefinition(name="chunks")
# Why a chunk has nothing of a stage, by what the stage reads of what people said (Stage.reads)
NOT_IN_CHUNK = {
    "corrections": "nobody corrected anything of the chunk",
    "references": "no reference shows a task of the chunk",
}
# Of a partition that has nothing of a stage: stages below can name it, too
LEFT_OUT = dg.DataVersion("left out")
LEFT_OUT_SQL = (
    "SELECT coalesce(episode_index::VARCHAR, 'all') AS episode, reason, coalesce(detail, '') AS detail, "
    "coalesce(file, '') AS file FROM findings WHERE dataset = $1 AND stage = $2 "
    "AND severity = 'unusable' AND ($3::INTEGER IS NULL OR chunk = $3) ORDER BY episode_index, reason LIMIT 100"
)
# The ten episodes whose labels a person should look at first
WORST_SQL = (
    "SELECT a.episode_index::VARCHAR AS episode, contradicts AS contradicts_source, jump AS largest_jump, "
    "end_progress, length_z AS odd_length, order_rarity AS odd_order, l.confidence FROM active_runs a "
    "JOIN label_quality q USING (dataset, episode_index, chunk, label_run) "
    "JOIN episode_labels l USING (dataset, episode_index, chunk, label_run) WHERE a.dataset = ? AND a.chunk = ? "
    "ORDER BY contradicts DESC NULLS LAST, l.confidence NULLS LAST, jump DESC NULLS LAST, a.episode_index LIMIT 10"
)


def column_lineage(stage: Stage) -> dg.TableColumnLineage:
    """Of each column that comes from upstream: the columns there."""
    upstream = {name: TABLES[BY_NAME[name].tables[0]].schema.names for name in stage.upstream}
    deps = {}
    for column in TABLES[stage.tables[0]].schema.names:
        computed_from = [
            tuple(source.split(".", 1)) for source in COMPUTED.get(stage.name, {}).get(column, ())
        ]
        # A key is that of the first stage that has it: the others have theirs from there
        keys = [
            (name, column)
            for name, theirs in upstream.items()
            if column in theirs and column in HANDED_DOWN
        ]
        if sources := computed_from or keys[:1]:
            deps[column] = [
                dg.TableColumnDep(dg.AssetKey(asset), source_column)
                for asset, source_column in sources
            ]
    return dg.TableColumnLineage(deps)


def chunk_key(dataset: str, chunk: int) -> str:
    return f"{dataset}:{chunk:05d}"


def parse_chunk_key(key: str) -> tuple[str, int]:
    """Inverse of chunk_key; raises ValueError."""
    dataset, _, chunk = key.rpartition(":")
    if not dataset or not chunk.isdecimal():
        raise ValueError(
            f"{key!r} is not a chunk key: expected <dataset>:<number>, such as sim_short:00002"
        )
    return dataset, int(chunk)


def source_key(dataset: str) -> dg.AssetKey:
    """The asset that stands for a dataset's source."""
    return dg.AssetKey(["sources", dataset])


def why_not(stage: Stage) -> str:
    """Why some chunks have nothing of a stage; empty: all have it."""
    return "".join(NOT_IN_CHUNK.get(kind, "") for kind in stage.reads)


def partition_of(run: StageRun) -> str:
    if run.chunk is None:
        return run.dataset
    return chunk_key(run.dataset, run.chunk)


def numbers_metadata(numbers: Numbers) -> dict[str, dg.MetadataValue]:
    """Numbers for people: rounded, by names that are identifiers."""
    return _values({identifier(name): number_fact(value) for name, value in numbers.items()})


def _values(facts: Mapping[str, tuple[str, Any]]) -> dict[str, dg.MetadataValue]:
    """Facts by name, each with its kind as Dagster calls it."""
    return {name: getattr(dg.MetadataValue, kind)(value) for name, (kind, value) in facts.items()}


def materialization(outcome: StepOutcome) -> dg.AssetMaterialization:
    """What the second half made, for the log of events."""
    tags = version_tags(outcome.version)
    facts = _values(outcome_facts(outcome))
    return dg.AssetMaterialization(asset_key=outcome.asset, metadata=facts, tags=tags)


def made(context: dg.AssetExecutionContext, outcome: StepOutcome) -> dg.MaterializeResult:
    if not outcome.made:
        context.log.info(f"{outcome.asset} was up to date: nothing was made again")
    facts = _values(outcome_facts(outcome))
    return dg.MaterializeResult(metadata=facts, data_version=dg.DataVersion(outcome.version))


def version_tags(data_version: str) -> dict[str, str]:
    return {"dagster/data_version": data_version, "dagster/data_version_is_user_provided": "true"}


def metadata(
    lake: Lake, stage: Stage, report: StageReport, *, detailed: bool = True
) -> dict[str, dg.MetadataValue]:
    """What a materialisation shows: rows, duration and the stage's numbers; `detailed`: tables and
    a picture, too."""
    run = report.run
    table = stage.tables[0]
    # The episodes of the partition in the explorer, at the address that it has unless told otherwise
    base = without_secrets(
        os.environ.get("PROCCORPUS_EXPLORER_URL", "http://127.0.0.1:7680").rstrip("/")
    )
    query = {"dataset": run.dataset} | ({} if run.chunk is None else {"chunk": run.chunk})
    if stage.name == "shards":
        files = str(lake.workspace.root / "shards")
    else:
        files = f"{lake.place.data}main/{table}/"
    values: dict[str, dg.MetadataValue] = {
        # All its rows where it was reported without numbers
        "dagster/partition_row_count": dg.MetadataValue.int(
            int(report.numbers.get(f"rows_{table}", run.rows))
        ),
        "dagster/table_name": dg.MetadataValue.text(f"lake.main.{table}"),
        "duration_s": dg.MetadataValue.float(round(run.duration_s, 3)),
        "snapshot": dg.MetadataValue.int(report.snapshot),
        "explorer": dg.MetadataValue.url(f"{base}/episodes?{urlencode(query)}"),
        **numbers_metadata(report.numbers),
        "dagster/uri": dg.MetadataValue.text(files),
    }
    if not detailed:
        return values
    values["dagster/column_lineage"] = dg.MetadataValue.column_lineage(column_lineage(stage))
    return values | _found(lake, run) | _pictures(lake, stage, run)


def _found(lake: Lake, run: StageRun) -> dict[str, dg.MetadataValue]:
    """Episodes that the stage found unusable, labels that look odd: only where there are any."""
    tables = {"left_out_episodes": lake.dicts(LEFT_OUT_SQL, [run.dataset, run.stage, run.chunk])}
    if run.stage == "progress":
        tables["worst_episodes"] = lake.dicts(WORST_SQL, [run.dataset, run.chunk])
    return {
        name: dg.MetadataValue.table(list(map(_record, rows)))
        for name, rows in tables.items()
        if rows
    }


def _record(row: Mapping[str, Any]) -> dg.TableRecord:
    return dg.TableRecord(
        {name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()}
    )


def _pictures(lake: Lake, stage: Stage, run: StageRun) -> dict[str, dg.MetadataValue]:
    """The stage's figure, and of frames a contact sheet of one episode; in words, which file a copy
    lacks."""
    try:
        images = {"picture": (render(stage.picture(lake, run.dataset, run.chunk)), run.stage)}
        if run.stage == "frames" and run.chunk is not None:
            images["contact_sheet"] = contact_sheet(lake, run.dataset, run.chunk), "an episode"
    except FileNotFoundError as e:
        return {"picture": dg.MetadataValue.text(f"not drawn: {e.filename} is gone")}
    texts = {
        n: picture_markdown(image, f"{caption} of {partition_of(run)}")
        for n, (image, caption) in images.items()
        if image
    }
    return {name: dg.MetadataValue.md(text) for name, text in texts.items()}


def check_result(check: Check, outcome: Finding) -> dg.AssetCheckResult:
    """One of our checks as Dagster wants it: one that does not block is a warning."""
    return dg.AssetCheckResult(
        passed=outcome.passed,
        check_name=check.name,
        description=outcome.detail,
        severity=dg.AssetCheckSeverity.ERROR if check.is_blocking else dg.AssetCheckSeverity.WARN,
        metadata=numbers_metadata(outcome.numbers),
    )


def check_evaluation(run: StageRun, check: Check, outcome: Finding) -> dg.AssetCheckEvaluation:
    """The same of a partition that was built outside Dagster."""
    result = check_result(check, outcome)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(run.stage),
        check_name=check.name,
        passed=outcome.passed,
        metadata={**result.metadata, "partition": partition_of(run)},
        severity=result.severity,
        description=outcome.detail,
        blocking=check.is_blocking,
    )


def described(*tables: str, code: Callable | Path) -> dict[str, Any]:
    """Metadata of an asset's definition: the columns of its main table, the tables it writes, and
    where its code is."""
    columns = [
        dg.TableColumn(c.name, str(c.type), description=c.comment or None)
        for c in TABLES[tables[0]].columns
    ]
    path = code if isinstance(code, Path) else Path(inspect.getfile(code))
    line = 1 if isinstance(code, Path) else inspect.getsourcelines(code)[1]
    label = path.relative_to(ROOT).as_posix()
    reference = dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=label)
    return {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": f"lake.main.{tables[0]}",
        "dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference]),
        "tables": ", ".join(tables),
    }


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
