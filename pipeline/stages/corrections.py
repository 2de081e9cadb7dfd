"""People's labels: the label run human/<dataset>, made of the corrections of a chunk's episodes."""

import json
from typing import Any

import pyarrow as pa

from annotate.label import has_names
from annotate.label_run import HUMAN_VERSION, human_run
from annotate.progress import CODE_VERSION as PROGRESS_VERSION
from annotate.progress import progress
from annotate.segments import check_tiling
from annotate.stated_progress import is_stated, stated_progress
from core.tables import TABLES
from ingest.episode import Finding
from pipeline.labelled import LabelledSignals, dense_label, quality_rows
from pipeline.pictures import corrections_figure
from pipeline.reading import EpisodeSignals
from pipeline.stage import Output, Stage, StageContext
from pipeline.stages.segments import of_label_run, segments_as_rows
from warehouse.lake.corrections import ACCEPTED, REJECTED, chunk_corrections, end_of, segments_of

Correction = dict[str, Any]  # a row of current_corrections


def run(context: StageContext) -> Output:
    lake, build = context.lake, context.build
    label_run = human_run(build.name)
    corrections = chunk_corrections(lake, build.name, context.chunk)
    accepted = {c["episode_index"]: c for c in corrections if c["status"] == ACCEPTED}
    findings = [_not_used(c) for c in corrections if c["status"] != ACCEPTED]

    segment_rows, label_rows, labelled = [], [], []
    for episode in context.signals():
        correction = accepted.get(episode.episode_index)
        # Only what a person corrected and accepted; the annotator's label counts elsewhere
        if correction is None:
            continue
        segments, plan = segments_of(correction), correction["plan"]

        # The episode may have been decoded to another length since it was corrected
        try:
            check_tiling(segments, len(episode.change), len(plan))
        except ValueError as e:
            detail = f"correction {correction['correction_id']}: {e}"
            findings.append(Finding("correction_outdated", detail, "warning", episode.episode_index))
            continue

        where = {
            "dataset": build.name,
            "episode_index": episode.episode_index,
            "chunk": context.chunk,
            "label_run": label_run,
        }
        segment_rows += segments_as_rows(where, segments, len(plan))
        label_rows.append(where | _label_columns(episode, correction) | {"named": has_names(segments, plan)})
        label = progress(segments, len(plan), episode.change, episode.fps, build.stages.progress, None, episode.state)
        # Where the person says how the curve runs, that counts before what the pictures show
        end = end_of(correction)
        if is_stated(segments, end):
            label = stated_progress(segments, label, end)
        labelled.append(LabelledSignals(episode, segments, len(plan), label))

    dense = [dense_label(build.name, label_run, context.chunk, episode) for episode in labelled]
    quality = quality_rows(build.name, label_run, context.chunk, labelled)
    tables = {
        "segments": TABLES["segments"].rows(segment_rows),
        "episode_labels": TABLES["episode_labels"].rows(label_rows),
        "progress": pa.concat_tables([TABLES["progress"].empty(), *dense]),
        "label_quality": TABLES["label_quality"].rows(quality),
    }
    how_made = {"annotator": "human", "params": json.dumps({}), "code_version": HUMAN_VERSION}
    numbers = {"label_run": label_run, "episodes": len(label_rows), "not_used": len(findings)}
    return Output(tables, findings, registered=of_label_run(label_run, how_made), numbers=numbers)


def _label_columns(episode: EpisodeSignals, correction: Correction) -> dict[str, Any]:
    return {
        "task": episode.task,
        "task_inferred": False,
        "needs_review": False,
        "plan": correction["plan"],
        "notes": [correction["comment"]] if correction["comment"] else [],
        "correction_id": correction["correction_id"],
        "final_progress": correction["final_progress"],
        "catastrophic_frame": correction["catastrophic_frame"],
    }


def _not_used(correction: Correction) -> Finding:
    """Why a correction makes no label: it rejects one, or the episode is no longer what was corrected."""
    episode_index = correction["episode_index"]
    if correction["status"] != REJECTED:
        return Finding("correction_outdated", f"correction {correction['correction_id']}", "warning", episode_index)
    detail = f"label {correction['base_label_run']}"
    if correction["comment"]:
        detail += f": {correction['comment']}"
    return Finding("label_rejected", detail, "warning", episode_index)


STAGE = Stage(
    name="corrections",
    upstream=("episodes", "frames"),
    run=run,
    config=lambda build: (build.stages.progress, PROGRESS_VERSION, *build.views),
    code_version=HUMAN_VERSION,
    description=(
        "People's labels: segments and progress of the episodes that they corrected, as the run human/<dataset>."
    ),
    reads_outcomes=True,
    main_table="segments",
    of_chunks="corrected",
    label_run=lambda build: human_run(build.name),
    picture=corrections_figure,
)
