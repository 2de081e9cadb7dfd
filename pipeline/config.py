"""The configuration of a build: a TOML file (or flags) resolved to what each dataset is built with, kept in the lake.

Every default stands in the configuration class of the stage that uses it.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from annotate.config import (
    FORMER_VLM,
    EmbeddingsConfig,
    FramesConfig,
    MotionConfig,
    ProgressConfig,
    SamplesConfig,
    ShardsConfig,
    TransferConfig,
    VlmConfig,
)
from annotate.embeddings import missing_download
from core.annotators import AUTO, annotator_named
from core.domain.label_run import MIN_LABELLED, LabelRun
from core.errors import UserError, validation_message
from core.names import did_you_mean
from core.tables import TABLES
from core.values import imported
from ingest.registry import BUILT_IN, AnnotatorChoice, DatasetConfig, load_entry, load_registry
from ingest.sources.files import Source, cache_folder
from ingest.splits import SplitConfig
from warehouse.lake import Lake, content_key
from warehouse.lake.references import SHOWN_BY, steps_and_references, stored_builds

SPLIT_SHARES = (
    "val",
    "test_id",
    "seed",
)  # settings that only deal splits: episodes keep those that they have


class ChecksConfig(BaseModel):
    """What has to hold of a chunk, so that more is made of it. It changes no label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_labelled: float = Field(
        default=MIN_LABELLED,
        ge=0,
        le=1,
        description="least share of a chunk's episodes that decode, and of these that get a label",
    )


class StageConfigs(BaseModel):
    """What every dataset of a build has in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotator: AnnotatorChoice = Field(
        default=AUTO,
        description="annotator that makes the segments; auto: native if the source has timed steps, else transfer if "
        "the task has a reference, else motion; transfer: transfer first; a registry entry overrules it",
    )
    splits: SplitConfig = SplitConfig()
    frames: FramesConfig = FramesConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    motion: MotionConfig = MotionConfig()
    transfer: TransferConfig = TransferConfig()
    vlm: VlmConfig = VlmConfig()
    progress: ProgressConfig = ProgressConfig()
    samples: SamplesConfig = SamplesConfig()
    shards: ShardsConfig = ShardsConfig()
    checks: ChecksConfig = ChecksConfig()


class ReleaseConfig(BaseModel):
    """What is released of a corpus every night."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    licences: tuple[str, ...] = Field(
        default=(),
        description="licences allowed beside open ones, such as cc-by-nc-4.0; unknown: also datasets that state none",
    )


class BuildFile(StageConfigs):
    """A build's TOML file."""

    datasets: tuple[str, ...] = Field(min_length=1, description="names of registry entries")
    registry: tuple[str, ...] = Field(default=(), description="folders with more registry files")
    release: ReleaseConfig = ReleaseConfig()


