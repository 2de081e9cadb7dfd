"""What a build would do, and why, by the plan that it would follow. Writes nothing, also no fetched list of files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.config import DatasetBuild, resolve, stored_build
from pipeline.plan import (
    CURRENT,
    INCOMPLETE,
    STAMPS,
    WAITING,
    History,
    Specs,
    listing_stamps,
    plan,
    stage_input_hash,
)
from pipeline.sources import OUT_OF_REACH
from pipeline.stage import StageSpec, Step
from pipeline.stages import stage_specs
from warehouse.lake import WHOLE_DATASET, Lake

NEW = "made"
AGAIN = "made again"
MAYBE = "made again if what it reads changes"
# Settings that say where something lies, or when it is done: nothing is made again because of them
PLACES = {
    "dataset.source",
    "stages.shards.store",
    "stages.vlm.endpoints",
    "stages.embeddings.device",
    "commit",
}
# What a stage reads beside other stages, in words
SAID_BY_PEOPLE = {
    "corrections": "people corrected labels",
    "references": "people showed runs that others follow",
    "outcomes": "outcomes are known that were not",
    "others": "runs of other tasks changed",
}


@dataclass(frozen=True)
class PlannedWork:
    """What a build would do of one stage of a dataset, or may do.

    what: NEW, AGAIN or MAYBE. chunks: how many of them, None: the dataset as a whole, or nobody knows yet. why: one
    sentence, of all of these chunks.
    """

    dataset: str
    stage: str
    what: str
    chunks: int | None
    why: str


@dataclass(frozen=True)
class Foreseen:
    """What a build would do.

    work: in the order in which it would be done. up_to_date: stages that stay. notes: what could not be looked at.
    """

    work: list[PlannedWork]
    up_to_date: int
    notes: list[str]


@dataclass(frozen=True)
class Change:
    """A setting that a build changes, by its path; `build`: the former one with this change alone."""

    name: str
    before: Any
    after: Any
    build: DatasetBuild

    @property
    def words(self) -> str:
        """Example: "dataset.fps is 20.0, was not set"."""
        return f"{self.name} is {_in_words(self.after)}, was {_in_words(self.before)}"


def _in_words(value: Any) -> str:
    if value is None or value == []:
        return "not set"
    return str(value)


def foresee(lake: Lake | None, builds: Sequence[DatasetBuild], *, update: bool = False) -> Foreseen:
    """What a build of these datasets would do. `lake` None: there is no workspace yet.

    Chunks are taken as they were listed last: what the source holds besides shows when it is listed. Raises
    SourceError and OSError where there is nothing but a source, and it is out of reach.
    """
    work: list[PlannedWork] = []
    notes: list[str] = []
    up_to_date = 0
    with TemporaryDirectory() as folder:
        for build in builds:
            resolved = resolve(lake, build, update=update)
            former = stored_build(lake, build.name) if lake else None
            try:
                fingerprint = resolved.source(Path(folder)).fingerprint()
            except OUT_OF_REACH as e:
                if former is None:
                    raise
                notes.append(f"{build.name}: {e}; taken as it was listed last")
                fingerprint = None
            if lake is None or former is None:
                work += _of_new(resolved)
                continue
            of_dataset = _Reasons(lake, resolve(lake, former), resolved, fingerprint)
            steps = of_dataset.steps()
            to_do = [step for step in steps if of_dataset.may_be_run(step)]
            up_to_date += len(steps) - len(to_do)
            work += _grouped(of_dataset, to_do)
    return Foreseen(work, up_to_date, notes)


def _of_new(build: DatasetBuild) -> Iterator[PlannedWork]:
    """All stages of a dataset that was never built."""
    for spec in stage_specs(build):
        # What follows from what people said is not there yet
        if STAMPS.keys() & set(spec.stage.reads):
            continue
        yield PlannedWork(build.name, spec.name, NEW, None, "the dataset was not built yet")


def _grouped(reasons: "_Reasons", outdated: Sequence[Step]) -> Iterator[PlannedWork]:
    """Steps of one stage and reason as one, in order."""
    chunks: dict[tuple[str, str, str], int | None] = {}
    for step in outdated:
        key = step.stage.name, reasons.what(step), reasons.why(step)
        chunks[key] = None if step.chunk is None else (chunks.get(key) or 0) + 1
    for (stage, action, reason), number in chunks.items():
        yield PlannedWork(reasons.build.name, stage, action, number, reason)


class _Reasons:
    """Why the steps of one dataset are outdated: which settings, versions or inputs changed since it was built."""

    def __init__(
        self, lake: Lake, former: DatasetBuild, build: DatasetBuild, fingerprint: str | None
    ) -> None:
        self.lake = lake
        self.former = former
        self.build = build
        self.fingerprint = fingerprint
        self.specs: Specs = stage_specs(build)
        self.history = History.read(lake, [build.name])
        self.changes = list(_changes(former, build))
        self.outdated: dict[int | None, set[str]] = {}

    def steps(self) -> list[Step]:
        fingerprints = {} if self.fingerprint is None else {self.build.name: self.fingerprint}
        steps = plan(self.lake, {self.build.name: self.specs}, fingerprints, as_listed=True)
        for step in steps:
            if step.status != CURRENT:
                self.outdated.setdefault(step.chunk, set()).add(step.stage.name)
        return steps

    def may_be_run(self, step: Step) -> bool:
        """A new listing may find another thing in a chunk, whose stages are current as it was listed last."""
        return step.status != CURRENT or (step.chunk is not None and None in self.outdated)

    def what(self, step: Step) -> str:
        if self._recorded(step) is None:
            return NEW
        if step.status in (WAITING, CURRENT) and not self._own_reasons(step):
            return MAYBE
        return AGAIN

    def why(self, step: Step) -> str:
        own_reasons = self._own_reasons(step)
        if own_reasons:
            return "; ".join(own_reasons)
        if step.status == INCOMPLETE:
            return "some episodes were left out, and are asked about again"
        if step.status in (WAITING, CURRENT):
            outdated = self.outdated.get(step.chunk, set()) | self.outdated.get(None, set())
            upstream = [
                name
                for name in dict.fromkeys((*step.stage.upstream, *step.inputs))
                if name in outdated
            ]
            return f"it rests on {', '.join(upstream)}"
        if self._recorded(step) is None:
            sayings = [SAID_BY_PEOPLE[kind] for kind in step.stage.reads if kind in STAMPS]
            return " or ".join(sayings) or "it was not made yet"
        if step.chunk is None:
            return self._why_listed(step)
        return self._why_input(step)

    def _recorded(self, step: Step) -> Mapping[str, Any] | None:
        """What `stage_runs` has of the step, maybe by another label run."""
        chunk = WHOLE_DATASET if step.chunk is None else step.chunk
        place = step.stage.name, step.dataset, chunk
        label_run = step.spec.label_run
        if (*place, label_run) not in self.history.runs:
            label_run = self.history.newest.get(place, label_run)
        return self.history.runs.get((*place, label_run))

    def _own_reasons(self, step: Step) -> list[str]:
        """Settings and versions that changed, of those that the stage itself depends on."""
        reasons = [
            change.words for change in self.changes if _matters(change, self.former, step.spec)
        ]
        recorded = self._recorded(step)
        # Other labels are of another version anyway
        is_other_label = bool(reasons and step.spec.label_run)
        if (
            recorded is not None
            and recorded["code_version"] != step.spec.code_version
            and not is_other_label
        ):
            reasons.append(
                f"its version is {step.spec.code_version}, was {recorded['code_version']}"
            )
        return reasons

    def _why_listed(self, step: Step) -> str:
        """Of a listing by the same settings: whether files changed, or what people said."""
        recorded = self._recorded(step)
        name = self.build.name
        stamps = listing_stamps(self.lake, name)
        fewer = chain.from_iterable(combinations(stamps, count) for count in range(len(stamps)))
        hashes = {
            stage_input_hash(step.spec, self.fingerprint or "", *remaining) for remaining in fewer
        }
        if recorded is not None and recorded["input_hash"] in hashes:
            return "people said something of its runs (takedowns, outcomes, recordings)"
        return "files of the source changed, or what people said of its runs"

    def _why_input(self, step: Step) -> str:
        """Of a stage by the same settings: which of its inputs were made since, else what people said."""
        recorded = self._recorded(step)
        made_since = [
            name
            for name in step.stage.upstream
            if self._snapshot(name, step) > (recorded or {})["snapshot"]
        ]
        if made_since:
            return f"{', '.join(made_since)} changed since it was made"
        sayings = [SAID_BY_PEOPLE[kind] for kind in step.stage.reads]
        return " or ".join(sayings) or "what it reads changed since it was made"

    def _snapshot(self, stage: str, step: Step) -> int:
        """The snapshot in which another stage of the step's chunk was published last; -1: never."""
        chunk = WHOLE_DATASET if step.chunk is None else step.chunk
        label_run = self.history.newest.get((stage, step.dataset, chunk))
        run = self.history.runs.get((stage, step.dataset, chunk, label_run or ""))
        if run is None:
            return -1
        return run["snapshot"]


