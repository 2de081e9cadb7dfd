"""The dense label of a chunk: progress of the configured label run, which label counts, and what is odd about it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.label_run import choose_active, human_run
from annotate.progress import CODE_VERSION, progress
from core.tables import TABLES
from pipeline.checks import chunk_check
from pipeline.labelled import LabelledSignals, dense_label, quality_rows
from pipeline.pictures import progress_figure
from pipeline.reading import EpisodeSignals
from pipeline.stage import Output, Stage, StageContext
from warehouse.lake.checks import label_agreement, label_coverage, label_drift, progress_sanity
from warehouse.lake.corrections import ACCEPTED, REJECTED, chunk_corrections
from warehouse.lake.labels import StoredLabel, labels_in, labels_of_run

LABEL_COLUMNS = ["episode_index", "as_far_as_episode", "as_far_as_frame", "steps_from"]
LabelRow = Mapping[str, Any]  # those columns of a row of episode_labels


def run(context: StageContext) -> Output:
    build, chunk = context.build, context.chunk
    label_run = build.label_run().id
    labels, label_rows = _stored_labels(context, label_run)
    episodes = [e for e in context.signals() if e.episode_index in labels]
    labelled = _with_progress(context, episodes, labels, label_rows)

    dense = [dense_label(build.name, label_run, chunk, episode) for episode in labelled]
    with context.lake.reading():
        others = _other_labels(context, label_run)
        active = _active_rows(context, label_run, sorted(labels), label_rows, others)
        disagreement = _disagreement_rows(context, label_run, labelled, others)
    quality = quality_rows(build.name, label_run, chunk, labelled, looked=build.annotator == "vlm")
    tables = {
        "progress": pa.concat_tables([TABLES["progress"].empty(), *dense]),
        "active_runs": TABLES["active_runs"].rows(active),
        "label_quality": TABLES["label_quality"].rows(quality),
        "label_disagreement": TABLES["label_disagreement"].rows(disagreement),
    }
    ends = [float(episode.progress[-1]) for episode in labelled]
    numbers = {
        "label_run": label_run,
        "episodes": len(ends),
        "finished": sum(end == 1.0 for end in ends),
        "mean_end": float(np.mean(ends)) if ends else 0.0,
    }
    return Output(tables, numbers=numbers)


def _stored_labels(context: StageContext, label_run: str) -> tuple[dict[int, StoredLabel], Sequence[LabelRow]]:
    """The labels of the segments stage by episode, and what its rows of episode_labels say of them."""
    made = context.memory.made.get("segments")
    if made is not None:
        return labels_in(made["segments"]), made["episode_labels"].select(LABEL_COLUMNS).to_pylist()
    lake, dataset, chunk = context.lake, context.dataset, context.chunk
    with lake.reading():
        labels = labels_of_run(lake.con, dataset, chunk, label_run)
        rows = lake.dicts(
            f"SELECT {', '.join(LABEL_COLUMNS)} FROM episode_labels WHERE dataset = ? AND chunk = ? AND label_run = ?",
            [dataset, chunk, label_run],
        )
    return labels, rows


def _with_progress(
    context: StageContext,
    episodes: Sequence[EpisodeSignals],
    labels: Mapping[int, StoredLabel],
    label_rows: Sequence[LabelRow],
) -> list[LabelledSignals]:
    """The episodes with their segments and progress, in the order given."""
    # A failed run may be known to have come as far as another run had at one of its frames
    as_far_as = {
        row["episode_index"]: (row["as_far_as_episode"], row["as_far_as_frame"])
        for row in label_rows
        if row["as_far_as_episode"] is not None
    }

    # The runs that others are measured against come first
    labelled: dict[int, LabelledSignals] = {}
    for episode in sorted(episodes, key=lambda e: e.episode_index in as_far_as):
        # Its label is to end where that of the other run stood at that frame
        end = None
        if episode.episode_index in as_far_as:
            other, frame = as_far_as[episode.episode_index]
            end = float(labelled[other].progress[frame])
        stored = labels[episode.episode_index]
        config = context.build.stages.progress
        label = progress(stored.segments, stored.num_planned, episode.change, episode.fps, config, end, episode.state)
        labelled[episode.episode_index] = LabelledSignals(episode, stored.segments, stored.num_planned, label)
    return [labelled[episode.episode_index] for episode in episodes]


@dataclass(frozen=True)
class _OtherLabel:
    """A label of an episode of the chunk by another run that the lake has progress of."""

    episode_index: int
    label_run: str
    annotator: str
    model: str | None


def _other_labels(context: StageContext, label_run: str) -> list[_OtherLabel]:
    rows = context.lake.rows(
        "SELECT DISTINCT p.episode_index, p.label_run, r.annotator, r.model FROM progress p "
        "JOIN label_runs r USING (label_run) WHERE p.dataset = ? AND p.chunk = ? AND p.label_run <> ?",
        [context.dataset, context.chunk, label_run],
    )
    return [_OtherLabel(*row) for row in rows]


def _disagreement_rows(
    context: StageContext, label_run: str, labelled: Sequence[LabelledSignals], others: Sequence[_OtherLabel]
) -> list[dict[str, Any]]:
    """How far this run's progress is from that of each run in the lake by another annotator or model."""
    ours = context.build.label_run()
    runs = {o.label_run for o in others if (o.annotator, o.model) != (ours.annotator, ours.model)}
    if not runs:
        return []
    table = context.lake.arrow(
        "SELECT episode_index, label_run, progress FROM progress "
        "WHERE dataset = ? AND chunk = ? AND list_contains(?, label_run) "
        "ORDER BY label_run, episode_index, frame_index",
        [context.dataset, context.chunk, sorted(runs)],
    )
    run_of_row = table["label_run"].to_numpy(zero_copy_only=False)
    episode_of_row, progress_of_row = table["episode_index"].to_numpy(), table["progress"].to_numpy()

    rows = []
    for other_run in sorted(set(run_of_row)):
        of_run = run_of_row == other_run
        for episode in sorted(labelled, key=lambda e: e.signals.episode_index):
            episode_index = episode.signals.episode_index
            theirs = progress_of_row[of_run & (episode_of_row == episode_index)]
            if len(theirs) != len(episode.progress):  # the other run has no label of it, or one of another length
                continue
            rows.append(
                {
                    "dataset": context.dataset,
                    "episode_index": episode_index,
                    "label_run": label_run,
                    "other_run": other_run,
                    "chunk": context.chunk,
                    "mean_difference": float(np.abs(theirs - episode.progress).mean()),
                }
            )
    return rows


