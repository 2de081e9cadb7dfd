"""Each stage on one partition: read the lake, call the stage's plain function, publish. Knows no Dagster.

The command line's build loop, its worker processes and the Dagster assets all call `run_stage`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from annotate import motion, native
from annotate.frames import encode_jpeg, frames_stage
from annotate.label_run import choose_active
from annotate.progress import procvlm_labels, procvlm_progress, progress
from annotate.samples import LabelledEpisode, samples_stage
from annotate.segments import Segment, check_tiling
from annotate.vlm import annotate_episode, reason_episode
from annotate.vlm_view import EpisodeView, VlmLabel
from assets.config import DatasetBuild
from assets.vlm_stage import Album, ask_chunk
from ingest.episode import EpisodeRecord, Finding, NativeStep, record_from_row
from ingest.episodes import episodes_stage, findings_table
from ingest.files import Source
from ingest.source import read_episode
from ingest.video import decoding_threads
from warehouse.lake import Lake, StageRun, content_key, output_hash
from warehouse.plan import Step
from warehouse.shards import ShardEpisode, groups_by_split, shards_stage
from warehouse.tables import TABLES
from warehouse.workspace import write_file


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage did; `numbers` are shown to people beside it."""

    run: StageRun
    snapshot: int
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """What a stage wants published."""

    tables: dict[str, pa.Table]
    findings: list[Finding] | None = None
    upserts: dict[str, pa.Table] = field(default_factory=dict)
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)


