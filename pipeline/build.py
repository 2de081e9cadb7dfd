"""The build loop: plan, run what is missing or stale in a process pool, one chunk at a time through all its stages.

A failed chunk does not stop the others. Every finished stage is committed on its own, so an interrupted build goes on
where it stopped.
"""

import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import cv2

from core.cores import cores, told_to_children
from core.files import DiskFullError, disk_full, room_in
from core.imports import leave_out_pandas, pandas_is_left_out
from core.paths import Workspace
from ingest.source import format_of
from ingest.sources.types import DownloadError
from pipeline.config import DatasetBuild, stored_config
from pipeline.picture_cache import picture_cache
from pipeline.plan import CURRENT, WAITING, Known, plan
from pipeline.stage import AnyStep, ChunkStep, DatasetStep, StageContext, StageReport, run_stage
from pipeline.stages import stage_specs, transfer
from pipeline.stages.episodes import config_hash, config_rows
from warehouse.lake import Lake, newest_committed, open_lake, was_interrupted
from warehouse.lake.doctor import rollback
from warehouse.lake.gc import sweep
from warehouse.lake.references import brings_steps, chunks_of_references, reference_tasks

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@dataclass(frozen=True)
class StepFailure:
    dataset: str
    chunk: int | None
    stage: str
    message: str
    trace: str
    disk_full: str | None = None  # what is full: every other chunk would fail of it, too


@dataclass
class BuildReport:
    """What a build did; `builds`: as they were run, by name."""

    done: list[StageReport] = field(default_factory=list)
    failed: list[StepFailure] = field(default_factory=list)
    up_to_date: int = 0
    build_id: str = field(default_factory=lambda: uuid4().hex[:16])
    builds: dict[str, DatasetBuild] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """A stage of a chunk begins (`duration_s` None) or has ended: what a person who waits sees."""

    dataset: str
    chunk: int
    stage: str
    duration_s: float | None = None


type Tell = Callable[[Moment], None]


@dataclass(frozen=True)
class ChunkTask:
    """One chunk to bring up to date, as it is sent to a worker process."""

    root: str
    build: DatasetBuild
    fingerprint: str
    chunk: int
    threads: int  # for each video that it decodes
    build_id: str  # of all chunks of one build: what budgets of models count by
    only: frozenset[str] | None = None  # these stages; None: all


@dataclass(frozen=True)
class ChunkResult:
    done: list[StageReport]
    failed: StepFailure | None


def resolve(lake: Lake, build: DatasetBuild, *, update: bool = False) -> DatasetBuild:
    """The build as this workspace has to run it: chunk size is fixed for good, and a selection only grows.

    Building some episodes never drops those built before. A hub's dataset is read at the commit that it was read at
    before; `update`: at the newest of its revision. Whether the source brings steps, which the annotator `auto` depends
    on, is read from the listing: where that is made anew, it has to be asked again.
    """
    with lake.reading():
        return _resolved(lake, build, update=update)


def _resolved(lake: Lake, build: DatasetBuild, *, update: bool) -> DatasetBuild:
    size = lake.rows("SELECT chunk_size FROM datasets WHERE dataset = ?", [build.name])
    if size:
        build = build.model_copy(update={"dataset": build.dataset.model_copy(update={"chunk_size": size[0][0]})})
    # Once all episodes are built, they stay built, whatever is selected now
    stored = stored_build(lake, build.name)
    if stored and build.episodes is not None:
        union = None if stored.episodes is None else tuple(sorted({*stored.episodes, *build.episodes}))
        build = build.model_copy(update={"episodes": union})
    commit = None if update else commit_read(lake, build) or build.commit
    return _as_listed(lake, build.model_copy(update={"commit": commit}))


def commit_read(lake: Lake, build: DatasetBuild) -> str | None:
    """The commit that the same revision of a dataset's source was read at, or that of datasets in folders of it."""
    if not build.dataset.is_on_hub:
        return None
    dataset = build.dataset
    configs = _stored_configs(lake)
    for name in sorted(configs, key=lambda name: (name != build.name, name)):
        text, _ = configs[name]
        stored = json.loads(text)
        source = stored["dataset"]["source"]
        is_its = source == dataset.source if name == build.name else source.startswith(f"{dataset.source.rstrip('/')}/")
        if is_its and stored["dataset"].get("revision") == dataset.revision and stored.get("commit"):
            return stored["commit"]
    return None


