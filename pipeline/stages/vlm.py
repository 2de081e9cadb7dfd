"""The vision-language model's part of a chunk: what its episodes show it, and what it says of them.

Episodes are asked for side by side on one client. A reply that cannot be used costs one episode its label; a server
that is gone, or a budget that is used up, ends the stage, and what was answered is kept.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np

from annotate.frames import encode_jpeg
from annotate.model_client.calls import Image, Reply, Request, VlmError
from annotate.model_client.ledger import Ledger, ledger_path
from annotate.model_client.responses import ResponseStore, StoredReply
from annotate.vlm.prompts import prompt_version
from core.files import write_file
from core.paths import Workspace
from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding
from ingest.media.video import DecodeOptions
from ingest.source import read_episode
from ingest.sources.files import Source
from pipeline.config import DatasetBuild
from warehouse.lake import Lake

EPISODES_AT_ONCE = 64  # whose pictures, some MB each, are held in memory
BUILD_ID: ContextVar[str] = ContextVar("BUILD_ID", default="")  # of the build under way; budgets count by it


def response_store(workspace: Workspace) -> ResponseStore:
    return ResponseStore(workspace.responses)


def ledger(workspace: Workspace) -> Ledger:
    return Ledger(ledger_path(workspace.responses))


def cache_rows(store: ResponseStore) -> list[dict[str, Any]]:
    """What is kept of each model, prompt version and stage, and what was paid for it in tokens."""
    found: dict[tuple[str, str, str], list[StoredReply]] = {}
    for _, reply in store.replies():
        found.setdefault((reply.model, reply.prompt_version, reply.stage), []).append(reply)
    return [
        {
            "model": model,
            "prompts": version,
            "stage": stage,
            "replies": len(replies),
            "prompt_tokens": sum(r.prompt_tokens for r in replies),
            "completion_tokens": sum(r.completion_tokens for r in replies),
            "oldest": min(r.created_at for r in replies)[:19],
            "newest": max(r.created_at for r in replies)[:19],
        }
        for (model, version, stage), replies in sorted(found.items())
    ]


@dataclass
class Album:
    """Pictures of one episode as a model is shown them: coarse keyframes from the workspace, others decoded.

    Safe for threads: `load` is called in them.
    """

    workspace: Workspace
    source: Source
    record: EpisodeRecord
    camera: str
    max_px: int
    coarse: Mapping[int, str]  # frame -> sha256
    rows: list[dict[str, Any]] = field(default_factory=list)  # keyframes made here
    decoded_frames: int = 0
    _made: dict[int, Image] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, frames: Sequence[int]) -> Mapping[int, Image]:
        with self._lock:
            missing = {f for f in frames if f not in self.coarse and f not in self._made}
            if missing:
                self._decode(missing)
            return {f: self._made.get(f) or self._stored(f) for f in frames}

    def _stored(self, frame: int) -> Image:
        sha256 = self.coarse[frame]
        return Image(sha256, self.workspace.keyframe(sha256).read_bytes())

    def _decode(self, wanted: set[int]) -> None:
        last = max(wanted)
        options = DecodeOptions(self.source.decoding_threads)
        for k, _, picture in read_episode(self.source, self.record).frames(self.camera, options):
            self.decoded_frames += 1
            if k in wanted:
                jpeg, width, height = encode_jpeg(picture.rgb(), self.max_px)
                image = Image.of(jpeg)
                path = self.workspace.keyframe(image.sha256)
                if path.exists():
                    path.touch()  # or a sweep could take it before it is recorded
                else:
                    write_file(path, jpeg)
                self._made[k] = image
                where = {"episode_index": self.record.episode_index, "camera": self.camera, "frame_index": k}
                size = {"sha256": image.sha256, "width_px": width, "height_px": height}
                self.rows.append(where | size | {"purpose": "boundary"})
            if k == last:
                return
        raise VlmError("bad_reply", f"{self.camera} of episode {self.record.episode_index} ends before frame {last}")


@dataclass(frozen=True)
class Told[T]:
    """What came of a chunk: an answer per episode, findings about the others, and what it took."""

    answers: dict[int, T]
    findings: list[Finding]
    keyframes: list[dict[str, Any]]
    numbers: dict[str, int | float | str]


def ask_chunk[T](
    lake: Lake,
    build: DatasetBuild,
    chunk: int,
    albums: Iterable[tuple[Album, Callable[[Callable[[Request], Awaitable[Reply]]], Awaitable[T]]]],
    pack: str,
) -> Told[T]:
    """Put the questions of each episode, several episodes at a time. Raises VlmError when there is no going on.

    `pack` names the file that the chunk's replies are compacted into. Calls are recorded also when it raises.
    """
    run = build.label_run()
    books, this_build = ledger(lake.workspace), BUILD_ID.get() or uuid4().hex[:16]
    told: Told[T] = Told({}, [], [], {})
    pending = list(albums)
    try:
        hits = asyncio.run(_ask_all(lake, build, pending, told, books, this_build, pack))
    finally:
        episodes = {album.record.episode_index for album, _ in pending}
        calls = [c for c in books.calls(build_id=this_build, dataset=build.name) if c["episode_index"] in episodes]
        if calls:
            lake.upsert(f"calls of {build.name}:{chunk}", vlm_calls=TABLES["vlm_calls"].rows(calls))
    for album, _ in pending:
        told.keyframes.extend({"dataset": build.name, "chunk": chunk} | row for row in album.rows)
    told.numbers.update(
        model=build.stages.vlm.model,
        prompt_version=run.prompt_version or "",
        calls=len(calls),
        answered_before=hits,
        prompt_tokens=sum(c["prompt_tokens"] or 0 for c in calls),
        completion_tokens=sum(c["completion_tokens"] or 0 for c in calls),
        mean_latency_s=float(np.mean([c["latency_s"] or 0.0 for c in calls])) if calls else 0.0,
        cost_usd=float(sum(c["cost_usd"] or 0.0 for c in calls)),
        refinement_decoded_frames=sum(album.decoded_frames for album, _ in pending),
    )
    return told


async def _ask_all[T](
    lake: Lake,
    build: DatasetBuild,
    albums: Sequence[tuple[Album, Callable[[Callable[[Request], Awaitable[Reply]]], Awaitable[T]]]],
    told: Told[T],
    books: Ledger,
    this_build: str,
    pack: str,
) -> int:
    """How many questions had been answered before."""
    store, run = response_store(lake.workspace), build.label_run()
    room = asyncio.Semaphore(EPISODES_AT_ONCE)
    from annotate.model_client.client import Client  # slow to import, and other annotators need none

    client = Client(
        build.stages.vlm,
        store,
        books,
        build_id=this_build,
        dataset=build.name,
        label_run=run.id,
        prompt_version=prompt_version(),
    )

    async def one(album: Album, question: Callable[[Callable[[Request], Awaitable[Reply]]], Awaitable[T]]) -> None:
        episode = album.record.episode_index
        async with room:
            try:
                told.answers[episode] = await question(lambda request: client.ask(request, episode))
            except VlmError as e:
                if e.is_fatal:
                    raise
                told.findings.append(Finding(e.reason, str(e), "warning", episode))

    async with client:
        try:
            async with asyncio.TaskGroup() as group:
                for album, question in albums:
                    group.create_task(one(album, question))
        except BaseExceptionGroup as e:  # one reason is enough: the others only say that they were stopped
            raise next((x for x in e.exceptions if isinstance(x, VlmError)), e.exceptions[0]) from e
        store.pack(client.keys, pack)
    told.findings.sort(key=lambda f: f.episode_index or 0)
    return client.hits
