"""The build loop: plan, run what is missing or stale in a process pool, one chunk at a time through all its stages.

A failed chunk does not stop the others. Every finished stage is committed on its own, so an interrupted build goes on
where it stopped.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from uuid import uuid4

from core.cores import cores, told_to_children
from core.files import DiskFullError, room_in
from core.imports import leave_out_pandas, pandas_is_left_out
from core.logs import RUN
from core.paths import Workspace
from core.tables import TABLES
from core.wall import num_left_out
from ingest.source import format_of
from ingest.sources.files import NO_RIGHTS, Source
from ingest.sources.types import SourceError
from pipeline.chunk import ChunkResult, ChunkTask, StageMoment, StepFailure, Tell, failed_step, run_chunk
from pipeline.config import DatasetBuild, as_listed, config_rows, resolve, stored_build, stored_builds
from pipeline.plan import CURRENT, plan
from pipeline.sources import OUT_OF_REACH, look_at
from pipeline.stage import StageContext, StageReport, Step, run_stage
from pipeline.stages import LISTING, stage_specs, transfer
from pipeline.stages.episodes import ChangedSourceError
from warehouse.lake import Lake, open_lake
from warehouse.lake.doctor import rollback
from warehouse.lake.gc import sweep
from warehouse.lake.recordings import FRAMES, copies_sentences, review_counts, review_sentence, sentence
from warehouse.lake.references import chunks_of_references

Chunks = Collection[tuple[str, int]]  # (dataset, chunk)
MAX_LISTINGS = 2  # of a dataset anew within a build, because the pictures showed another recording
MEASURING = frozenset(transfer.STAGE.upstream)  # stages of which references show the output, to other chunks, too


@dataclass
class BuildReport:
    """What a build did; `builds`: as they were run, by name; `left`: (dataset, chunk) that nobody asked it to build."""

    done: list[StageReport] = field(default_factory=list)
    failed: list[StepFailure] = field(default_factory=list)
    up_to_date: int = 0
    build_id: str = field(default_factory=lambda: uuid4().hex[:16])
    builds: dict[str, DatasetBuild] = field(default_factory=dict)
    left: list[tuple[str, int]] = field(default_factory=list)

    @property
    def is_partial(self) -> bool:
        """Were all datasets built but those whose source was out of reach, or about which a person is asked?"""
        return bool(self.failed) and all(failure.out_of_reach or failure.asks for failure in self.failed)


def run_build(
    workspace: Workspace,
    builds: Sequence[DatasetBuild],
    workers: int | None = None,
    on_plan: Callable[[int, Sequence[Step]], None] = lambda total, steps: None,
    on_stage: Callable[[StageReport], None] = lambda report: None,
    on_note: Callable[[str], None] = lambda text: None,
    *,
    on_moment: Tell = lambda moment: None,
    update: bool = False,
    accept_changes: bool = False,
    chunks: Chunks | None = None,
) -> BuildReport:
    """Bring some datasets up to date. `on_plan` gets the number of stages to run and what is still to be done of
    chunks, `on_stage` each one done, `on_note` what a person should know, `on_moment` each beginning and end of what is
    done of chunks, when it happens, maybe in another thread. `update`: hub's datasets at their newest commit, not at
    the one that was read before. `accept_changes`: sources in which most recordings have other addresses than before
    are taken as they are. `chunks`: of these only, beside listings and what references show; None: of all.

    Of several datasets one whose source is out of reach, half there, or not what it was, is a failure of the report and
    does not stop the others. Raises SourceError and OSError before a lake is made where all are out of reach.
    Raises DiskFullError: no other chunk would get further.
    """
    report = BuildReport()
    RUN["run"] = report.build_id
    # A new lake only after the sources were looked at: a wrong address leaves no workspace behind
    lake = _open_to_build(workspace, on_note) if workspace.exists() else None
    is_new = lake is None
    fingerprints = _look_at_sources(workspace, lake, builds, report, update=update)
    lake = lake or _open_to_build(workspace, on_note)
    _note_moves(lake, report.builds, on_note)
    note = partial(_note_result, report, on_stage)

    # First every listing, here: it says which chunks there are. What it found decides who annotates
    steps = _planned(lake, report.builds, fingerprints)
    list_sources = partial(_list_sources, lake, report, fingerprints, note, accept_changes=accept_changes)
    if list_sources(steps) or is_new:
        with lake.reading():
            report.builds = {name: as_listed(lake, build) for name, build in report.builds.items()}
        steps = _planned(lake, report.builds, fingerprints)
    for name, lack in {n: b.lacks_encoder for n, b in report.builds.items() if b.lacks_encoder}.items():
        on_note(f"{name}: no embeddings to label runs like those that people labelled: {lack}")

    # Then the chunks, side by side; before the others what references show: any chunk may be labelled like them
    run = partial(_run_chunks, workspace, report, fingerprints, workers, note, on_moment)
    if shown := _outdated_references(lake, report.builds, steps):
        run(shown, MEASURING)
        steps = _planned(lake, report.builds, fingerprints)
    outdated = [step for step in steps if step.chunk is not None and step.status != CURRENT]
    report.up_to_date = sum(step.status == CURRENT for step in steps) - len(report.done)
    on_plan(len(outdated) + sum(done.run.chunk is not None for done in report.done), outdated)
    to_run = _largest_first(lake, _chunks_to_run(outdated, report.failed))
    report.left = [] if chunks is None else [chunk for chunk in to_run if chunk not in chunks]
    run([chunk for chunk in to_run if chunk not in report.left])
    _list_recognised(lake, report, fingerprints, list_sources, run)
    _note_recordings(lake, report, on_note)
    lake.back_up()
    return report


def _list_recognised(
    lake: Lake,
    report: BuildReport,
    fingerprints: Mapping[str, str],
    list_sources: Callable[[Sequence[Step]], bool],
    run: Callable[[Sequence[tuple[str, int]]], None],
) -> None:
    """List anew, and build, where a pass over the pictures found a recording to be another one than was listed."""
    for _ in range(MAX_LISTINGS):
        if not _are_recognised_anew(report):
            return
        list_sources(_planned(lake, report.builds, fingerprints))
        steps = [step for step in _planned(lake, report.builds, fingerprints) if step.chunk is not None]
        outdated = _chunks_to_run([step for step in steps if step.status != CURRENT], report.failed)
        run([chunk for chunk in outdated if chunk not in report.left])


def _are_recognised_anew(report: BuildReport) -> bool:
    """Did a pass over the pictures find a recording to be another one than the listing took it for?"""
    return any(done.run.stage == FRAMES and sentence("", done.numbers) for done in report.done)


def _chunks_to_run(outdated: Sequence[Step], failures: Sequence[StepFailure]) -> list[tuple[str, int]]:
    """(dataset, chunk) of steps, each once; without datasets whose listing failed, and chunks that failed."""
    failed = {(failure.dataset, failure.chunk) for failure in failures}
    chunks = dict.fromkeys((step.dataset, step.chunk or 0) for step in outdated)
    return [chunk for chunk in chunks if chunk not in failed and (chunk[0], None) not in failed]


def _open_to_build(workspace: Workspace, on_note: Callable[[str], None]) -> Lake:
    """The workspace's lake, swept of files that nothing names."""
    lake = open_lake(workspace)
    for trouble in rollback(lake):
        on_note(str(trouble))
    with room_in(workspace.root):
        sweep(lake)
    return lake