class DatasetBuild(BaseModel):
    """One dataset with all that it is built with; stored beside its rows as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: DatasetConfig
    stages: StageConfigs = StageConfigs()
    episodes: tuple[int, ...] | None = Field(
        default=None, description="build these only; null: all"
    )
    commit: str | None = Field(
        default=None, description="hub: the commit that the revision meant when it was read"
    )
    # Known from the listing (`as_listed`), and stored with it: no part of the configuration
    brings_steps: bool = Field(
        default=False, exclude=True, description="the source brings timed steps"
    )
    has_references: bool = Field(
        default=False, exclude=True, description="some runs can be labelled like others"
    )

    _made_by: LabelRun | None = PrivateAttr(default=None)

    @property
    def name(self) -> str:
        return self.dataset.name

    def source(self, sources: Path, listed: str | None = None) -> Source:
        """`sources` is the workspace's folder for remote files, `listed` the fingerprint that a build has taken."""
        selected = None if self.episodes is None else frozenset(self.episodes)
        return Source(
            self.dataset, selected, cache_folder(sources, self.dataset), listed or self.commit
        )

    def read_at(self, fingerprint: str) -> "DatasetBuild":
        """The build that reads the source in the state of a fingerprint: of a hub's dataset it is the commit."""
        return self.model_copy(update={"commit": fingerprint if self.dataset.is_on_hub else None})

    def as_listed(self, brings_steps: bool, has_references: bool) -> "DatasetBuild":
        """The build with what its listing says (`steps_and_references`), which the annotator `auto` depends on: where
        the listing is made anew, it has to be asked again.
        """
        return self.model_copy(
            update={"brings_steps": brings_steps, "has_references": has_references}
        )

    def hash(self) -> str:
        """Of what a dataset is built with, wherever its data and its store lie."""
        return content_key(self.identity())

    def identity(self) -> str:
        """As JSON, without places and limits: the same data, shards and model elsewhere make the same corpus.

        Nor does it have the commit: that is a part of what was read, as files are.
        """
        of_stages = {
            "shards": {"store": True},
            "vlm": {"endpoints": True} | dict.fromkeys(self.stages.vlm.unused(), True),
            "embeddings": {"device": True},
            "checks": True,
        }
        places = {"dataset": {"source": True}, "stages": of_stages}
        return self.model_dump_json(exclude=places | {"commit": True})

    @property
    def stated_annotator(self) -> str:
        """`auto`: the source decides; `transfer`: labels that follow references count before steps of the source.

        The dataset's own choice counts before the build's.
        """
        return self.dataset.annotator or self.stages.annotator

    @property
    def uses_references(self) -> bool:
        """Are runs labelled like references of their task?"""
        return self.stated_annotator in SHOWN_BY

    @property
    def annotator(self) -> str:
        """Who makes the segments of every run; those of `transfer` stand beside them."""
        if self.uses_references:
            if self.brings_steps:
                return "native"
            return "motion"
        return self.stated_annotator

    @property
    def embeddings(self) -> EmbeddingsConfig:
        """How an encoder looks at this dataset: `preferred` are all the views that its labels are made by."""
        config = self.stages.embeddings
        if config.cameras != "preferred" or not self.views:
            return config
        return config.model_copy(update={"cameras": self.views})

    @property
    def views(self) -> tuple[str, ...]:
        """The cameras that labels are made by, where there are several; what depends on them names them."""
        views = self.dataset.cameras.views
        if len(views) > 1:
            return views
        return ()

    @property
    def has_embeddings(self) -> bool:
        """Does an encoder look at pictures: because the build is told so, or to label runs like others?"""
        return self.stages.embeddings.when == "always" or (
            self._wants_encoder and not self.lacks_encoder
        )

    @property
    def lacks_encoder(self) -> str:
        """Why embeddings that references ask for are not made: what is not at hand; empty where nothing is amiss."""
        if self._wants_encoder:
            return missing_download(self.stages.embeddings)
        return ""

    @property
    def _wants_encoder(self) -> bool:
        return (
            self.stages.embeddings.when == "references"
            and self.has_references
            and self.uses_references
        )

    @property
    def prompt_version(self) -> str:
        """Of the prompts that a model is asked with now, whichever label run the answers are for."""
        version = imported("annotate.vlm.prompts:prompt_version")
        return version(several_views=bool(self.views))

    @property
    def made_by(self) -> LabelRun | None:
        """The former label run whose labels stay; None: labels are made by the present version."""
        return self._made_by

    def as_made_by(self, label_run: LabelRun) -> "DatasetBuild":
        """This build for labels that stay those of a former label run."""
        build = self.model_copy()
        build._made_by = label_run
        return build

    def former_runs(self) -> tuple[LabelRun, ...]:
        """Label runs of earlier versions of the annotator, by the same settings: what they labelled is not made anew.

        More than one: a setting may have been left at a former default, or set to what is the default now.
        """
        vlm = self.stages.vlm
        if self.annotator != "vlm" or not vlm.keep_labels:
            return ()
        defaults = VlmConfig().identity()
        run = self.label_run()
        return tuple(
            former for version in FORMER_VLM for former in version.label_runs(run, defaults)
        )

    def label_run(self) -> LabelRun:
        """The label run of the segments of every run."""
        return self._made_by or annotator_named(self.annotator).label_run_of(self)

    def transfer_run(self) -> LabelRun:
        """The label run of what is labelled like references."""
        return annotator_named("transfer").label_run_of(self)