def _matters(change: Change, former: DatasetBuild, spec: StageSpec) -> bool:
    """Does a changed setting alone change what a stage makes?"""
    stage = spec.stage
    if not stage.applies(former):
        return stage.applies(change.build)
    former_spec = stage.spec(former)
    present_spec = stage.spec(change.build)
    return (former_spec.config_hash, former_spec.label_run) != (
        present_spec.config_hash,
        present_spec.label_run,
    )


def _changes(former: DatasetBuild, build: DatasetBuild) -> Iterator[Change]:
    """The settings in which two builds differ, each with the former build that it alone is changed in."""
    former_leaves = _leaves(former)
    present_leaves = _leaves(build)
    for name in sorted({*former_leaves, *present_leaves} - PLACES):
        if former_leaves.get(name) == present_leaves.get(name):
            continue
        try:
            alone = DatasetBuild.model_validate(_with_leaf(former, name, present_leaves.get(name)))
        except ValidationError:  # it goes only together with another one
            alone = build
        flags = {"brings_steps": build.brings_steps, "has_references": build.has_references}
        yield Change(
            name, former_leaves.get(name), present_leaves.get(name), alone.model_copy(update=flags)
        )


def _leaves(model: BaseModel) -> dict[str, Any]:
    """The fields of a build by their paths, such as stages.motion.gripper_swing."""
    leaves: dict[str, Any] = {}

    def add(fields: Mapping[str, Any], prefix: str) -> None:
        for name, value in fields.items():
            if isinstance(value, Mapping) and value:
                add(value, f"{prefix}{name}.")
            else:
                leaves[f"{prefix}{name}"] = value

    add(model.model_dump(mode="json"), "")
    return leaves


def _with_leaf(build: DatasetBuild, name: str, value: Any) -> dict[str, Any]:
    fields = build.model_dump(mode="json")
    *path, last = name.split(".")
    inner = fields
    for part in path:
        inner[part] = inner.get(part) or {}  # no section of it yet, as of a gripper
        inner = inner[part]
    inner[last] = value
    return fields
