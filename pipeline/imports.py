"""Annotations from elsewhere, published as a label run of their own beside the corpus's.

The run is listed like any other, can be compared (`release diff --runs`) and exported by name; which label counts stays
as it is.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from annotate.imported import CODE_VERSION, Annotations, read_annotations
from annotate.imported_label import EpisodeAnnotation, ImportedError
from annotate.label import has_names
from annotate.label_run import LabelRun, resolved
from annotate.progress import ProgressConfig, progress
from annotate.stated_progress import is_stated, stated_progress
from core.tables import TABLES
from pipeline.config import stored_config
from pipeline.labelled import LabelledSignals, dense_label
from pipeline.reading import EpisodeSignals, chunk_signals
from pipeline.stages.segments import of_label_run, segments_as_rows
from warehouse.lake import Lake, StageRun, content_key, output_hash

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
    config = _progress_config(lake, dataset)
    told = read_annotations(path, form)
    run = LabelRun("imported", CODE_VERSION, resolved({"form": told.form, "sha256": told.sha256}))
    by_episode = _by_episode(told, dataset)
    refused = []
    # An export of several datasets brings annotations of the others, too
    for a in told.episodes:
        if a.of and a.of[0] != dataset:
            refused.append(f"annotation {a.episode_index}: it is of {a.of[0]}")

    # Chunk by chunk: what fits is published, what does not is listed in `refused`
    chunks = lake.rows("SELECT DISTINCT chunk FROM episode_content WHERE dataset = ? ORDER BY 1", [dataset])
    episodes = segments = 0
    seen: set[int] = set()
    for (chunk,) in chunks:
        signals = [e for e in chunk_signals(lake, dataset, chunk) if e.episode_index in by_episode]
        seen |= {e.episode_index for e in signals}
        tables = _chunk(dataset, chunk, run.id, signals, by_episode, config, refused)
        if tables["episode_labels"].num_rows:
            _publish(lake, dataset, chunk, run, told, tables)
            episodes += tables["episode_labels"].num_rows
            segments += tables["segments"].num_rows
    refused += [f"episode {e}: {dataset} has no such usable episode" for e in sorted(by_episode.keys() - seen)]
    if not episodes:
        raise ImportedError(f"nothing of {path} fits {dataset}: {'; '.join(refused[:3])}")
    return Imported(dataset, run.id, told.form, episodes, segments, tuple(refused))


def _progress_config(lake: Lake, dataset: str) -> ProgressConfig:
    """How the dataset's own progress was made last; imported segments get theirs in the same way."""
    configs = lake.rows("SELECT config FROM build_configs WHERE dataset = ?", [dataset])
    if not configs:
        names = ", ".join(r[0] for r in lake.rows("SELECT dataset FROM datasets ORDER BY 1")) or "none yet"
        raise ImportedError(f"the corpus has no dataset {dataset!r}: build it first; it has {names}")
    return stored_config(configs[0][0]).stages.progress


def _by_episode(told: Annotations, dataset: str) -> dict[int, EpisodeAnnotation]:
    found: dict[int, EpisodeAnnotation] = {}
    for a in told.episodes:
        if a.of is not None and a.of[0] != dataset:
            continue
        episode = a.of[1] if a.of else a.episode_index
        if episode in found:
            raise ImportedError(f"episode {episode} of {dataset} is annotated twice")
        found[episode] = a
    return found


def _chunk(
    dataset: str,
    chunk: int,
    run: str,
    signals: list[EpisodeSignals],
    annotations: Mapping[int, EpisodeAnnotation],
    config: ProgressConfig,
    refused: list[str],
) -> dict[str, pa.Table]:
    """Tables of a chunk; appends to `refused`."""
    rows: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    parts = [TABLES["progress"].empty()]
    for e in signals:
        try:
            told = annotations[e.episode_index].label(len(e.change), e.fps, e.success)
        except ImportedError as error:
            refused.append(f"episode {e.episode_index}: {error}")
            continue
        where = {"dataset": dataset, "episode_index": e.episode_index, "chunk": chunk, "label_run": run}
        rows += segments_as_rows(where, told.segments, told.num_planned)
        # Without a plan of its own: the names in the order of their first attempts
        plan = told.plan or dict.fromkeys(s.name for s in told.segments if s.step is not None)
        labels.append(
            where
            | {"task": e.task, "task_inferred": False, "needs_review": False, "plan": list(plan), "notes": []}
            | {"named": has_names(told.segments, list(plan))}
            | asdict(told.end)
        )
        label = told.progress
        if label is None:
            label = progress(told.segments, told.num_planned, e.change, e.fps, config, None, e.state)
            if is_stated(told.segments, told.end):
                label = stated_progress(told.segments, label, told.end)
        parts.append(dense_label(dataset, run, chunk, LabelledSignals(e, told.segments, told.num_planned, label)))
    return {
        "segments": TABLES["segments"].rows(rows),
        "episode_labels": TABLES["episode_labels"].rows(labels),
        "progress": pa.concat_tables(parts),
    }


def _publish(
    lake: Lake, dataset: str, chunk: int, run: LabelRun, told: Annotations, tables: dict[str, pa.Table]
) -> None:
    started = time.monotonic()
    stage_run = StageRun(
        stage=STAGE,
        dataset=dataset,
        chunk=chunk,
        label_run=run.id,
        input_hash=content_key(told.sha256),
        code_version=CODE_VERSION,
        rows=sum(t.num_rows for t in tables.values()),
        output_hash=output_hash(tables),
        duration_s=time.monotonic() - started,
    )
    # The run is registered once, with the time of its first import
    lake.publish(stage_run, tables, registered=of_label_run(run.id, run.__dict__))
