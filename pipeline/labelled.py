"""Labels of a chunk's episodes as rows of the lake: one way for all label runs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from annotate import quality
from annotate.motion.observe import Signals
from annotate.progress import (
    ProgressConfig,
    procvlm_labels,
    procvlm_progress,
    progress,
    stated_progress,
)
from annotate.transfer import Alignment
from core.domain.label import Label, is_stated
from core.domain.label_run import human_run
from core.paths import Workspace
from core.tables import TABLES
from ingest.episode import Finding
from pipeline.config import built
from pipeline.reading import by_task, signals_of
from pipeline.stage import Numbers, StageContext
from warehouse.lake import Lake
from warehouse.lake.corrections import Corrected
from warehouse.lake.stored import usable_episode


@dataclass(frozen=True)
class ChunkAnswers[T]:
    """The result of a chunk: an answer per episode, findings about the others,
    and the cost.

    keyframes: decoded for the questions; None where no pictures were shown.
    alignments: of labels that follow others. unanswered: episodes that the next
    build asks about again.
    """

    by_episode: dict[int, T]
    findings: list[Finding] = field(default_factory=list)
    keyframes: list[dict[str, Any]] | None = None
    alignments: Mapping[int, Alignment] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)
    unanswered: frozenset[int] = frozenset()


@dataclass(frozen=True)
class LabelPlace:
    """Where labels belong."""

    dataset: str
    chunk: int
    label_run: str

    def of(self, episode_index: int) -> dict[str, Any]:
        return {**vars(self), "episode_index": episode_index}


KEPT = 8  # episodes whose measurements are kept: a boundary that is dragged asks again and again
# What was measured of an episode, with its label, which has progress
type LabelledSignals = tuple[Signals, Label]


def with_progress(
    signals: Signals, label: Label, config: ProgressConfig, *, ends_at: float | None = None
) -> LabelledSignals:
    """The label with the progress that follows from it, and from what a person states of the curve.

    ends_at: where an unfinished run is known to end.
    """
    segments = label.segments
    curve = progress(
        segments, label.num_planned, signals.change, signals.fps, config, ends_at, signals.state
    )
    if is_stated(segments, label.end):
        curve = stated_progress(segments, curve, label.end)
    return signals, replace(label, progress=curve)


def stated_label(signals: Signals, label: Label, config: ProgressConfig) -> LabelledSignals:
    """A label as a person, or another tool, states it, of its episode's task; progress follows where it brings none."""
    label = replace(label, task=signals.task)
    if label.has_progress:
        return signals, label
    return with_progress(signals, label, config)


def label_columns(label: Label) -> dict[str, Any]:
    """The row of `episode_labels`, without its key and the curve."""
    return {
        "steps_from": label.steps_from,
        "task": label.task,
        "task_inferred": label.task_inferred,
        "needs_review": label.needs_review,
        # A failed run may be known to have come as far as another run had at one of its frames
        "as_far_as_episode": getattr(label.as_far_as, "episode_index", None),
        "as_far_as_frame": getattr(label.as_far_as, "frame_index", None),
        "plan": list(label.plan),
        "named": label.named,
        "notes": list(label.notes),
        "confidence": label.confidence,
        "correction_id": label.correction_id,
        **vars(label.end),
    }


def with_confidence(label: Label) -> Label:
    """An annotator's label with a confidence: its own, else the mean over the frames of segments that have one."""
    confidences = [
        (segment.confidence, len(segment))
        for segment in label.segments
        if segment.confidence is not None
    ]
    if label.confidence is not None or not confidences:
        return label
    frames = sum(length for _, length in confidences)
    mean = sum(confidence * length for confidence, length in confidences) / frames
    return replace(label, confidence=mean)


def segment_tables(
    place: LabelPlace, labels: Iterable[tuple[int, Label]], *, curves: bool = True
) -> dict[str, pa.Table]:
    """Tables of labels by episode, but for progress. curves: progress is what their annotator states, and kept."""
    segment_rows = []
    label_rows = []
    for episode, label in labels:
        key = place.of(episode)
        curve = label.progress.tolist() if curves and label.has_progress else None
        label_rows.append({**key, **label_columns(label), "curve": curve})
        for index, segment in enumerate(label.segments):
            segment_rows.append(
                key | vars(segment) | {"segment_index": index, "num_planned": label.num_planned}
            )
    return {
        "segments": TABLES["segments"].rows(segment_rows),
        "episode_labels": TABLES["episode_labels"].rows(label_rows),
    }