# What a workspace keeps of its builds

# By dataset its configuration as JSON, and a hash
type StoredBuilds = Mapping[str, tuple[str, str]]


def stored_build(lake: Lake, dataset: str) -> DatasetBuild | None:
    """The configuration that a dataset was last built with; None when it never was. Raises UserError."""
    return parsed(stored_builds(lake), dataset)


def last_builds(lake: Lake) -> dict[str, DatasetBuild]:
    """By dataset the configuration that it was last built with. Raises UserError."""
    return {name: _parsed(name, text) for name, (text, _) in stored_builds(lake).items()}


def parsed(stored: StoredBuilds, dataset: str) -> DatasetBuild | None:
    """The configuration of one of `stored_builds`; None where it is none of them. Raises UserError."""
    if dataset not in stored:
        return None
    text, _ = stored[dataset]
    return _parsed(dataset, text)


def _parsed(dataset: str, text: str) -> DatasetBuild:
    """The configuration that a dataset was last built with, of its JSON.

    Settings that an earlier version had and this one has not are left out. Raises UserError for a value that this
    version refuses.
    """
    try:
        return DatasetBuild.model_validate_json(text, extra="ignore")
    except ValidationError as e:
        problem = f"the configuration that {dataset} was last built with is refused by this version"
        raise UserError(
            f"{problem}: {validation_message(e)}; build it again with its configuration"
        ) from e


def built(lake: Lake, dataset: str) -> DatasetBuild:
    """The configuration that a dataset was last built with, which somebody names. Raises UserError: it never was."""
    stored = stored_builds(lake)
    build = parsed(stored, dataset)
    if build is None:
        built_names = ", ".join(stored) or "none yet"
        raise UserError(
            f"there is no dataset {dataset!r}; built: {built_names}{did_you_mean(dataset, list(stored))}"
        )
    return build


def config_rows(builds: Sequence[DatasetBuild]) -> pa.Table:
    """Rows of `build_configs`: what some datasets are built with now."""
    created_at = datetime.now(UTC)
    rows = [
        {
            "dataset": b.name,
            "config_hash": b.hash(),
            "config": b.model_dump_json(),
            "created_at": created_at,
        }
        for b in builds
    ]
    return TABLES["build_configs"].rows(rows)


def store_changed(lake: Lake, builds: Sequence[DatasetBuild]) -> bool:
    """Store builds that the lake has otherwise, or with their source at another place; were there any?"""
    stored = stored_builds(lake)
    changed = {build.name: build for build in builds if not _is_stored(stored, build)}
    if not changed:
        return False
    names = ", ".join(changed)
    lake.upsert(f"configuration of {names}", build_configs=config_rows([*changed.values()]))
    rows = lake.dicts("FROM datasets WHERE list_contains(?, dataset)", [list(changed)])
    rows_with_source = [
        row | {"source_uri": changed[row["dataset"]].dataset.source} for row in rows
    ]
    lake.upsert(f"place of {names}", datasets=TABLES["datasets"].rows(rows_with_source))
    return True


def _is_stored(stored: StoredBuilds, build: DatasetBuild) -> bool:
    """Was the dataset last built with this configuration, and from this source?"""
    _, config_hash = stored.get(build.name, ("", ""))
    if config_hash != build.hash():
        return False
    former = parsed(stored, build.name)
    if former is None or former.dataset.source != build.dataset.source:
        return False
    return former.stages.checks == build.stages.checks