def _look_at_sources(
    workspace: Workspace, lake: Lake | None, builds: Sequence[DatasetBuild], report: BuildReport, *, update: bool
) -> dict[str, str]:
    """The present state of each source in reach, whose builds the report gets; the others are failures of it.

    Raises what is wrong with the first where none is in reach.
    """
    fingerprints: dict[str, str] = {}
    errors: list[Exception] = []
    resolved = [resolve(lake, build, update=update) for build in builds]
    # Side by side: one that hangs takes no longer than the slowest
    looks = [(build, look_at(partial(_state_of, build.source(workspace.sources)))) for build in resolved]
    for build, look in looks:
        try:
            source, fingerprint = look()
            if lake and len(builds) > 1:
                _check_is_whole(lake, source)
        except OUT_OF_REACH as e:
            errors.append(e)
            report.failed.append(StepFailure.of(build.name, None, LISTING.name, e))
            continue
        fingerprints[build.name] = fingerprint
        report.builds[build.name] = build.read_at(fingerprint)
    # Nothing else could be built: the error itself says more than a report
    if not fingerprints and errors:
        raise errors[0]
    return fingerprints


def _state_of(source: Source) -> tuple[Source, str]:
    format_of(source)
    return source, source.fingerprint()


def _check_is_whole(lake: Lake, source: Source) -> None:
    """Raises SourceError where most of the files that episodes were read from are gone, or may not be read."""
    if source.config.is_remote:
        return
    known = lake.column(
        "SELECT DISTINCT split_part(uri, '!/', 1) FROM (SELECT unnest(list_append(list_transform(videos, v -> v.uri), "
        "data_uri)) AS uri FROM episode_facts WHERE dataset = ?) WHERE uri IS NOT NULL ORDER BY 1",
        [source.config.name],
    )
    gone = [uri for uri in known if uri not in source.files or source.files[uri].version.endswith(NO_RIGHTS)]
    if 2 * len(gone) > len(known):
        raise SourceError(
            f"{source.config.source} is half there: {len(gone)} of {len(known)} files that episodes were read from are "
            f"gone or may not be read, such as {gone[0]}; if for good: proccorpus build --dataset {source.config.name}"
        )


