"""Inputs of the transfer annotator: the runs of each task in a chunk, and references from the whole dataset."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from annotate.segments import check_tiling
from annotate.transfer import Reference, SeenRun
from pipeline.annotators import native_label
from pipeline.reading import EpisodeSignals, by_task, chunk_signals
from warehouse.lake import Lake
from warehouse.lake.embeddings import EpisodeEmbeddings, episode_embeddings
from warehouse.lake.references import ReferenceLabel, joined_tasks, references_of

NO_PICTURES = "laid beside its references by state and grippers alone: an encoder saw no pictures of both"


@dataclass(frozen=True)
class ShownTask:
    """The runs of one task in a chunk, with what an encoder saw of them; `references` are of the whole dataset."""

    episodes: Sequence[EpisodeSignals]
    runs: Sequence[SeenRun]
    references: Sequence[Reference]


def shown_tasks(lake: Lake, dataset: str, of_chunk: Iterable[EpisodeSignals]) -> Iterator[ShownTask]:
    """The tasks of a chunk that a reference shows; `of_chunk`: its measurements. Raises EmbeddingsError."""
    of_tasks = by_task(of_chunk, joined_tasks(lake, dataset))
    for task, episodes in of_tasks.items():
        labelled = labelled_runs(lake, dataset, references_of(lake, dataset, task))
        if labelled:
            yield shown_task(lake, dataset, episodes, labelled)


type LabelledRun = tuple[EpisodeSignals, Reference]  # a reference before it is known what an encoder saw of it


def labelled_runs(lake: Lake, dataset: str, labels: Sequence[ReferenceLabel]) -> list[LabelledRun]:
    """References with their signals, by episode; those whose label does not fit the episode show nothing."""
    labelled: list[LabelledRun] = []
    for chunk in sorted({label.chunk for label in labels}):
        of_chunk = {label.episode_index: label for label in labels if label.chunk == chunk}
        for signals in chunk_signals(lake, dataset, chunk, of_chunk):
            with suppress(ValueError):  # the stage that makes the label says so: correction_outdated, bad_steps
                labelled.append((signals, _reference(signals, of_chunk[signals.episode_index])))
    return sorted(labelled, key=lambda one: one[0].episode_index)


def _reference(signals: EpisodeSignals, label: ReferenceLabel) -> Reference:
    """Raises ValueError: the label does not fit the episode."""
    segments, plan = label.segments, label.plan
    if segments is None or plan is None:
        by_source = native_label(signals, here=())
        segments, plan = by_source.segments, by_source.plan
    check_tiling(segments, len(signals.change), len(plan))
    return Reference(_seen(signals, None), segments, plan)


def shown_task(
    lake: Lake, dataset: str, episodes: Sequence[EpisodeSignals], labelled: Sequence[LabelledRun]
) -> ShownTask:
    """Runs of a task and its references, none or some, with what an encoder saw of them. Raises EmbeddingsError."""
    own = [episode.episode_index for episode in episodes]
    shown = [signals.episode_index for signals, _ in labelled]
    cameras = _shared_cameras(_cameras(lake, dataset, {*own, *shown}), own, shown or own)
    seen: Mapping[int, EpisodeEmbeddings] = {}
    if cameras:
        seen = episode_embeddings(lake.con, dataset, {*own, *shown}, cameras, ("embedding",))
    runs = [_seen(episode, seen.get(episode.episode_index)) for episode in episodes]
    references = [replace(one, run=_seen(signals, seen.get(signals.episode_index))) for signals, one in labelled]
    return ShownTask(episodes, runs, references)


def _seen(signals: EpisodeSignals, embeddings: EpisodeEmbeddings | None) -> SeenRun:
    """The run with what an encoder saw in it, if anything."""
    if embeddings is None or not len(embeddings.frame_indices):
        return SeenRun(signals.signals(), np.zeros(0, np.int64))
    of_cameras = np.split(embeddings.features, len(embeddings.cameras), axis=1)
    return SeenRun(signals.signals(), embeddings.frame_indices.astype(np.int64), tuple(of_cameras))


def _cameras(lake: Lake, dataset: str, episodes: set[int]) -> dict[int, frozenset[str]]:
    """The cameras of each episode whose pictures an encoder saw; none in a lake of an earlier version."""
    if not lake.has("embeddings"):
        return {}
    rows = lake.rows(
        "SELECT episode_index, list(DISTINCT camera) FROM embeddings WHERE dataset = ? AND "
        "list_contains(?, episode_index) GROUP BY 1",
        [dataset, sorted(episodes)],
    )
    return {episode: frozenset(cameras) for episode, cameras in rows}


def _shared_cameras(
    cameras: Mapping[int, frozenset[str]], runs: Sequence[int], references: Sequence[int]
) -> tuple[str, ...]:
    """By which cameras runs are compared: those of all references that pictures were seen of, and of half the runs.

    A single run that lacks one of them is compared by its state alone; it does not take the camera from the others.
    """
    of_references = [cameras[episode] for episode in references if episode in cameras]
    if not of_references:
        return ()
    of_runs = [cameras[episode] for episode in runs if episode in cameras]
    shared = frozenset.intersection(*of_references)
    return tuple(sorted(c for c in shared if 2 * sum(c in its for its in of_runs) >= len(of_runs)))
