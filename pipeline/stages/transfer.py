"""Runs of a chunk labelled like the references of their tasks: a label run of its own, beside that of the annotator."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotate.motion.observe import Signals
from annotate.progress import progress
from annotate.transfer import Reference, Transferred, annotate
from core.domain.label import Label, check_tiling
from ingest.episode import Finding
from pipeline.config import DatasetBuild
from pipeline.labelled import (
    LabelPlace,
    alignment_table,
    label_tables,
    of_label_run,
    quality_table,
)
from pipeline.reading import by_task, signals_of, task_signals
from pipeline.stage import Output, StageContext
from pipeline.stages.segments import native_label
from warehouse.lake import Lake
from warehouse.lake.references import joined_tasks, references_of
from warehouse.lake.similarity import episode_embeddings

NO_PICTURES = (
    "laid beside its references by state and grippers alone: no camera took pictures of both"
)


@dataclass(frozen=True)
class ShownTask:
    """The episodes of one task in a chunk, as annotators are given them; `references` are of the whole dataset."""

    episodes: Sequence[Signals]
    signals: Sequence[Signals]
    references: Sequence[Reference]

    @property
    def sees_pictures(self) -> bool:
        return any(picture is not None for signals in self.signals for picture in signals.pictures)


def shown_tasks(
    lake: Lake, build: DatasetBuild, of_chunk: Iterable[Signals]
) -> Iterator[ShownTask]:
    """The tasks of a chunk that a reference shows; `of_chunk`: its measurements. Raises UserError.

    No run without a text is labelled like another one: they may be of different scenes.
    """
    of_tasks = by_task(of_chunk, joined_tasks(lake, build.name))
    for task, episodes in of_tasks.items():
        if not isinstance(task, str):
            continue
        labels = references_of(lake, build.name, task)
        reference_task = shown_task(lake, build, episodes, labels)
        if reference_task.references:
            yield reference_task


def shown_task(
    lake: Lake,
    build: DatasetBuild,
    episodes: Sequence[Signals],
    labels: Mapping[int, tuple[int, Label | None]],
) -> ShownTask:
    """Episodes of a task and its references, none or some, with what pictures show of them. Raises UserError.

    labels: as `references_of` gives them.
    """
    measured = signals_of(lake, build.name, {index: chunk for index, (chunk, _) in labels.items()})
    reference_labels = [
        _reference_label(signals, labels[signals.episode_index][1], build) for signals in measured
    ]
    # The stage that makes the label says what does not fit: correction_outdated, bad_steps
    fitting = [
        (signals, label)
        for signals, label in zip(measured, reference_labels, strict=True)
        if label is not None
    ]
    embedded_episodes = _with_pictures(
        lake, build, [*episodes, *(signals for signals, _ in fitting)]
    )
    embedded_references = embedded_episodes[len(episodes) :]
    fitting_labels = [label for _, label in fitting]
    references = list(zip(embedded_references, fitting_labels, strict=True))
    return ShownTask(episodes, embedded_episodes[: len(episodes)], references)


def _reference_label(signals: Signals, label: Label | None, build: DatasetBuild) -> Label | None:
    """A reference's label, with progress; None: it does not fit the episode.

    label: None: it is the steps that the source brings.
    """
    try:
        if label is None:
            label = native_label(signals, chunk_episodes=())
        check_tiling(label.segments, len(signals.change), len(label.plan))
    except ValueError:
        return None
    config = build.stages.progress
    curve = progress(
        label.segments,
        len(label.plan),
        signals.change,
        signals.fps,
        config,
        None,
        signals.state,
    )
    return replace(label, progress=curve)


def _with_pictures(lake: Lake, build: DatasetBuild, episodes: Sequence[Signals]) -> list[Signals]:
    """Episodes with what an encoder saw of them, where it looked at most; else with their tiny pictures."""
    tiny = task_signals(episodes)
    # What it saw for an earlier build is there to be searched; labels are those of this build
    if build.stages.embeddings.when == "never":
        return tiny
    dataset = build.name
    indices = sorted({episode.episode_index for episode in episodes})
    rows = lake.rows(
        "SELECT camera, count(DISTINCT episode_index) FROM embeddings WHERE dataset = ? AND "
        "list_contains(?, episode_index) GROUP BY 1 ORDER BY 1",
        [dataset, indices],
    )
    cameras = tuple(camera for camera, count in rows if 2 * count >= len(indices))
    if not cameras:
        return tiny
    embeddings = episode_embeddings(lake.con, dataset, indices, cameras, ("embedding",))
    signals = []
    for episode_signals in tiny:
        embedding = embeddings.get(episode_signals.episode_index)
        pictures = (None,) * len(cameras)
        if embedding is not None:
            frames = embedding.frame_indices.astype(np.int64)
            pictures = tuple(
                (frames, features)
                for features in np.split(embedding.features, len(cameras), axis=1)
            )
        signals.append(replace(episode_signals, pictures=pictures))
    return signals


def run(context: StageContext) -> Output:
    label_run = context.build.transfer_run()
    place = LabelPlace(context.dataset, context.chunk, label_run.id)
    labelled = []
    alignments = {}
    findings = []
    for signals, transferred in _transferred(context):
        label = transferred.label
        alignment = transferred.alignment
        if label is None or alignment is None:
            detail = transferred.why_none or "its task has no other reference"
            findings.append(Finding("transfer_no_fit", detail, "warning", signals.episode_index))
            continue
        check_tiling(label.segments, len(signals.change), label.num_planned)
        alignments[signals.episode_index] = alignment
        labelled.append((signals, label))

    tables = label_tables(place, labelled, curves=True) | {
        "label_quality": quality_table(place, labelled),
        "alignments": alignment_table(place, alignments),
    }
    numbers = {"label_run": label_run.id, "episodes": len(labelled), "no_fit": len(findings)}
    return Output(
        tables, findings, registered=of_label_run(label_run.id, vars(label_run)), numbers=numbers
    )


def _transferred(context: StageContext) -> list[tuple[Signals, Transferred]]:
    """Each episode that is no reference itself, with what it is like, in order."""
    build = context.build
    results = []
    for task in shown_tasks(context.lake, build, context.signals()):
        references = {signals.episode_index for signals, _ in task.references}
        # References stand among the episodes, too: they show what is usual for the task
        labelled = annotate(
            task.signals, task.references, build.stages.transfer, build.stages.motion
        )
        for signals, transferred in zip(task.episodes, labelled, strict=True):
            if signals.episode_index in references:
                continue
            if transferred.label and not task.sees_pictures:
                label = replace(transferred.label, notes=[*transferred.label.notes, NO_PICTURES])
                transferred = replace(transferred, label=label)
            results.append((signals, transferred))
    return sorted(results, key=lambda result: result[0].episode_index)
