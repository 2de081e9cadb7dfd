"""The progress stage on one chunk: progress of the configured label run, which label counts, what is odd about it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from annotate import quality
from annotate.label_run import choose_active, human_run
from annotate.progress import procvlm_labels, procvlm_progress, progress
from annotate.segments import Segment
from core.tables import TABLES
from pipeline.config import DatasetBuild
from pipeline.stages.reading import EpisodeSignals, by_task, chunk_segments, chunk_signals
from warehouse.lake import Lake
from warehouse.lake.corrections import ACCEPTED, REJECTED, chunk_corrections


def progress_tables(
    lake: Lake, build: DatasetBuild, chunk: int | None
) -> tuple[dict[str, pa.Table], dict[str, int | float | str]]:
    """What the progress stage publishes of a chunk, and numbers for people."""
    run = build.label_run().id
    labelled = chunk_segments(lake, build.name, chunk, "segments", run)
    near = {
        episode: (other, frame)
        for episode, other, frame in lake.rows(
            "SELECT episode_index, as_far_as_episode, as_far_as_frame FROM episode_labels "
            "WHERE dataset = ? AND chunk = ? AND label_run = ? AND as_far_as_episode IS NOT NULL",
            [build.name, chunk, run],
        )
    }
    episodes = [e for e in chunk_signals(lake, build.name, chunk) if e.episode_index in labelled]
    made: dict[int, np.ndarray] = {}
    for e in sorted(episodes, key=lambda e: e.episode_index in near):  # first those that others are measured against
        segments, planned, _ = labelled[e.episode_index]
        other, frame = near.get(e.episode_index, (None, 0))
        end = None if other is None else float(made[other][frame])
        made[e.episode_index] = progress(segments, planned, e.change, e.fps, build.stages.progress, end, e.state)
    parts, ends = [TABLES["progress"].empty()], []
    for e in episodes:
        segments, planned, _ = labelled[e.episode_index]
        label = made[e.episode_index]
        parts.append(dense_label(build.name, run, chunk, e, segments, planned, label))
        ends.append(float(label[-1]))
    active = _active_rows(lake, build, chunk, run, sorted(labelled))
    tables = {
        "progress": pa.concat_tables(parts),
        "active_runs": TABLES["active_runs"].rows(active),
        "label_quality": TABLES["label_quality"].rows(quality_rows(build.name, chunk, run, episodes, labelled, made)),
        "label_disagreement": TABLES["label_disagreement"].rows(_disagreement_rows(lake, build, chunk, run, made)),
    }
    numbers = {
        "label_run": run,
        "episodes": len(ends),
        "finished": sum(e == 1.0 for e in ends),
        "mean_end": float(np.mean(ends)) if ends else 0.0,
    }
    return tables, numbers


def dense_label(
    dataset: str,
    run: str,
    chunk: int | None,
    e: EpisodeSignals,
    segments: Sequence[Segment],
    num_planned: int,
    label: np.ndarray,
) -> pa.Table:
    """Rows of `progress` of one episode: our label [num_frames] beside the published formula on the same segments."""
    n = len(e.change)
    columns = {
        "dataset": pa.repeat(dataset, n),
        "episode_index": np.full(n, e.episode_index),
        "label_run": pa.repeat(run, n),
        "frame_index": np.arange(n),
        "chunk": np.full(n, chunk, np.int32),
        "segment_index": np.repeat(np.arange(len(segments), dtype=np.int32), [len(s) for s in segments]),
        "progress": label,
        "progress_procvlm": procvlm_progress(procvlm_labels(segments, num_planned, n), e.phash),
    }
    return pa.table(columns, schema=TABLES["progress"].schema)


def quality_rows(
    dataset: str,
    chunk: int | None,
    run: str,
    episodes: Sequence[EpisodeSignals],
    labelled: Mapping[int, tuple[list[Segment], int, str]],
    made: Mapping[int, np.ndarray],
) -> list[dict]:
    """Rows of `label_quality` of some episodes of a chunk, by their segments and progress."""
    rows = []
    for group in by_task(episodes).values():
        runs = [
            quality.LabelledRun(
                len(e.change) / e.fps, e.fps, e.success, labelled[e.episode_index][0], made[e.episode_index]
            )
            for e in group
        ]
        for e, q in zip(group, quality.qualities(runs), strict=True):
            where = {"dataset": dataset, "episode_index": e.episode_index, "label_run": run, "chunk": chunk}
            told = {"length_z": q.length_z, "order_rarity": q.order_rarity, "jump": q.jump}
            told |= {"falls": q.falls, "worst_fall": q.worst_fall}
            rows.append(where | told | {"end_progress": q.end, "contradicts": q.contradicts})
    return rows


def _disagreement_rows(
    lake: Lake, build: DatasetBuild, chunk: int | None, run: str, made: Mapping[int, np.ndarray]
) -> list[dict]:
    """How far this run's progress is from that of each run in the lake by another annotator or model."""
    by = build.label_run()
    table = lake.arrow(
        "SELECT episode_index, label_run, progress FROM progress JOIN label_runs r USING (label_run) "
        "WHERE dataset = ? AND chunk = ? AND (r.annotator <> ? OR r.model IS DISTINCT FROM ?) "
        "ORDER BY label_run, episode_index, frame_index",
        [build.name, chunk, by.annotator, by.model],
    )
    rows = []
    runs = table["label_run"].to_numpy(zero_copy_only=False)
    index, progress_of = table["episode_index"].to_numpy(), table["progress"].to_numpy()
    for other in sorted(set(runs)):
        mine = runs == other
        for episode, label in sorted(made.items()):
            theirs = progress_of[mine & (index == episode)]
            if len(theirs) == len(label):
                where = {"dataset": build.name, "episode_index": episode, "label_run": run, "other_run": other}
                rows.append(where | {"chunk": chunk, "mean_difference": float(np.abs(theirs - label).mean())})
    return rows


def _active_rows(lake: Lake, build: DatasetBuild, chunk: int | None, run: str, episodes: list[int]) -> list[dict]:
    """Which label counts for each episode, with the run that is about to be published among the candidates."""
    here = [build.name, chunk]
    known = lake.rows(
        "SELECT DISTINCT p.episode_index, p.label_run, r.annotator FROM progress p JOIN label_runs r USING (label_run) "
        "WHERE p.dataset = ? AND p.chunk = ? AND p.label_run <> ?",
        [*here, run],
    )
    said = chunk_corrections(lake, build.name, chunk)
    corrected = {c["episode_index"] for c in said if c["status"] == ACCEPTED}
    rejected = {(c["episode_index"], c["base_label_run"]) for c in said if c["status"] == REJECTED}
    rows = []
    for episode in sorted({*episodes, *(k[0] for k in known)}):
        runs = [(r, by) for e, r, by in known if e == episode]
        if episode in episodes:
            runs.append((run, build.annotator))
        runs = [(r, by) for r, by in runs if (episode, r) not in rejected]
        human = human_run(build.name) if episode in corrected else None
        chosen = choose_active(runs, corrected=human, named=run)
        if chosen:
            where = {"dataset": build.name, "episode_index": episode, "chunk": chunk}
            rows.append(where | {"label_run": chosen[0], "why": chosen[1]})
    return rows
