"""Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from annotate.frames import CODE_VERSION, frames_stage
from core.files import write_file
from core.paths import Workspace
from pipeline.pictures import frames_figure
from pipeline.stage import Output, Stage, StageContext, chunk_check
from warehouse.lake.checks import decodable_coverage
from warehouse.lake.signals import stored_signals

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


@contextmanager
def stored_beside(workspace: Workspace, stored: dict[str, int]) -> Iterator[Callable[[str, bytes], None]]:
    """Yields what stores a picture beside the work that makes it, which would wait for the disk at each of them.

    When the block ends well, all of them are on the disk. `stored` gets the bytes of each new one, by its sha256.
    Raises OSError, also from what it yields.
    """
    pool, writing = ThreadPoolExecutor(WRITERS, "keyframes"), deque[Future[None]]()

    def store(sha256: str, jpeg: bytes) -> None:
        path = workspace.keyframe(sha256)
        if sha256 in stored or _is_there(path):
            return
        stored[sha256] = len(jpeg)
        writing.append(pool.submit(write_file, path, jpeg))
        # No more of them in memory than these
        if len(writing) > 8 * WRITERS:
            writing.popleft().result()

    try:
        yield store
        while writing:
            writing.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def run(context: StageContext) -> Output:
    lake, build, stored = context.lake, context.build, dict[str, int]()
    keepers = context.pictures.keepers(context.step.input_hash) if context.pictures else ()
    episodes, signals = context.each(context.records()), stored_signals(lake.con, build.name)
    with stored_beside(lake.workspace, stored) as store:
        config = build.stages.frames
        measured = frames_stage(context.source, episodes, context.chunk, config, store, keepers, signals)
    numbers = {"decoded_frames": measured.decoded_frames, "keyframe_bytes": sum(stored.values())}
    return Output(measured.tables, measured.findings, numbers=numbers)


STAGE = Stage(
    name="frames",
    upstream=("episodes",),
    run=run,
    config=lambda build: (build.stages.frames,),
    code_version=CODE_VERSION,
    description="Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video.",
    reads_source=True,
    checks=(chunk_check(decodable_coverage, is_blocking=True),),
    picture=frames_figure,
)