def label_tables(
    place: LabelPlace, episodes: Sequence[LabelledSignals], *, curves: bool = False
) -> dict[str, pa.Table]:
    """Tables of whole labels: segments, what holds for the episode, and progress."""
    labels = ((signals.episode_index, label) for signals, label in episodes)
    tables = segment_tables(place, labels, curves=curves)
    return tables | {"progress": progress_table(place, episodes)}


def published_progress(episode: LabelledSignals) -> np.ndarray:
    """The published formula on the label's segments, float32 [num_frames], 0..1."""
    signals, label = episode
    labels = procvlm_labels(label.segments, label.num_planned, len(signals.change))
    return procvlm_progress(labels, signals.phash)


def progress_table(place: LabelPlace, episodes: Sequence[LabelledSignals]) -> pa.Table:
    """Rows of `progress`: our label beside the published formula on the same segments."""
    parts = [TABLES["progress"].empty()]
    for episode in episodes:
        signals, label = episode
        num_frames = len(signals.change)
        columns = {
            "frame_index": np.arange(num_frames),
            # Segments tile the episode, so their lengths in turn give each frame its segment
            "segment_index": np.repeat(
                np.arange(len(label.segments), dtype=np.int32), [len(s) for s in label.segments]
            ),
            "progress": label.progress,
            "progress_procvlm": published_progress(episode),
        }
        parts.append(_frame_rows("progress", place, signals.episode_index, num_frames, columns))
    return pa.concat_tables(parts).combine_chunks()


def alignment_table(place: LabelPlace, alignments: Mapping[int, Alignment]) -> pa.Table:
    """Rows of `alignments`: which frames of which references the labels of some episodes rest on."""
    parts = [TABLES["alignments"].empty()]
    for episode_index, alignment in sorted(alignments.items()):
        columns = {
            "frame_index": alignment.frames.astype(np.int64),
            "reference_episode": alignment.episodes.astype(np.int64),
            "reference_frame": alignment.reference_frames.astype(np.int64),
            "distance": alignment.distances.astype(np.float32),
            "follows": alignment.follows.astype(bool),
        }
        parts.append(
            _frame_rows("alignments", place, episode_index, len(alignment.frames), columns)
        )
    return pa.concat_tables(parts).combine_chunks()


def _frame_rows(
    table: str, place: LabelPlace, episode: int, count: int, columns: dict[str, np.ndarray]
) -> pa.Table:
    """`count` rows of one episode."""
    schema = TABLES[table].schema
    key: dict[str, Any] = {
        k: pa.repeat(pa.scalar(v, schema.field(k).type), count)
        for k, v in place.of(episode).items()
    }
    return pa.table(key | columns, schema=schema)


def quality_table(
    place: LabelPlace, episodes: Sequence[LabelledSignals], *, is_inspected: bool = False
) -> pa.Table:
    """Rows of `label_quality` of some episodes of a chunk: how odd each is among those of its task.

    is_inspected: the annotator judges what pictures show. A person's label says itself how its run ended.
    """
    by_person = place.label_run == human_run(place.dataset)
    labels = {signals.episode_index: label for signals, label in episodes}
    rows = []
    for same_task in by_task(signals for signals, _ in episodes).values():
        task_labels = [labels[signals.episode_index] for signals in same_task]
        rates = [signals.fps for signals in same_task]
        outcomes = [signals.success for signals in same_task]
        odds = quality.qualities(task_labels, rates, outcomes)
        if by_person:
            doubts = [None] * len(odds)
        else:
            last_hashes = [int(signals.phash[-1]) for signals in same_task]
            end_progress = [float(label.progress[-1]) for label in task_labels]
            doubts = quality.doubts(same_task, last_hashes, end_progress)
        for signals, oddness, doubt in zip(same_task, odds, doubts, strict=True):
            source = signals.record.success_source
            if by_person:
                end_by = quality.PERSON
            else:
                end_by = quality.end_source(
                    signals.success, source, oddness.end, has_visual_check=is_inspected
                )
            if doubt:
                failed = {"p_failure": doubt.p_failure, "failure_signs": list(doubt.because)}
            else:
                failed = {}
            measured = vars(oddness) | {"end_progress": oddness.end, "end_by": end_by} | failed
            del measured["end"]
            rows.append(place.of(signals.episode_index) | measured)
    return TABLES["label_quality"].rows(rows)


