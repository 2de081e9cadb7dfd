"""Annotations from elsewhere, published as a label run of their own beside the corpus's.

The run is listed like any other, can be compared (`release diff --runs`) and exported by name; which label counts stays
as it is.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from annotate.config import ProgressConfig
from annotate.imported import CODE_VERSION, read_annotations
from annotate.imported_label import EpisodeAnnotation, ImportedError
from annotate.motion.observe import Signals
from core.domain.label_run import LabelRun, resolved
from pipeline.config import built
from pipeline.labelled import LabelledSignals, LabelPlace, label_tables, of_label_run, stated_label
from pipeline.reading import chunk_signals
from warehouse.lake import Lake, StageRun, content_key, output_hash
from warehouse.lake.stored import numbers_in_source

STAGE = "import"


@dataclass(frozen=True)
class Imported:
    """The result of an import; `refused` has the reason for each annotation that was left out."""

    dataset: str
    label_run: str
    form: str
    episodes: int
    segments: int
    refused: tuple[str, ...]


def import_annotations(lake: Lake, path: Path, dataset: str, form: str | None = None) -> Imported:
    """Publish what `path` says of a dataset's episodes. Raises ImportedError when nothing of it fits.

    The same annotations give the same label run, so importing twice changes nothing. One transaction per chunk.
    """
    # Imported segments get their progress as the dataset's own did last
    config = built(lake, dataset).stages.progress
    annotations = read_annotations(path, form)
    run = LabelRun(
        "imported", CODE_VERSION, resolved({"form": annotations.form, "sha256": annotations.sha256})
    )
    ours = {number: e for e, number in numbers_in_source(lake, dataset).items()}
    by_episode: dict[int, EpisodeAnnotation] = {}
    refused = []
    for a in annotations.episodes:
        # An export of several datasets brings annotations of the others, too
        if a.of and a.of[0] != dataset:
            refused.append(f"annotation {a.episode_index}: it is of {a.of[0]}")
            continue
        # Files from elsewhere count as the source does
        episode = a.of[1] if a.of else ours.get(a.episode_index)
        if episode is None:
            refused.append(f"episode {a.episode_index}: {dataset} has no such usable episode")
            continue
        if by_episode.setdefault(episode, a) is not a:
            raise ImportedError(f"episode {episode} of {dataset} is annotated twice")

    # Chunk by chunk: what fits is published, what does not is listed in `refused`
    episodes = segments = 0
    matched: set[int] = set()
    for chunk in lake.column(
        "SELECT DISTINCT chunk FROM episode_content WHERE dataset = ? ORDER BY 1", [dataset]
    ):
        started = time.monotonic()
        place = LabelPlace(dataset, chunk, run.id)
        labelled = []
        for signals in chunk_signals(lake, dataset, chunk):
            if signals.episode_index not in by_episode:
                continue
            matched.add(signals.episode_index)
            try:
                labelled.append(_labelled(signals, by_episode[signals.episode_index], config))
            except ImportedError as error:
                refused.append(f"episode {signals.episode_index}: {error}")
        if not labelled:
            continue
        tables = label_tables(place, labelled)
        stage_run = StageRun(
            stage=STAGE,
            dataset=dataset,
            chunk=chunk,
            label_run=run.id,
            input_hash=content_key(annotations.sha256),
            code_version=CODE_VERSION,
            rows=sum(t.num_rows for t in tables.values()),
            output_hash=output_hash(tables),
            duration_s=time.monotonic() - started,
        )
        # The run is registered once, with the time of its first import
        lake.publish(stage_run, tables, registered=of_label_run(run.id, vars(run)))
        episodes += len(labelled)
        segments += tables["segments"].num_rows
    refused += [
        f"episode {e}: {dataset} has no such usable episode"
        for e in sorted(by_episode.keys() - matched)
    ]
    if not episodes:
        raise ImportedError(f"nothing of {path} fits {dataset}: {'; '.join(refused[:3])}")
    return Imported(dataset, run.id, annotations.form, episodes, segments, tuple(refused))


def _labelled(
    signals: Signals, annotation: EpisodeAnnotation, config: ProgressConfig
) -> LabelledSignals:
    """Raises ImportedError where the annotation does not fit the episode."""
    label = annotation.label(len(signals.change), signals.fps, signals.success)
    # Without a plan of its own: the names in the order of their first attempts
    if not label.plan:
        names = dict.fromkeys(s.name for s in label.segments if s.step is not None)
        label = replace(label, plan=tuple(names))
    return stated_label(signals, label, config)