def resolve(lake: Lake | None, build: DatasetBuild, *, update: bool = False) -> DatasetBuild:
    """The build as this workspace has to run it, `settled` and as it is listed; without a workspace: as it is."""
    if lake is None:
        return build
    with lake.reading():
        [settled_build] = settled(lake, [build], stored_builds(lake), update=update)
        return settled_build.as_listed(*steps_and_references(lake, build.name))


def present_builds(lake: Lake) -> dict[str, DatasetBuild]:
    """Every dataset's build as it was built last, resolved: as a build of today would run it."""
    with lake.reading():
        stored = stored_builds(lake)
        last = [_parsed(name, text) for name, (text, _) in stored.items()]
        builds = settled(lake, last, stored)
        return {
            build.name: build.as_listed(*steps_and_references(lake, build.name)) for build in builds
        }


def settled(
    lake: Lake,
    builds: Iterable[DatasetBuild],
    stored: StoredBuilds,
    *,
    update: bool = False,
) -> list[DatasetBuild]:
    """Builds with what does not change any more: chunk size is fixed for good, and a selection only grows.

    stored: the lake's `stored_builds`.

    Building some episodes never drops those built before. A hub's dataset is read at the commit that it was read at
    before; `update`: at the newest of its revision. Raises UserError for settings that do not change any more.
    """
    chunk_sizes = dict(lake.rows("SELECT dataset, chunk_size FROM datasets"))
    return [_settled(build, stored, chunk_sizes, update=update) for build in builds]


def _settled(
    build: DatasetBuild,
    stored: StoredBuilds,
    chunk_sizes: Mapping[str, int],
    *,
    update: bool,
) -> DatasetBuild:
    former = parsed(stored, build.name)
    dataset = build.dataset
    if build.name in chunk_sizes:
        size = chunk_sizes[build.name]
        _check_settled(build, size, former)
        dataset = dataset.model_copy(update={"chunk_size": size})
    # Once all episodes are built, they stay built, whatever is selected now
    episodes = build.episodes
    if former and episodes is not None:
        if former.episodes is None:
            episodes = None
        else:
            episodes = tuple(sorted({*former.episodes, *episodes}))
    commit = None if update else commit_read(stored, build) or build.commit
    return build.model_copy(update={"dataset": dataset, "episodes": episodes, "commit": commit})


def _check_settled(build: DatasetBuild, chunk_size: int, stored: DatasetBuild | None) -> None:
    """Raises UserError where a build states another size of chunks, or other shares of splits, than the dataset has.

    Neither changes any more: a build that took them would end otherwise than one of a fresh workspace.
    """
    remedy = "to have it otherwise, build it under another name, or remove it first (proccorpus datasets remove"
    new_chunk_size = build.dataset.chunk_size
    if "chunk_size" in build.dataset.model_fields_set and new_chunk_size != chunk_size:
        raise UserError(
            f"{build.name}: chunk_size: {new_chunk_size}, but its chunks were built with {chunk_size} episodes, "
            "for good: say "
            f"{chunk_size}, or nothing; {remedy} {build.name})"
        )
    if stored is None:
        return
    for name in SPLIT_SHARES:
        new_value = getattr(build.stages.splits, name)
        dealt = getattr(stored.stages.splits, name)
        if new_value != dealt:
            raise UserError(
                f"{build.name}: splits.{name} is {new_value} now, but its splits were dealt with {dealt}, and an "
                "episode "
                f"keeps its split: say {dealt}, or build it as it was built last (proccorpus build --dataset "
                f"{build.name}); {remedy} {build.name})"
            )


