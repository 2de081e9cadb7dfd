"""The dense label of a chunk: progress of the configured label run, which label counts, and what is odd about it."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from core.domain.label import Label
from core.domain.label_run import choose_active, human_run
from core.tables import TABLES
from core.values import grouped
from ingest.episode import Finding
from pipeline.labelled import (
    LabelledSignals,
    LabelPlace,
    progress_table,
    quality_table,
    with_progress,
)
from pipeline.stage import Output, StageContext
from warehouse.lake.corrections import ACCEPTED, REJECTED, chunk_corrections
from warehouse.lake.stored import annotated_labels

OtherLabel = tuple[
    int, str, str, str | None
]  # episode, label run, annotator and model of another run's label


def run(context: StageContext) -> Output:
    build = context.build
    place = LabelPlace(context.dataset, context.chunk, build.label_run().id)
    labels = annotated_labels(
        context.rows.holding("FROM segments JOIN episode_labels"), **vars(place)
    )
    labelled, findings = _with_progress(context, labels)
    other_labels = context.rows.rows(
        "SELECT DISTINCT p.episode_index, p.label_run, r.annotator, r.model FROM progress p "
        "JOIN label_runs r USING (label_run) WHERE p.dataset = ? AND p.chunk = ? AND p.label_run <> ?",
        [place.dataset, place.chunk, place.label_run],
    )
    tables = {
        "progress": progress_table(place, labelled),
        "active_runs": _active_runs(context, place, labels, other_labels),
        "label_quality": quality_table(place, labelled, is_inspected=build.annotator == "vlm"),
        "label_disagreement": _disagreement(context, place, labelled, other_labels),
    }
    ends = [float(label.progress[-1]) for _, label in labelled]
    numbers = {
        "label_run": place.label_run,
        "episodes": len(ends),
        "finished": sum(end == 1.0 for end in ends),
        "mean_end": float(np.mean(ends)) if ends else 0.0,
    }
    return Output(tables, findings or None, numbers=numbers)


def _with_progress(
    context: StageContext, labels: Mapping[int, Label]
) -> tuple[list[LabelledSignals], list[Finding]]:
    """The labelled episodes of the chunk with their progress, in order; and failed ones of which nobody can say how
    far they came."""
    config = context.build.stages.progress
    episodes = [episode for episode in context.signals() if episode.episode_index in labels]
    labelled: dict[int, LabelledSignals] = {}
    findings: list[Finding] = []
    # The runs that others are measured against come first
    for episode in sorted(episodes, key=lambda e: _num_before(labels, e.episode_index)):
        label = labels[episode.episode_index]
        ends_at = _known_end(label, labelled)
        if label.as_far_as and ends_at is None:
            place = (
                f"frame {label.as_far_as.frame_index} of episode {label.as_far_as.episode_index}"
            )
            detail = (
                f"it came as far as {place}, whose progress is not known: its own end is a guess"
            )
            findings.append(Finding("bad_steps", detail, "warning", episode.episode_index))
        if label.has_progress:
            labelled[episode.episode_index] = episode, label
        else:
            labelled[episode.episode_index] = with_progress(episode, label, config, ends_at=ends_at)
    return [labelled[episode.episode_index] for episode in episodes], findings


def _num_before(labels: Mapping[int, Label], episode_index: int) -> int:
    """How many runs, one after the other, a run is measured against; of those in a circle as many as there are."""
    count = 0
    while (label := labels.get(episode_index)) and label.as_far_as and count < len(labels):
        episode_index = label.as_far_as.episode_index
        count += 1
    return count


def _known_end(label: Label, labelled: Mapping[int, LabelledSignals]) -> float | None:
    """The progress of another run at the frame that this failed one came as far as; None where no label has it."""
    if label.as_far_as is None or label.as_far_as.episode_index not in labelled:
        return None
    _, reference = labelled[label.as_far_as.episode_index]
    if label.as_far_as.frame_index < len(reference.progress):
        return float(reference.progress[label.as_far_as.frame_index])
    return None


def _disagreement(
    context: StageContext,
    place: LabelPlace,
    labelled: Sequence[LabelledSignals],
    other_labels: Sequence[OtherLabel],
) -> pa.Table:
    """How far this run's progress is from that of each run in the lake by another annotator or model."""
    ours = context.build.label_run()
    runs = sorted(
        {run for _, run, *made_by in other_labels if made_by != [ours.annotator, ours.model]}
    )
    rows = []
    if runs:
        table = context.rows.arrow(
            "SELECT episode_index, label_run, progress FROM progress "
            "WHERE dataset = ? AND chunk = ? AND list_contains(?, label_run) "
            "ORDER BY label_run, episode_index, frame_index",
            [place.dataset, place.chunk, runs],
        )
        run_of_row = table["label_run"].to_numpy(zero_copy_only=False)
        episode_of_row = table["episode_index"].to_numpy()
        progress_of_row = table["progress"].to_numpy()
        for other_run in runs:
            for signals, label in labelled:
                index = signals.episode_index
                theirs = progress_of_row[(run_of_row == other_run) & (episode_of_row == index)]
                # Else the other run has no label of it, or one of another length
                if len(theirs) == len(label.progress):
                    difference = float(np.abs(theirs - label.progress).mean())
                    rows.append(
                        place.of(index) | {"other_run": other_run, "mean_difference": difference}
                    )
    return TABLES["label_disagreement"].rows(rows)


