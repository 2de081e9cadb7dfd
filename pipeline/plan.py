"""What is up to date, and what is not: one answer for the command line, the build loop and Dagster's sensors."""

from collections.abc import Mapping
from dataclasses import dataclass

from warehouse.lake import WHOLE_DATASET, Lake, content_key
from warehouse.lake.corrections import correction_stamps
from warehouse.releases.takedown import takedown_stamp

CURRENT, MISSING, STALE, WAITING = "current", "missing", "stale", "waiting"
CORRECTIONS = "corrections"  # the one stage that only some chunks have: those that people said something of


@dataclass(frozen=True)
class StageSpec:
    """One stage under one configuration. `label_run` is empty for stages whose rows belong to no label run.

    `last_counts`: the stage also says which label run counts, so of several runs only the last is current.
    """

    name: str
    upstream: tuple[str, ...]
    code_version: str
    config_hash: str
    label_run: str = ""
    last_counts: bool = False


@dataclass(frozen=True)
class Step:
    """One stage on one partition; `chunk` None means the dataset as a whole."""

    stage: str
    dataset: str
    chunk: int | None
    status: str
    input_hash: str  # empty while an upstream stage is not current


def dataset_input(spec: StageSpec, fingerprint: str, takedowns: str = "") -> str:
    """Input hash of the stage that reads the source itself; `takedowns` is empty where nothing is taken down."""
    parts = [fingerprint, takedowns] if takedowns else [fingerprint]
    return content_key(spec.name, spec.code_version, spec.config_hash, *parts)


def chunk_input(spec: StageSpec, upstream_hashes: list[str]) -> str:
    """Input hash of any other stage; that of CORRECTIONS has what people said as its last upstream hash."""
    return content_key(spec.name, spec.code_version, spec.config_hash, *upstream_hashes)


def plan(
    lake: Lake,
    specs: Mapping[str, tuple[StageSpec, ...]],
    fingerprints: Mapping[str, str],
    only_chunk: int | None = None,
) -> list[Step]:
    """The state of every stage on every partition of the named datasets, in an order in which they can be run.

    `specs` gives each dataset's stages, the one that reads the source first; `fingerprints` the present state of each
    source; what is taken down counts as a part of the source. A chunk without corrections has no such stage, and those
    after it do without. Reads stage_runs once (all of it: 4,800 rows are 15 ms).
    """
    rows = lake.rows(
        "SELECT stage, dataset, chunk, label_run, input_hash, output_hash FROM stage_runs ORDER BY snapshot"
    )
    runs = {(stage, dataset, chunk, run): (given, made) for stage, dataset, chunk, run, given, made in rows}
    last = {(stage, dataset, chunk): run for stage, dataset, chunk, run, _, _ in rows}
    steps = []
    for dataset, stages in specs.items():
        first, rest = stages[0], stages[1:]
        wanted = dataset_input(first, fingerprints[dataset], takedown_stamp(lake, dataset))
        done = runs.get((first.name, dataset, WHOLE_DATASET, ""))
        steps.append(Step(first.name, dataset, None, _status(done, wanted), wanted))
        ready = steps[-1].status == CURRENT
        said = correction_stamps(lake, dataset)
        chunks = sorted(c for s, d, c, _ in runs if s == first.name and d == dataset and c != WHOLE_DATASET)
        for chunk in chunks:
            if only_chunk in (None, chunk):
                steps += _plan_chunk(dataset, chunk, first, rest, runs, last, said.get(chunk), ready=ready)
    return steps


def _plan_chunk(
    dataset: str,
    chunk: int,
    first: StageSpec,
    rest: tuple[StageSpec, ...],
    runs: dict,
    last: dict,
    said: str | None,
    *,
    ready: bool,
) -> list[Step]:
    outputs = {first.name: runs[(first.name, dataset, chunk, "")][1]} if ready else {}
    steps = []
    for spec in rest:
        upstream = [u for u in spec.upstream if u != CORRECTIONS or said]
        if spec.name == CORRECTIONS and said is None:
            continue
        if any(u not in outputs for u in upstream):
            steps.append(Step(spec.name, dataset, chunk, WAITING, ""))
            continue
        hashes = [outputs[u] for u in upstream]
        wanted = chunk_input(spec, [*hashes, said] if said and spec.name == CORRECTIONS else hashes)
        done = runs.get((spec.name, dataset, chunk, spec.label_run))
        status = _status(done, wanted)
        if status == CURRENT and spec.last_counts and last[spec.name, dataset, chunk] != spec.label_run:
            status = STALE
        if status == CURRENT and done:
            outputs[spec.name] = done[1]
        steps.append(Step(spec.name, dataset, chunk, status, wanted))
    return steps


def _status(done: tuple[str, str] | None, wanted: str) -> str:
    if done is None:
        return MISSING
    return CURRENT if done[0] == wanted else STALE
