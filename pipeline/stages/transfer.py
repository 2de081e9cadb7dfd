"""Runs of a chunk labelled like the references of their tasks: a label run of its own, beside that of the annotator."""

from dataclasses import replace
from functools import partial

from annotate.progress import CODE_VERSION as PROGRESS_VERSION
from annotate.segments import check_tiling
from annotate.transfer.annotator import Transferred, annotate
from ingest.episode import Finding
from pipeline.labelled import (
    LabelledSignals,
    LabelPlace,
    alignment_table,
    label_columns,
    label_tables,
    of_label_run,
    quality_table,
)
from pipeline.pictures import segments_figure
from pipeline.reading import EpisodeSignals
from pipeline.stage import Output, Stage, StageContext
from pipeline.transferring import NO_PICTURES, shown_tasks


def run(context: StageContext) -> Output:
    label_run = context.build.transfer_run()
    place = LabelPlace(context.dataset, context.chunk, label_run.id)
    labelled, alignments, findings = [], {}, []
    for signals, transferred in _transferred(context):
        label, alignment = transferred.label, transferred.alignment
        if label is None or alignment is None or label.curve is None:
            detail = transferred.why_none or "its task has no other reference"
            findings.append(Finding("transfer_no_fit", detail, "warning", signals.episode_index))
            continue
        check_tiling(label.segments, len(signals.change), label.num_planned)
        alignments[signals.episode_index] = alignment
        columns = label_columns(label)
        labelled.append(LabelledSignals(signals, label.segments, label.num_planned, label.curve, columns))

    tables = label_tables(place, labelled) | {
        "label_quality": quality_table(place, labelled),
        "alignments": alignment_table(place, alignments),
    }
    numbers = {"label_run": label_run.id, "episodes": len(labelled), "no_fit": len(findings)}
    return Output(tables, findings, registered=of_label_run(label_run.id, vars(label_run)), numbers=numbers)


def _transferred(context: StageContext) -> list[tuple[EpisodeSignals, Transferred]]:
    """Each episode that is no reference itself, with what it is like, in order."""
    build, results = context.build, []
    for task in shown_tasks(context.lake, build, context.signals()):
        references = {reference.signals.episode_index for reference in task.references}
        # References stand among the episodes, too: they show what is usual for the task
        labelled = annotate(task.signals, task.references, build.stages.transfer, build.stages.motion)
        for signals, transferred in zip(task.episodes, labelled, strict=True):
            if signals.episode_index in references:
                continue
            if transferred.label and not task.sees_pictures:
                label = replace(transferred.label, notes=[*transferred.label.notes, NO_PICTURES])
                transferred = replace(transferred, label=label)
            results.append((signals, transferred))
    return sorted(results, key=lambda result: result[0].episode_index)


STAGE = Stage(
    name="transfer",
    upstream=("episodes", "frames", "embeddings"),
    run=run,
    config=lambda build: (build.transfer_run().id, build.stages.progress, PROGRESS_VERSION),
    code_version=lambda build: build.transfer_run().code_version,
    description="Episodes labelled like the references of their task: those whose label somebody vouches for.",
    reads=("outcomes", "references"),
    applies=lambda build: build.uses_references,
    label_run=lambda build: build.transfer_run().id,
    picture=partial(segments_figure, "transfer"),
)