def run_stage(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> StageReport:
    """Run one planned step and publish it in one transaction; `source` is the build's, as the plan found it."""
    started = time.monotonic()
    spec = next(s for s in build.specs() if s.name == step.stage)
    output = _RUN[step.stage](lake, build, step, source)
    chunk_size = build.dataset.chunk_size
    findings = None if output.findings is None else findings_table(build.name, step.stage, output.findings, chunk_size)
    hashed = output.tables | ({"findings": findings} if findings is not None else {})
    run = StageRun(
        stage=step.stage,
        dataset=build.name,
        chunk=step.chunk,
        label_run=spec.label_run,
        input_hash=step.input_hash,
        code_version=spec.code_version,
        rows=sum(t.num_rows for t in output.tables.values()),
        output_hash=output_hash(hashed),
        duration_s=time.monotonic() - started,
    )
    parts = _chunk_runs(run, source, hashed) if step.chunk is None else None
    snapshot = lake.publish(run, output.tables, findings, output.upserts, parts)
    rows = {f"rows_{name}": table.num_rows for name, table in output.tables.items()}
    return StageReport(run, snapshot, rows | dict(output.numbers))


# Episodes


def _episodes(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    before = dict(lake.rows('SELECT "group", any_value(split) FROM splits WHERE dataset = ? GROUP BY 1', [build.name]))
    known = dict(lake.rows("SELECT source_id, episode_index FROM episode_ids WHERE dataset = ?", [build.name]))
    result = episodes_stage(source, build.stages.splits, before, known)
    unusable = {f.episode_index for f in result.findings if f.severity == "unusable"}
    config = {
        "dataset": build.name,
        "config_hash": content_key(build.json_text()),
        "config": build.json_text(),
        "created_at": datetime.now(UTC),
    }
    upserts = {"build_configs": TABLES["build_configs"].rows([config]), "episode_ids": result.ids}
    numbers = {"episodes": len(result.records), "unusable_by_metadata": len(unusable)}
    return Output(result.tables, result.findings, upserts, numbers)


def _chunk_runs(run: StageRun, source: Source, tables: dict[str, pa.Table]) -> list[StageRun]:
    """One stage_runs line per chunk, whose output hash changes with the chunk's rows or with any of its files."""
    facts = tables["episode_facts"].to_pylist()
    files: dict[int, set[str]] = {}
    for row in facts:
        uris = [v["uri"] for v in row["videos"]] + ([row["data_uri"]] if row["data_uri"] else [])
        files.setdefault(row["chunk"], set()).update(uris)
    runs = []
    for chunk, uris in sorted(files.items()):
        part = {
            n: t.filter(np.equal(t["chunk"].to_numpy(), chunk)) for n, t in tables.items() if "chunk" in t.schema.names
        }
        stamps = [f"{u} {source.files[u]}" for u in sorted(uris) if u in source.files]
        rows = sum(t.num_rows for t in part.values())
        runs.append(
            StageRun(
                **run.__dict__ | {"chunk": chunk, "rows": rows, "output_hash": content_key(output_hash(part), *stamps)}
            )
        )
    return runs


# Frames


def _frames(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    records = usable_records(lake, build.name, step.chunk)
    stored = 0

    def store(sha256: str, jpeg: bytes) -> None:
        nonlocal stored
        path = lake.workspace.keyframe(sha256)
        if path.exists():
            path.touch()  # or a sweep could take it before it is recorded
        else:
            write_file(path, jpeg)
            stored += len(jpeg)

    result = frames_stage(source, records, step.chunk or 0, build.stages.frames, store)
    numbers = {"decoded_frames": result.decoded_frames, "keyframe_bytes": stored}
    return Output(result.tables, result.findings, numbers=numbers)


def usable_records(lake: Lake, dataset: str, chunk: int | None) -> list[EpisodeRecord]:
    """Episodes of a chunk that listing found no fault with, in order."""
    rows = lake.dicts(
        "SELECT * FROM episode_facts f WHERE dataset = ? AND chunk = ? AND NOT EXISTS (SELECT 1 FROM findings x "
        "WHERE x.dataset = f.dataset AND x.episode_index = f.episode_index AND x.stage = 'episodes' "
        "AND x.severity = 'unusable') ORDER BY episode_index",
        [dataset, chunk],
    )
    return [record_from_row(r) for r in rows]


# Segments and progress


@dataclass(frozen=True)
class EpisodeSignals:
    """Measurements of one episode's preferred camera; arrays [num_frames]."""

    episode_index: int
    camera: str
    fps: float
    success: bool | None
    task: str | None
    steps: list[NativeStep]
    change: np.ndarray
    phash: np.ndarray
    gripper: np.ndarray | None
    speed: np.ndarray | None

    def signals(self) -> motion.Signals:
        return motion.Signals(self.fps, self.change, self.speed, self.gripper, self.success)


def chunk_signals(lake: Lake, dataset: str, chunk: int | None) -> Iterator[EpisodeSignals]:
    """The measurements of each usable episode of a chunk, in order."""
    episodes = lake.rows(
        "SELECT c.episode_index, c.usable_cameras[1], c.fps, f.success, f.task, f.steps FROM episode_content c "
        "JOIN episode_facts f USING (dataset, episode_index) WHERE c.dataset = ? AND c.chunk = ? ORDER BY 1",
        [dataset, chunk],
    )
    table = lake.arrow(
        "SELECT episode_index, camera, visual_change, phash, gripper, speed FROM frames "
        "WHERE dataset = ? AND chunk = ? ORDER BY episode_index, camera, frame_index",
        [dataset, chunk],
    )
    index = table["episode_index"].to_numpy()
    cameras = table["camera"].to_numpy(zero_copy_only=False)
    for episode, camera, fps, success, task, steps in episodes:
        a, b = np.searchsorted(index, [episode, episode + 1])
        at = a + np.flatnonzero(cameras[a:b] == camera)
        rows = table.slice(int(at[0]), len(at))

        def values(name: str, rows: pa.Table = rows) -> np.ndarray | None:
            return None if rows[name].null_count else rows[name].to_numpy()

        yield EpisodeSignals(
            episode,
            camera,
            fps,
            success,
            task,
            [NativeStep(**step) for step in steps or []],
            rows["visual_change"].to_numpy(),
            rows["phash"].to_numpy(),
            values("gripper"),
            values("speed"),
        )


def _segments(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    run = build.label_run()
    found = ASK[run.annotator](lake, build, step, source)
    rows: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for episode, label in sorted(found.labels.items()):
        where = {"dataset": build.name, "episode_index": episode, "chunk": step.chunk, "label_run": run.id}
        for i, s in enumerate(label.segments):
            rows.append(where | s.__dict__ | {"segment_index": i, "num_planned": label.num_planned})
        told = {k: getattr(label, k) for k in ("task", "task_inferred", "needs_review")}
        labels.append(
            where
            | told
            | {"plan": list(label.plan), "notes": list(label.notes), "confidence": _confidence(label.segments)}
        )
    upserts = {}
    if not lake.rows("SELECT 1 FROM label_runs WHERE label_run = ?", [run.id]):
        line = run.__dict__ | {"label_run": run.id, "created_at": datetime.now(UTC)}
        upserts["label_runs"] = TABLES["label_runs"].rows([line])
    mean = len(rows) / len(labels) if labels else 0.0
    numbers = {"label_run": run.id, "episodes": len(labels), "segments_per_episode": mean} | dict(found.numbers)
    tables = {"segments": TABLES["segments"].rows(rows), "episode_labels": TABLES["episode_labels"].rows(labels)}
    if found.keyframes is not None:
        tables["keyframes"] = TABLES["keyframes"].rows([k | {"label_run": run.id} for k in found.keyframes])
    return Output(tables, found.findings, upserts, numbers)


def _confidence(segments: Sequence[Segment]) -> float | None:
    """Mean over the segments that have one, by their length."""
    known = [(s.confidence, len(s)) for s in segments if s.confidence is not None]
    return sum(c * n for c, n in known) / sum(n for _, n in known) if known else None


@dataclass(frozen=True)
class Labels:
    """What an annotator says of a chunk's episodes; `keyframes` None where it is shown no pictures."""

    labels: Mapping[int, VlmLabel]
    findings: list[Finding]
    keyframes: list[dict[str, Any]] | None = None
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)


def _label(segments: list[Segment], num_planned: int, task: str | None) -> VlmLabel:
    names = {s.step: s.name for s in reversed(segments) if s.step is not None}
    plan = tuple(names.get(k, f"Step {k + 1}") for k in range(num_planned))
    return VlmLabel(segments, num_planned, task, task_inferred=False, needs_review=False, notes=[], plan=plan)


def _ask_motion(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Labels:
    labels = {}
    for e in chunk_signals(lake, build.name, step.chunk):
        segments, planned = motion.annotate(e.signals(), build.stages.motion)
        check_tiling(segments, len(e.change), planned)
        labels[e.episode_index] = _label(segments, planned, e.task)
    return Labels(labels, [])


def _ask_native(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Labels:
    labels, findings = {}, []
    for e in chunk_signals(lake, build.name, step.chunk):
        try:
            segments, planned = native.annotate(e.steps, len(e.change), e.success)
        except native.StepsError as error:
            findings.append(Finding("bad_steps", str(error), "warning", e.episode_index))
            continue
        if not planned:
            findings.append(Finding("no_steps", "no subtask spans in the source", "warning", e.episode_index))
            continue
        check_tiling(segments, len(e.change), planned)
        labels[e.episode_index] = _label(segments, planned, e.task)
    return Labels(labels, findings)


def _albums(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Iterator[tuple[EpisodeSignals, Album]]:
    """The measurements and the pictures of each usable episode of a chunk."""
    records = {r.episode_index: r for r in usable_records(lake, build.name, step.chunk)}
    coarse: dict[tuple[int, str], dict[int, str]] = {}
    for episode, camera, frame, sha256 in lake.rows(
        "SELECT episode_index, camera, frame_index, sha256 FROM keyframes "
        "WHERE dataset = ? AND chunk = ? AND purpose = 'coarse' ORDER BY ALL",
        [build.name, step.chunk],
    ):
        coarse.setdefault((episode, camera), {})[frame] = sha256
    for e in chunk_signals(lake, build.name, step.chunk):
        shown = coarse[e.episode_index, e.camera]
        max_px = build.stages.frames.keyframe_max_px
        yield e, Album(lake.workspace, source, records[e.episode_index], e.camera, max_px, shown)


def _view(build: DatasetBuild, e: EpisodeSignals, album: Album) -> EpisodeView:
    segments, _ = motion.annotate(e.signals(), build.stages.motion)
    return EpisodeView(
        dataset=build.name,
        episode_index=e.episode_index,
        task=e.task,
        fps=e.fps,
        num_frames=len(e.change),
        success=e.success,
        frames=tuple(sorted(album.coarse)),
        load=album.load,
        phash=e.phash,
        motion_cuts=tuple(s.start_frame for s in segments[1:]),
    )


def _ask_vlm(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Labels:
    config, run = build.stages.vlm, build.label_run()
    questions = [
        (album, partial(annotate_episode, _view(build, e, album), config=config))
        for e, album in _albums(lake, build, step, source)
    ]
    told = ask_chunk(lake, build, step.chunk or 0, questions, f"{build.name}-{step.chunk:05d}-{run.id}-segments")
    findings = list(told.findings)
    for episode, label in sorted(told.answers.items()):
        if label.task_inferred:
            findings.append(Finding("task_inferred", f"taken as {label.task!r}", "warning", episode))
        if label.needs_review:
            detail = "; ".join(label.notes) or "the passes disagree"
            findings.append(Finding("needs_review", detail, "warning", episode))
    return Labels(told.answers, findings, told.keyframes, told.numbers)


ASK: dict[str, Callable[[Lake, DatasetBuild, Step, Source], Labels]] = {
    "motion": _ask_motion,
    "native": _ask_native,
    "vlm": _ask_vlm,
}


def _reasoning(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    config, run = build.stages.vlm, build.label_run()
    labelled = chunk_segments(lake, build.name, step.chunk, "segments", run.id)
    questions = []
    for e, album in _albums(lake, build, step, source):
        if e.episode_index in labelled:
            segments, planned, _ = labelled[e.episode_index]
            questions.append((album, partial(reason_episode, _view(build, e, album), segments, planned, config=config)))
    told = ask_chunk(lake, build, step.chunk or 0, questions, f"{build.name}-{step.chunk:05d}-{run.id}-reasoning")
    rows = [
        {"dataset": build.name, "episode_index": episode, "chunk": step.chunk, "label_run": run.id} | r.__dict__
        for episode, answers in sorted(told.answers.items())
        for r in answers
    ]
    return Output({"reasoning": TABLES["reasoning"].rows(rows)}, told.findings, numbers=told.numbers)


def chunk_segments(
    lake: Lake, dataset: str, chunk: int | None, view: str = "active_segments", label_run: str | None = None
) -> dict[int, tuple[list[Segment], int, str]]:
    """(segments, planned steps, label run) of each labelled episode of a chunk: of one run, or the active ones."""
    only = "AND label_run = ?" if label_run else ""
    rows = lake.dicts(
        f"SELECT * FROM {view} WHERE dataset = ? AND chunk = ? {only} ORDER BY episode_index, segment_index",
        [dataset, chunk, *([label_run] if label_run else [])],
    )
    found: dict[int, tuple[list[Segment], int, str]] = {}
    for r in rows:
        segment = Segment(**{k: r[k] for k in Segment.__dataclass_fields__})
        found.setdefault(r["episode_index"], ([], r["num_planned"], r["label_run"]))[0].append(segment)
    return found


def _progress(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    run = build.label_run().id
    labelled = chunk_segments(lake, build.name, step.chunk, "segments", run)
    parts, ends = [TABLES["progress"].empty()], []
    for e in chunk_signals(lake, build.name, step.chunk):
        if e.episode_index not in labelled:
            continue
        segments, planned, _ = labelled[e.episode_index]
        n = len(e.change)
        label = progress(segments, planned, e.change, e.fps, build.stages.progress)
        published = procvlm_progress(procvlm_labels(segments, planned, n), e.phash)
        owner = np.repeat(np.arange(len(segments), dtype=np.int32), [len(s) for s in segments])
        columns = {
            "dataset": pa.repeat(build.name, n),
            "episode_index": np.full(n, e.episode_index),
            "label_run": pa.repeat(run, n),
            "frame_index": np.arange(n),
            "chunk": np.full(n, step.chunk, np.int32),
            "segment_index": owner,
            "progress": label,
            "progress_procvlm": published,
        }
        parts.append(pa.table(columns, schema=TABLES["progress"].schema))
        ends.append(float(label[-1]))
    active = _active_rows(lake, build, step.chunk, run, sorted(labelled))
    tables = {"progress": pa.concat_tables(parts), "active_runs": TABLES["active_runs"].rows(active)}
    numbers = {
        "label_run": run,
        "episodes": len(ends),
        "finished": sum(e == 1.0 for e in ends),
        "mean_end": float(np.mean(ends)) if ends else 0.0,
    }
    return Output(tables, numbers=numbers)


def _active_rows(lake: Lake, build: DatasetBuild, chunk: int | None, run: str, episodes: list[int]) -> list[dict]:
    """Which label counts for each episode, with the run that is about to be published among the candidates."""
    here = [build.name, chunk]
    known = lake.rows(
        "SELECT DISTINCT p.episode_index, p.label_run, r.annotator FROM progress p JOIN label_runs r USING (label_run) "
        "WHERE p.dataset = ? AND p.chunk = ? AND p.label_run <> ?",
        [*here, run],
    )
    corrected = {
        r[0]
        for r in lake.rows(
            "SELECT DISTINCT episode_index FROM corrections WHERE dataset = ? AND status = 'accepted'", [build.name]
        )
    }
    rows = []
    for episode in sorted({*episodes, *(k[0] for k in known)}):
        runs = [(r, by) for e, r, by in known if e == episode]
        if episode in episodes:
            runs.append((run, build.annotator))
        human = f"human/{build.name}" if episode in corrected else None
        chosen = choose_active(runs, corrected=human, named=run)
        if chosen:
            where = {"dataset": build.name, "episode_index": episode, "chunk": chunk}
            rows.append(where | {"label_run": chosen[0], "why": chosen[1]})
    return rows


# Samples and shards


def _samples(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    here = [build.name, step.chunk]
    labelled = chunk_segments(lake, build.name, step.chunk)
    facts = lake.dicts(
        "SELECT e.episode_index, e.fps, coalesce(e.task, l.task) AS task, e.cameras[1] AS camera, s.split, k.width_px, "
        "k.height_px FROM episodes e JOIN splits s USING (dataset, episode_index) "
        "LEFT JOIN active_runs a USING (dataset, episode_index) LEFT JOIN episode_labels l ON l.dataset = e.dataset "
        "AND l.episode_index = e.episode_index AND l.label_run = a.label_run "
        "LEFT JOIN keyframes k ON k.dataset = e.dataset AND k.episode_index = e.episode_index "
        "AND k.camera = e.cameras[1] AND k.frame_index = 0 AND k.purpose = 'coarse' "
        "WHERE e.dataset = ? AND e.chunk = ? AND e.status = 'ok' ORDER BY 1",
        here,
    )
    table = lake.arrow(
        "SELECT episode_index, progress FROM active_progress WHERE dataset = ? AND chunk = ? "
        "ORDER BY episode_index, frame_index",
        here,
    )
    index, label = table["episode_index"].to_numpy(), table["progress"].to_numpy()
    episodes = []
    for f in facts:
        if f["episode_index"] not in labelled:
            continue
        segments, _, run = labelled[f["episode_index"]]
        a, b = np.searchsorted(index, [f["episode_index"], f["episode_index"] + 1])
        episodes.append(
            LabelledEpisode(
                dataset=build.name,
                episode_index=f["episode_index"],
                chunk=step.chunk or 0,
                split=f["split"],
                label_run=run,
                camera=f["camera"],
                fps=f["fps"],
                task=f["task"],
                segments=segments,
                progress=label[a:b],
                picture_px=(f["width_px"] or 0, f["height_px"] or 0),
            )
        )
    samples = samples_stage(episodes, build.stages.samples)
    families = samples["family"].value_counts().to_pylist()
    numbers = {"episodes": len(episodes)} | {f"family {f['values']}": f["counts"] for f in families}
    return Output({"samples": samples}, numbers=numbers)


def _shards(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Output:
    samples = lake.dicts(
        "SELECT * FROM samples WHERE dataset = ? AND chunk = ? ORDER BY episode_index, family, sample_id",
        [build.name, step.chunk],
    )
    by_episode: dict[int, list[dict]] = {}
    for s in samples:
        by_episode.setdefault(s["episode_index"], []).append(s)
    episodes, decoded = [], 0
    for record in usable_records(lake, build.name, step.chunk):
        rows = by_episode.get(record.episode_index)
        if rows:
            pictures, count = _pictures(build, source, record, rows)
            decoded += count
            episodes.append((rows[0]["split"], ShardEpisode(build.name, record.episode_index, rows, pictures)))
    tables = shards_stage(lake.workspace, build.name, step.chunk or 0, groups_by_split(episodes))
    stored = sum(tables["shards"]["bytes"].to_pylist())
    return Output(tables, numbers={"decoded_frames": decoded, "bytes": stored, "episodes": len(episodes)})


def _pictures(
    build: DatasetBuild, source: Source, record: EpisodeRecord, samples: list[dict]
) -> tuple[dict[tuple[str, int], bytes], int]:
    """JPEGs of every frame that some samples of one episode show, in one pass per camera, and frames decoded."""
    wanted: dict[str, set[int]] = {}
    for s in samples:
        wanted.setdefault(s["camera"], set()).update(s["frames"])
    episode = read_episode(source, record)
    config, pictures, decoded = build.stages.shards, {}, 0
    for camera, frames in sorted(wanted.items()):
        last = max(frames)
        with decoding_threads(1):  # the same bytes also of a damaged video
            for k, _, frame in episode.frames(camera):
                decoded += 1
                if k in frames:
                    pictures[camera, k] = encode_jpeg(frame.rgb(), config.picture_max_px, config.jpeg_quality)[0]
                if k == last:
                    break
    return pictures, decoded


_RUN: dict[str, Callable[[Lake, DatasetBuild, Step, Source], Output]] = {
    "episodes": _episodes,
    "frames": _frames,
    "segments": _segments,
    "progress": _progress,
    "reasoning": _reasoning,
    "samples": _samples,
    "shards": _shards,
}