def _note_moves(lake: Lake, builds: Mapping[str, DatasetBuild], on_note: Callable[[str], None]) -> None:
    """Say which datasets are read at another commit than before."""
    for name, build in builds.items():
        stored = stored_build(lake, name)
        if stored and stored.commit and build.commit and stored.commit != build.commit:
            on_note(f"{name}: {build.dataset.source} is read at {build.commit}, before at {stored.commit}")


def _note_recordings(lake: Lake, report: BuildReport, on_note: Callable[[str], None]) -> None:
    """Say what the build found of recordings that are known, and what a person has to decide."""
    for done in report.done:
        text = sentence(done.run.dataset, done.numbers)
        if text:
            on_note(f"{done.run.dataset}: {text}")
    for dataset, count in review_counts(lake).items():
        if dataset in report.builds:
            on_note(f"{dataset}: {review_sentence(dataset, count)}")
    decoded = {done.run.dataset for done in report.done if done.run.stage == FRAMES}
    for dataset, text in copies_sentences(lake).items() if decoded else ():
        if dataset in decoded:
            on_note(f"{dataset}: {text}")


def _note_result(report: BuildReport, on_stage: Callable[[StageReport], None], result: ChunkResult) -> None:
    """Raises DiskFullError: no other chunk would get further."""
    report.done += result.done
    for done in result.done:
        on_stage(done)
    if result.failed and result.failed.disk_full:
        raise DiskFullError(result.failed.disk_full)
    report.failed += [result.failed] if result.failed else []


def _list_sources(
    lake: Lake,
    report: BuildReport,
    fingerprints: Mapping[str, str],
    note: Callable[[ChunkResult], None],
    steps: Sequence[Step],
    *,
    accept_changes: bool,
) -> bool:
    """List the datasets whose listing is not current, and store configurations that changed; was there any?"""
    for listing in steps:
        if listing.chunk is None and listing.status != CURRENT:
            build = report.builds[listing.dataset]
            # With the fingerprint that was taken at the start: the whole build is of one state of the source
            source = build.source(lake.workspace.sources, fingerprints[build.name])
            context = StageContext(lake, build, listing, source, report.build_id, accept_changes=accept_changes)
            try:
                result = ChunkResult([run_stage(context)], None)
            except ChangedSourceError as e:
                result = ChunkResult([], _asked(build.name, e))
            except Exception as e:
                result = failed_step(context, e)
            note(result)
    # A configuration that changed is stored beside a listing that stayed current; a new listing stores its own. So is a
    # new place of the same data
    failed, stored = {failure.dataset for failure in report.failed}, stored_builds(lake)
    changed = {}
    for name, build in report.builds.items():
        text, config_hash = stored.get(name, ("", ""))
        has_moved = bool(text) and DatasetBuild.model_validate_json(text).dataset.source != build.dataset.source
        if name not in failed and (config_hash != build.hash() or has_moved):
            changed[name] = build
    if changed:
        names = ", ".join(changed)
        lake.upsert(f"configuration of {names}", build_configs=config_rows([*changed.values()]))
        rows = lake.dicts("FROM datasets WHERE list_contains(?, dataset)", [list(changed)])
        moved = [row | {"source_uri": changed[row["dataset"]].dataset.source} for row in rows]
        lake.upsert(f"place of {names}", datasets=TABLES["datasets"].rows(moved))
    return bool(changed or report.done)


def _asked(dataset: str, e: ChangedSourceError) -> StepFailure:
    """A source that waits until a person accepts how it changed."""
    return StepFailure(dataset=dataset, chunk=None, stage=LISTING.name, message=str(e), trace="", asks=True)


