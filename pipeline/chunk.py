"""Chunks of a build: one, stage after stage; several side by side in processes, and what these tell as they go."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
from threadpoolctl import threadpool_limits

from core.cores import HiddenModules, told_to_children
from core.files import DiskFullError
from core.paths import Workspace
from core.wall import num_left_out
from pipeline.picture_cache import PictureCache
from pipeline.plan import CURRENT, STAMPS, History, chunk_steps
from pipeline.stage import (
    ChunkResult,
    ChunkTask,
    StageContext,
    StageMoment,
    StageReport,
    StepFailure,
    run_guarded,
)
from pipeline.stages import LISTING, stage_specs
from warehouse.lake import open_lake
from warehouse.lake.chunk_rows import ChunkRows
from warehouse.lake.recordings import FRAMES, sentence

type Tell = Callable[[StageMoment], None]


# More threads add in another order, which changes the last digits of labels
@threadpool_limits.wrap(limits=1, user_api="blas")
def run_chunk(task: ChunkTask, on_moment: Tell = lambda moment: None) -> ChunkResult:
    """Bring one chunk up to date, stage after stage: what one puts out decides what the next one's input is."""
    # Builds are parallel by processes and by decoders' threads: those of OpenCV would only get in their way
    cv2.setNumThreads(1)
    # Arrow keeps memory of the chunk before, up to all that this one took
    pa.default_memory_pool().release_unused()
    lake = open_lake(Workspace(Path(task.root)))
    build = task.build
    chunk = task.chunk
    source = replace(
        build.source(lake.workspace.sources, task.fingerprint), decoding_threads=task.threads
    )
    specs = [spec for spec in stage_specs(build) if task.only is None or spec.name in task.only]
    rows = ChunkRows(lake, build.name, chunk)
    history = History.read(rows, [build.name], chunk)
    listed = history.runs.get((LISTING.name, build.name, chunk, ""))
    if listed is None:  # the source has lost the chunk meanwhile
        return ChunkResult([], None)
    outputs = {LISTING.name: listed["output_hash"]}

    def stamp_of(kind: str) -> str:
        """Read when it is asked for: what references show depends on what was measured of this chunk, too."""
        with lake.reading():
            return STAMPS[kind](lake, build.name).get(chunk, "")

    reports: list[StageReport] = []
    memory: dict[str, Any] = {"rows": rows}
    with closing(PictureCache(lake.workspace, build, task.threads)) as pictures:
        for step in chunk_steps(build.name, chunk, specs, history, outputs, stamp_of):
            if step.status == CURRENT:
                continue
            moment = StageMoment(build.name, chunk, step.stage.name)
            on_moment(moment)

            def tell_episodes(episodes: int, moment: StageMoment = moment) -> None:
                on_moment(replace(moment, episodes=episodes))

            context = StageContext(
                lake, build, step, source, task.build_id, pictures, memory, tell_episodes
            )
            report = run_guarded(context)
            if isinstance(report, StepFailure):
                on_moment(replace(moment, duration_s=0.0))
                return ChunkResult(reports, report)
            on_moment(replace(moment, duration_s=report.run.duration_s))
            reports.append(report)
            # The listing took a recording for another one: what people said of it has to be listed anew first
            if step.stage.name == FRAMES and sentence("", report.numbers):
                return ChunkResult(reports, None)
            outputs[step.stage.name] = report.run.output_hash
    return ChunkResult(reports, None)


# Processes that run chunks side by side, and what they tell as they go


def run_tasks(
    tasks: Sequence[ChunkTask], workers: int, take: Callable[[ChunkResult], None], on_moment: Tell
) -> list[ChunkTask]:
    """Run each task, and give its result to `take` in the order in which they end. Returns tasks to be run again.

    A worker that reaches a limit of CPU time is killed, which ends all the others: theirs are the tasks to run again.
    One worker needs no process of its own. `on_moment` gets each beginning and end of a stage, maybe in another thread.
    Whatever `take` raises, as DiskFullError, ends all workers.
    """
    if workers <= 1:
        for task in tasks:
            take(run_chunk(task, on_moment))
        return []

    # spawn, not fork: DuckDB and FFmpeg threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    num_killed_before = num_left_out()
    unfinished: list[ChunkTask] = []
    # Workers write their moments, each less than what a pipe takes at once, until the last of them has ended
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(writer,)
    )
    listener = threading.Thread(target=_pass_on, args=(reader, on_moment), daemon=True)
    try:
        with writer, _interrupts_held_back(), told_to_children(tasks[0].threads):
            waiting: dict[Future[ChunkResult], ChunkTask] = {
                pool.submit(_run_in_worker, t): t for t in tasks
            }
        listener.start()
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                task = waiting.pop(future)
                is_broken = isinstance(future.exception(), BrokenProcessPool)
                if is_broken and num_left_out() > num_killed_before:
                    unfinished.append(task)
                else:
                    take(_result(future, task))
    # Nothing that still runs is worth waiting for: the lake undoes what is open
    except (KeyboardInterrupt, DiskFullError):
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()
    listener.join()
    return unfinished


def decoding_threads(chunks: int, workers: int, cores: int) -> list[int]:
    """For each chunk in the order in which they begin: cores that are no worker's decode for the workers that there
    are. The last chunks, where they are fewer than the workers, are alone when the others have ended.

    Example: decoding_threads(5, 2, 2) == [1, 1, 1, 1, 2]
    """
    last = chunks % max(1, workers)
    threads = max(1, cores // max(1, workers))
    return [threads] * (chunks - last) + [max(1, cores // max(1, last))] * last


def _result(future: Future[ChunkResult], task: ChunkTask) -> ChunkResult:
    try:
        return future.result()
    except BrokenProcessPool as e:
        message = "a worker process died; run the build again"
        return ChunkResult(
            [],
            StepFailure(
                dataset=task.build.name,
                chunk=task.chunk,
                stage="worker",
                message=message,
                trace=str(e),
            ),
        )


def _pass_on(reader: Connection, on_moment: Tell) -> None:
    with reader, suppress(EOFError):
        while True:
            on_moment(reader.recv())


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C, which reaches the whole process group, is heard by the parent alone, and only after all is started.

    What is started inside inherits the thread's blocked SIGINT, so that a worker is deaf to it while it still imports.
    Libraries have threads that are not: those hand the signal to the handler, which waits.
    """
    heard: list[int] = []
    # Only there Python handles signals
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        former_handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    else:
        former_handler = None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if is_main:
            signal.signal(signal.SIGINT, former_handler)
    if heard:
        raise KeyboardInterrupt


_moments: Connection  # of a worker: where it writes what it begins and ends


def _start_worker(writer: Connection) -> None:
    """A worker ends at once, its transaction undone by the lake, when the build that started it is no more."""
    global _moments
    _moments = writer
    sys.meta_path.insert(0, HiddenModules())
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _run_in_worker(task: ChunkTask) -> ChunkResult:
    def tell(moment: StageMoment) -> None:
        with suppress(OSError):  # the parent went away: this process ends of itself
            _moments.send(moment)

    return run_chunk(task, tell)
