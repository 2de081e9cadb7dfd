"""The build loop: plan, run what is missing or stale in a process pool, one chunk at a time through all its stages.

A failed chunk does not stop the others. Every finished stage is committed on its own, so an interrupted build goes on
where it stopped.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

from core.cores import cores
from core.files import DiskFullError, room_in
from core.logs import RUN
from core.paths import Workspace
from core.values import imported
from ingest.source import format_of
from ingest.sources.files import NO_RIGHTS, Source
from ingest.sources.types import SourceError
from pipeline.config import DatasetBuild, StoredBuilds, parsed, settled, store_changed
from pipeline.plan import CURRENT, plan
from pipeline.sources import OUT_OF_REACH, listed_fingerprints, look_at
from pipeline.stage import (
    LEFT_OUT,
    ChunkResult,
    ChunkTask,
    StageContext,
    StageMoment,
    StageReport,
    StepFailure,
    run_guarded,
)
from pipeline.stages import LISTING, Step, stage_named, stage_specs
from warehouse.lake import Lake, open_lake
from warehouse.lake.catalog import is_older
from warehouse.lake.gc import sweep
from warehouse.lake.place import building
from warehouse.lake.recordings import FRAMES, open_questions, sentence
from warehouse.lake.references import (
    chunks_of_references,
    note_builds,
    steps_and_references,
    stored_builds,
)

Chunks = Collection[tuple[str, int]]  # (dataset, chunk)
MAX_ROUNDS = 3  # of a build: another one where pictures showed another recording than was listed

# Stages of which references show the output, to other chunks, too
MEASURING = frozenset(stage_named("transfer").upstream)


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
        """Was all built but datasets whose source was out of reach, or about which a person is asked, and episodes that
        the next build asks about again?"""
        is_excused = all(failure.out_of_reach or failure.asks for failure in self.failed)
        return is_excused and bool(self.failed or self.left_out)

    @property
    def left_out(self) -> Counter[tuple[str, str]]:
        """By dataset and stage the episodes without an answer, about which the next build asks again."""
        last_runs = {(r.run.dataset, r.run.stage, r.run.chunk): r for r in self.done}
        counts = Counter[tuple[str, str]]()
        for (dataset, stage, _), stage_report in last_runs.items():
            counts[dataset, stage] += int(stage_report.numbers.get(LEFT_OUT, 0))
        return +counts


class BuildListener:
    """What a build tells as it goes. Each method does nothing until a subclass does something."""

    def began(self, lake: Lake, builds: Collection[DatasetBuild]) -> None:
        """The sources have been looked at; `builds`: those in reach, as they are run. Nothing is listed yet."""

    def planned(self, num_stages: int, steps: Sequence[Step]) -> None:
        """How many stages of chunks run in this build, with those that ran already; `steps`: those still to run."""

    def stage_done(self, report: StageReport) -> None:
        """A stage of a dataset or chunk has been published."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def moment(self, moment: StageMoment) -> None:
        """A stage of a chunk begins, goes on or ends now; maybe told in another thread."""


SILENT = BuildListener()


def run_build(
    workspace: Workspace,
    builds: Sequence[DatasetBuild],
    workers: int | None = None,
    listener: BuildListener = SILENT,
    *,
    update: bool = False,
    accept_changes: bool = False,
    chunks: Chunks | None = None,
) -> BuildReport:
    """Bring some datasets up to date.

    update: read hub's datasets at their newest commit, not at the one that was read before. accept_changes: take
    sources as they are in which most recordings have other addresses than before. chunks: build these only, beside
    listings and what references show; None: all.

    Of several datasets one whose source is out of reach, half there, or not what it was, is a failure of the report and
    does not stop the others. Raises SourceError and OSError before a lake is made where all are out of reach.
    Raises DiskFullError: no other chunk would get further.
    """
    build = Build(workspace, workers, listener, chunks, accept_changes=accept_changes)
    build.look_at_sources(builds, update=update)
    with building(workspace):
        build.bring_up_to_date()
        build.close()
    return build.report


