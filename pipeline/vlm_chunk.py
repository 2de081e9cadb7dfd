"""The vision-language model's part of a chunk: the pictures that it is shown of
each episode, and its answers.

Episodes are asked about side by side on one client. One without an answer is left
out, and the next build asks about it again, whatever the reason was: a reply that
cannot be used, a server that is gone, a budget that is used up. Where that leaves
too few episodes, what has no answers is the model: the stage fails, and every
answer so far is kept.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np

from annotate.model_client.calls import Image, Reply, Request, VlmError
from annotate.model_client.responses import ResponseStore
from annotate.motion import annotator as motion
from annotate.motion.observe import Signals
from annotate.pictures import encode_jpeg
from annotate.transfer import Alignment
from annotate.vlm.annotator import annotate_episode
from annotate.vlm.few_runs import label_task
from annotate.vlm.pictures import NO_MOMENTS, ArmMoments, EpisodeView, joined_picture, moments_of
from core.domain.label import Label, check_tiling
from core.paths import Workspace
from core.tables import TABLES
from ingest.episode import DecodeOptions, EpisodeRecord, Finding
from pipeline.labelled import ChunkAnswers, with_progress
from pipeline.model_probe import client_for
from pipeline.reading import by_task, task_signals
from pipeline.stage import StageContext
from pipeline.stages.frames import store_keyframe
from warehouse.lake.stored import coarse_keyframes
from warehouse.measured import ChangedError, MeasuredSource

EPISODES_AT_ONCE = 64  # whose pictures, some MB each, are held in memory


def cache_rows(store: ResponseStore) -> list[dict[str, Any]]:
    """What is kept of each model, prompt version and stage, and what was paid for it in tokens."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for _, reply in store.replies():
        origin = (reply.model, reply.prompt_version, reply.stage)
        made_at = reply.created_at[:19]
        nothing = {
            "replies": 0,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "oldest": made_at,
            "newest": made_at,
        }
        row = rows.setdefault(
            origin, dict(zip(("model", "prompts", "stage"), origin, strict=True)) | nothing
        )
        row["replies"] += 1
        row["prompt_tokens"] += reply.prompt_tokens
        row["completion_tokens"] += reply.completion_tokens
        row |= {"oldest": min(row["oldest"], made_at), "newest": max(row["newest"], made_at)}
    return [row for _, row in sorted(rows.items())]


@dataclass
class Album:
    """Pictures of one episode as a model is shown them: coarse keyframes from the
    workspace, others decoded.

    Those of several cameras stand side by side in one picture; each is kept by
    itself. Safe for threads: `load` is called in them.
    """

    workspace: Workspace
    source: MeasuredSource
    record: EpisodeRecord
    cameras: tuple[str, ...]
    max_px: int
    coarse: Mapping[int, Sequence[str]]  # frame -> sha256 of each camera's picture
    rows: list[dict[str, Any]] = field(default_factory=list)  # keyframes decoded here
    decoded_frames: int = 0
    _decoded: dict[tuple[int, str], Image] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, frames: Sequence[int]) -> Mapping[int, Image]:
        """The pictures of some frames. Raises VlmError where the video ends before one of them, or is another one."""
        with self._lock:
            missing = {
                f
                for f in frames
                if f not in self.coarse and (f, self.cameras[0]) not in self._decoded
            }
            try:
                for camera in self.cameras if missing else ():
                    self._decode(camera, missing)
            except ChangedError as e:
                self.rows.clear()
                raise VlmError("changed_during_build", str(e)) from e
            return {frame: self._picture(frame) for frame in frames}

    def _picture(self, frame: int) -> Image:
        names = self.coarse.get(frame, ())
        images = [Image(sha256, self.workspace.keyframe(sha256).read_bytes()) for sha256 in names]
        images = images or [self._decoded[frame, camera] for camera in self.cameras]
        if len(images) == 1:
            return images[0]
        return joined_picture(images)

    def _decode(self, camera: str, frame_indices: set[int]) -> None:
        last = max(frame_indices)
        episode = self.record.episode_index
        options = DecodeOptions(self.source.source.decoding_threads)
        for frame, _, picture in self.source.episode(self.record).frames(camera, options):
            self.decoded_frames += 1
            if frame in frame_indices:
                jpeg, width, height = encode_jpeg(picture.rgb(), self.max_px)
                image = self._decoded[frame, camera] = Image.of(jpeg)
                store_keyframe(self.workspace, image.sha256, jpeg)
                row = {
                    "episode_index": episode,
                    "camera": camera,
                    "frame_index": frame,
                    "sha256": image.sha256,
                }
                self.rows.append(
                    row | {"width_px": width, "height_px": height, "purpose": "boundary"}
                )
            if frame == last:
                return
        raise VlmError("bad_reply", f"{camera} of episode {episode} ends before frame {last}")