def commit_read(stored: StoredBuilds, build: DatasetBuild) -> str | None:
    """The commit that the same revision of a dataset's source was read at, or that of datasets in folders of it.

    stored: `stored_builds`.
    """
    dataset = build.dataset
    if not dataset.is_on_hub:
        return None
    for name in sorted(stored, key=lambda name: (name != build.name, name)):
        stored_config = json.loads(stored[name][0])
        source = stored_config["dataset"]["source"]
        if name == build.name:
            is_its = source == dataset.source
        else:
            is_its = source.startswith(f"{dataset.source.rstrip('/')}/")
        if (
            is_its
            and stored_config["dataset"].get("revision") == dataset.revision
            and stored_config.get("commit")
        ):
            return stored_config["commit"]
    return None


# What people configure


def load_config(path: Path) -> tuple[DatasetBuild, ...]:
    """The datasets of a build's TOML file looked up in the registry, or that of a registry file. Raises UserError."""
    if path.suffix in (".yaml", ".yml"):
        return (DatasetBuild(dataset=load_entry(path)),)
    file = read_build_file(path)
    entries = load_registry([BUILT_IN, *(path.parent / folder for folder in file.registry)])
    unknown = [name for name in file.datasets if name not in entries]
    if unknown:
        raise UserError(
            f"{path}: unknown dataset {unknown[0]}; the registry has {', '.join(sorted(entries))}"
        )
    stages = StageConfigs(**file.model_dump(exclude={"datasets", "registry", "release"}))
    return tuple(
        DatasetBuild(dataset=entries[n], stages=stages) for n in dict.fromkeys(file.datasets)
    )


def read_build_file(path: Path) -> BuildFile:
    """Raises UserError."""
    try:
        return BuildFile(**tomllib.loads(path.read_text()))
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    except ValidationError as e:
        raise UserError(f"{path}: {validation_message(e)}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{path} is not valid TOML: {e}") from e


def with_annotator(
    build: DatasetBuild,
    annotator: str,
    endpoints: Sequence[str] | None = None,
    model: str | None = None,
) -> DatasetBuild:
    """The same build with another annotator, whatever the registry says. Raises UserError for a bad endpoint."""
    changes = {k: v for k, v in {"endpoints": tuple(endpoints or ()), "model": model}.items() if v}
    try:
        vlm = VlmConfig(**build.stages.vlm.model_dump() | changes)
    except ValidationError as e:
        raise UserError(validation_message(e)) from e
    stages = build.stages.model_copy(update={"vlm": vlm})
    dataset = build.dataset.model_copy(update={"annotator": annotator})
    return build.model_copy(update={"stages": stages, "dataset": dataset})


def with_task(build: DatasetBuild, task: str) -> DatasetBuild:
    """The same build with an instruction of the episodes that have none. Raises UserError."""
    try:
        fields: dict[str, Any] = build.dataset.model_dump(exclude_unset=True) | {"task": task}
        dataset = DatasetConfig(**fields)
    except ValidationError as e:
        raise UserError(validation_message(e)) from e
    return build.model_copy(update={"dataset": dataset})


def with_samples(build: DatasetBuild, changes: Mapping[str, Any]) -> DatasetBuild:
    """The same build with other settings of the samples stage; those that are None stay."""
    settings = {name: value for name, value in changes.items() if value is not None}
    samples = build.stages.samples.model_copy(update=settings)
    return build.model_copy(update={"stages": build.stages.model_copy(update={"samples": samples})})


def source_build(
    source: Path | str,
    name: str,
    format: str | None,
    episodes: tuple[int, ...] | None,
    revision: str | None = None,
) -> DatasetBuild:
    """A build of one folder, file or address that no registry knows. Raises UserError."""
    location = str(source) if "://" in str(source) else str(Path(source).resolve())
    try:
        fields: dict[str, Any] = {
            "name": name,
            "source": location,
            "revision": revision,
            "format": format,
        }
        return DatasetBuild(dataset=DatasetConfig(**fields), episodes=episodes)
    except ValidationError as e:
        raise UserError(validation_message(e)) from e
