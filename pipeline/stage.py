"""Each stage on one partition: read the lake, call the stage's plain function, publish. Knows no Dagster.

The command line's build loop, its worker processes and the Dagster assets all call `run_stage`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.frames import frames_stage
from annotate.segments import Segment
from annotate.vlm.reason import reason_episode
from core.files import write_file
from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding
from ingest.episodes import episodes_stage, findings_table
from ingest.sources.files import Source
from pipeline.config import DatasetBuild
from pipeline.plan import Step
from pipeline.stages.annotators import ANNOTATORS, albums, view
from pipeline.stages.corrections import correction_tables
from pipeline.stages.picture_cache import keeper
from pipeline.stages.progress import progress_tables
from pipeline.stages.reading import chunk_segments, usable_records
from pipeline.stages.samples import sample_tables, shard_tables
from pipeline.stages.vlm import ask_chunk
from warehouse.lake import Lake, StageRun, content_key, output_hash
from warehouse.releases.takedown import takedown_marks


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage did; `numbers` are shown to people beside it."""

    run: StageRun
    snapshot: int
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """What a stage wants published."""

    tables: dict[str, pa.Table]
    findings: list[Finding] | None = None
    upserts: dict[str, pa.Table] = field(default_factory=dict)
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)


def run_stage(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> StageReport:
    """Run one planned step and publish it in one transaction; `source` is the build's, as the plan found it."""
    started = time.monotonic()
    spec = next(s for s in build.specs() if s.name == step.stage)
    output = _RUN[step.stage](lake, build, step, source)
    chunk_size = build.dataset.chunk_size
    findings = None if output.findings is None else findings_table(build.name, step.stage, output.findings, chunk_size)
    hashed = output.tables | ({"findings": findings} if findings is not None else {})
    run = StageRun(
        stage=step.stage,
        dataset=build.name,
        chunk=step.chunk,
        label_run=spec.label_run,
        input_hash=step.input_hash,
        code_version=spec.code_version,
        rows=sum(t.num_rows for t in output.tables.values()),
        output_hash=output_hash(hashed),
        duration_s=time.monotonic() - started,
    )
    parts = _chunk_runs(run, source, hashed) if step.chunk is None else None
    snapshot = lake.publish(run, output.tables, findings, output.upserts, parts)
    rows = {f"rows_{name}": table.num_rows for name, table in output.tables.items()}
    return StageReport(run, snapshot, rows | dict(output.numbers))


# Episodes


def _episodes(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    before = dict(lake.rows('SELECT "group", any_value(split) FROM splits WHERE dataset = ? GROUP BY 1', [build.name]))
    known = dict(lake.rows("SELECT source_id, episode_index FROM episode_ids WHERE dataset = ?", [build.name]))
    result = episodes_stage(source, build.stages.splits, before, known)
    findings = [*result.findings, *_taken_down(lake, build.name, result.records)]
    unusable = {f.episode_index for f in findings if f.severity == "unusable"}
    config = {
        "dataset": build.name,
        "config_hash": content_key(build.identity()),
        "config": build.json_text(),
        "created_at": datetime.now(UTC),
    }
    upserts = {"build_configs": TABLES["build_configs"].rows([config]), "episode_ids": result.ids}
    numbers = {"episodes": len(result.records), "unusable_by_metadata": len(unusable)}
    return Output(result.tables, findings, upserts, numbers)


def _taken_down(lake: Lake, dataset: str, records: Sequence[EpisodeRecord]) -> list[Finding]:
    marks = {m["episode_index"]: m["reason"] for m in takedown_marks(lake, dataset)}
    return [
        Finding("taken_down", marks.get(r.episode_index, marks.get(None, "")), episode_index=r.episode_index)
        for r in records
        if r.episode_index in marks or None in marks
    ]


def _chunk_runs(run: StageRun, source: Source, tables: dict[str, pa.Table]) -> list[StageRun]:
    """One stage_runs line per chunk, whose output hash changes with the chunk's rows or with any of its files."""
    facts = tables["episode_facts"].to_pylist()
    files: dict[int, set[str]] = {}
    for row in facts:
        uris = [v["uri"] for v in row["videos"]] + ([row["data_uri"]] if row["data_uri"] else [])
        files.setdefault(row["chunk"], set()).update(uris)
    runs = []
    for chunk, uris in sorted(files.items()):
        part = {
            n: t.filter(np.equal(t["chunk"].to_numpy(), chunk)) for n, t in tables.items() if "chunk" in t.schema.names
        }
        stamps = [f"{u} {source.files[u]}" for u in sorted(uris) if u in source.files]
        rows = sum(t.num_rows for t in part.values())
        runs.append(
            StageRun(
                **run.__dict__ | {"chunk": chunk, "rows": rows, "output_hash": content_key(output_hash(part), *stamps)}
            )
        )
    return runs


# Frames


def _frames(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    records = usable_records(lake, build.name, step.chunk)
    stored = 0

    def store(sha256: str, jpeg: bytes) -> None:
        nonlocal stored
        path = lake.workspace.keyframe(sha256)
        if path.exists():
            path.touch()  # or a sweep could take it before it is recorded
        else:
            write_file(path, jpeg)
            stored += len(jpeg)

    kept = keeper(lake.workspace, step.input_hash)
    result = frames_stage(source, records, step.chunk or 0, build.stages.frames, store, kept)
    numbers = {"decoded_frames": result.decoded_frames, "keyframe_bytes": stored}
    return Output(result.tables, result.findings, numbers=numbers)


# Segments and progress


def _segments(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    run = build.label_run()
    found = ANNOTATORS[run.annotator](lake, build, step, source)
    rows: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for episode, label in sorted(found.labels.items()):
        where = {"dataset": build.name, "episode_index": episode, "chunk": step.chunk, "label_run": run.id}
        for i, s in enumerate(label.segments):
            rows.append(where | s.__dict__ | {"segment_index": i, "num_planned": label.num_planned})
        told = {k: getattr(label, k) for k in ("task", "task_inferred", "needs_review")}
        reference = label.as_far_as
        labels.append(
            where
            | told
            | {"as_far_as_episode": reference.episode_index if reference else None}
            | {"as_far_as_frame": reference.frame_index if reference else None}
            | {"plan": list(label.plan), "notes": list(label.notes), "confidence": _confidence(label.segments)}
        )
    upserts = {}
    if not lake.rows("SELECT 1 FROM label_runs WHERE label_run = ?", [run.id]):
        line = run.__dict__ | {"label_run": run.id, "created_at": datetime.now(UTC)}
        upserts["label_runs"] = TABLES["label_runs"].rows([line])
    mean = len(rows) / len(labels) if labels else 0.0
    numbers = {"label_run": run.id, "episodes": len(labels), "segments_per_episode": mean} | dict(found.numbers)
    tables = {"segments": TABLES["segments"].rows(rows), "episode_labels": TABLES["episode_labels"].rows(labels)}
    if found.keyframes is not None:
        tables["keyframes"] = TABLES["keyframes"].rows([k | {"label_run": run.id} for k in found.keyframes])
    return Output(tables, found.findings, upserts, numbers)


def _confidence(segments: Sequence[Segment]) -> float | None:
    """Mean over the segments that have one, by their length."""
    known = [(s.confidence, len(s)) for s in segments if s.confidence is not None]
    return sum(c * n for c, n in known) / sum(n for _, n in known) if known else None


def _reasoning(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    config, run = build.stages.vlm, build.label_run()
    labelled = chunk_segments(lake, build.name, step.chunk, "segments", run.id)
    tasks = dict(
        lake.rows(
            "SELECT episode_index, task FROM episode_labels WHERE dataset = ? AND chunk = ? AND label_run = ?",
            [build.name, step.chunk, run.id],
        )
    )
    questions = []
    for e, album in albums(lake, build, step, source):
        if e.episode_index in labelled:
            segments, planned, _ = labelled[e.episode_index]
            shown = view(build, e, album, tasks[e.episode_index])
            questions.append((album, partial(reason_episode, shown, segments, planned, config=config)))
    told = ask_chunk(lake, build, step.chunk or 0, questions, f"{build.name}-{step.chunk:05d}-{run.id}-reasoning")
    rows = [
        {"dataset": build.name, "episode_index": episode, "chunk": step.chunk, "label_run": run.id} | r.__dict__
        for episode, answers in sorted(told.answers.items())
        for r in answers
    ]
    return Output({"reasoning": TABLES["reasoning"].rows(rows)}, told.findings, numbers=told.numbers)


def _corrections(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    tables, findings, upserts, numbers = correction_tables(lake, build, step.chunk)
    return Output(tables, findings, upserts, numbers)


def _progress(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    tables, numbers = progress_tables(lake, build, step.chunk)
    return Output(tables, numbers=numbers)


# Samples and shards


def _samples(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    tables, numbers = sample_tables(lake, build, step.chunk)
    return Output(tables, numbers=numbers)


def _shards(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    tables, findings, numbers = shard_tables(lake, build, step.chunk, source)
    return Output(tables, findings, numbers=numbers)


_RUN: dict[str, Callable[[Lake, DatasetBuild, Step, Source], Output]] = {
    "episodes": _episodes,
    "frames": _frames,
    "segments": _segments,
    "corrections": _corrections,
    "progress": _progress,
    "reasoning": _reasoning,
    "samples": _samples,
    "shards": _shards,
}