def albums(context: StageContext, signals: Sequence[Signals]) -> Iterator[tuple[Signals, Album]]:
    """The measurements and the pictures of some episodes of a chunk."""
    lake = context.lake
    coarse = coarse_keyframes(
        lake, context.dataset, [episode.episode_index for episode in signals], context.chunk
    )
    max_px = context.build.stages.frames.keyframe_max_px
    source = MeasuredSource(lake, context.source)
    source.recordings(context.chunk)  # now: the lake is not asked in the threads that load pictures
    for episode in context.each(signals):
        of_views = [coarse[episode.episode_index, camera] for camera in episode.views]
        # Frames of which every view has a picture: all, as all are as long and are taken at the same frames
        shared = sorted(
            frame for frame in of_views[0] if all(frame in of_view for of_view in of_views)
        )
        keyframes = {frame: [of_view[frame] for of_view in of_views] for frame in shared}
        yield (
            episode,
            Album(lake.workspace, source, episode.record, episode.views, max_px, keyframes),
        )


def episode_view(
    dataset: str,
    episode: Signals,
    album: Album,
    task: str | None,
    motion_cuts: tuple[int, ...] = (),
    moments: ArmMoments = NO_MOMENTS,
) -> EpisodeView:
    """An episode as the vlm annotator sees it."""
    return EpisodeView(
        dataset=dataset,
        episode_index=episode.episode_index,
        task=task,
        fps=episode.fps,
        num_frames=len(episode.change),
        success=episode.success,
        frames=tuple(sorted(album.coarse)),
        load=album.load,
        phash=episode.phash,
        motion_cuts=motion_cuts,
        moments=moments,
        cameras=album.cameras,
    )


Ask = Callable[[Request], Awaitable[Reply]]
type Question[T] = tuple[
    Album, Callable[[Ask], Awaitable[T]]
]  # an episode's pictures, and what asks and answers


class ChunkModel[T]:
    """The model, as a chunk of episodes is asked about by it; keeps the answers,
    and what they cost.

    `run` opens the client, `ask` asks through it, and `answers` is the result.
    """

    def __init__(self, context: StageContext) -> None:
        self.context = context
        self.store = ResponseStore(context.lake.workspace.responses)
        # Budgets count by build: a step that runs alone is a build of its own
        self.build_id = context.build_id or uuid4().hex[:16]
        self.by_episode: dict[int, T] = {}
        self.findings: list[Finding] = []
        self.fatal: VlmError | None = None  # nothing could be asked any more
        self.albums: list[Album] = []
        self.calls: list[dict[str, Any]] = []
        build = context.build
        place = {
            "build_id": self.build_id,
            "dataset": build.name,
            "label_run": build.label_run().id,
            "prompt_version": build.prompt_version,
        }
        self.client = client_for(build.stages.vlm, self.store, **place)
        self._room = asyncio.Semaphore(EPISODES_AT_ONCE)

    def run(self, *conversations: Coroutine[Any, Any, object]) -> None:
        """Run conversations, which call `ask`, side by side. Calls are recorded
        also when it raises: what was sent is paid for.
        """
        if not conversations:
            return
        try:
            asyncio.run(self.client.side_by_side(conversations))
        finally:
            calls = self.store.calls(self.build_id, self.context.dataset)
            self.calls = _recorded(self.context, calls, self.albums)

    async def ask(self, questions: Sequence[Question[T]]) -> dict[int, T]:
        """Ask the questions; returns the answers. An episode without one is a finding."""
        self.albums += [album for album, _ in questions]
        async with asyncio.TaskGroup() as group:
            for album, ask_model in questions:
                group.create_task(self._ask_one(album.record.episode_index, ask_model))
        episodes = [album.record.episode_index for album, _ in questions]
        return {k: self.by_episode[k] for k in episodes if k in self.by_episode}

    async def _ask_one(self, episode: int, ask_model: Callable[[Ask], Awaitable[T]]) -> None:
        async with self._room:
            try:
                self.by_episode[episode] = await ask_model(
                    lambda request: self.client.ask(request, episode)
                )
            except VlmError as e:
                reason = e.reason
                # It meets every other question, too, but those whose answers are stored
                if e.is_fatal:
                    self.fatal = self.fatal or e
                    reason = "refused"
                self.findings.append(Finding(reason, str(e), "warning", episode))

    def answers(self) -> ChunkAnswers[T]:
        """The result of the chunk. Raises VlmError where the model has no answers."""
        self._check_replies()
        build = self.context.build
        # What the calls took: tokens, seconds, money. A call that failed has none of them
        numbers: dict[str, int | float | str] = {
            "model": build.stages.vlm.model,
            "prompt_version": build.prompt_version,
            "answered_before": self.client.hits,
            "refinement_decoded_frames": sum(album.decoded_frames for album in self.albums),
            "calls": len(self.calls),
            "prompt_tokens": int(_total(self.calls, "prompt_tokens")),
            "completion_tokens": int(_total(self.calls, "completion_tokens")),
            "mean_latency_s": _total(self.calls, "latency_s") / max(1, len(self.calls)),
            "cost_usd": _total(self.calls, "cost_usd"),
        }
        key = {"dataset": build.name, "chunk": self.context.chunk}
        by_episode = sorted(self.albums, key=lambda album: album.record.episode_index)
        keyframes = [key | row for album in by_episode for row in album.rows]
        findings = sorted(self.findings, key=lambda finding: finding.episode_index or 0)
        unanswered = frozenset(album.record.episode_index for album in self.albums)
        unanswered -= self.by_episode.keys()
        return ChunkAnswers(
            self.by_episode, findings, keyframes, numbers=numbers, unanswered=unanswered
        )

    def _check_replies(self) -> None:
        """A model that gives nothing is no finding about episodes; the message says what was paid."""
        num_wanted = self.context.build.stages.checks.min_labelled * len(self.albums)
        if self.fatal and len(self.by_episode) < max(1.0, num_wanted):
            raise self.fatal
        has_answer = self.by_episode or self.client.hits or self.store.has_answer(self.build_id)
        if self.findings and not has_answer:
            kinds = ", ".join(sorted({finding.reason for finding in self.findings}))
            bill = self.store.bill(self.build_id)
            message = (
                f"no reply could be used ({kinds}); the last: {self.findings[-1].detail}; {bill}"
            )
            raise VlmError("refused", message, is_fatal=True)


