"""Subtask spans of each episode of a chunk, by the configured annotator."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from annotate import native
from annotate.config import VLM_VERSION
from annotate.motion import annotator as motion
from annotate.motion.observe import Signals
from core.annotators import annotator_named
from core.domain.label import Label, check_tiling, plain_label
from core.tables import TABLES
from ingest.episode import Finding
from pipeline.labelled import (
    ChunkAnswers,
    LabelPlace,
    alignment_table,
    kept_labels,
    of_label_run,
    segment_tables,
    with_confidence,
    with_kept_findings,
    with_kept_rows,
)
from pipeline.reading import by_task, task_signals
from pipeline.stage import Output, StageContext

type AnnotatedChunk = ChunkAnswers[Label]


def by_motion(context: StageContext, episodes: Sequence[Signals]) -> AnnotatedChunk:
    """The `motion` annotator. The episodes of one task are labelled together."""
    signals = [
        signals for of_task in by_task(episodes).values() for signals in task_signals(of_task)
    ]
    labels = {}
    for episode, label in zip(
        signals, motion.annotate(signals, context.build.stages.motion), strict=True
    ):
        check_tiling(label.segments, len(episode), label.num_planned)
        labels[episode.episode_index] = label
    return ChunkAnswers(labels)


def by_native(context: StageContext, episodes: Sequence[Signals]) -> AnnotatedChunk:
    """The `native` annotator: spans that the source brings. Episodes without usable ones are labelled by motion."""
    labels = {}
    findings = []
    whys: dict[int, str] = {}
    chunk_episodes = {episode.episode_index for episode in episodes}
    for episode in episodes:
        try:
            label = native_label(episode, chunk_episodes)
        except ValueError as e:
            findings.append(Finding("bad_steps", str(e), "warning", episode.episode_index))
            whys[episode.episode_index] = f"the source's steps cannot be used: {e}"
            continue
        # Without a planned step there is nothing to measure progress by
        if label.num_planned:
            labels[episode.episode_index] = label
        else:
            detail = "no subtask spans in the source"
            findings.append(Finding("bad_steps", detail, "warning", episode.episode_index))
            whys[episode.episode_index] = detail

    # Motion labels the runs of a task together: all of them are shown, and those without steps get its label
    if whys:
        by_motion_all = by_motion(context, episodes).by_episode
        for episode_index, reason in whys.items():
            label = by_motion_all[episode_index]
            labels[episode_index] = replace(
                label, notes=[*label.notes, f"labelled by motion: {reason}"]
            )
    numbers = {"native_episodes": len(labels) - len(whys), "motion_episodes": len(whys)}
    return ChunkAnswers(labels, findings, numbers=numbers)


def native_label(episode: Signals, chunk_episodes: Container[int]) -> Label:
    """The label of the source's steps. Raises ValueError for those that cannot be the steps of the episode.

    chunk_episodes: the episodes of the chunk; a run of another one does not show how far a failed run came.
    """
    num_frames = len(episode.change)
    record = episode.record
    segments, num_planned = native.annotate(record.steps, num_frames, record.success, record.plan)
    check_tiling(segments, num_frames, num_planned)
    if record.as_far_as and record.as_far_as.episode_index in chunk_episodes:
        as_far_as = record.as_far_as
    else:
        as_far_as = None
    label = plain_label(segments, num_planned, record.task, as_far_as)
    return replace(label, plan=record.plan or label.plan, steps_from=record.steps_from)


def _with_version(context: StageContext, labels: Mapping[int, Label]) -> dict[int, Label]:
    """Labels, with a note where the label run that they join is by another version than made them."""
    made_by = context.step.spec.made_by
    if made_by is None:
        return dict(labels)
    note = f"made by {VLM_VERSION}: a run of {made_by.code_version} goes on"
    return {k: replace(label, notes=[*label.notes, note]) for k, label in labels.items()}


def run(context: StageContext) -> Output:
    label_run = context.build.label_run()
    stored_labels = kept_labels(context)
    unlabelled = [
        episode for episode in context.signals() if episode.episode_index not in stored_labels
    ]
    annotated: AnnotatedChunk = annotator_named(label_run.annotator).labels_of(context, unlabelled)
    labels = sorted(_with_version(context, annotated.by_episode).items())
    place = LabelPlace(context.dataset, context.chunk, label_run.id)
    tables = segment_tables(place, ((episode, with_confidence(label)) for episode, label in labels))
    # Pictures decoded to find boundaries are a part of what the label rests on
    if annotated.keyframes is not None:
        keyframes = [row | {"label_run": label_run.id} for row in annotated.keyframes]
        tables["keyframes"] = TABLES["keyframes"].rows(keyframes)

    tables["alignments"] = alignment_table(place, annotated.alignments)

    # What a former version labelled stays
    findings = annotated.findings
    if stored_labels:
        tables = with_kept_rows(context, tables, stored_labels)
        findings = with_kept_findings(context, findings, stored_labels)
    if not tables["alignments"].num_rows:
        del tables["alignments"]
    episodes = len(labels) + len(stored_labels)
    per_episode = tables["segments"].num_rows / episodes if episodes else 0.0
    numbers = {
        "label_run": label_run.id,
        "episodes": episodes,
        "kept": len(stored_labels),
        "segments_per_episode": per_episode,
    }
    return Output(
        tables,
        findings,
        registered=of_label_run(label_run.id, vars(label_run)),
        numbers=numbers | dict(annotated.numbers),
        unanswered=annotated.unanswered,
    )
