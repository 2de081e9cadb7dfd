"""Inputs of the transfer annotator: the episodes of each task in a chunk, and references from the whole dataset."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotate.progress import progress
from annotate.segments import check_tiling
from annotate.signals import Signals
from annotate.transfer.annotator import Reference
from pipeline.annotators import native_label
from pipeline.config import DatasetBuild
from pipeline.reading import EpisodeSignals, by_task, signals_of, task_signals
from warehouse.lake import Lake
from warehouse.lake.references import ReferenceLabel, joined_tasks, references_of
from warehouse.lake.similarity import episode_embeddings

NO_PICTURES = "laid beside its references by state and grippers alone: no camera took pictures of both"


@dataclass(frozen=True)
class ShownTask:
    """The episodes of one task in a chunk, as annotators are given them; `references` are of the whole dataset."""

    episodes: Sequence[EpisodeSignals]
    signals: Sequence[Signals]
    references: Sequence[Reference]

    @property
    def sees_pictures(self) -> bool:
        return any(picture is not None for signals in self.signals for picture in signals.pictures)


def shown_tasks(lake: Lake, build: DatasetBuild, of_chunk: Iterable[EpisodeSignals]) -> Iterator[ShownTask]:
    """The tasks of a chunk that a reference shows; `of_chunk`: its measurements. Raises UserError."""
    of_tasks = by_task(of_chunk, joined_tasks(lake, build.name))
    for task, episodes in of_tasks.items():
        labels = references_of(lake, build.name, task)
        shown = shown_task(lake, build, episodes, labels)
        if shown.references:
            yield shown


def shown_task(
    lake: Lake, build: DatasetBuild, episodes: Sequence[EpisodeSignals], labels: Sequence[ReferenceLabel]
) -> ShownTask:
    """Episodes of a task and its references, none or some, with what pictures show of them. Raises UserError."""
    by_episode = {label.episode_index: label for label in labels}
    measured = signals_of(lake, build.name, {label.episode_index: label.chunk for label in labels})
    found = [(signals, _reference(signals, by_episode[signals.episode_index], build)) for signals in measured]
    # The stage that makes the label says what does not fit: correction_outdated, bad_steps
    labelled = [(signals, reference) for signals, reference in found if reference is not None]
    seen = _with_pictures(lake, build.name, [*episodes, *(signals for signals, _ in labelled)])
    references = [
        replace(reference, signals=own) for (_, reference), own in zip(labelled, seen[len(episodes) :], strict=True)
    ]
    return ShownTask(episodes, seen[: len(episodes)], references)


def _reference(signals: EpisodeSignals, label: ReferenceLabel, build: DatasetBuild) -> Reference | None:
    """None: the label does not fit the episode."""
    segments, plan = label.segments, label.plan
    try:
        if segments is None or plan is None:
            by_source = native_label(signals, here=())
            segments, plan = by_source.segments, by_source.plan
        check_tiling(segments, len(signals.change), len(plan))
    except ValueError:
        return None
    config = build.stages.progress
    curve = progress(segments, len(plan), signals.change, signals.fps, config, None, signals.state)
    return Reference(signals.signals(), segments, plan, curve)


def _with_pictures(lake: Lake, dataset: str, episodes: Sequence[EpisodeSignals]) -> list[Signals]:
    """Episodes with what an encoder saw of them, where it looked at most; else with their tiny pictures."""
    tiny = task_signals(episodes)
    indices = sorted({episode.episode_index for episode in episodes})
    rows = lake.rows(
        "SELECT camera, count(DISTINCT episode_index) FROM embeddings WHERE dataset = ? AND "
        "list_contains(?, episode_index) GROUP BY 1 ORDER BY 1",
        [dataset, indices],
    )
    cameras = tuple(camera for camera, count in rows if 2 * count >= len(indices))
    if not cameras:
        return tiny
    seen = episode_embeddings(lake.con, dataset, indices, cameras, ("embedding",))
    signals = []
    for own in tiny:
        found = seen.get(own.episode_index)
        pictures = (None,) * len(cameras)
        if found is not None:
            frames = found.frame_indices.astype(np.int64)
            pictures = tuple((frames, features) for features in np.split(found.features, len(cameras), axis=1))
        signals.append(replace(own, pictures=pictures))
    return signals
