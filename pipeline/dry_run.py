"""What a build would do, and why, by the plan that it would follow. Writes nothing, also no fetched list of files."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.values import grouped
from pipeline.config import DatasetBuild, resolve, stored_build
from pipeline.plan import (
    CURRENT,
    INCOMPLETE,
    PREREQUISITES,
    WAITING,
    History,
    plan,
)
from pipeline.sources import OUT_OF_REACH
from pipeline.stages import LISTING, Step, stage_specs
from warehouse.lake import WHOLE_DATASET, Lake

NEW = "made"
AGAIN = "made again"
MAYBE = "made again if what it reads changes"
# Inputs of a stage (`Step.inputs`) that are others than they were, in words; those not here are outputs of stages
WORDS = {
    "source": "files of the source changed",
    "taken down": "episodes were taken down, or are back",
    "outcomes": "people said how runs ended",
    "recordings": "episodes were found to be other recordings",
    "rows": "its episodes, or files of their rows, changed",
    "pictures": "its episodes, or their videos, changed",
    "text": "texts of its episodes changed",
    "steps": "steps of the source changed",
    "splits": "its episodes have other splits",
    "unusable": "other episodes are left out",
    "outcome": "outcomes are known that were not",
    "others": "runs of other tasks changed",
    "corrections": "people corrected labels",
    "references": "people showed runs that others follow",
    "joined_tasks": "people joined texts to one task, or parted them",
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
            changes = _changes(resolve(lake, former), resolved)
            of_built, stay = _of_built(lake, resolved, fingerprint, changes)
            work += of_built
            up_to_date += stay
    return Foreseen(work, up_to_date, notes)


def _of_new(build: DatasetBuild) -> Iterator[PlannedWork]:
    """All stages of a dataset that was never built."""
    for spec in stage_specs(build):
        # What follows from what people said is not there yet
        if not PREREQUISITES.isdisjoint(spec.stage.reads):
            continue
        yield PlannedWork(build.name, spec.name, NEW, None, "the dataset was not built yet")


def _of_built(
    lake: Lake, build: DatasetBuild, fingerprint: str | None, changes: Mapping[str, str]
) -> tuple[list[PlannedWork], int]:
    """Work on a dataset that was built, steps of one stage and reason as one; and how many stay. See `_reason`."""
    fingerprints = {} if fingerprint is None else {build.name: fingerprint}
    steps = plan(lake, {build.name: stage_specs(build)}, fingerprints, as_listed=True)
    outdated = grouped((step.chunk, step.stage.name) for step in steps if step.status != CURRENT)
    # A new listing may find another thing in a chunk, whose stages are current as it was listed last
    to_do = [s for s in steps if s.status != CURRENT or (s.chunk is not None and None in outdated)]
    history = History.read(lake, [build.name])
    counts = Counter[tuple[str, str, str]]()
    for step in to_do:
        # By whichever label run it was published last
        place = step.stage.name, step.dataset, WHOLE_DATASET if step.chunk is None else step.chunk
        recorded = history.runs.get((*place, history.newest.get(place, "")))
        missing = {*outdated.get(step.chunk, ()), *outdated.get(None, ())}
        counts[step.stage.name, *_reason(step, recorded, changes, missing)] += 1
    work = [
        PlannedWork(build.name, stage, action, None if stage == LISTING.name else count, reason)
        for (stage, action, reason), count in counts.items()
    ]
    return work, len(steps) - len(to_do)


def _reason(
    step: Step, recorded: Mapping[str, Any] | None, changes: Mapping[str, str], outdated: set[str]
) -> tuple[str, str]:
    """What is done of a step (NEW, AGAIN, MAYBE), and why: the inputs that are others than when it was published.

    changes: settings that changed, in words. outdated: the stages of its chunk, and of its dataset, that are.
    """
    settings = [words for name, words in changes.items() if _is_below(name, step.stage.settings)]
    is_settled = step.status not in (WAITING, CURRENT)
    if recorded is None:
        action = NEW
        of_people = " or ".join(WORDS[kind] for kind in step.stage.reads if kind in PREREQUISITES)
        reasons = settings or ([of_people or "it was not made yet"] if is_settled else [])
    else:
        reasons = _differences(step, recorded, settings)
        action = AGAIN if is_settled or reasons else MAYBE
    if reasons:
        return action, "; ".join(reasons)
    if step.status == INCOMPLETE:
        return action, "some episodes were left out, and are asked about again"
    if not is_settled:
        upstream = dict.fromkeys((*step.stage.upstream, *step.rests_on))
        return action, f"it rests on {', '.join(name for name in upstream if name in outdated)}"
    if step.chunk is None:
        return action, "files of the source changed, or what people said of its runs"
    return action, "what it reads changed since it was made, or what it made is not there any more"


def _differences(step: Step, recorded: Mapping[str, Any], settings: Sequence[str]) -> list[str]:
    """The inputs of a step that are others than those that it was published with, in words.

    Of a step that waits, or may be run, and of what an earlier version published only settings and code version count.
    """
    recorded_inputs = json.loads(recorded.get("inputs") or "{}")
    if recorded_inputs and step.status not in (WAITING, CURRENT):
        names = sorted(recorded_inputs.keys() | step.inputs.keys())
    else:
        names = list(step.spec.inputs)
    recorded_inputs = recorded_inputs or {"code version": recorded["code_version"]}
    changed = [name for name in names if recorded_inputs.get(name) != step.inputs.get(name)]
    reasons = [*settings] if "settings" in changed else []
    # Other labels are of another version anyway
    if "code version" in changed and not (reasons and step.spec.label_run):
        reasons.append(
            f"its version is {step.spec.code_version}, was {recorded_inputs['code version']}"
        )
    read = [name for name in changed if name not in step.spec.inputs]
    return reasons + [WORDS.get(name, f"{name} changed since it was made") for name in read]


def _is_below(name: str, paths: Sequence[str]) -> bool:
    """Is a setting one of some sections, or in one?"""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def _changes(former: DatasetBuild, build: DatasetBuild) -> dict[str, str]:
    """The settings in which two builds differ, each in words: "dataset.fps is 20.0, was not set"."""
    before = dict(_leaves(json.loads(former.identity())))
    after = dict(_leaves(json.loads(build.identity())))
    return {
        name: f"{name} is {_in_words(after.get(name))}, was {_in_words(before.get(name))}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }


def _in_words(value: Any) -> str:
    return "not set" if value in (None, []) else str(value)


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a build by their paths, such as stages.motion.gripper_swing."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
