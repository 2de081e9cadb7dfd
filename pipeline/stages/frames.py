"""Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from annotate.frames import CODE_VERSION, frames_stage
from core.files import write_file
from core.paths import Workspace
from pipeline.pictures import frames_figure
from pipeline.stage import Output, Stage, StageContext
from warehouse.lake.stored import stored_signals

WRITERS = 4  # pictures that wait for the disk at a time


def store_keyframe(workspace: Workspace, sha256: str, jpeg: bytes) -> None:
    """Store a picture unless it is there."""
    if not _is_there(path := workspace.keyframe(sha256)):
        write_file(path, jpeg)


def _is_there(path: Path) -> bool:
    if not path.exists():
        return False
    path.touch()  # or a sweep could take it before a table names it
    return True


@dataclass
class KeyframeWriter:
    """Stores pictures beside the work that makes them, which would wait for the disk at each of them.

    A context manager: when its block ends well, all of them are on the disk. Raises OSError, also from `store`.
    """

    workspace: Workspace
    new_bytes: int = 0
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WRITERS, "keyframes"))
    _stored: set[str] = field(default_factory=set)
    _writing: deque[Future[None]] = field(default_factory=deque)

    def store(self, sha256: str, jpeg: bytes) -> None:
        path = self.workspace.keyframe(sha256)
        if sha256 in self._stored or _is_there(path):
            return
        self._stored.add(sha256)
        self.new_bytes += len(jpeg)
        self._writing.append(self._pool.submit(write_file, path, jpeg))
        # No more of them in memory than these
        if len(self._writing) > 8 * WRITERS:
            self._writing.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, e: BaseException | None, trace: TracebackType | None) -> None:
        try:
            while kind is None and self._writing:
                self._writing.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)


def run(context: StageContext) -> Output:
    lake, build = context.lake, context.build
    keepers = context.pictures.keepers(context.step.input_hash) if context.pictures else ()
    with KeyframeWriter(lake.workspace) as keyframes:
        measured = frames_stage(
            context.source,
            context.each(context.records()),
            context.chunk,
            build.stages.frames,
            keyframes.store,
            keepers,
            stored_signals(lake.con, build.name),
        )
    numbers = {"decoded_frames": measured.decoded_frames, "keyframe_bytes": keyframes.new_bytes}
    return Output(measured.tables, measured.findings, numbers=numbers)


STAGE = Stage(
    name="frames",
    upstream=("episodes",),
    run=run,
    config=lambda build: (build.stages.frames,),
    code_version=CODE_VERSION,
    description="Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video.",
    reads_source=True,
    picture=frames_figure,
)