def _recorded(
    context: StageContext, calls: Iterable[dict[str, Any]], albums: Iterable[Album]
) -> list[dict[str, Any]]:
    """The calls about the episodes of some albums, as the lake has them now."""
    episodes = {album.record.episode_index for album in albums}
    dataset_calls = [call for call in calls if call["episode_index"] in episodes]
    if dataset_calls:
        chunk_name = f"{context.build.name}:{context.chunk}"
        context.lake.upsert(
            f"calls of {chunk_name}", vlm_calls=TABLES["vlm_calls"].rows(dataset_calls)
        )
    return dataset_calls


def _total(calls: Sequence[Mapping[str, Any]], column: str) -> float:
    return float(sum(call[column] or 0 for call in calls))


def by_vlm(context: StageContext, unlabelled: Sequence[Signals]) -> ChunkAnswers[Label]:
    """The `vlm` annotator. It is asked about some runs of each task, and the others follow these.

    Where motion would cut is a hint for it.
    """
    stages = context.build.stages
    episodes = {episode.episode_index: episode for episode in unlabelled}

    def curve_of(episode_index: int, label: Label) -> np.ndarray:
        _, labelled = with_progress(episodes[episode_index], label, stages.progress)
        return labelled.progress

    views = _views(context, unlabelled)
    model = ChunkModel[Label](context)

    async def ask(runs: Sequence[int]) -> dict[int, Label]:
        questions = [
            (views[k][0], partial(annotate_episode, views[k][1], config=stages.vlm))
            for k in sorted(runs)
        ]
        return await model.ask(questions)

    labels: dict[int, Label] = {}
    alignments: dict[int, Alignment] = {}

    async def label_runs(signals: Sequence[Signals]) -> None:
        task_labels, task_alignments = await label_task(
            signals, ask, curve_of, stages.vlm, stages.transfer, stages.motion
        )
        labels.update(task_labels)
        alignments.update(task_alignments)

    tasks = [task_signals(task_episodes) for task_episodes in by_task(unlabelled).values()]
    model.run(*map(label_runs, tasks))
    answers = model.answers()
    labels = answers.by_episode | labels
    for k in alignments:
        check_tiling(labels[k].segments, len(episodes[k].change), labels[k].num_planned)
    findings = [*answers.findings, *_doubts(labels)]
    numbers = {
        **answers.numbers,
        "asked_about": len(labels) - len(alignments),
        "follow": len(alignments),
    }
    return replace(
        answers, by_episode=labels, findings=findings, alignments=alignments, numbers=numbers
    )


def _views(
    context: StageContext, episodes: Sequence[Signals]
) -> dict[int, tuple[Album, EpisodeView]]:
    """The pictures of some episodes, and each episode as the model sees it."""
    views = {}
    for episode, album in albums(context, episodes):
        # Each episode by itself: the hints are to depend on nothing but the episode
        config = context.build.stages.motion
        [by_motion_alone] = motion.annotate([episode], config)
        motion_cuts = tuple(by_motion_alone.cuts)
        view = episode_view(
            context.dataset, episode, album, episode.task, motion_cuts, moments_of(episode, config)
        )
        views[episode.episode_index] = album, view
    return views


def _doubts(labels: Mapping[int, Label]) -> Iterator[Finding]:
    """Labels that a person should look at."""
    for episode_index, label in sorted(labels.items()):
        if label.task_inferred:
            yield Finding("task_inferred", f"taken as {label.task!r}", "warning", episode_index)
        if label.needs_review:
            detail = "; ".join(label.notes) or "the passes disagree"
            yield Finding("needs_review", detail, "warning", episode_index)
