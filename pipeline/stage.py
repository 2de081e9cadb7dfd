"""Stages, and their run on one partition: read the lake, make tables, publish them in one transaction.

The stages themselves are in pipeline/stages/, a file each; `pipeline.stages.STAGES` lists them from top to bottom.
The command line's build loop, its worker processes and the Dagster assets all call `run_stage`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from core.tables import STAGE_TABLES
from ingest.episode import Finding
from ingest.episodes import findings_table
from ingest.sources.files import Source
from pipeline.checks import StageCheck, schema_check
from pipeline.config import DatasetBuild
from pipeline.picture_cache import PictureCache
from pipeline.reading import ChunkMemory, EpisodeSignals, Listed
from warehouse.lake import Lake, StageRun, content_key, output_hash

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = Mapping[str, int | float | str]


@dataclass(frozen=True)
class Output:
    """The output of a stage, to publish: `upserts` and `registered` as in Lake.publish.

    `findings` None: the stage looks for none. `numbers` are shown to people.
    """

    tables: dict[str, pa.Table]
    findings: list[Finding] | None = None
    upserts: dict[str, pa.Table] = field(default_factory=dict)
    registered: dict[str, pa.Table] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)


def _always(build: DatasetBuild) -> bool:
    return True


def _no_label_run(build: DatasetBuild) -> str:
    return ""


def _no_picture(lake: Lake, dataset: str, chunk: int | None) -> "Figure | None":
    return None


@dataclass(frozen=True)
class Stage:
    """One stage of the corpus: what it needs, what it writes, and the function that does it.

    name: also the name of its Dagster asset and its key in `stage_runs`.
    upstream: stages whose output it reads. One that a dataset or a chunk does not have is not waited for.
    run: makes the tables of one partition.
    config: the parts of a build's configuration that its output depends on; their hash is a part of its input.
    code_version: one text, or one per annotator.
    reads_outcomes: it depends on whether runs succeeded; the others stay as they are when only that changes.
    shows_others: it shows runs of other tasks beyond the chunk (other_tasks), and depends on their facts and files.
    main_table: the table that the stage is known by.
    per: what one partition is.
    applies: whether a build has this stage at all.
    of_chunks: which chunks have this stage: all; those that people said something about (corrected); those with runs of
    a task that a reference shows (shown).
    label_run: the label run that its rows belong to; empty for stages whose rows belong to none.
    decides_active_label: it also says which label run counts, so that only the last of several runs is current.
    reads_source, asks_model: what it needs from outside; Dagster bounds and retries by them.
    checks: further checks of what it wrote, beside that of the schema.
    kinds: what it is made of, as Dagster's UI shows it.
    picture: a figure of one partition, for people.
    """

    name: str
    upstream: tuple[str, ...]
    run: "Callable[[StageContext], Output]"
    config: Callable[[DatasetBuild], tuple[BaseModel | str, ...]]
    code_version: str | Callable[[DatasetBuild], str]
    description: str
    main_table: str
    per: Literal["dataset", "chunk"] = "chunk"
    applies: Callable[[DatasetBuild], bool] = _always
    of_chunks: Literal["all", "corrected", "shown"] = "all"
    label_run: Callable[[DatasetBuild], str] = _no_label_run
    decides_active_label: bool = False
    reads_outcomes: bool = False
    shows_others: bool = False
    reads_source: bool = False
    asks_model: bool = False
    checks: tuple[StageCheck, ...] = ()
    kinds: frozenset[str] = frozenset({"ducklake", "parquet"})
    picture: "Callable[[Lake, str, int | None], Figure | None]" = _no_picture

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it writes into its partition, its main table first; beside findings."""
        return (self.main_table, *(t for t in STAGE_TABLES[self.name] if t != self.main_table))

    @property
    def all_checks(self) -> tuple[StageCheck, ...]:
        """Every check of what it wrote: first that the rows follow the schema."""
        return (schema_check(self.name), *self.checks)

    def spec(self, build: DatasetBuild) -> "StageSpec":
        """This stage under the configuration of a build."""
        code_version = self.code_version if isinstance(self.code_version, str) else self.code_version(build)
        return StageSpec(self, code_version, _config_hash(self.config(build)), self.label_run(build))


