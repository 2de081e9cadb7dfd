"""Subtask spans of each episode of a chunk, by the configured annotator."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from annotate.label import EpisodeLabel
from annotate.segments import Segment
from core.tables import TABLES
from pipeline.annotators import ANNOTATORS
from pipeline.checks import cost_check
from pipeline.pictures import segments_figure
from pipeline.stage import Output, Stage, StageContext


def run(context: StageContext) -> Output:
    label_run = context.build.label_run()
    annotated = ANNOTATORS[label_run.annotator](context)

    segment_rows: list[dict[str, Any]] = []
    label_rows: list[dict[str, Any]] = []
    for episode, label in sorted(annotated.labels.items()):
        where = {
            "dataset": context.dataset,
            "episode_index": episode,
            "chunk": context.chunk,
            "label_run": label_run.id,
        }
        segment_rows += segments_as_rows(where, label.segments, label.num_planned)
        label_rows.append(where | label_columns(label))

    tables = {
        "segments": TABLES["segments"].rows(segment_rows),
        "episode_labels": TABLES["episode_labels"].rows(label_rows),
    }
    # Pictures decoded to find boundaries are a part of what the label rests on
    if annotated.keyframes is not None:
        keyframes = [row | {"label_run": label_run.id} for row in annotated.keyframes]
        tables["keyframes"] = TABLES["keyframes"].rows(keyframes)

    per_episode = len(segment_rows) / len(label_rows) if label_rows else 0.0
    numbers = {"label_run": label_run.id, "episodes": len(label_rows), "segments_per_episode": per_episode}
    return Output(
        tables,
        annotated.findings,
        registered=of_label_run(label_run.id, label_run.__dict__),
        numbers=numbers | dict(annotated.numbers),
    )


def segments_as_rows(where: dict[str, Any], segments: Sequence[Segment], num_planned: int) -> list[dict[str, Any]]:
    """Rows of `segments` of one episode; `where` has its dataset, episode, chunk and label run."""
    return [
        where | segment.__dict__ | {"segment_index": index, "num_planned": num_planned}
        for index, segment in enumerate(segments)
    ]


def of_label_run(label_run: str, facts: Mapping[str, Any]) -> dict[str, pa.Table]:
    """The row of `label_runs` to register, with the time of the first run. `facts`: how the run's labels are made."""
    row = {**facts, "label_run": label_run, "created_at": datetime.now(UTC)}
    return {"label_runs": TABLES["label_runs"].rows([row])}


def label_columns(label: EpisodeLabel) -> dict[str, Any]:
    """The columns of `episode_labels` that the annotator decides."""
    # A failed run may be known to have come as far as another run had at one of its frames
    reference = label.as_far_as
    return {
        "steps_from": label.steps_from,
        "task": label.task,
        "task_inferred": label.task_inferred,
        "needs_review": label.needs_review,
        "as_far_as_episode": reference.episode_index if reference else None,
        "as_far_as_frame": reference.frame_index if reference else None,
        "plan": list(label.plan),
        "named": label.named,
        "notes": list(label.notes),
        "confidence": _mean_confidence(label.segments) if label.confidence is None else label.confidence,
    }


def _mean_confidence(segments: Sequence[Segment]) -> float | None:
    """The mean over the segments that have a confidence, weighted by their length in frames."""
    known = [(segment.confidence, len(segment)) for segment in segments if segment.confidence is not None]
    if not known:
        return None
    return sum(confidence * frames for confidence, frames in known) / sum(frames for _, frames in known)


STAGE = Stage(
    name="segments",
    upstream=("episodes", "frames"),
    run=run,
    config=lambda build: (build.label_run().id,),
    code_version=lambda build: build.label_run().code_version,
    description="Subtask spans of each episode, by the configured annotator.",
    reads_outcomes=True,
    main_table="segments",
    label_run=lambda build: build.label_run().id,
    asks_model=True,
    checks=(cost_check(),),
    picture=segments_figure,
)
