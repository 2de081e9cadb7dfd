"""Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from annotate.frames import FramesResult, frames_stage
from annotate.measured_files import MeasuredFiles
from core.files import write_file
from core.paths import Workspace
from core.tables import TABLES
from ingest.recordings import file_stamp
from pipeline.recognition import Recognition, recognise
from pipeline.stage import Output, StageContext
from warehouse.lake.recordings import fingerprint_columns
from warehouse.lake.stored import stored_signals
from warehouse.measured import ChangedError

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
def stored_beside(
    workspace: Workspace, stored: dict[str, int]
) -> Iterator[Callable[[str, bytes], None]]:
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
    lake = context.lake
    build = context.build
    stored = dict[str, int]()
    keepers = context.pictures.keepers(context.step.input_hash) if context.pictures else ()
    episodes = context.each(context.records())
    signals = stored_signals(context.rows.holding("FROM signals"), build.name)
    with stored_beside(lake.workspace, stored) as store:
        measured = frames_stage(
            context.source,
            episodes,
            context.chunk,
            build.stages.frames,
            store,
            keepers,
            signals,
            MeasuredFiles(context.source).taken,
        )
    records = {record.episode_index: record for record in context.records()}
    stamps = {k: file_stamp(context.source, record, now=True) for k, record in records.items()}
    recognition = recognise(
        context.rows,
        build.name,
        build.dataset.chunk_size,
        context.chunk,
        measured.fingerprints,
        stamps,
    )
    if recognition.left_out:
        measured = measured.without(recognition.left_out)
    rewritten = "its files are not those that were listed"
    changes = [
        ChangedError(build.name, records[k], rewritten).finding for k in sorted(recognition.changed)
    ]
    tables = _stored_tables(measured, recognition)
    return Output(
        tables,
        [*measured.findings, *recognition.findings, *changes],
        recognition.update.upserts(),
        numbers={
            "decoded_frames": measured.decoded_frames,
            "keyframe_bytes": sum(stored.values()),
            **recognition.update.numbers,
        },
        outdated=_outdated_episodes(context, tables["episode_content"]),
    )


def _stored_tables(measured: FramesResult, recognition: Recognition) -> dict[str, pa.Table]:
    """What was measured; contents say which recording they are of."""
    tables = measured.tables
    contents = []
    for row in tables["episode_content"].to_pylist():
        fingerprint = measured.fingerprints[row["episode_index"]]
        layers = fingerprint_columns(fingerprint)
        del layers["cameras"]  # they are the usable ones
        # By which people may have named the contents
        former_hashes = set(row["former_hashes"])
        recording = recognition.recordings.get(row["episode_index"])
        if recording:
            former_hashes |= recording.fingerprint.contents
        of_recording = {
            "recording": recording and recording.recording,
            "file_stamp": recording and recording.stamp,
            "former_hashes": sorted(former_hashes - {row["content_hash"]}),
        }
        contents.append(row | layers | of_recording)
    return tables | {"episode_content": TABLES["episode_content"].rows(contents)}


def _outdated_episodes(context: StageContext, contents: pa.Table) -> set[int]:
    """Episodes of the chunk that have labels of contents that are not there any more."""
    columns = ("episode_index", "num_frames")
    former = context.rows.rows(
        f"SELECT {', '.join(columns)} FROM episode_content WHERE dataset = ? AND chunk = ?",
        [context.dataset, context.chunk],
    )
    present = zip(*(contents[name].to_pylist() for name in columns), strict=True)
    return {episode for episode, _ in {*former} - {*present}}
