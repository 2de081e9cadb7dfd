"""Runs of a chunk labelled like the references of their tasks: a label run of its own, beside that of the annotator."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

import annotate.transfer
from annotate.progress import CODE_VERSION as PROGRESS_VERSION
from annotate.segments import check_tiling
from annotate.transfer import Alignment, Transferred
from core.tables import TABLES
from ingest.episode import Finding
from pipeline.labelled import LabelPlace, label_columns, label_tables, of_label_run, quality_table, with_progress
from pipeline.pictures import segments_figure
from pipeline.reading import EpisodeSignals
from pipeline.stage import Output, Stage, StageContext
from pipeline.transferring import NO_PICTURES, shown_tasks


def run(context: StageContext) -> Output:
    label_run = context.build.transfer_run()
    place = LabelPlace(context.dataset, context.chunk, label_run.id)
    labelled, alignments = [], [TABLES["alignments"].empty()]
    findings, p_failures = [], {}
    for signals, transferred in sorted(_transferred(context), key=lambda result: result[0].episode_index):
        label, alignment = transferred.label, transferred.alignment
        if label is None or alignment is None:
            detail = transferred.why_none or "it follows none of the references of its task"
            findings.append(Finding("transfer_no_fit", detail, "warning", signals.episode_index))
            continue
        check_tiling(label.segments, len(signals.change), label.num_planned)
        alignments.append(_alignment_rows(place, signals.episode_index, alignment))
        config, columns = context.build.stages.progress, label_columns(label)
        labelled.append(with_progress(signals, label.segments, label.num_planned, config, columns))
        if transferred.p_failure is not None and signals.success is None:
            p_failures[signals.episode_index] = transferred.p_failure

    tables = label_tables(place, labelled) | {
        "label_quality": quality_table(place, labelled, p_failures=p_failures),
        "alignments": pa.concat_tables(alignments),
    }
    numbers = {"label_run": label_run.id, "episodes": len(labelled), "no_fit": len(findings)}
    return Output(tables, findings, registered=of_label_run(label_run.id, vars(label_run)), numbers=numbers)


def _transferred(context: StageContext) -> Iterator[tuple[EpisodeSignals, Transferred]]:
    """Each run that is no reference itself, with what it is like; its label says so where no pictures were compared."""
    stages = context.build.stages
    for task in shown_tasks(context.lake, context.dataset, context.signals()):
        # References stand among the runs, too: they show what is usual for the task
        results = annotate.transfer.annotate(task.runs, task.references, stages.transfer, stages.motion)
        references = {reference.run.signals.episode_index for reference in task.references}
        for signals, run, transferred in zip(task.episodes, task.runs, results, strict=True):
            if signals.episode_index not in references:
                yield signals, transferred if run.pictures else _noted(transferred)


def _noted(transferred: Transferred) -> Transferred:
    """Its label says that no pictures were compared."""
    label = transferred.label
    return replace(transferred, label=label and replace(label, notes=[*label.notes, NO_PICTURES]))


def _alignment_rows(place: LabelPlace, episode_index: int, alignment: Alignment) -> pa.Table:
    num = len(alignment.frames)
    columns = {
        "dataset": pa.repeat(place.dataset, num),
        "episode_index": np.full(num, episode_index, np.int64),
        "label_run": pa.repeat(place.label_run, num),
        "frame_index": alignment.frames.astype(np.int64),
        "chunk": np.full(num, place.chunk, np.int32),
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
    reads=("outcomes", "references"),
    applies=lambda build: build.uses_references,
    label_run=lambda build: build.transfer_run().id,
    picture=partial(segments_figure, "transfer"),
)
