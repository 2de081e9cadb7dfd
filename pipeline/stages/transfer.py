"""Runs of a chunk labelled like the references of their tasks: a label run of its own, beside that of the annotator."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

import annotate.transfer
from annotate.label import EpisodeLabel
from annotate.progress import CODE_VERSION as PROGRESS_VERSION
from annotate.progress import progress
from annotate.segments import check_tiling
from annotate.transfer import Alignment, Transferred
from core.tables import TABLES
from ingest.episode import Finding
from pipeline.labelled import LabelledSignals, dense_label, quality_rows
from pipeline.pictures import transfer_figure
from pipeline.reading import EpisodeSignals
from pipeline.stage import Output, Stage, StageContext
from pipeline.stages.segments import label_columns, of_label_run, segments_as_rows
from pipeline.transferring import NO_PICTURES, ShownTask, shown_tasks


def run(context: StageContext) -> Output:
    build, chunk = context.build, context.chunk
    label_run = build.transfer_run()
    segment_rows, label_rows, labelled, alignments = [], [], [], [TABLES["alignments"].empty()]
    findings, p_failures = [], {}
    for signals, transferred in _transferred(context):
        label, alignment = transferred.label, transferred.alignment
        if label is None or alignment is None:
            detail = transferred.why_none or "it follows none of the references of its task"
            findings.append(Finding("transfer_no_fit", detail, "warning", signals.episode_index))
            continue
        check_tiling(label.segments, len(signals.change), label.num_planned)
        where = {
            "dataset": build.name,
            "episode_index": signals.episode_index,
            "chunk": chunk,
            "label_run": label_run.id,
        }
        segment_rows += segments_as_rows(where, label.segments, label.num_planned)
        label_rows.append(where | label_columns(label))
        alignments.append(_alignment_rows(where, alignment))
        labelled.append(_with_progress(context, signals, label))
        if transferred.p_failure is not None and signals.success is None:
            p_failures[signals.episode_index] = transferred.p_failure

    dense = [dense_label(build.name, label_run.id, chunk, episode) for episode in labelled]
    quality = quality_rows(build.name, label_run.id, chunk, labelled, p_failures=p_failures)
    tables = {
        "segments": TABLES["segments"].rows(segment_rows),
        "episode_labels": TABLES["episode_labels"].rows(label_rows),
        "progress": pa.concat_tables([TABLES["progress"].empty(), *dense]),
        "label_quality": TABLES["label_quality"].rows(quality),
        "alignments": pa.concat_tables(alignments),
    }
    numbers = {"label_run": label_run.id, "episodes": len(label_rows), "no_fit": len(findings)}
    return Output(tables, findings, registered=of_label_run(label_run.id, label_run.__dict__), numbers=numbers)


def _transferred(context: StageContext) -> Iterator[tuple[EpisodeSignals, Transferred]]:
    """Each run that is no reference itself, with what it is like, by episode."""
    stages = context.build.stages
    results = []
    for task in shown_tasks(context.lake, context.dataset, context.signals()):
        # References stand among the runs, too: they show what is usual for the task
        of_runs = annotate.transfer.annotate(task.runs, task.references, stages.transfer, stages.motion)
        results += _of_others(task, of_runs)
    yield from sorted(results, key=lambda result: result[0].episode_index)


def _of_others(task: ShownTask, results: Sequence[Transferred]) -> Iterator[tuple[EpisodeSignals, Transferred]]:
    """What was made of the runs that are no references; a label says so where no pictures were compared."""
    references = {reference.run.signals.episode_index for reference in task.references}
    for signals, run, transferred in zip(task.episodes, task.runs, results, strict=True):
        if signals.episode_index in references:
            continue
        if transferred.label and not run.pictures:
            label = replace(transferred.label, notes=[*transferred.label.notes, NO_PICTURES])
            transferred = replace(transferred, label=label)
        yield signals, transferred


def _with_progress(context: StageContext, signals: EpisodeSignals, label: EpisodeLabel) -> LabelledSignals:
    config = context.build.stages.progress
    values = progress(label.segments, label.num_planned, signals.change, signals.fps, config, None, signals.state)
    return LabelledSignals(signals, label.segments, label.num_planned, values)


def _alignment_rows(where: dict[str, Any], alignment: Alignment) -> pa.Table:
    num = len(alignment.frames)
    columns = {
        "dataset": pa.repeat(where["dataset"], num),
        "episode_index": np.full(num, where["episode_index"], np.int64),
        "label_run": pa.repeat(where["label_run"], num),
        "frame_index": alignment.frames.astype(np.int64),
        "chunk": np.full(num, where["chunk"], np.int32),
        "reference_episode": alignment.episodes.astype(np.int64),
        "reference_frame": alignment.reference_frames.astype(np.int64),
        "distance": alignment.distances.astype(np.float32),
        "follows": alignment.follows.astype(bool),
    }
    return pa.table(columns, schema=TABLES["alignments"].schema)


STAGE = Stage(
    name="transfer",
    upstream=("episodes", "frames", "embeddings"),
    run=run,
    config=lambda build: (build.transfer_run().id, build.stages.progress, PROGRESS_VERSION),
    code_version=lambda build: build.transfer_run().code_version,
    description="Runs labelled like the references of their task: those whose label somebody vouches for.",
    reads_outcomes=True,
    main_table="segments",
    applies=lambda build: build.uses_references,
    of_chunks="shown",
    label_run=lambda build: build.transfer_run().id,
    picture=transfer_figure,
)