def _brings_steps(lake: Lake, dataset: str) -> bool:
    """Does the source bring timed steps of any episode that its listing found no fault with?"""
    if not brings_steps(lake, dataset):
        return False
    rows = lake.rows(
        "SELECT 1 FROM episode_facts f WHERE dataset = ? AND len(steps) > 0 AND NOT EXISTS (SELECT 1 FROM findings x "
        "WHERE x.dataset = f.dataset AND x.episode_index = f.episode_index AND x.stage = 'episodes' "
        "AND x.severity = 'unusable') LIMIT 1",
        [dataset],
    )
    return bool(rows)


def _as_listed(lake: Lake, build: DatasetBuild) -> DatasetBuild:
    """The build, with what the lake says of the source's steps, and of runs that others can be labelled like."""
    has_references = bool(reference_tasks(lake, build.name))
    return build.model_copy(update={"brings_steps": _brings_steps(lake, build.name), "has_references": has_references})


def _store_changed(lake: Lake, builds: Sequence[DatasetBuild]) -> None:
    """Store each configuration that changed beside a listing that stayed current; a new listing stores its own.

    The same data in another place is no change.
    """
    stored = _stored_configs(lake)
    changed = [build for build in builds if stored.get(build.name, ("", ""))[1] != config_hash(build)]
    if changed:
        names = ", ".join(build.name for build in changed)
        lake.upsert(f"configuration of {names}", build_configs=config_rows(changed))


def stored_build(lake: Lake, dataset: str) -> DatasetBuild | None:
    """The configuration that a dataset was last built with; None when it never was."""
    text, _ = _stored_configs(lake).get(dataset, (None, ""))
    return stored_config(text) if text is not None else None


def _stored_configs(lake: Lake) -> dict[str, tuple[str, str]]:
    """By dataset the configuration that it was last built with, as JSON, and its hash."""

    def ask() -> dict[str, tuple[str, str]]:
        rows = lake.rows("SELECT dataset, config, config_hash FROM build_configs")
        return {dataset: (text, config) for dataset, text, config in rows}

    return lake.once("configurations", ask)


def _note_lacking_encoders(builds: Mapping[str, DatasetBuild], on_note: Callable[[str], None]) -> None:
    for build in builds.values():
        if build.lacks_encoder:
            on_note(f"{build.name}: no embeddings to label runs like those that people labelled: {build.lacks_encoder}")


def _note_result(report: BuildReport, on_stage: Callable[[StageReport], None], result: ChunkResult) -> None:
    report.done += result.done
    for done in result.done:
        on_stage(done)
    if result.failed:
        _note_failure(report, result.failed)


def run_build(
    workspace: Workspace,
    builds: Sequence[DatasetBuild],
    workers: int | None = None,
    on_plan: Callable[[int], None] = lambda total: None,
    on_stage: Callable[[StageReport], None] = lambda report: None,
    on_note: Callable[[str], None] = lambda text: None,
    *,
    on_steps: Callable[[Sequence[ChunkStep]], None] = lambda steps: None,
    on_moment: Tell = lambda moment: None,
    update: bool = False,
) -> BuildReport:
    """Bring some datasets up to date. `on_plan` gets the number of stages to run, `on_stage` each one done, `on_note`
    what a person should know; `on_steps` what is to be done of chunks, `on_moment` each beginning and end of it, when
    it happens, maybe in another thread. `update`: hub's datasets at their newest commit, not at the one that was read
    before.

    Raises SourceError before a lake is made; of several datasets one that is out of reach does not stop the others.
    Raises DiskFullError: no other chunk would get further.
    """
    report = BuildReport()
    # A new lake only after the sources were looked at: a wrong address leaves no workspace behind
    lake = _open_lake_to_build(workspace, on_note) if workspace.exists() else None
    builds = [resolve(lake, build, update=update) if lake else build for build in builds]
    resolved_at = lake.snapshot() if lake else None
    fingerprints = _read_fingerprints(workspace, builds, report)
    lake = lake or _open_lake_to_build(workspace, on_note)
    resolved = _as_read(builds, fingerprints)
    _note_moves(lake, resolved, on_note)

    note = partial(_note_result, report, on_stage)

    # First every listing, here: it says which chunks there are
    known = Known()
    steps = _run_listings(lake, resolved, fingerprints, report.build_id, note, known)
    unlisted = {failure.dataset for failure in report.failed}
    _store_changed(lake, [build for build in resolved.values() if build.name not in unlisted])

    # Then the chunks, side by side. What the listings found decides who annotates
    is_as_planned = lake.snapshot() == resolved_at == known.snapshot
    if not is_as_planned:
        with lake.reading():
            resolved = {name: _as_listed(lake, build) for name, build in resolved.items()}
    report.builds = resolved
    specs = {name: stage_specs(build) for name, build in resolved.items()}
    _note_lacking_encoders(resolved, on_note)
    if not is_as_planned:
        steps = plan(lake, specs, fingerprints, known=known)
    making = _Making(str(workspace.root), resolved, fingerprints, report.build_id, workers, note, known, on_moment)

    # Before the others what references show: any chunk may be labelled like them
    if shown := _chunks_of_outdated_references(lake, resolved, steps):
        making.chunks(shown, only=frozenset(transfer.STAGE.upstream))
        steps = plan(lake, specs, fingerprints, known=known)
    outdated = [step for step in steps if isinstance(step, ChunkStep) and step.status != CURRENT]
    report.up_to_date = sum(step.status == CURRENT for step in steps) - len(report.done)
    on_plan(len(outdated) + sum(done.run.chunk is not None for done in report.done))
    on_steps(outdated)
    making.chunks(_largest_first(lake, _chunks_to_run(outdated, report.failed)))
    return report