class Build:
    """One build: its report, its lake, and the plan as it is after the last step that changed it.

    report.builds: each dataset as it is run: settled when its source is looked at, as it is listed when it is planned.
    fingerprints: the state of each source at that moment: the whole build is of one state. has_recognised: a pass over
    the pictures found a recording to be another one than the listing took it for, so that it has to be listed anew.
    """

    lake: Lake

    def __init__(
        self,
        workspace: Workspace,
        workers: int | None,
        listener: BuildListener,
        chosen: Chunks | None,
        *,
        accept_changes: bool,
    ) -> None:
        self.workspace = workspace
        self.workers = workers
        self.listener = listener
        self.chosen = chosen
        self.accept_changes = accept_changes
        self.report = BuildReport()
        self.fingerprints: dict[str, str] = {}
        self.is_announced = False
        self.has_recognised = False
        self.steps: list[Step] = []
        RUN["run"] = self.report.build_id

    # Sources

    def look_at_sources(self, builds: Sequence[DatasetBuild], *, update: bool) -> None:
        """Find the present state of each source; those out of reach are failures of the report.

        Makes the lake only afterwards: a wrong address leaves no workspace behind. Raises what is wrong with the first
        source where none is in reach.
        """
        lake = None
        stored: StoredBuilds = {}
        listed: list[str | None] = [None] * len(builds)
        if self.workspace.exists():
            lake = self._open_lake()
            with lake.reading():
                stored = stored_builds(lake)
                builds = settled(lake, builds, stored, update=update)
                listed = listed_fingerprints(lake, [build.dataset for build in builds])
        # Side by side: one that hangs takes no longer than the slowest
        looks = [
            (build, look_at(partial(_state_of, build.source(self.workspace.sources), fingerprint)))
            for build, fingerprint in zip(builds, listed, strict=True)
        ]
        errors: list[Exception] = []
        for build, read_source in looks:
            try:
                source, fingerprint = read_source()
                if lake and len(builds) > 1:
                    _check_is_whole(lake, source)
            except OUT_OF_REACH as e:
                errors.append(e)
                self.report.failed.append(StepFailure.of(build.name, None, LISTING.name, e))
                continue
            self.fingerprints[build.name] = fingerprint
            self.report.builds[build.name] = build.read_at(fingerprint)
        # Nothing else could be built: the error itself says more than a report
        if errors and not self.fingerprints:
            raise errors[0]
        self.lake = lake or open_lake(self.workspace)
        self.lake.back_up_statements()
        self._note_moves(stored)
        self.listener.began(self.lake, self.report.builds.values())

    def _open_lake(self) -> Lake:
        """The workspace's lake; says what a catalog that was put back does not know."""
        lake = open_lake(self.workspace)
        if is_older(self.workspace, lake.snapshot()):
            for trouble in imported("warehouse.lake.doctor:rollback")(lake):
                self.listener.note(f"{trouble.file}: {trouble.detail}; {trouble.remedy}")
        return lake

    def _note_moves(self, stored: StoredBuilds) -> None:
        """Say which datasets are read at another commit than before; `stored`: their `stored_builds`."""
        for name, build in self.report.builds.items():
            former = parsed(stored, name)
            if former and former.commit and build.commit and former.commit != build.commit:
                source = build.dataset.source
                self.listener.note(
                    f"{name}: {source} is read at {build.commit}, before at {former.commit}"
                )

    # What is outdated

    def bring_up_to_date(self) -> None:
        """Run listings, then what references show, then chunks: each by a plan of what the one before left."""
        for _ in range(MAX_ROUNDS):
            self.has_recognised = False
            is_changed = True
            for run_outdated in (self._list_outdated, self._measure_references, self._run_chunks):
                if is_changed:
                    self._plan()
                is_changed = run_outdated()
            if not self.has_recognised:
                return

    def _plan(self) -> None:
        """Find what is outdated, by what is listed now."""
        builds = self.report.builds
        with self.lake.reading():
            for name, build in builds.items():
                builds[name] = build.as_listed(*steps_and_references(self.lake, name))
            specs = {name: stage_specs(build) for name, build in builds.items()}
            self.steps = plan(self.lake, specs, self.fingerprints)

    # Listings, in this process: they say which chunks there are, and what decides who annotates

    def _list_outdated(self) -> bool:
        """Run listings that are not current, and store configurations that changed; was there any?"""
        # A chunk that failed does not keep its dataset from being listed anew
        unlisted = {failure.dataset for failure in self.report.failed if failure.chunk is None}
        num_done = len(self.report.done)
        for step in self.steps:
            if step.chunk is None and step.status != CURRENT and step.dataset not in unlisted:
                self._take(self._listed(step))
        # A listing that ran has stored its own
        failed = {failure.dataset for failure in self.report.failed}
        listed = [build for name, build in self.report.builds.items() if name not in failed]
        is_stored = store_changed(self.lake, listed)
        return is_stored or len(self.report.done) > num_done

    def _listed(self, step: Step) -> ChunkResult:
        build = self.report.builds[step.dataset]
        source = build.source(self.workspace.sources, self.fingerprints[build.name])
        context = StageContext(
            self.lake,
            build,
            step,
            source,
            self.report.build_id,
            accept_changes=self.accept_changes,
        )
        report = run_guarded(context)
        if isinstance(report, StepFailure):
            return ChunkResult([], report)
        return ChunkResult([report], None)

    # Chunks

    def _measure_references(self) -> bool:
        """Bring up to date what references show, before the chunks: any may be labelled like them. Was there any?

        Chunks with references, whose measurements or embeddings other chunks would find outdated.
        """
        outdated = {
            (s.dataset, s.chunk)
            for s in self.steps
            if s.stage.name in MEASURING and s.status != CURRENT
        }
        # A chunk that is its dataset's only one goes through its own stages in order anyway
        dataset_names = {step.dataset for step in self.steps if step.chunk}
        builds = [self.report.builds[name] for name in dataset_names]
        with_references = {
            (build.name, chunk)
            for build in builds
            if build.uses_references and build.has_references
            for chunk in chunks_of_references(self.lake, build.name)
        }
        chunks = self._unfailed(sorted(with_references & outdated))
        self._run(chunks, MEASURING)
        return bool(chunks)

    def _run_chunks(self) -> bool:
        """Bring all chunks up to date, or the chosen ones; the report names the others. Was there any?"""
        outdated = [
            step for step in self.steps if step.chunk is not None and step.status != CURRENT
        ]
        outdated_chunks = dict.fromkeys((step.dataset, step.chunk or 0) for step in outdated)
        to_run = _largest_first(self.lake, self._unfailed(outdated_chunks))
        if not self.is_announced:
            self._announce(outdated)
            if self.chosen is not None:
                self.report.left = [chunk for chunk in to_run if chunk not in self.chosen]
            # A build that makes nothing leaves leftovers to the next one that does
            if to_run:
                with room_in(self.workspace.root):
                    sweep(self.lake)
        to_run = [chunk for chunk in to_run if chunk not in self.report.left]
        self._run(to_run)
        return bool(to_run)

    def _announce(self, outdated: Sequence[Step]) -> None:
        """Say once how much there is to do, and what will not be done."""
        self.is_announced = True
        for name, build in self.report.builds.items():
            if lack := build.lacks_encoder:
                self.listener.note(
                    f"{name}: no embeddings to label runs like those that people labelled: {lack}"
                )
        report = self.report
        report.up_to_date = sum(step.status == CURRENT for step in self.steps) - len(report.done)
        num_done = sum(stage_report.run.chunk is not None for stage_report in report.done)
        self.listener.planned(len(outdated) + num_done, outdated)

    def _unfailed(self, chunks: Chunks) -> list[tuple[str, int]]:
        """Without chunks that failed, and chunks of datasets whose listing failed."""
        failed = {(failure.dataset, failure.chunk) for failure in self.report.failed}
        return [chunk for chunk in chunks if not {chunk, (chunk[0], None)} & failed]

    def _run(self, chunks: Sequence[tuple[str, int]], only: frozenset[str] | None = None) -> None:
        """Bring (dataset, chunk) up to date, side by side; `only`: these stages of them."""
        root = str(self.workspace.root)
        while chunks:
            workers = min(self.workers or cores(), len(chunks))
            threads = imported("pipeline.chunk:decoding_threads")(len(chunks), workers, cores())
            tasks = []
            for (name, chunk), num_threads in zip(chunks, threads, strict=True):
                build = self.report.builds[name]
                fingerprint = self.fingerprints[name]
                build_id = self.report.build_id
                task = ChunkTask(root, build, fingerprint, chunk, num_threads, build_id, only)
                tasks.append(task)
            unfinished = imported("pipeline.chunk:run_tasks")(
                tasks, workers, self._take, self.listener.moment
            )
            chunks = [(task.build.name, task.chunk) for task in unfinished]

    def _take(self, result: ChunkResult) -> None:
        """Add a result to the report. Raises DiskFullError: no other chunk would get further."""
        self.report.done += result.done
        for stage_report in result.done:
            self.listener.stage_done(stage_report)
            is_other = stage_report.run.stage == FRAMES and sentence("", stage_report.numbers)
            self.has_recognised |= bool(is_other)
        if result.failed is None:
            return
        if result.failed.disk_full:
            raise DiskFullError(result.failed.disk_full)
        self.report.failed.append(result.failed)

    # The end

    def close(self) -> None:
        """Say what was found of recordings, and what a person has to decide; back up the lake."""
        report = self.report
        for stage_report in report.done:
            text = sentence(stage_report.run.dataset, stage_report.numbers)
            if text:
                self.listener.note(f"{stage_report.run.dataset}: {text}")
        decoded = {
            stage_report.run.dataset
            for stage_report in report.done
            if stage_report.run.stage == FRAMES
        }
        for dataset, text in open_questions(self.lake, decoded):
            if dataset in report.builds:
                self.listener.note(f"{dataset}: {text}")
        for (dataset, stage), count in report.left_out.items():
            self.listener.note(
                f"{dataset}: episodes left out of {stage}: {count}; "
                "the next build asks about them again; why: "
                f"proccorpus sql \"FROM findings WHERE stage = '{stage}'\""
            )
        note_builds(self.lake)
        self.lake.back_up()


def _state_of(source: Source, listed: str | None) -> tuple[Source, str]:
    fingerprint = source.fingerprint()
    if fingerprint != listed:
        format_of(source)
    return source, fingerprint


def _check_is_whole(lake: Lake, source: Source) -> None:
    """Raises SourceError where most of the files that episodes were read from are gone, or may not be read."""
    if source.config.is_remote:
        return
    read_files = lake.column(
        "SELECT DISTINCT split_part(uri, '!/', 1) FROM (SELECT unnest(list_append(list_transform(videos, v -> v.uri), "
        "data_uri)) AS uri FROM episode_facts WHERE dataset = ?) WHERE uri IS NOT NULL ORDER BY 1",
        [source.config.name],
    )
    missing_files = [
        uri
        for uri in read_files
        if uri not in source.files or source.files[uri].version.endswith(NO_RIGHTS)
    ]
    if 2 * len(missing_files) > len(read_files):
        raise SourceError(
            f"{source.config.source} is half there: {len(missing_files)} of {len(read_files)} files that "
            "episodes were read from are "
            f"gone or may not be read, such as {missing_files[0]}; if for good: proccorpus build --dataset "
            f"{source.config.name}"
        )


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
