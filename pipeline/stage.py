"""Stages, and their run on one partition: read the lake, make tables, publish
them in one transaction.

The stages themselves are in pipeline/stages/, a file each;
`pipeline.stages.STAGES` lists them from top to bottom. The command line's build
loop, its worker processes and the Dagster assets all call `run_stage`.

What a listing says of each chunk is kept by field. A stage names the fields that it
reads (`Stage.reads`), and a change of another one leaves it current: `frames` reads
no texts, so that a corrected text decodes nothing.
"""

import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.errors import FailedError, UserError
from core.files import disk_full
from core.tables import TABLES, without_episodes
from core.values import grouped, imported
from ingest.episode import EpisodeRecord, Finding, joined_findings
from ingest.episodes import UNKNOWN
from ingest.reasons import CHANGED_DURING_BUILD
from ingest.sources.files import Source
from pipeline.config import DatasetBuild
from pipeline.sources import OUT_OF_REACH
from pipeline.stages import LISTING, UNANSWERED, Stage, Step
from warehouse.lake import Lake, StageRun, content_key, output_hash, was_interrupted
from warehouse.lake.checks import CHECKS, Check, CheckScope, broken_episodes, failed_check
from warehouse.lake.chunk_rows import ChunkRows
from warehouse.lake.connection import LakeConnection
from warehouse.lake.outdated import forget_changes, forget_texts
from warehouse.lake.publication import NO_ROWS, chunk_hashes

FACTS = TABLES["episode_facts"]
# Fields that are columns of episode_facts; `rows` and `pictures` are also the files that they are read from
COLUMNS = {
    "rows": ("source_id", "num_rows", "fps", "data_uri", "data_key", "row_start", "source_stamp"),
    "pictures": ("cameras", "videos"),
    "text": ("task", "tasks"),
    "steps": ("steps", "steps_from", "plan", "as_far_as"),
}
OUTCOME = ("success", "success_source")
READ = ["chunk", "episode_index", "success", "data_uri", "videos"]
PUBLISHED = (
    "episode_facts",
    "findings",
    "splits",
)  # with chunks, by which a chunk's output is hashed
type Rows = Sequence[Mapping[str, Any]]


def chunk_runs(run: StageRun, source: Source, tables: Mapping[str, pa.Table]) -> list[StageRun]:
    """One line of stage_runs per chunk of a listing: `inputs` has a hash of each field, by its name.

    tables: what the listing publishes. `output_hash` is over all but outcomes and other chunks' runs, as versions that
    knew no fields had it: by it a plan recognises what they made.
    """
    facts = tables["episode_facts"]
    # A video need not be decoded again because somebody says how its run ended
    without_outcomes = [FACTS.empty(), facts.drop_columns([*OUTCOME])]
    published = dict(
        tables, episode_facts=pa.concat_tables(without_outcomes, promote_options="default")
    )
    of_columns = {name: chunk_hashes(FACTS, facts, columns) for name, columns in COLUMNS.items()}
    of_tables = {name: chunk_hashes(TABLES[name], published[name]) for name in PUBLISHED}
    num_rows = Counter(chain.from_iterable(tables[name]["chunk"].to_pylist() for name in PUBLISHED))
    findings = tables["findings"]
    unusable = findings.filter(findings["severity"].to_numpy() == "unusable")
    of_unusable = chunk_hashes(TABLES["findings"], unusable, ("chunk",))
    # Where the grippers are concerns every chunk, and is stored once
    signals = output_hash({"signals": tables["signals"]})
    chunks = grouped(
        (row["chunk"], row) for row in facts.select(READ).sort_by("episode_index").to_pylist()
    )
    runs = []
    for chunk, rows in sorted(chunks.items()):
        outcomes = [
            f"{r['episode_index']} {r['success']}" for r in rows if r["success"] is not None
        ]
        fields = {name: hashes[chunk] for name, hashes in of_columns.items()} | {
            "rows": content_key(of_columns["rows"][chunk], signals, *_stamps(_data(rows), source)),
            "pictures": content_key(of_columns["pictures"][chunk], *_stamps(_videos(rows), source)),
            "splits": of_tables["splits"].get(chunk, NO_ROWS),
            "unusable": of_unusable.get(chunk, ""),
            "outcome": content_key(*outcomes) if outcomes else "",
            "others": _others(published, chunk, source),
        }
        parts = [(name, of_tables[name].get(chunk, NO_ROWS)) for name in PUBLISHED]
        stamps = _stamps(_data(rows) | _videos(rows), source)
        changes = {
            "rows": num_rows[chunk],
            "output_hash": content_key(content_key(*chain.from_iterable(parts)), signals, *stamps),
            "inputs": json.dumps({name: value for name, value in fields.items() if value}),
        }
        runs.append(replace(run, chunk=chunk, numbers="", **changes))
    return runs


