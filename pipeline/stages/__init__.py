"""The corpus from top to bottom: every stage, once, in the order in which a chunk goes through them.

A row of `STAGES` says what a stage waits for, its configuration and code version; the module of its name beside this
one does the work, and is imported when that begins.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel

from annotate.config import (
    EMBEDDINGS_VERSION,
    FRAMES_VERSION,
    PROGRESS_VERSION,
    template_version,
)
from annotate.embeddings import identity
from core.domain.label_run import HUMAN_VERSION, LabelRun, human_run
from core.tables import STAGE_TABLES
from core.values import imported
from pipeline.config import DatasetBuild

type Field = Literal[
    "rows", "pictures", "text", "steps", "splits", "unusable", "outcome", "others",
    "corrections", "references", "joined_tasks",
]  # fmt: skip
# What labels of every annotator depend on, see `Stage.settings`
LABEL_SETTINGS = (
    "dataset.annotator",
    "dataset.cameras.views",
    "stages.annotator",
    "stages.motion",
    "stages.progress",
    "stages.transfer",
    "stages.vlm",
)
UNANSWERED = "unanswered "  # before the input hash of a stage that is run again for these
# Of a registry entry: what rows and pictures are read by
READ_BY_FRAMES = {"fps", "gripper", "keys", "limits"}


@dataclass(frozen=True)
class Stage:
    """One stage of the corpus: what it needs, what it writes, and the function that does it.

    name: also the name of its Dagster asset and its key in `stage_runs`. core.tables.STAGE_TABLES has what it writes.
    upstream: stages whose output it reads; none: it works on a dataset as a whole, the others on a chunk. One that a
    dataset or a chunk does not have is not waited for. run: makes the tables of one partition, an `Output` of a
    `StageContext` (pipeline.stage). config: the parts of a build's configuration that its output depends on; their hash
    is a part of its input. settings: the paths of these parts, such as stages.motion, for people. code_version: one
    text, or one per annotator. reads: the fields of its chunk's episodes that it depends on (pipeline/stage.py):
    `rows`, `pictures`, their `text`, `steps` of the source, `splits`, which are `unusable`, `outcome`, and `others`:
    runs of other tasks beyond the chunk; then what people say: `corrections`, `references`. A stage that reads these
    two runs only for chunks that have some. applies: whether a build has this stage at all. label_run: the label run
    that its rows belong to; empty for stages whose rows belong to none. reads_source, asks_model: what it needs from
    outside; Dagster bounds and retries by them. picture: a figure of one partition, for people.
    """

    name: str
    upstream: tuple[str, ...]
    run: Callable[[Any], Any]
    config: Callable[[DatasetBuild], tuple[BaseModel | str, ...]]
    code_version: str | Callable[[DatasetBuild], str]
    description: str
    settings: tuple[str, ...] = ()
    reads: tuple[Field, ...] = ()
    applies: Callable[[DatasetBuild], bool] = lambda build: True
    label_run: Callable[[DatasetBuild], str] = lambda build: ""
    reads_source: bool = False
    asks_model: bool = False
    picture: Callable[[Any, str, int | None], Any] = lambda lake, dataset, chunk: None

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it writes into its partition, the one that it is known by first; beside findings."""
        return STAGE_TABLES[self.name]

    def spec(self, build: DatasetBuild) -> "StageSpec":
        """This stage under the configuration of a build, and under the former label runs that its labels may be of."""
        stage_spec = self._spec(build)
        if not stage_spec.label_run:
            return stage_spec
        former = (self._spec(build.as_made_by(run)) for run in build.former_runs())
        return replace(
            stage_spec,
            former=tuple(spec for spec in former if spec.label_run != stage_spec.label_run),
        )

    def _spec(self, build: DatasetBuild) -> "StageSpec":
        if isinstance(self.code_version, str):
            code_version = self.code_version
        else:
            code_version = self.code_version(build)
        texts = [
            part if isinstance(part, str) else part.model_dump_json() for part in self.config(build)
        ]
        config_hash = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        return StageSpec(self, code_version, config_hash, self.label_run(build), build.made_by)


@dataclass(frozen=True)
class StageSpec:
    """One stage under one configuration.

    made_by: the former label run whose labels stay; None: they are made by the
    present version. former: this stage under each such label run, where a chunk
    may have labels of it.
    """

    stage: Stage
    code_version: str
    config_hash: str
    label_run: str = ""
    made_by: LabelRun | None = None
    former: tuple["StageSpec", ...] = ()

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def inputs(self) -> dict[str, str]:
        """What its output depends on whatever it reads."""
        return {"code version": self.code_version, "settings": self.config_hash}