@dataclass(frozen=True)
class _Making:
    """What all chunks of one build have in common; `known`: to plan them by, in this process."""

    root: str
    builds: Mapping[str, DatasetBuild]
    fingerprints: Mapping[str, str]
    build_id: str
    workers: int | None
    note: Callable[[ChunkResult], None]
    known: Known
    tell: Tell

    def chunks(self, chunks: Sequence[tuple[str, int]], only: frozenset[str] | None = None) -> None:
        """Bring (dataset, chunk) up to date, side by side; `only`: these stages of them."""
        workers = min(self.workers or cores(), len(chunks))
        tasks = [
            ChunkTask(self.root, self.builds[d], self.fingerprints[d], chunk, threads, self.build_id, only)
            for (d, chunk), threads in zip(chunks, _decoding_threads(len(chunks), workers, cores()), strict=True)
        ]
        _run_chunks(tasks, workers, self.note, self.known, self.tell)


def _decoding_threads(chunks: int, workers: int, cores: int) -> list[int]:
    """For each chunk in the order in which they begin: cores that are no worker's decode for the workers that there
    are. The last chunks, where they are fewer than the workers, are alone when the others have ended.

    Example: _decoding_threads(5, 2, 2) == [1, 1, 1, 1, 2]
    """
    last = chunks % max(1, workers)
    usual = max(1, cores // max(1, workers))
    return [usual] * (chunks - last) + [max(1, cores // max(1, last))] * last


def _largest_first(lake: Lake, chunks: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """(dataset, chunk) by how much they hold, so that no large one begins when the others end."""
    if len(chunks) < 2:
        return list(chunks)
    datasets = sorted({dataset for dataset, _ in chunks})
    rows = lake.rows(
        "SELECT dataset, chunk, sum(coalesce(num_rows, 0)), count(*) FROM episode_facts "
        "WHERE list_contains(?, dataset) GROUP BY ALL",
        [datasets],
    )
    sizes = {(dataset, chunk): (num_rows, episodes) for dataset, chunk, num_rows, episodes in rows}
    return sorted(chunks, key=lambda chunk: sizes.get(chunk, (0, 0)), reverse=True)


def _chunks_of_outdated_references(
    lake: Lake, builds: Mapping[str, DatasetBuild], steps: Sequence[AnyStep]
) -> list[tuple[str, int]]:
    """(dataset, chunk) of chunks with references, whose measurements or embeddings other chunks would find outdated."""
    chunks: list[tuple[str, int]] = []
    for name, build in builds.items():
        of_chunks = [step for step in steps if isinstance(step, ChunkStep) and step.dataset == name]
        # A chunk goes through its own stages in order anyway
        if not build.uses_references or len({step.chunk for step in of_chunks}) < 2:
            continue
        with_references = chunks_of_references(lake, name)
        outdated = {s.chunk for s in of_chunks if s.stage.name in transfer.STAGE.upstream and s.status != CURRENT}
        chunks += [(name, chunk) for chunk in sorted(outdated & with_references)]
    return chunks


def _as_read(builds: Sequence[DatasetBuild], fingerprints: Mapping[str, str]) -> dict[str, DatasetBuild]:
    """By name the builds whose source is in reach, each at the commit that it is read at."""
    return {build.name: build.read_at(fingerprints[build.name]) for build in builds if build.name in fingerprints}


def _run_listings(
    lake: Lake,
    builds: Mapping[str, DatasetBuild],
    fingerprints: Mapping[str, str],
    build_id: str,
    note: Callable[[ChunkResult], None],
    known: Known,
) -> list[AnyStep]:
    """List the datasets whose listing is not current; returns the plan that said so, of all their stages."""
    specs = {name: stage_specs(build) for name, build in builds.items()}
    steps = plan(lake, specs, fingerprints, known=known)
    for listing in steps:
        if isinstance(listing, DatasetStep) and listing.status != CURRENT:
            build = builds[listing.dataset]
            # With the fingerprint that was taken at the start: the whole build is of one state of the source
            source = build.source(lake.workspace.sources, fingerprints[build.name])
            absent_at = known.absent_at(listing)
            note(_run_guarded(StageContext(lake, build, listing, source, build_id, absent_at=absent_at)))
    return steps


def _note_moves(lake: Lake, builds: Mapping[str, DatasetBuild], on_note: Callable[[str], None]) -> None:
    """Say which datasets are read at another commit than before."""
    for name, build in builds.items():
        stored = stored_build(lake, name)
        if stored and stored.commit and build.commit and stored.commit != build.commit:
            on_note(f"{name}: {build.dataset.source} is read at {build.commit}, before at {stored.commit}")


def _note_failure(report: BuildReport, failure: StepFailure) -> None:
    """Raises DiskFullError: no other chunk would get further."""
    if failure.disk_full:
        raise DiskFullError(failure.disk_full)
    report.failed.append(failure)


def _chunks_to_run(outdated: Sequence[ChunkStep], failures: Sequence[StepFailure]) -> list[tuple[str, int]]:
    """(dataset, chunk) of outdated steps, each once; without datasets whose listing failed, and chunks that failed."""
    unlisted = {failure.dataset for failure in failures if failure.chunk is None}
    failed = {(failure.dataset, failure.chunk) for failure in failures}
    keys = dict.fromkeys((step.dataset, step.chunk) for step in outdated)
    return [key for key in keys if key[0] not in unlisted and key not in failed]


def _read_fingerprints(workspace: Workspace, builds: Sequence[DatasetBuild], report: BuildReport) -> dict[str, str]:
    """The present state of each source that can be reached; the others are failures of the report.

    Raises SourceError where a source is no dataset, and DownloadError where the only one is out of reach.
    """
    fingerprints: dict[str, str] = {}
    for build in builds:
        source = build.source(workspace.sources)
        try:
            format_of(source)
            fingerprints[build.name] = source.fingerprint()
        except DownloadError as e:
            # Nothing else could be built: the error itself says more than a report
            if len(builds) == 1:
                raise
            report.failed.append(_failure(build.name, None, "episodes", e))
    return fingerprints


def _open_lake_to_build(workspace: Workspace, on_note: Callable[[str], None]) -> Lake:
    """The workspace's lake, swept of files that nothing names."""
    # Asked before the lake is opened, which may commit something itself
    newest = newest_committed(workspace)
    lake = open_lake(workspace)
    troubles = list(rollback(lake, newest))
    for trouble in troubles:
        on_note(str(trouble))
    # The catalog is an older copy: files of the newer one are spared once, since it may be put back
    if not troubles:
        with room_in(workspace.root):
            sweep(lake)
    return lake


def _run_chunks(
    tasks: Sequence[ChunkTask], workers: int, note: Callable[[ChunkResult], None], known: Known, tell: Tell
) -> None:
    # One worker needs no process of its own
    if workers <= 1:
        for task in tasks:
            note(run_chunk(task, known, tell))
        return

    # spawn, not fork: DuckDB and FFmpeg threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    with _told_by_workers(context, tell) as writer:
        _run_in_pool(context, tasks, workers, note, writer)


@contextmanager
def _told_by_workers(context: BaseContext, tell: Tell) -> "Iterator[Connection]":
    """Yields where workers write their moments, each less than what a pipe takes at once, and passes them on."""
    reader, writer = context.Pipe(duplex=False)
    ended = threading.Event()

    def pass_on() -> None:
        while not ended.is_set():
            while reader.poll(0.2):
                tell(reader.recv())

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        ended.set()
        thread.join()
        reader.close()
        writer.close()


def _run_in_pool(
    context: BaseContext,
    tasks: Sequence[ChunkTask],
    workers: int,
    note: Callable[[ChunkResult], None],
    writer: "Connection",
) -> None:
    starting = (pandas_is_left_out(), writer)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=starting)
    try:
        with _interrupts_held_back(), told_to_children(tasks[0].threads):
            waiting: dict[Future[ChunkResult], ChunkTask] = {pool.submit(run_chunk, t): t for t in tasks}
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                note(_result(future, waiting.pop(future)))
    # Nothing that still runs is worth waiting for: the lake undoes what is open
    except (KeyboardInterrupt, DiskFullError):
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C, which reaches the whole process group, is heard by the parent alone, and only after all is started.

    What is started inside inherits the thread's blocked SIGINT, so that a worker is deaf to it while it still imports.
    Libraries have threads that are not: those hand the signal to the handler, which waits.
    """
    heard: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # only there Python handles signals
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number)) if main else None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if main:
            signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


def _result(future: "Future[ChunkResult]", task: ChunkTask) -> ChunkResult:
    try:
        return future.result()
    except BrokenProcessPool as e:
        lost = StepFailure(task.build.name, task.chunk, "worker", "a worker process died; run the build again", str(e))
        return ChunkResult([], lost)


_moments: "Connection | None" = None  # of a worker: where it writes what it begins and ends


def _tell_parent(moment: Moment) -> None:
    if _moments is not None:
        # The parent went away: this process ends of itself
        with suppress(OSError):
            _moments.send(moment)


def _start_worker(without_pandas: bool, writer: "Connection") -> None:
    """A worker ends at once, its transaction undone by the lake, when the build that started it is no more."""
    global _moments
    _moments = writer
    if without_pandas:
        leave_out_pandas()
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def run_chunk(task: ChunkTask, known: Known | None = None, tell: Tell = _tell_parent) -> ChunkResult:
    """Bring one chunk up to date, stage after stage. Runs in a worker process.

    known: from the chunk before, in this process.
    """
    # Builds are parallel by processes and by decoders' threads: those of OpenCV would only get in their way
    cv2.setNumThreads(1)
    known = known or Known()
    known.begin_chunk(task.build.name, task.chunk)
    lake = open_lake(Workspace(Path(task.root)))
    source = replace(task.build.source(lake.workspace.sources, task.fingerprint), decoding_threads=task.threads)
    done: list[StageReport] = []
    with picture_cache(lake.workspace, task.build, task.threads) as pictures:
        # Planned anew after each stage: its output decides what the next one's input is
        while step := _next_step(lake, task, known):
            moment = Moment(task.build.name, task.chunk, step.stage.name)
            tell(moment)
            context = StageContext(
                lake, task.build, step, source, task.build_id, pictures, known.memory, known.absent_at(step)
            )
            result = _run_guarded(context)
            tell(replace(moment, duration_s=sum(ended.run.duration_s for ended in result.done)))
            done += result.done
            if result.failed:
                return ChunkResult(done, result.failed)
            known.published(result.done[-1].run, result.done[-1].snapshot)
    return ChunkResult(done, None)


def _next_step(lake: Lake, task: ChunkTask, known: Known) -> ChunkStep | None:
    """The first step of the chunk that is neither current nor waiting."""
    name = task.build.name
    specs = [spec for spec in stage_specs(task.build) if task.only is None or spec.name in task.only]
    steps = plan(lake, {name: specs}, {name: task.fingerprint}, task.chunk, known)
    ready = (step for step in steps if isinstance(step, ChunkStep) and step.status not in (CURRENT, WAITING))
    return next(ready, None)


def _run_guarded(context: StageContext) -> ChunkResult:
    """Run one step; an error becomes a StepFailure, so that other chunks go on."""
    try:
        return ChunkResult([run_stage(context)], None)
    except Exception as e:
        if was_interrupted(e):
            raise KeyboardInterrupt from e
        failure = _failure(context.dataset, context.step.chunk, context.step.stage.name, e)
        return ChunkResult([], replace(failure, disk_full=disk_full(e, context.lake.workspace.root)))


def _failure(dataset: str, chunk: int | None, stage: str, e: Exception) -> StepFailure:
    message = " ".join(f"{type(e).__name__}: {e}".split())
    return StepFailure(dataset, chunk, stage, message, "".join(traceback.format_exception(e)))