def _others(published: Mapping[str, pa.Table], chunk: int, source: Source) -> str:
    """Over the runs of other chunks that samples may show: what is listed of them, and the state of their files."""
    other_tasks = _where(published["other_tasks"], "chunk", [chunk])
    if not other_tasks.num_rows:
        return ""
    episodes = other_tasks["episode_index"].to_pylist()
    listed = _where(published["episode_facts"], "episode_index", episodes)
    rows = listed.to_pylist()
    hashed = output_hash({"other_tasks": other_tasks, "episode_facts": listed})
    return content_key(hashed, *_stamps(_data(rows) | _videos(rows), source))


def _where(table: pa.Table, column: str, values: Sequence[int]) -> pa.Table:
    return table.filter(np.isin(table[column].to_numpy(), values))


def _data(rows: Rows) -> set[str]:
    return {row["data_uri"] for row in rows}


def _videos(rows: Rows) -> set[str]:
    return {video["uri"] for row in rows for video in row["videos"]}


def _stamps(files: set[str], source: Source) -> list[str]:
    """The state of each file of the source; None is a file of no episode."""
    return [f"{uri} {source.files[uri]}" for uri in sorted(files & source.files.keys())]


if TYPE_CHECKING:
    from annotate.motion.observe import Signals
    from pipeline.picture_cache import PictureCache

Numbers = Mapping[str, int | float | str]
LABELLED_BY = ("frames", "segments", "progress")  # an episode without their rows has no label
LEFT_OUT = "left_out"  # number of a stage: its episodes that the next build looks at again
TOLD_EVERY_S = 1.0


@dataclass(frozen=True)
class Output:
    """The output of a stage, to publish: `upserts` and `registered` as in
    Lake.publish.

    `findings` None: the stage looks for none. `numbers` are shown to people.
    `outdated`: episodes whose former contents are gone, as in Lake.publish.
    `unanswered`: episodes that are left out for now; the next build runs the
    stage again for them.
    """

    tables: dict[str, pa.Table]
    findings: list[Finding] | None = None
    upserts: dict[str, pa.Table] = field(default_factory=dict)
    registered: dict[str, pa.Table] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)
    outdated: Collection[int] = ()
    unanswered: Collection[int] = ()


@dataclass(frozen=True)
class StageContext:
    """All that a stage is given: where it reads and publishes, what it is to
    make, and the build that it is a part of.

    source: the build's source, as the plan found it. build_id: of the build or
    Dagster run under way; budgets of models count by it. Empty: this step is its
    own build. pictures: what the chunk's stages keep for one another; None where
    they keep nothing. memory: what its stages read of the chunk once. told: is
    called now and then with how many episodes the stage has done. accept_changes:
    a source in which most recordings changed their address is listed without
    asking.
    """

    lake: Lake
    build: DatasetBuild
    step: Step
    source: Source
    build_id: str = ""
    pictures: "PictureCache | None" = None
    memory: dict[str, Any] = field(default_factory=dict)
    told: Callable[[int], None] = lambda episodes: None
    accept_changes: bool = False

    def each[T](self, items: Iterable[T]) -> Iterator[T]:
        """Items, one per episode, that the stage takes one after the other: it tells how far it is."""
        told_s = time.monotonic()
        for num_done, item in enumerate(items):
            if time.monotonic() - told_s >= TOLD_EVERY_S:
                told_s = time.monotonic()
                self.told(num_done)
            yield item

    @property
    def rows(self) -> ChunkRows:
        """The chunk's rows of the lake, as its stages left them; each table is read once."""
        if "rows" not in self.memory:
            self.memory["rows"] = ChunkRows(self.lake, self.dataset, self.chunk)
        return self.memory["rows"]

    def records(self) -> list[EpisodeRecord]:
        """The chunk's episodes that listing found no fault with, in order."""
        if "records" not in self.memory:
            self.memory["records"] = imported("pipeline.reading:usable_records")(
                self.rows, self.dataset, self.chunk
            )
        return self.memory["records"]

    def signals(self) -> "list[Signals]":
        """The measurements of each usable episode of the chunk, in order."""
        if "signals" not in self.memory:
            self.memory["signals"] = list(
                imported("pipeline.reading:chunk_signals")(self.rows, self.dataset, self.chunk)
            )
        return self.memory["signals"]

    def kept(self) -> "PictureCache | None":
        """What the chunk's stages kept of its present frames; None where they kept nothing, or of other frames."""
        present = self.rows.input_hashes.get("frames")
        if self.pictures and present == self.pictures.frames_hash:
            return self.pictures
        return None

    @property
    def dataset(self) -> str:
        return self.build.name

    @property
    def chunk(self) -> int:
        """The chunk of a step that works on one."""
        assert self.step.chunk is not None, (
            f"{self.step.stage.name} works on the dataset as a whole"
        )
        return self.step.chunk


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage did; `numbers` are shown to people beside it."""

    run: StageRun
    snapshot: int
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepFailure:
    dataset: str
    chunk: int | None
    stage: str
    message: str
    trace: str
    disk_full: str | None = None  # what is full: every other chunk would fail of it, too
    asks: bool = False  # a person has to say that it shall be so; nothing is broken
    out_of_reach: bool = False  # the source could not be looked at, or not be listed

    @property
    def facts(self) -> dict[str, str]:
        """What a report says of it; `chunk` all: of the dataset as a whole."""
        chunk = "all" if self.chunk is None else str(self.chunk)
        return {"dataset": self.dataset, "chunk": chunk, "stage": self.stage, "why": self.message}

    @classmethod
    def of(
        cls, dataset: str, chunk: int | None, stage: str, e: Exception, full: str | None = None
    ) -> "StepFailure":
        # A source that waits until a person accepts how it changed is no fault of ours: its words are enough
        asks = isinstance(e, ChangedSourceError)
        kind = "" if asks else f"{type(e).__name__}: "
        return cls(
            dataset=dataset,
            chunk=chunk,
            stage=stage,
            message=" ".join(f"{kind}{e}".split()),
            trace="".join(traceback.format_exception(e)),
            disk_full=full,
            asks=asks,
            out_of_reach=chunk is None and isinstance(e, OUT_OF_REACH),
        )


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
    """What was done of a chunk, or of a dataset's listing, and what failed then."""

    done: list[StageReport]
    failed: StepFailure | None


