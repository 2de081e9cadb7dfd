"""The annotators on one chunk: each gives a label to every episode that it can label."""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from annotate import motion, native
from annotate.label import EpisodeLabel, plain_label
from annotate.segments import check_tiling
from annotate.vlm import annotate_episode
from annotate.vlm.view import EpisodeView
from ingest.episode import Finding
from pipeline.config import DatasetBuild
from pipeline.reading import EpisodeSignals, signals_by_task, usable_records
from pipeline.stage import Numbers, StageContext
from pipeline.vlm_chunk import Album, EpisodeQuestions, ask_chunk


@dataclass(frozen=True)
class AnnotatedChunk:
    """The labels that an annotator gives a chunk's episodes; `keyframes` None where it is shown no pictures."""

    labels: Mapping[int, EpisodeLabel]
    findings: list[Finding]
    keyframes: list[dict[str, Any]] | None = None
    numbers: Numbers = field(default_factory=dict)


def by_motion(context: StageContext) -> AnnotatedChunk:
    """The `motion` annotator. The episodes of one task are labelled together."""
    lake, build = context.lake, context.build
    labels = {}
    for runs in signals_by_task(lake, build.name, context.chunk, context.signals()):
        for run, label in zip(runs, motion.annotate(runs, build.stages.motion), strict=True):
            check_tiling(label.segments, len(run.change), label.num_planned)
            labels[run.episode_index] = label
    return AnnotatedChunk(labels, [])


def by_native(context: StageContext) -> AnnotatedChunk:
    """The `native` annotator: spans that the source brings. Episodes without usable ones are labelled by motion."""
    labels, findings = {}, []
    whys: dict[int, str] = {}
    episodes = context.signals()
    here = {episode.episode_index for episode in episodes}
    for episode in episodes:
        try:
            label = native_label(episode, here)
        except ValueError as e:
            findings.append(Finding("bad_steps", str(e), "warning", episode.episode_index))
            whys[episode.episode_index] = f"the source's steps cannot be used: {e}"
            continue
        # Without a planned step there is nothing to measure progress by
        if label.num_planned:
            labels[episode.episode_index] = label
        else:
            detail = "no subtask spans in the source"
            findings.append(Finding("no_steps", detail, "warning", episode.episode_index))
            whys[episode.episode_index] = detail

    # Motion labels the runs of a task together: all of them are shown, and those without steps get its label
    if whys:
        by_motion_all = by_motion(context).labels
        for episode_index, why in whys.items():
            label = by_motion_all[episode_index]
            labels[episode_index] = replace(label, notes=[*label.notes, f"labelled by motion: {why}"])
    numbers = {"native_episodes": len(labels) - len(whys), "motion_episodes": len(whys)}
    return AnnotatedChunk(labels, findings, numbers=numbers)


def native_label(episode: EpisodeSignals, here: Container[int]) -> EpisodeLabel:
    """The label of the source's steps. Raises ValueError for those that cannot be the steps of the episode.

    here: the episodes of the chunk; a run of another one does not show how far a failed run came.
    """
    num_frames, native_steps = len(episode.change), episode.native
    segments, num_planned = native.annotate(native_steps.steps, num_frames, episode.success, native_steps.plan)
    check_tiling(segments, num_frames, num_planned)
    as_far_as = native_steps.as_far_as
    if as_far_as is not None and as_far_as.episode_index not in here:
        as_far_as = None
    label = plain_label(segments, num_planned, episode.task, as_far_as)
    return replace(label, plan=native_steps.plan or label.plan, steps_from=native_steps.form)


def by_vlm(context: StageContext) -> AnnotatedChunk:
    """The `vlm` annotator. Where motion would cut is a hint for it."""
    build = context.build
    questions = []
    for episode, album in albums(context):
        # Each episode by itself: the hint is to depend on nothing but the episode
        [by_motion_alone] = motion.annotate([episode.signals()], build.stages.motion)
        motion_cuts = tuple(segment.start_frame for segment in by_motion_alone.segments[1:])
        view = episode_view(build, episode, album, episode.task, motion_cuts)
        questions.append(EpisodeQuestions(album, partial(annotate_episode, view, config=build.stages.vlm)))
    answers = ask_chunk(context, questions)

    findings = list(answers.findings)
    for episode_index, label in sorted(answers.by_episode.items()):
        if label.task_inferred:
            findings.append(Finding("task_inferred", f"taken as {label.task!r}", "warning", episode_index))
        if label.needs_review:
            detail = "; ".join(label.notes) or "the passes disagree"
            findings.append(Finding("needs_review", detail, "warning", episode_index))
    return AnnotatedChunk(answers.by_episode, findings, answers.keyframes, answers.numbers)


ANNOTATORS: dict[str, Callable[[StageContext], AnnotatedChunk]] = {
    "motion": by_motion,
    "native": by_native,
    "vlm": by_vlm,
}


def albums(context: StageContext) -> Iterator[tuple[EpisodeSignals, Album]]:
    """The measurements and the pictures of each usable episode of a chunk."""
    lake, build = context.lake, context.build
    here = [build.name, context.chunk]
    records = {record.episode_index: record for record in usable_records(lake, *here)}

    coarse: dict[tuple[int, str], dict[int, str]] = {}
    for episode_index, camera, frame, sha256 in lake.rows(
        "SELECT episode_index, camera, frame_index, sha256 FROM keyframes "
        "WHERE dataset = ? AND chunk = ? AND purpose = 'coarse' ORDER BY ALL",
        here,
    ):
        coarse.setdefault((episode_index, camera), {})[frame] = sha256

    max_px = build.stages.frames.keyframe_max_px
    for episode in context.signals():
        of_views = [coarse[episode.episode_index, camera] for camera in episode.views]
        # Frames of which every view has a picture: all, as all are as long and are taken at the same frames
        shared = sorted(frame for frame in of_views[0] if all(frame in of_view for of_view in of_views))
        keyframes = {frame: [of_view[frame] for of_view in of_views] for frame in shared}
        record = records[episode.episode_index]
        yield episode, Album(lake.workspace, context.source, record, episode.views, max_px, keyframes)


def episode_view(
    build: DatasetBuild,
    episode: EpisodeSignals,
    album: Album,
    task: str | None,
    motion_cuts: tuple[int, ...] = (),
) -> EpisodeView:
    """An episode as the vlm annotator sees it."""
    return EpisodeView(
        dataset=build.name,
        episode_index=episode.episode_index,
        task=task,
        fps=episode.fps,
        num_frames=len(episode.change),
        success=episode.success,
        frames=tuple(sorted(album.coarse)),
        load=album.load,
        phash=episode.phash,
        motion_cuts=motion_cuts,
        cameras=album.cameras,
    )
