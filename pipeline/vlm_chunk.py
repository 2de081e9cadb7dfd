"""The vision-language model's part of a chunk: the pictures that it is shown of each episode, and its answers.

Episodes are asked about side by side on one client. A reply that cannot be used costs one episode its label; a server
that is gone, or a budget that is used up, ends the stage, and every answer so far is kept.
"""

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np

from annotate.model_client.calls import Image, Reply, Request, VlmError
from annotate.model_client.responses import ResponseStore, StoredReply
from annotate.stored_pictures import encode_jpeg
from annotate.vlm.pictures import beside
from core.paths import Workspace
from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding
from ingest.media.video import DecodeOptions
from ingest.source import read_episode
from ingest.sources.files import Source
from pipeline.keyframes import store_keyframe
from pipeline.stage import StageContext

EPISODES_AT_ONCE = 64  # whose pictures, some MB each, are held in memory


def response_store(workspace: Workspace) -> ResponseStore:
    return ResponseStore(workspace.responses)


def cache_rows(store: ResponseStore) -> list[dict[str, Any]]:
    """What is kept of each model, prompt version and stage, and what was paid for it in tokens."""
    replies_by_origin: dict[tuple[str, str, str], list[StoredReply]] = {}
    for _, reply in store.replies():
        origin = (reply.model, reply.prompt_version, reply.stage)
        replies_by_origin.setdefault(origin, []).append(reply)
    return [
        {
            "model": model,
            "prompts": version,
            "stage": stage,
            "replies": len(replies),
            "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
            "completion_tokens": sum(reply.completion_tokens for reply in replies),
            "oldest": min(reply.created_at for reply in replies)[:19],
            "newest": max(reply.created_at for reply in replies)[:19],
        }
        for (model, version, stage), replies in sorted(replies_by_origin.items())
    ]


@dataclass
class Album:
    """Pictures of one episode as a model is shown them: coarse keyframes from the workspace, others decoded.

    Those of several cameras stand side by side in one picture; each is kept by itself.
    Safe for threads: `load` is called in them.
    """

    workspace: Workspace
    source: Source
    record: EpisodeRecord
    cameras: tuple[str, ...]
    max_px: int
    coarse: Mapping[int, Sequence[str]]  # frame -> sha256 of each camera's picture
    rows: list[dict[str, Any]] = field(default_factory=list)  # keyframes decoded here
    decoded_frames: int = 0
    _decoded: dict[tuple[int, str], Image] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, frames: Sequence[int]) -> Mapping[int, Image]:
        """The pictures of some frames. Raises VlmError where the video ends before one of them."""
        with self._lock:
            missing = {f for f in frames if f not in self.coarse and (f, self.cameras[0]) not in self._decoded}
            if missing:
                for camera in self.cameras:
                    self._decode(camera, missing)
            return {frame: self._picture(frame) for frame in frames}

    def _picture(self, frame: int) -> Image:
        if frame in self.coarse:
            images = [Image(sha256, self.workspace.keyframe(sha256).read_bytes()) for sha256 in self.coarse[frame]]
        else:
            images = [self._decoded[frame, camera] for camera in self.cameras]
        return images[0] if len(images) == 1 else beside(images)

    def _decode(self, camera: str, wanted: set[int]) -> None:
        last = max(wanted)
        options = DecodeOptions(self.source.decoding_threads)
        for frame, _, picture in read_episode(self.source, self.record).frames(camera, options):
            self.decoded_frames += 1
            if frame in wanted:
                self._keep(camera, frame, picture.rgb())
            if frame == last:
                return
        raise VlmError("bad_reply", f"{camera} of episode {self.record.episode_index} ends before frame {last}")

    def _keep(self, camera: str, frame: int, rgb: np.ndarray) -> None:
        jpeg, width, height = encode_jpeg(rgb, self.max_px)
        image = Image.of(jpeg)
        store_keyframe(self.workspace, image.sha256, jpeg)
        self._decoded[frame, camera] = image
        self.rows.append(
            {
                "episode_index": self.record.episode_index,
                "camera": camera,
                "frame_index": frame,
                "sha256": image.sha256,
                "width_px": width,
                "height_px": height,
                "purpose": "boundary",
            }
        )


Ask = Callable[[Request], Awaitable[Reply]]