@dataclass(frozen=True)
class StageSpec:
    """One stage under one configuration."""

    stage: Stage
    code_version: str
    config_hash: str
    label_run: str = ""

    @property
    def name(self) -> str:
        return self.stage.name


@dataclass(frozen=True)
class Step:
    """One stage on one partition, and whether it has to be run: a DatasetStep or a ChunkStep."""

    spec: StageSpec
    dataset: str
    status: str
    input_hash: str  # empty while an upstream stage is not current

    @property
    def stage(self) -> Stage:
        return self.spec.stage


@dataclass(frozen=True)
class DatasetStep(Step):
    """A step on a dataset as a whole."""

    chunk: ClassVar[None] = None


@dataclass(frozen=True)
class ChunkStep(Step):
    """A step on one chunk of a dataset.

    stamp: a hash of what people said, where the chunk has the stage because of that.
    """

    chunk: int
    stamp: str = ""


AnyStep = DatasetStep | ChunkStep


@dataclass(frozen=True)
class StageContext:
    """All that a stage is given: where it reads and publishes, what it is to make, and the build that it is a part of.

    source: the build's source, as the plan found it.
    build_id: of the build or Dagster run under way; budgets of models count by it. Empty: this step is its own build.
    pictures: what the chunk's stages keep for one another; None where they keep nothing.
    memory: what its stages leave for one another.
    absent_at: as in Lake.publish, of the partition that the step works on.
    """

    lake: Lake
    build: DatasetBuild
    step: AnyStep
    source: Source
    build_id: str = ""
    pictures: PictureCache | None = None
    memory: ChunkMemory = field(default_factory=ChunkMemory)
    absent_at: int | None = None

    def listed(self) -> Listed:
        """What is listed of the chunk."""
        return self.memory.listed(self.lake, self.dataset, self.chunk)

    def kept(self) -> PictureCache | None:
        """What the chunk's stages kept of its present frames; None where they kept nothing, or of other frames."""
        if self.pictures is None or self.pictures.is_empty:
            return None
        is_present = "frames" in self.memory.made or self.pictures.is_of(self.lake, self.chunk)
        return self.pictures if is_present else None

    def signals(self) -> list[EpisodeSignals]:
        """The measurements of each usable episode of the chunk, in order."""
        return self.memory.chunk_signals(self.lake, self.dataset, self.chunk)

    @property
    def dataset(self) -> str:
        return self.build.name

    @property
    def chunk(self) -> int:
        """The chunk of a step that works on one."""
        assert isinstance(self.step, ChunkStep), f"{self.step.stage.name} works on the dataset as a whole"
        return self.step.chunk


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage did; `numbers` are shown to people beside it."""

    run: StageRun
    snapshot: int
    numbers: Numbers = field(default_factory=dict)


def run_stage(context: StageContext) -> StageReport:
    """Run one planned step and publish what it made in one transaction."""
    lake, step = context.lake, context.step
    started = time.monotonic()
    output = step.stage.run(context)

    # Findings are a part of what the stage made: a changed finding makes later stages run again
    findings = None
    published = dict(output.tables)
    if output.findings is not None:
        chunk_size = context.build.dataset.chunk_size
        findings = findings_table(context.dataset, step.stage.name, output.findings, chunk_size)
        published["findings"] = findings

    rows = {f"rows_{name}": table.num_rows for name, table in output.tables.items()}
    numbers = rows | dict(output.numbers)
    run = StageRun(
        stage=step.stage.name,
        dataset=context.dataset,
        chunk=step.chunk,
        label_run=step.spec.label_run,
        input_hash=step.input_hash,
        code_version=step.spec.code_version,
        rows=sum(table.num_rows for table in output.tables.values()),
        output_hash=output_hash(published),
        duration_s=time.monotonic() - started,
        # Of a stage that asks a model: questions whose answers were in the response store
        cache_hits=int(output.numbers.get("answered_before", 0)),
        references_hash=step.stamp if isinstance(step, ChunkStep) and step.stage.of_chunks == "shown" else "",
        numbers=json.dumps(numbers),
    )
    # A listing registers its chunks, each with the hash of its own part
    parts = _chunk_runs(run, context.source, published) if isinstance(step, DatasetStep) else None
    snapshot = lake.publish(
        run,
        output.tables,
        findings,
        output.upserts,
        parts,
        registered=output.registered,
        absent_at=context.absent_at,
    )
    context.memory.keep(step.stage.name, output.tables)
    return StageReport(run, snapshot, numbers)


def _chunk_runs(run: StageRun, source: Source, tables: Mapping[str, pa.Table]) -> list[StageRun]:
    """One stage_runs line per chunk, whose output hash changes with the chunk's rows or with any of its files.

    Outcomes have a hash of their own: a video need not be decoded again because somebody says how its run ended. So
    have the runs of other chunks that samples may show.
    """
    by_chunk = {name: table for name, table in tables.items() if "chunk" in table.schema.names}
    others = _others_hashes(by_chunk.pop("other_tasks"), tables["episode_facts"], source)
    # Where the grippers are concerns every chunk, and is stored once
    signals = output_hash({"signals": tables["signals"]})
    runs = []
    for chunk, files in sorted(_files_of_chunks(tables["episode_facts"]).items()):
        part = {name: _rows_of(table, chunk) for name, table in by_chunk.items()}
        stamps = _stamps(files, source)
        rows = sum(table.num_rows for table in part.values())
        outcomes = _outcomes_hash(part["episode_facts"])
        part["episode_facts"] = _without_outcomes(part["episode_facts"])
        output = content_key(output_hash(part), signals, *stamps)
        hashes = {"output_hash": output, "outcomes_hash": outcomes, "others_hash": others.get(chunk, "")}
        runs.append(replace(run, chunk=chunk, rows=rows, numbers="", **hashes))
    return runs


def _others_hashes(other_tasks: pa.Table, episode_facts: pa.Table, source: Source) -> dict[int, str]:
    """Of each chunk that may show runs of others: over what is listed of those, and the state of their files."""
    row_of_episode = {episode: row for row, episode in enumerate(episode_facts["episode_index"].to_pylist())}
    facts = _without_outcomes(episode_facts)
    episodes_of_chunk: dict[int, list[int]] = {}
    for other in other_tasks.to_pylist():
        episodes_of_chunk.setdefault(other["chunk"], []).append(other["episode_index"])
    hashes = {}
    for chunk, episodes in episodes_of_chunk.items():
        part = facts.take([row_of_episode[episode] for episode in episodes])
        files = set().union(*_files_of_chunks(part).values())
        rows = other_tasks.filter(np.equal(other_tasks["chunk"].to_numpy(), chunk))
        hashes[chunk] = content_key(output_hash({"other_tasks": rows, "episode_facts": part}), *_stamps(files, source))
    return hashes


def _stamps(files: Iterable[str], source: Source) -> list[str]:
    """The state of each of some files that the source has."""
    return [f"{uri} {source.files[uri]}" for uri in sorted(files) if uri in source.files]


def _outcomes_hash(episode_facts: pa.Table) -> str:
    """Over the outcomes that are known, whoever says them."""
    columns = episode_facts.select(["episode_index", "success"]).to_pylist()
    stated = sorted((row["episode_index"], row["success"]) for row in columns if row["success"] is not None)
    return content_key(*(f"{episode} {success}" for episode, success in stated)) if stated else ""


def _without_outcomes(episode_facts: pa.Table) -> pa.Table:
    for name in ("success", "success_source"):
        place = episode_facts.schema.get_field_index(name)
        field = episode_facts.schema.field(place)
        episode_facts = episode_facts.set_column(place, field, pa.nulls(episode_facts.num_rows, field.type))
    return episode_facts


def _files_of_chunks(episode_facts: pa.Table) -> dict[int, set[str]]:
    """The files of the source that the episodes of each chunk are read from."""
    files_of_chunk: dict[int, set[str]] = {}
    for facts in episode_facts.to_pylist():
        files = files_of_chunk.setdefault(facts["chunk"], set())
        files.update(video["uri"] for video in facts["videos"])
        if facts["data_uri"]:
            files.add(facts["data_uri"])
    return files_of_chunk


def _rows_of(table: pa.Table, chunk: int) -> pa.Table:
    return table.filter(np.equal(table["chunk"].to_numpy(), chunk))


def _config_hash(parts: tuple[BaseModel | str, ...]) -> str:
    texts = [part if isinstance(part, str) else part.model_dump_json() for part in parts]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