@dataclass(frozen=True)
class Step:
    """One stage on one partition, and whether it has to be run.

    chunk: None: the dataset as a whole. inputs: all that its output depends on: its code version, settings, and by
    name the hash of each thing that it reads; what is known of it while an upstream stage is not current. input_hash:
    over these; empty while an upstream stage is not current. rests_on: stages whose output it rests on, directly or
    by way of others.
    """

    spec: StageSpec
    dataset: str
    chunk: int | None
    status: str
    input_hash: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    rests_on: tuple[str, ...] = ()

    @property
    def stage(self) -> Stage:
        return self.spec.stage


def _frames_config(build: DatasetBuild) -> tuple[BaseModel | str, ...]:
    """The stage's settings, and what it reads of the registry entry besides: only what differs from the defaults, so
    that a stage that was run before an entry could say it stays current."""
    settings = build.dataset.model_dump(mode="json", include=READ_BY_FRAMES, exclude_defaults=True)
    if build.dataset.cameras.bgr:
        settings["bgr"] = sorted(build.dataset.cameras.bgr)
    return (build.stages.frames, *([json.dumps(settings, sort_keys=True)] if settings else []))


# Where what a stage makes is another thing, its code version is raised
STAGES: tuple[Stage, ...] = (
    Stage(
        name="episodes",
        upstream=(),
        run=imported("pipeline.stages.episodes:run"),
        # Where the data lies does not change what it is
        config=lambda build: (
            f"{build.dataset.model_dump_json(exclude={'source', 'annotator'})}{build.episodes}"
            f"{build.stages.splits.model_dump_json()}",
        ),
        settings=(
            "dataset",
            "episodes",
            "stages.splits",
        ),
        code_version="episodes-7",
        description="Episodes of a dataset as its metadata lists them, with splits and findings; registers its chunks.",
        reads_source=True,
        picture=imported("pipeline.pictures:episodes_figure"),
    ),
    Stage(
        name="frames",
        upstream=("episodes",),
        run=imported("pipeline.stages.frames:run"),
        config=_frames_config,
        settings=(
            "stages.frames",
            *(f"dataset.{name}" for name in sorted(READ_BY_FRAMES)),
            "dataset.cameras.bgr",
        ),
        reads=(
            "rows",
            "pictures",
            "unusable",
        ),
        code_version=FRAMES_VERSION,
        description=(
            "Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video."
        ),
        reads_source=True,
        picture=imported("pipeline.pictures:frames_figure"),
    ),
    Stage(
        name="demonstrations",
        upstream=("frames",),
        run=imported("pipeline.stages.demonstrations:run"),
        config=lambda build: build.views,
        settings=("dataset.cameras.views",),
        code_version="demonstrations-3",
        description="How well each run was demonstrated: stand-stills, jerk, length, where it ends. Needs no label.",
    ),
    Stage(
        name="embeddings",
        upstream=("frames",),
        run=imported("pipeline.stages.embeddings:run"),
        # When it is done, and on which device, does not change what it is
        config=lambda build: (
            build.embeddings.model_dump_json(exclude={"when", "device"}),
            identity(build.embeddings),
        ),
        settings=(
            "stages.embeddings",
            "dataset.cameras.views",
        ),
        code_version=EMBEDDINGS_VERSION,
        description="What a frozen encoder sees in a few pictures a second: what runs are alike by.",
        applies=lambda build: build.has_embeddings,
        reads_source=True,
    ),
    Stage(
        name="segments",
        upstream=("episodes", "frames"),
        run=imported("pipeline.stages.segments:run"),
        config=lambda build: (build.label_run().id,),
        settings=LABEL_SETTINGS,
        code_version=lambda build: build.label_run().code_version,
        description="Subtask spans of each episode, by the configured annotator.",
        reads=(
            "text",
            "steps",
            "outcome",
        ),
        label_run=lambda build: build.label_run().id,
        asks_model=True,
        picture=partial(imported("pipeline.pictures:segments_figure"), "segments"),
    ),
    Stage(
        name="transfer",
        upstream=("episodes", "frames", "embeddings"),
        run=imported("pipeline.stages.transfer:run"),
        config=lambda build: (build.transfer_run().id, build.stages.progress, PROGRESS_VERSION),
        settings=(
            *LABEL_SETTINGS,
            "stages.embeddings",
        ),
        code_version=lambda build: build.transfer_run().code_version,
        description="Episodes labelled like the references of their task: those whose label somebody vouches for.",
        reads=(
            "text",
            "steps",
            "outcome",
            "references",
        ),
        applies=lambda build: build.uses_references,
        label_run=lambda build: build.transfer_run().id,
        picture=partial(imported("pipeline.pictures:segments_figure"), "transfer"),
    ),
    Stage(
        name="corrections",
        upstream=("episodes", "frames"),
        run=imported("pipeline.stages.corrections:run"),
        config=lambda build: (build.stages.progress, PROGRESS_VERSION, *build.views),
        code_version=HUMAN_VERSION,
        description=(
            "People's labels: segments and progress of the episodes that they corrected, as the run human/<dataset>."
        ),
        settings=(
            "stages.progress",
            "dataset.cameras.views",
        ),
        reads=(
            "text",
            "outcome",
            "corrections",
        ),
        label_run=lambda build: human_run(build.name),
        picture=partial(imported("pipeline.pictures:segments_figure"), "corrections"),
    ),
    Stage(
        name="progress",
        upstream=("frames", "segments", "transfer", "corrections"),
        run=imported("pipeline.stages.progress:run"),
        # What decides which label counts, too; nothing is added to the hashes of builds before it was there
        config=lambda build: (
            build.stages.progress,
            *(("references first",) if build.stated_annotator == "transfer" else ()),
            *build.views,
        ),
        code_version=PROGRESS_VERSION,
        description=(
            "The dense label: progress per frame, of segments and visual change; and which label of an episode counts."
        ),
        settings=LABEL_SETTINGS,
        reads=(
            "text",
            "outcome",
        ),
        label_run=lambda build: build.label_run().id,
        picture=imported("pipeline.pictures:progress_figure"),
    ),
    Stage(
        name="reasoning",
        upstream=("frames", "segments"),
        run=imported("pipeline.stages.reasoning:run"),
        config=lambda build: (build.label_run().id,),
        settings=LABEL_SETTINGS,
        code_version=lambda build: build.label_run().code_version,
        description=(
            "Why the task is as far as it is, in words, for some frames of each episode; only where a VLM annotates."
        ),
        applies=lambda build: build.annotator == "vlm" and build.stages.vlm.reason,
        label_run=lambda build: build.label_run().id,
        asks_model=True,
        picture=partial(
            imported("pipeline.pictures:segments_figure"), "segments"
        ),  # the segments that reasons are given for
    ),
    Stage(
        name="samples",
        upstream=(
            "episodes",
            "frames",
            "segments",
            "transfer",
            "corrections",
            "progress",
            "reasoning",
        ),
        run=imported("pipeline.stages.samples:run"),
        settings=(
            "stages.samples",
            "stages.shards.picture_max_px",
        ),
        reads=(
            "text",
            "splits",
            "others",
            "joined_tasks",
        ),
        # The size of pictures in shards is a part of a sample's tokens
        config=lambda build: (
            build.stages.samples,
            template_version(),
            str(build.stages.shards.picture_max_px),
        ),
        code_version="samples-5",
        description="Question-answer samples of the ProcVQA and ProgressLM families.",
        picture=imported("pipeline.pictures:samples_figure"),
    ),
    Stage(
        name="shards",
        upstream=("episodes", "frames", "samples"),
        run=imported("pipeline.stages.shards:run"),
        settings=(
            "stages.shards",
            "stages.samples.image_editor",
        ),
        reads=(
            "rows",
            "pictures",
            "others",
        ),
        # Where shards lie does not change what they are
        config=lambda build: (
            build.stages.shards.model_dump_json(exclude={"store"}),
            build.stages.samples.image_editor or "",
        ),
        code_version="shards-9",
        description="WebDataset tars: one entry per episode, pictures stored once.",
        reads_source=True,
        picture=imported("pipeline.pictures:shards_figure"),
    ),
)
# It works on a dataset as a whole, and says which chunks there are; the others on a chunk
LISTING = STAGES[0]


def stage_named(name: str) -> Stage:
    """The stage of that name. Raises KeyError."""
    return {stage.name: stage for stage in STAGES}[name]


def stage_specs(build: DatasetBuild) -> tuple[StageSpec, ...]:
    """The stages that a build has, in order, each under its configuration: what `plan` asks for."""
    return tuple(stage.spec(build) for stage in STAGES if stage.applies(build))
