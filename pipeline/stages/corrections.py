"""The corrections stage on one chunk: the label run human/<dataset> out of what people said. Knows no Dagster."""

import json
from datetime import UTC, datetime

import pyarrow as pa

from annotate.label_run import HUMAN_VERSION, human_run
from annotate.progress import progress
from annotate.segments import check_tiling
from core.tables import TABLES
from ingest.episode import Finding
from pipeline.config import DatasetBuild
from pipeline.stages.progress import dense_label, quality_rows
from pipeline.stages.reading import chunk_signals
from warehouse.lake import Lake
from warehouse.lake.corrections import ACCEPTED, REJECTED, chunk_corrections, segments_of


def correction_tables(
    lake: Lake, build: DatasetBuild, chunk: int | None
) -> tuple[dict[str, pa.Table], list[Finding], dict[str, pa.Table], dict[str, int | float | str]]:
    """Segments, labels and progress of the corrected episodes; findings; the label run; numbers for people."""
    run = human_run(build.name)
    said = chunk_corrections(lake, build.name, chunk)
    accepted = {c["episode_index"]: c for c in said if c["status"] == ACCEPTED}
    findings = [_finding(c) for c in said if c["status"] != ACCEPTED]
    rows, labels, parts, labelled, made = [], [], [TABLES["progress"].empty()], {}, {}
    episodes = []
    for e in chunk_signals(lake, build.name, chunk):
        c = accepted.get(e.episode_index)
        if c is None:
            continue
        segments, plan = segments_of(c), c["plan"]
        try:
            check_tiling(segments, len(e.change), len(plan))
        except ValueError as error:
            detail = f"correction {c['correction_id']}: {error}"
            findings.append(Finding("correction_outdated", detail, "warning", e.episode_index))
            continue
        where = {"dataset": build.name, "episode_index": e.episode_index, "chunk": chunk, "label_run": run}
        for i, s in enumerate(segments):
            rows.append(where | s.__dict__ | {"segment_index": i, "num_planned": len(plan)})
        told = {"task": e.task, "task_inferred": False, "needs_review": False, "plan": plan}
        notes = [c["comment"]] if c["comment"] else []
        labels.append(where | told | {"notes": notes, "correction_id": c["correction_id"]})
        label = progress(segments, len(plan), e.change, e.fps, build.stages.progress, None, e.state)
        parts.append(dense_label(build.name, run, chunk, e, segments, len(plan), label))
        episodes.append(e)
        labelled[e.episode_index] = (segments, len(plan), run)
        made[e.episode_index] = label
    tables = {
        "segments": TABLES["segments"].rows(rows),
        "episode_labels": TABLES["episode_labels"].rows(labels),
        "progress": pa.concat_tables(parts),
        "label_quality": TABLES["label_quality"].rows(quality_rows(build.name, chunk, run, episodes, labelled, made)),
    }
    line = {"label_run": run, "annotator": "human", "params": json.dumps({}), "code_version": HUMAN_VERSION}
    known = lake.rows("SELECT 1 FROM label_runs WHERE label_run = ?", [run])
    upserts = {} if known else {"label_runs": TABLES["label_runs"].rows([line | {"created_at": datetime.now(UTC)}])}
    numbers = {"label_run": run, "episodes": len(labels), "not_used": len(findings)}
    return tables, findings, upserts, numbers


def _finding(c: dict) -> Finding:
    if c["status"] == REJECTED:
        detail = f"label {c['base_label_run']}" + (f": {c['comment']}" if c["comment"] else "")
        return Finding("label_rejected", detail, "warning", c["episode_index"])
    return Finding("correction_outdated", f"correction {c['correction_id']}", "warning", c["episode_index"])
