"""The annotators on one chunk: what each says of its episodes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from annotate import motion, native
from annotate.label import EpisodeLabel, plain_label
from annotate.segments import check_tiling
from annotate.vlm import annotate_episode
from annotate.vlm.view import EpisodeView
from ingest.episode import Finding
from ingest.sources.files import Source
from pipeline.config import DatasetBuild
from pipeline.plan import Step
from pipeline.stages.reading import EpisodeSignals, by_task, chunk_signals, first_pictures, usable_records
from pipeline.stages.vlm import Album, ask_chunk
from warehouse.lake import Lake


@dataclass(frozen=True)
class Labels:
    """What an annotator says of a chunk's episodes; `keyframes` None where it is shown no pictures."""

    labels: Mapping[int, EpisodeLabel]
    findings: list[Finding]
    keyframes: list[dict[str, Any]] | None = None
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)


def by_motion(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Labels:
    """The runs of one task in the chunk are labelled together."""
    groups = by_task(chunk_signals(lake, build.name, step.chunk))
    troubled = [g for g in groups.values() if any(e.success is False for e in g)]
    pictures = first_pictures(lake, build.name, step.chunk, [e for g in troubled for e in g])
    labels = {}
    for episodes in groups.values():
        runs = [replace(e.signals(), picture=pictures.get(e.episode_index)) for e in episodes]
        for e, label in zip(episodes, motion.annotate(runs, build.stages.motion), strict=True):
            check_tiling(label.segments, len(e.change), label.num_planned)
            labels[e.episode_index] = label
    return Labels(labels, [])


def by_native(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Labels:
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
        labels[e.episode_index] = plain_label(segments, planned, e.task)
    return Labels(labels, findings)


def albums(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Iterator[tuple[EpisodeSignals, Album]]:
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


def view(
    build: DatasetBuild, e: EpisodeSignals, album: Album, task: str | None, motion_cuts: tuple[int, ...] = ()
) -> EpisodeView:
    return EpisodeView(
        dataset=build.name,
        episode_index=e.episode_index,
        task=task,
        fps=e.fps,
        num_frames=len(e.change),
        success=e.success,
        frames=tuple(sorted(album.coarse)),
        load=album.load,
        phash=e.phash,
        motion_cuts=motion_cuts,
    )


def by_vlm(lake: Lake, build: DatasetBuild, step: Step, source: Source) -> Labels:
    config, run = build.stages.vlm, build.label_run()
    questions = []
    for e, album in albums(lake, build, step, source):
        [moved] = motion.annotate([e.signals()], build.stages.motion)
        shown = view(build, e, album, e.task, tuple(s.start_frame for s in moved.segments[1:]))
        questions.append((album, partial(annotate_episode, shown, config=config)))
    told = ask_chunk(lake, build, step.chunk or 0, questions, f"{build.name}-{step.chunk:05d}-{run.id}-segments")
    findings = list(told.findings)
    for episode, label in sorted(told.answers.items()):
        if label.task_inferred:
            findings.append(Finding("task_inferred", f"taken as {label.task!r}", "warning", episode))
        if label.needs_review:
            detail = "; ".join(label.notes) or "the passes disagree"
            findings.append(Finding("needs_review", detail, "warning", episode))
    return Labels(told.answers, findings, told.keyframes, told.numbers)


ANNOTATORS: dict[str, Callable[[Lake, DatasetBuild, Step, Source], Labels]] = {
    "motion": by_motion,
    "native": by_native,
    "vlm": by_vlm,
}