@dataclass(frozen=True)
class StageMoment:
    """A stage of a chunk begins (`duration_s` None), has done some episodes, or has ended: what who waits sees."""

    dataset: str
    chunk: int
    stage: str
    duration_s: float | None = None
    episodes: int = 0  # done of a stage that goes on


def failure_text(facts: Mapping[str, str]) -> str:
    """The facts of a failure in words."""
    return f"{facts['stage']} of {facts['dataset']} chunk {facts['chunk']}: {facts['why']}"


def reasons(failed: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Facts of failures in words, by dataset."""
    return grouped((facts["dataset"], failure_text(facts)) for facts in failed)


class ChangedSourceError(UserError):
    """A source in which most recordings have other addresses than before, or whose robot is another one."""


class BlockedError(FailedError):
    """A stage that is not run, since a blocking check of what it reads failed."""


def check_inputs(context: StageContext) -> None:
    """Raises BlockedError where a blocking check of what the step rests on fails. The stages of a chunk ask once."""
    if failed := failed_input(context.lake, context.build, context.step, context.memory):
        reason, remedy = failed
        stage = context.step.stage.name
        raise BlockedError(f"{reason}; until it passes, {stage} is not run: {remedy}")


def failed_input(
    lake: LakeConnection, build: DatasetBuild, step: Step, memory: dict[str, Any]
) -> tuple[str, str] | None:
    """The first blocking check that fails of what a step of a chunk rests on, in words, and the remedy; None: none."""
    outcomes = memory.setdefault("checks", {})
    for name in step.rests_on:
        if name not in outcomes:
            is_checked = name in memory.get("sound", ())
            limit = build.stages.checks.min_labelled
            scope = CheckScope(name, step.dataset, step.chunk, None, is_checked, limit)
            # Rows that no stage of this process has read stay in the lake, and are checked there
            is_read = is_checked or name == LISTING.name
            outcomes[name] = failed_check(memory.get("rows", lake) if is_read else lake, scope)
        if outcomes[name]:
            return outcomes[name]
    return None


def checks_of(stage: Stage) -> tuple[Check, ...]:
    return tuple(check for check in CHECKS if stage.name in check.stages)


def checked(
    stage: Stage, lake: Lake, build: DatasetBuild, chunk: int | None
) -> Iterator[tuple[Check, Finding]]:
    """Every check of what a stage wrote of a chunk, or of a dataset, and what it found."""
    scope = CheckScope(
        stage.name,
        build.name,
        chunk,
        build.stages.vlm.max_cost_usd,
        min_labelled=build.stages.checks.min_labelled,
    )
    return ((check, check.run(lake, scope)) for check in checks_of(stage))


def run_stage(context: StageContext) -> StageReport:
    """Run one planned step and publish what it made in one transaction. Raises BlockedError."""
    lake = context.lake
    step = context.step
    if step.spec.made_by is not None:
        context = replace(context, build=context.build.as_made_by(step.spec.made_by))
    started = time.monotonic()
    if step.chunk is not None and context.memory.setdefault("first", step) is step:
        forget_changes(context.rows, context.dataset, step.chunk, step.rests_on)
    check_inputs(context)
    output = step.stage.run(context)
    output = _without_broken(context, output)

    # Findings are a part of what the stage made: a changed finding makes later stages run again
    chunk_size = context.build.dataset.chunk_size
    findings = findings_table(context.dataset, step.stage.name, output.findings or [], chunk_size)
    published = dict(output.tables)
    if output.findings is not None:
        published["findings"] = findings

    # The next build makes it again for these, also where the source is by then what it was
    changed = {f.episode_index for f in output.findings or () if f.reason == CHANGED_DURING_BUILD}
    deferred = {*output.unanswered, *changed}
    rows = {f"rows_{name}": table.num_rows for name, table in output.tables.items()}
    numbers = rows | dict(output.numbers)
    if deferred:
        numbers[LEFT_OUT] = len(deferred)
    run = StageRun(
        stage=step.stage.name,
        dataset=context.dataset,
        chunk=step.chunk,
        label_run=step.spec.label_run,
        input_hash=UNANSWERED * bool(deferred) + step.input_hash,
        code_version=step.spec.code_version,
        rows=sum(table.num_rows for table in output.tables.values()),
        output_hash=output_hash(published),
        duration_s=time.monotonic() - started,
        # Of a stage that asks a model: questions whose answers were in the response store
        cache_hits=int(output.numbers.get("answered_before", 0)),
        inputs=json.dumps(step.inputs),
        references_hash=step.inputs.get("references", ""),
        numbers=json.dumps(numbers),
    )
    # A listing registers its chunks, each with the hash of its own part
    parts = chunk_runs(run, context.source, published) if step.chunk is None else ()
    snapshot = lake.publish(
        run,
        output.tables,
        findings,
        output.upserts,
        parts,
        registered=output.registered,
        outdated=output.outdated,
    )
    if step.chunk is None:
        forget_texts(lake, context.dataset)
    else:
        # Also where it found nothing: what it found before is gone
        context.rows.take(run, {**output.tables, "findings": findings}, output.registered)
        # With contents labels went, of all runs
        context.rows.forget(None if output.outdated else output.upserts)
    return StageReport(run, snapshot, numbers)


def _broken_episodes(context: StageContext, output: Output) -> dict[int, list[str]]:
    """What is wrong with rows of an output by the schema, by their episode. What is wrong with no single episode is
    left to the check of those who read it."""
    stage = context.step.stage.name
    label_runs = [rows for name, rows in output.registered.items() if name == "label_runs"]
    broken = broken_episodes(context.rows, context.dataset, output.tables, label_runs)
    if context.dataset not in broken:
        context.memory.setdefault("sound", set()).add(stage)
    return {owner: texts for owner, texts in broken.items() if isinstance(owner, int)}


def _without_broken(context: StageContext, output: Output) -> Output:
    """What a stage made without episodes of which it made rows against the schema: each is a finding, and made again by
    the next build."""
    stage = context.step.stage.name
    # Shards are on the disk by now
    is_by_episode = context.step.chunk is not None and stage != "shards"
    broken = _broken_episodes(context, output) if is_by_episode else {}
    if not broken:
        return output
    severity = "unusable" if stage in LABELLED_BY else "warning"
    findings = [
        Finding("unreadable_data", "; ".join(texts), severity, episode)
        for episode, texts in sorted(broken.items())
    ]
    return replace(
        output,
        tables=without_episodes(output.tables, broken),
        findings=[*(output.findings or ()), *findings],
        unanswered={*output.unanswered, *broken},
    )


def run_guarded(context: StageContext) -> StageReport | StepFailure:
    """Run one step as `run_stage`; an error becomes a StepFailure, so that other chunks go on.

    Raises KeyboardInterrupt where a person ended it.
    """
    step = context.step
    try:
        return run_stage(context)
    except Exception as e:
        if was_interrupted(e):
            raise KeyboardInterrupt from e
        full = disk_full(e, context.lake.workspace.root)
        return StepFailure.of(step.dataset, step.chunk, step.stage.name, e, full)


def findings_table(dataset: str, stage: str, findings: list[Finding], chunk_size: int) -> pa.Table:
    """Findings of one stage as rows; what is found several times of one thing is one row that says so."""
    table = TABLES["findings"]
    rows = []
    for f in joined_findings(findings):
        chunk = None if f.episode_index is None else f.episode_index // chunk_size
        row = {name: value for name, value in vars(f).items() if name in table.schema.names}
        row |= {
            "dataset": dataset,
            "chunk": chunk,
            "stage": stage,
            "stretches": f.stretches or None,
        }
        rows.append(
            {k: v.replace("\0", UNKNOWN) if isinstance(v, str) else v for k, v in row.items()}
        )
    return table.rows(rows)