def _active_runs(
    context: StageContext,
    place: LabelPlace,
    labels: Mapping[int, Label],
    other_labels: Sequence[OtherLabel],
) -> pa.Table:
    """Which label counts for each episode, with the run that is about to be published among the candidates."""
    # The candidates: runs whose progress the lake has, and this one
    present = place.label_run, context.build.annotator
    stored = ((episode, (run, annotator)) for episode, run, annotator, _ in other_labels)
    candidates = grouped([*stored, *((episode_index, present) for episode_index in sorted(labels))])

    # What the build wants to count, the best first
    preferred = _preferred(context, place.label_run, candidates, labels)

    # What people said about them: a correction counts before every annotator, a rejected label not at all
    corrections = chunk_corrections(context.lake, place.dataset, place.chunk)
    corrected = {c["episode_index"] for c in corrections if c["status"] == ACCEPTED}
    rejected = {
        (c["episode_index"], c["base_label_run"]) for c in corrections if c["status"] == REJECTED
    }
    rows = []
    for episode_index, runs in sorted(candidates.items()):
        allowed = [run for run in runs if (episode_index, run[0]) not in rejected]
        if episode_index in corrected:
            of_people = [(human_run(place.dataset), "accepted correction")]
        else:
            of_people = []
        active = choose_active(allowed, [*of_people, *preferred[episode_index]])
        if active:
            rows.append(place.of(episode_index) | {"label_run": active[0], "why": active[1]})
    return TABLES["active_runs"].rows(rows)


def _preferred(
    context: StageContext, label_run: str, episodes: Iterable[int], labels: Mapping[int, Label]
) -> dict[int, list[tuple[str, str]]]:
    """Of each episode the annotators' labels that count first, the best first: (label_run, why)."""
    configured = label_run, "named by the configuration"
    build = context.build
    if not build.uses_references:
        return {episode: [configured] for episode in episodes}

    # Who follows which references; steps of the source count before that, unless the configuration says otherwise
    chunk_key = [build.name, context.chunk]
    transfer_run = build.transfer_run().id
    shown_by_which = dict(
        context.rows.rows(
            "SELECT episode_index, list(DISTINCT reference_episode ORDER BY reference_episode) FROM alignments "
            "WHERE dataset = ? AND chunk = ? AND label_run = ? GROUP BY 1",
            [*chunk_key, transfer_run],
        )
    )
    with_steps = {episode for episode, label in labels.items() if label.steps_from is not None}
    first = set() if build.stated_annotator == "transfer" else with_steps
    preferred = {}
    for episode in episodes:
        if episode in shown_by_which:
            transferred = [(transfer_run, shown_by(shown_by_which[episode]))]
        else:
            transferred = []
        if episode in first:
            preferred[episode] = [configured, *transferred]
        else:
            preferred[episode] = [*transferred, configured]
    return preferred


def shown_by(references: Sequence[int]) -> str:
    """Why a label counts that follows references. Example: shown_by([3, 7]) is "shown by references: episodes 3, 7"."""
    plural = "s" if len(references) > 1 else ""
    return f"shown by reference{plural}: episode{plural} {', '.join(map(str, references))}"