def _planned(lake: Lake, builds: Mapping[str, DatasetBuild], fingerprints: Mapping[str, str]) -> list[Step]:
    return plan(lake, {name: stage_specs(build) for name, build in builds.items()}, fingerprints)


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
    rows = lake.rows(
        "SELECT dataset, chunk, sum(coalesce(num_rows, 0)), count(*) FROM episode_facts "
        "WHERE list_contains(?, dataset) GROUP BY ALL",
        [sorted({dataset for dataset, _ in chunks})],
    )
    sizes = {(dataset, chunk): (num_rows, episodes) for dataset, chunk, num_rows, episodes in rows}
    return sorted(chunks, key=lambda chunk: sizes.get(chunk, (0, 0)), reverse=True)


def _outdated_references(
    lake: Lake, builds: Mapping[str, DatasetBuild], steps: Sequence[Step]
) -> list[tuple[str, int]]:
    """Chunks with references, whose measurements or embeddings other chunks would find outdated."""
    outdated = {(s.dataset, s.chunk) for s in steps if s.stage.name in MEASURING and s.status != CURRENT}
    # A chunk that is its dataset's only one goes through its own stages in order anyway
    several = {step.dataset for step in steps if step.chunk}
    following = [name for name in several if builds[name].uses_references]
    return sorted({(name, chunk) for name in following for chunk in chunks_of_references(lake, name)} & outdated)


def _run_chunks(
    workspace: Workspace,
    report: BuildReport,
    fingerprints: Mapping[str, str],
    workers: int | None,
    note: Callable[[ChunkResult], None],
    tell: Tell,
    chunks: Sequence[tuple[str, int]],
    only: frozenset[str] | None = None,
) -> None:
    """Bring (dataset, chunk) up to date, side by side; `only`: these stages of them."""
    workers = min(workers or cores(), len(chunks))
    tasks = [
        ChunkTask(str(workspace.root), report.builds[d], fingerprints[d], chunk, threads, report.build_id, only)
        for (d, chunk), threads in zip(chunks, _decoding_threads(len(chunks), workers, cores()), strict=True)
    ]
    # One worker needs no process of its own
    if workers <= 1:
        for task in tasks:
            note(run_chunk(task, tell))
        return

    # spawn, not fork: DuckDB and FFmpeg threads do not survive a fork
    context, left, known = multiprocessing.get_context("spawn"), list[ChunkTask](), num_left_out()
    # Workers write their moments, each less than what a pipe takes at once, until the last of them has ended
    reader, writer = context.Pipe(duplex=False)
    starting = (pandas_is_left_out(), writer)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=starting)
    listener = threading.Thread(target=_pass_on, args=(reader, tell), daemon=True)
    try:
        with writer, _interrupts_held_back(), told_to_children(tasks[0].threads):
            waiting: dict[Future[ChunkResult], ChunkTask] = {pool.submit(_run_in_worker, t): t for t in tasks}
        listener.start()
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                task = waiting.pop(future)
                # One was ended by a wall of time, which ends the others, too
                if isinstance(future.exception(), BrokenProcessPool) and num_left_out() > known:
                    left.append(task)
                else:
                    note(_result(future, task))
    # Nothing that still runs is worth waiting for: the lake undoes what is open
    except (KeyboardInterrupt, DiskFullError):
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()
    listener.join()
    if left:
        chunks = [(task.build.name, task.chunk) for task in left]
        _run_chunks(workspace, report, fingerprints, workers, note, tell, chunks, only)


def _result(future: Future[ChunkResult], task: ChunkTask) -> ChunkResult:
    try:
        return future.result()
    except BrokenProcessPool as e:
        why = "a worker process died; run the build again"
        return ChunkResult(
            [], StepFailure(dataset=task.build.name, chunk=task.chunk, stage="worker", message=why, trace=str(e))
        )


def _pass_on(reader: Connection, tell: Tell) -> None:
    with reader, suppress(EOFError):
        while True:
            tell(reader.recv())


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


_moments: Connection  # of a worker: where it writes what it begins and ends


def _start_worker(without_pandas: bool, writer: Connection) -> None:
    """A worker ends at once, its transaction undone by the lake, when the build that started it is no more."""
    global _moments
    _moments = writer
    if without_pandas:
        leave_out_pandas()
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _run_in_worker(task: ChunkTask) -> ChunkResult:
    def tell(moment: StageMoment) -> None:
        with suppress(OSError):  # the parent went away: this process ends of itself
            _moments.send(moment)

    return run_chunk(task, tell)
