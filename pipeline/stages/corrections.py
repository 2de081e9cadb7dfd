"""People's labels: the label run human/<dataset>, made of the corrections of a chunk's episodes."""

import json

from core.annotators import HUMAN
from core.domain.label import Label, StatedEnd, check_tiling
from core.domain.label_run import HUMAN_VERSION, human_run
from ingest.episode import Finding
from pipeline.labelled import LabelPlace, label_tables, of_label_run, quality_table, stated_label
from pipeline.stage import Output, StageContext
from warehouse.lake.corrections import ACCEPTED, REJECTED, chunk_corrections, segments_of


def run(context: StageContext) -> Output:
    """Only what a person corrected and accepted; the annotator's label counts elsewhere."""
    label_run = human_run(context.dataset)
    episodes = {episode.episode_index: episode for episode in context.signals()}
    labelled = []
    findings = []
    for correction in chunk_corrections(context.lake, context.dataset, context.chunk):
        episode_index = correction["episode_index"]
        comment = correction["comment"]
        outdated = f"correction {correction['correction_id']}"
        if correction["status"] == REJECTED:
            # The view pending_corrections compares these words with what is said by now
            detail = f"label {correction['base_label_run']}" + (f": {comment}" if comment else "")
            findings.append(Finding("label_rejected", detail, "warning", episode_index))
            continue
        if correction["status"] != ACCEPTED:
            findings.append(Finding("correction_outdated", outdated, "warning", episode_index))
            continue
        episode = episodes.get(episode_index)
        if episode is None:
            continue
        segments = segments_of(correction)
        plan = correction["plan"]
        # The episode may have been decoded to another length since it was corrected
        try:
            check_tiling(segments, len(episode.change), len(plan))
        except ValueError as e:
            findings.append(
                Finding("correction_outdated", f"{outdated}: {e}", "warning", episode_index)
            )
            continue
        config = context.build.stages.progress
        end = StatedEnd(correction["final_progress"], correction["catastrophic_frame"])
        label = Label(
            segments,
            len(plan),
            tuple(plan),
            notes=[comment] if comment else [],
            end=end,
            correction_id=correction["correction_id"],
        )
        labelled.append(stated_label(episode, label, config))

    place = LabelPlace(context.dataset, context.chunk, label_run)
    tables = label_tables(place, labelled) | {"label_quality": quality_table(place, labelled)}
    how_made = {"annotator": HUMAN, "params": json.dumps({}), "code_version": HUMAN_VERSION}
    numbers = {"label_run": label_run, "episodes": len(labelled), "not_used": len(findings)}
    return Output(tables, findings, registered=of_label_run(label_run, how_made), numbers=numbers)