@dataclass(frozen=True)
class EpisodeQuestions[T]:
    """One episode to ask about: its pictures, and the function that asks and makes an answer of the replies."""

    album: Album
    ask: Callable[[Ask], Awaitable[T]]

    @property
    def episode_index(self) -> int:
        return self.album.record.episode_index


@dataclass(frozen=True)
class ChunkAnswers[T]:
    """The result of a chunk: an answer per episode, findings about the others, and the cost."""

    by_episode: dict[int, T]
    findings: list[Finding]
    keyframes: list[dict[str, Any]]
    numbers: dict[str, int | float | str]


def ask_chunk[T](context: StageContext, questions: Sequence[EpisodeQuestions[T]]) -> ChunkAnswers[T]:
    """Ask the questions of each episode, several episodes at a time. Raises VlmError when there is no going on.

    Calls are recorded also when it raises.
    """
    import asyncio  # slow to import, and other annotators need none

    lake, build = context.lake, context.build
    store = response_store(lake.workspace)
    # Budgets count by build: a step that runs alone is a build of its own
    build_id = context.build_id or uuid4().hex[:16]
    answers: ChunkAnswers[T] = ChunkAnswers({}, [], [], {})
    calls: list[dict[str, Any]] = []
    try:
        answered_before = asyncio.run(_ask_all(context, questions, answers, store, build_id))
    finally:
        # Also after an error: what was sent is paid for
        episodes = {question.episode_index for question in questions}
        of_build = store.calls(build_id, build.name)
        calls = [call for call in of_build if call["episode_index"] in episodes]
        if calls:
            lake.upsert(f"calls of {build.name}:{context.chunk}", vlm_calls=TABLES["vlm_calls"].rows(calls))

    for question in questions:
        answers.keyframes.extend({"dataset": build.name, "chunk": context.chunk} | row for row in question.album.rows)
    answers.numbers.update(
        model=build.stages.vlm.model,
        prompt_version=build.label_run().prompt_version or "",
        answered_before=answered_before,
        refinement_decoded_frames=sum(question.album.decoded_frames for question in questions),
        **_call_numbers(calls),
    )
    return answers


def _call_numbers(calls: Sequence[Mapping[str, Any]]) -> dict[str, int | float]:
    """What the calls took: tokens, seconds, money. A call that failed has none of them."""
    latencies = [call["latency_s"] or 0.0 for call in calls]
    return {
        "calls": len(calls),
        "prompt_tokens": sum(call["prompt_tokens"] or 0 for call in calls),
        "completion_tokens": sum(call["completion_tokens"] or 0 for call in calls),
        "mean_latency_s": float(np.mean(latencies)) if latencies else 0.0,
        "cost_usd": float(sum(call["cost_usd"] or 0.0 for call in calls)),
    }


async def _ask_all[T](
    context: StageContext,
    questions: Sequence[EpisodeQuestions[T]],
    answers: ChunkAnswers[T],
    store: ResponseStore,
    build_id: str,
) -> int:
    """Ask, and fill in `answers`; returns how many questions had been answered before."""
    # Slow to import, and other annotators need none
    import asyncio

    from annotate.model_client.client import Client

    build, label_run = context.build, context.build.label_run()
    room = asyncio.Semaphore(EPISODES_AT_ONCE)
    client = Client(
        build.stages.vlm,
        store,
        build_id=build_id,
        dataset=build.name,
        label_run=label_run.id,
        prompt_version=label_run.prompt_version or "",
    )

    async def ask_one(question: EpisodeQuestions[T]) -> None:
        episode = question.episode_index
        async with room:
            try:
                answers.by_episode[episode] = await question.ask(lambda request: client.ask(request, episode))
            except VlmError as e:
                # One episode without a label is a finding; an error that is fatal would meet every other one, too
                if e.is_fatal:
                    raise
                answers.findings.append(Finding(e.reason, str(e), "warning", episode))

    async with client:
        try:
            async with asyncio.TaskGroup() as group:
                for question in questions:
                    group.create_task(ask_one(question))
        except BaseExceptionGroup as e:  # one reason is enough: the others only say that they were stopped
            raise next((x for x in e.exceptions if isinstance(x, VlmError)), e.exceptions[0]) from e
    answers.findings.sort(key=lambda finding: finding.episode_index or 0)
    return client.hits