def of_label_run(label_run: str, facts: Mapping[str, Any]) -> dict[str, pa.Table]:
    """The row of `label_runs` to register, with the time of the first run. `facts`: how the run's labels are made."""
    row = {**facts, "label_run": label_run, "created_at": datetime.now(UTC)}
    return {"label_runs": TABLES["label_runs"].rows([row])}


# Labels that no build has seen yet, by the very functions by which a build would make them


def label_curves(
    space: Workspace, dataset: str, episode_index: int, snapshot: int, label: Corrected
) -> dict[str, list[float]]:
    """Our progress and the published one at each frame of an episode, by columns of the table `progress`.

    snapshot: the state of the lake that the episode's measurements are read at.

    Raises UserError: no such episode, or one that cannot be used. CorrectionError: the label contradicts itself.
    """
    signals, config = _measured(space, dataset, episode_index, snapshot)
    segments, plan = label.settled(len(signals.change))
    person_label = Label(segments, len(plan), tuple(plan), end=label.end)
    labelled = stated_label(signals, person_label, config)
    _, whole_label = labelled
    return {
        "progress": whole_label.progress.tolist(),
        "progress_procvlm": published_progress(labelled).tolist(),
    }


@lru_cache(maxsize=KEPT)
def _measured(
    space: Workspace, dataset: str, episode_index: int, snapshot: int
) -> tuple[Signals, ProgressConfig]:
    """What the progress of an episode is made of. Raises UserError."""
    lake = Lake(space, read_only=True, snapshot=snapshot)
    with closing(lake.con):
        chunk = usable_episode(lake.con, dataset, episode_index).chunk
        [signals] = signals_of(lake, dataset, {episode_index: chunk})
        return signals, built(lake, dataset).stages.progress


FINDING = "reason, detail, severity, episode_index, camera, file"


def kept_labels(context: StageContext) -> frozenset[int]:
    """Episodes of the chunk whose label of a former version stays: it ends where the episode does."""
    if context.step.spec.made_by is None:
        return frozenset()
    sql = (
        "SELECT episode_index, max(end_frame) FROM segments WHERE dataset = ? AND chunk = ? AND label_run = ? "
        "GROUP BY 1"
    )
    ends = dict(context.lake.rows(sql, _place(context)))
    return frozenset(
        e.episode_index for e in context.signals() if ends.get(e.episode_index) == len(e.change)
    )


def kept_reasons(context: StageContext) -> frozenset[int]:
    """Episodes of the chunk whose reasons, by a former version, stay with their label."""
    if context.step.spec.made_by is None:
        return frozenset()
    sql = "SELECT DISTINCT episode_index FROM reasoning WHERE dataset = ? AND chunk = ? AND label_run = ?"
    return frozenset(context.lake.column(sql, _place(context)))


def with_kept_rows(
    context: StageContext, tables: Mapping[str, pa.Table], episodes: Collection[int]
) -> dict[str, pa.Table]:
    """What a stage made, and what the lake has of some episodes in the same tables."""
    return {
        name: pa.concat_tables([_rows(context, name, table, episodes), table])
        for name, table in tables.items()
    }


def _rows(
    context: StageContext, name: str, template: pa.Table, episodes: Collection[int]
) -> pa.Table:
    columns = ", ".join(f'"{column}"' for column in template.schema.names)
    rows = context.lake.arrow(
        f"SELECT {columns} FROM {name} WHERE dataset = ? AND chunk = ? AND label_run = ? "
        "AND list_contains(?, episode_index)",
        [*_place(context), sorted(episodes)],
    )
    return rows.cast(template.schema)


def with_kept_findings(
    context: StageContext, findings: Iterable[Finding], episodes: Collection[int]
) -> list[Finding]:
    """Findings of a stage, with what it found of some episodes before."""
    rows = context.lake.dicts(
        f"SELECT {FINDING} FROM findings WHERE dataset = ? AND chunk = ? AND stage = ? "
        "AND list_contains(?, episode_index)",
        [context.dataset, context.chunk, context.step.stage.name, sorted(episodes)],
    )
    return [*(Finding(**row) for row in rows), *findings]


def _place(context: StageContext) -> list[str | int]:
    return [context.dataset, context.chunk, context.step.spec.label_run]
