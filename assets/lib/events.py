"""What materialisations and checks say of a stage's run, or of what is made of the corpus, as Dagster shows it."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import dagster as dg

from assets.defs.corpus.partitions import chunk_key
from assets.lib.lineage import column_lineage
from core.figures import render
from core.paths import ROOT
from core.tables import TABLES
from pipeline.checks import StageCheck
from pipeline.outcome import FactValue, Outcome, identifier, number_fact, outcome_facts, picture_markdown
from pipeline.pictures import contact_sheet
from pipeline.stage import Numbers, Stage, StageReport
from warehouse.lake import Lake, StageRun
from warehouse.lake.checks import CheckOutcome
from warehouse.lake.place import place

# Why a chunk has nothing of a stage, by the kind of chunks that have it (Stage.of_chunks)
NOT_IN_CHUNK = {
    "corrected": "nobody corrected anything of the chunk",
    "shown": "no reference shows a task of the chunk",
}
LEFT_OUT = dg.DataVersion("left out")  # of a partition that has nothing of a stage: stages below can name it, too


def _partition(run: StageRun) -> str:
    return run.dataset if run.chunk is None else chunk_key(run.dataset, run.chunk)


def _value(fact: tuple[str, FactValue]) -> dg.MetadataValue:
    kind, value = fact
    return getattr(dg.MetadataValue, kind)(value)


def numbers_metadata(numbers: Numbers) -> dict[str, dg.MetadataValue]:
    """Numbers for people: rounded, by names that are identifiers."""
    return {identifier(name): _value(number_fact(value)) for name, value in numbers.items()}


def _picture(image: bytes, title: str) -> dg.MetadataValue:
    return dg.MetadataValue.md(picture_markdown(image, title))


def outcome_metadata(outcome: Outcome) -> dict[str, dg.MetadataValue]:
    """What a materialisation of the second half shows."""
    return {name: _value(fact) for name, fact in outcome_facts(outcome).items()}


def materialization(outcome: Outcome) -> dg.AssetMaterialization:
    tags = version_tags(outcome.version)
    return dg.AssetMaterialization(asset_key=outcome.asset, metadata=outcome_metadata(outcome), tags=tags)


def version_tags(data_version: str) -> dict[str, str]:
    return {"dagster/data_version": data_version, "dagster/data_version_is_user_provided": "true"}


def metadata(lake: Lake, stage: Stage, report: StageReport, *, detailed: bool = True) -> dict[str, dg.MetadataValue]:
    """What a materialisation shows: rows, duration and the stage's numbers; `detailed`: tables and a picture, too."""
    run = report.run
    values: dict[str, dg.MetadataValue] = {
        "dagster/partition_row_count": dg.MetadataValue.int(main_rows(stage, report)),
        "dagster/table_name": dg.MetadataValue.text(f"lake.main.{stage.main_table}"),
        "duration_s": dg.MetadataValue.float(round(run.duration_s, 3)),
        "snapshot": dg.MetadataValue.int(report.snapshot),
        "explorer": dg.MetadataValue.url(explorer_url(run)),
    }
    values |= numbers_metadata(report.numbers)
    values["dagster/uri"] = dg.MetadataValue.text(_address(lake, stage))
    if not detailed:
        return values
    values["dagster/column_lineage"] = dg.MetadataValue.column_lineage(column_lineage(stage))
    # Optional parts: only what there is something to say of
    if left_out := _left_out(lake, run):
        values["left_out_episodes"] = left_out
    if run.stage == "progress" and (worst := _worst(lake, run)):
        values["worst_episodes"] = worst
    return values | _pictures(lake, stage, run)


def _pictures(lake: Lake, stage: Stage, run: StageRun) -> dict[str, dg.MetadataValue]:
    """The stage's figure, and of frames a contact sheet of one episode; in words, which file they lack."""
    try:
        return _drawn(lake, stage, run)
    # A copy of a workspace may have come without its pictures: its rows are there all the same
    except FileNotFoundError as e:
        return {"picture": dg.MetadataValue.text(f"not drawn: {e.filename} is gone")}


def _drawn(lake: Lake, stage: Stage, run: StageRun) -> dict[str, dg.MetadataValue]:
    values = {}
    figure = stage.picture(lake, run.dataset, run.chunk)
    if figure is not None:
        values["picture"] = _picture(render(figure), f"{run.stage} of {_partition(run)}")
    if run.stage == "frames":
        assert run.chunk is not None
        sheet = contact_sheet(lake, run.dataset, run.chunk)
        if sheet:
            values["contact_sheet"] = _picture(sheet, f"an episode of {_partition(run)}")
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
        metadata=numbers_metadata(outcome.numbers),
    )


def check_evaluation(run: StageRun, check: StageCheck, outcome: CheckOutcome) -> dg.AssetCheckEvaluation:
    """The same of a partition that was built outside Dagster."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(run.stage),
        check_name=check.name,
        passed=outcome.passed,
        metadata={**numbers_metadata(outcome.numbers), "partition": _partition(run)},
        severity=_severity(check),
        description=outcome.detail,
        blocking=check.is_blocking,
    )


def _severity(check: StageCheck) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if check.is_blocking else dg.AssetCheckSeverity.WARN


def main_rows(stage: Stage, report: StageReport) -> int:
    """Rows of the stage's main table, as it counted them; all its rows when it was reported without numbers."""
    rows = report.numbers.get(f"rows_{stage.main_table}")
    return int(rows) if rows is not None else report.run.rows


def described(*tables: str, code: Callable | Path) -> dict[str, Any]:
    """Metadata of an asset's definition: the columns of its main table, the tables it writes, and where its code is."""
    columns = [dg.TableColumn(c.name, str(c.type), description=c.comment or None) for c in TABLES[tables[0]].columns]
    return {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": f"lake.main.{tables[0]}",
        "dagster/code_references": _code_reference(code),
        "tables": ", ".join(tables),
    }


def _code_reference(code: Callable | Path) -> dg.CodeReferencesMetadataValue:
    """A function, or a file, of ours."""
    path = code if isinstance(code, Path) else Path(inspect.getfile(code))
    line = 1 if isinstance(code, Path) else inspect.getsourcelines(code)[1]
    label = path.relative_to(ROOT).as_posix()
    reference = dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=label)
    return dg.CodeReferencesMetadataValue(code_references=[reference])