def _active_rows(
    context: StageContext,
    label_run: str,
    episodes: Sequence[int],
    label_rows: Sequence[LabelRow],
    others: Sequence[_OtherLabel],
) -> list[dict[str, Any]]:
    """Which label counts for each episode, with the run that is about to be published among the candidates."""
    lake, dataset, chunk = context.lake, context.dataset, context.chunk

    # The candidates: runs whose progress the lake has, and this one
    candidates: dict[int, list[tuple[str, str]]] = {}
    for other in others:
        candidates.setdefault(other.episode_index, []).append((other.label_run, other.annotator))
    for episode_index in episodes:
        candidates.setdefault(episode_index, []).append((label_run, context.build.annotator))

    # What the build wants to count, the best first
    preferred = _preferred(context, label_run, candidates, label_rows)

    # What people said about them
    corrections = chunk_corrections(lake, dataset, chunk)
    corrected = {c["episode_index"] for c in corrections if c["status"] == ACCEPTED}
    rejected = {(c["episode_index"], c["base_label_run"]) for c in corrections if c["status"] == REJECTED}

    rows = []
    for episode_index, runs in sorted(candidates.items()):
        allowed = [(run_id, annotator) for run_id, annotator in runs if (episode_index, run_id) not in rejected]
        # A correction counts before every annotator, a rejected label not at all
        of_people = [(human_run(dataset), "accepted correction")] if episode_index in corrected else []
        active = choose_active(allowed, [*of_people, *preferred[episode_index]])
        if active:
            chosen_run, why = active
            where = {"dataset": dataset, "episode_index": episode_index, "chunk": chunk}
            rows.append(where | {"label_run": chosen_run, "why": why})
    return rows


def _preferred(
    context: StageContext, label_run: str, episodes: Iterable[int], label_rows: Sequence[LabelRow]
) -> dict[int, list[tuple[str, str]]]:
    """Of each episode the annotators' labels that count first, the best first: (label_run, why)."""
    configured = label_run, "named by the configuration"
    build = context.build
    if not build.uses_references:
        return {episode: [configured] for episode in episodes}

    # Who follows which references; steps of the source count before that, unless the configuration says otherwise
    here = [build.name, context.chunk]
    transfer_run = build.transfer_run().id
    shown_by_which = dict(
        context.lake.rows(
            "SELECT episode_index, list(DISTINCT reference_episode ORDER BY reference_episode) FROM alignments "
            "WHERE dataset = ? AND chunk = ? AND label_run = ? GROUP BY 1",
            [*here, transfer_run],
        )
    )
    with_steps = [row["episode_index"] for row in label_rows if row["steps_from"] is not None]
    first = set() if build.references_first else set(with_steps)
    preferred = {}
    for episode in episodes:
        shown = [(transfer_run, shown_by(shown_by_which[episode]))] if episode in shown_by_which else []
        preferred[episode] = [configured, *shown] if episode in first else [*shown, configured]
    return preferred


def shown_by(references: Sequence[int]) -> str:
    """Why a label counts that follows references. Example: shown_by([3, 7]) is "shown by references: episodes 3, 7"."""
    several = "s" if len(references) > 1 else ""
    return f"shown by reference{several}: episode{several} {', '.join(map(str, references))}"


STAGE = Stage(
    name="progress",
    upstream=("frames", "segments", "transfer", "corrections"),
    run=run,
    # What decides which label counts, too; nothing is added to the hashes of builds before it was there
    config=lambda build: (
        build.stages.progress,
        *(("references first",) if build.references_first else ()),
        *build.views,
    ),
    code_version=CODE_VERSION,
    description=(
        "The dense label: progress per frame, from segments and visual change; and which label of an episode counts."
    ),
    reads_outcomes=True,
    main_table="progress",
    label_run=lambda build: build.label_run().id,
    decides_active_label=True,
    checks=(
        chunk_check(progress_sanity, is_blocking=True),
        chunk_check(label_coverage, is_blocking=False),
        chunk_check(label_agreement, is_blocking=False),
        chunk_check(label_drift, is_blocking=False),
    ),
    picture=progress_figure,
)
