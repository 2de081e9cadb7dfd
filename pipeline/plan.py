"""Decide what is up to date: one answer for the command line, the build loop and Dagster's sensors.

A stage is current while all that its output depends on (`Step.inputs`) has the hash that it was published with.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from core.tables import STAGE_TABLES
from core.values import grouped
from ingest.outcomes import BY_PERSON
from pipeline.stages import UNANSWERED, StageSpec, Step
from warehouse.lake import WHOLE_DATASET, Lake, content_key
from warehouse.lake.connection import LakeConnection, literal
from warehouse.lake.corrections import correction_stamps
from warehouse.lake.recordings import LISTING
from warehouse.lake.references import joined_stamps, reference_stamps

CURRENT = "current"
MISSING = "missing"
STALE = "stale"
WAITING = "waiting"
INCOMPLETE = "incomplete"  # made, but for episodes that a build asks about again
LABELS = "segments"  # the stage that makes the labels of a label run
STAMPS = {
    "corrections": correction_stamps,
    "references": reference_stamps,
    "joined_tasks": joined_stamps,
}  # by what a stage reads, hashes by chunk
PREREQUISITES = {"corrections", "references"}  # a chunk without these has no stage that reads them
# Columns of stage_runs; a lake that is only looked at may be of an earlier version, without some of them
COLUMNS = (
    "^(stage|dataset|chunk|label_run|code_version|inputs|(input|output|outcomes|others)_hash)$"
)
OUTCOMES = (
    "SELECT episode_index, (value->>'success')::BOOLEAN, value->>'file' FROM standing_statements "
    "WHERE kind = 'outcome' AND dataset = ?"
)

canonical = json.JSONEncoder(sort_keys=True).encode
Specs = Sequence[StageSpec]


@dataclass(frozen=True)
class History:
    """What `stage_runs` says of some datasets, or of one chunk of them.

    runs: rows by stage, dataset, chunk and label run. newest: the label run that each stage last published for.
    """

    runs: Mapping[tuple[str, str, int, str], Mapping[str, Any]]
    newest: Mapping[tuple[str, str, int], str]

    @classmethod
    def read(
        cls, lake: LakeConnection, datasets: Collection[str], chunk: int | None = None
    ) -> "History":
        condition = "" if chunk is None else f" AND chunk IN ({WHOLE_DATASET}, {chunk})"
        rows = lake.dicts(
            f"SELECT COLUMNS('{COLUMNS}') FROM stage_runs WHERE list_contains("
            f"[{', '.join(map(literal, sorted(datasets)))}]::VARCHAR[], dataset){condition} ORDER BY snapshot"
        )
        places = [(row["stage"], row["dataset"], row["chunk"], row["label_run"]) for row in rows]
        newest = {
            (stage, dataset, number): label_run for stage, dataset, number, label_run in places
        }
        return cls(dict(zip(places, rows, strict=True)), newest)


def hash_of(inputs: Mapping[str, str]) -> str:
    """The input hash of a stage: over all that its output depends on, by name."""
    return hashlib.sha256(canonical(inputs).encode()).hexdigest()


def former_hash(spec: StageSpec, hashes: Iterable[str]) -> str:
    """The input hash of a stage as versions computed it that kept no inputs: what they made stays.

    hashes: of a listing the source's fingerprint and what people said; of any other stage all that the listing says of
    its chunk, the outputs of the stages before it, outcomes, other runs, what people said.
    """
    return content_key(spec.name, spec.code_version, spec.config_hash, *hashes)


def plan(
    lake: Lake,
    specs: Mapping[str, Specs],
    fingerprints: Mapping[str, str],
    only_chunk: int | None = None,
    *,
    as_listed: bool = False,
) -> list[Step]:
    """The state of every stage on every partition of the named datasets, in an order in which they can be run.

    specs: each dataset's stages (`pipeline.stages.stage_specs`), the one that reads the source first.
    fingerprints: the present state of each source, where it is known; else it is taken to be as it was listed. What is
    taken down, and outcomes that people gave, count as a part of the source.
    only_chunk: leave the other chunks out.
    as_listed: chunks are taken as they were listed last, also where the listing has to be made again: what a build will
    do if it finds the same in them. Else nobody knows what they hold, and all their stages wait.

    Reads of stage_runs and of what people said only what concerns these datasets, and all of one state of the lake.
    """
    steps: list[Step] = []
    with lake.reading():
        history = History.read(lake, specs)
        for dataset, of_dataset in specs.items():
            listing = of_dataset[0]
            recorded = history.runs.get((listing.name, dataset, WHOLE_DATASET, ""))
            step = _listing_step(lake, dataset, listing, fingerprints.get(dataset), recorded)
            steps.append(step)

            stamps = _stamps(lake, dataset, of_dataset)
            chunks = {
                chunk
                for stage, name, chunk, _ in history.runs
                if (stage, name) == (listing.name, dataset)
            }
            for chunk in sorted(chunks - {WHOLE_DATASET}):
                if only_chunk in (None, chunk):
                    of_chunk = {kind: by_chunk.get(chunk, "") for kind, by_chunk in stamps.items()}
                    output = history.runs[listing.name, dataset, chunk, ""]["output_hash"]
                    is_known = as_listed or step.status == CURRENT
                    outputs = {listing.name: output} if is_known else {}
                    steps += chunk_steps(
                        dataset, chunk, of_dataset, history, outputs, of_chunk.__getitem__
                    )
    return steps


def _listing_step(
    lake: Lake,
    dataset: str,
    listing: StageSpec,
    fingerprint: str | None,
    recorded: Mapping[str, str] | None,
) -> Step:
    """`fingerprint` None: the source is as it was, if it was listed by the same code."""
    if fingerprint is None:
        if recorded is None or recorded["code_version"] != listing.code_version:
            status = MISSING if recorded is None else STALE
            return Step(listing, dataset, None, status, "", listing.inputs)
        return Step(listing, dataset, None, CURRENT, recorded["input_hash"], listing.inputs)
    read = {"source": fingerprint} | _listing_stamps(lake, dataset)
    inputs = listing.inputs | read
    input_hash = hash_of(inputs)
    former = partial(former_hash, listing, read.values())
    status = _status(recorded, input_hash, former)
    return Step(listing, dataset, None, status, input_hash, inputs)


def _listing_stamps(lake: Lake, dataset: str) -> dict[str, str]:
    """What a dataset's listing depends on beside its source, by what people say; nothing where nobody said anything.

    By the numbers that the episodes had when it was said: those do not change when recordings move.
    """
    return {
        name: content_key(name, *texts)
        for name, read in BESIDE_SOURCE.items()
        if (texts := read(lake, dataset))
    }


def _takedowns(lake: Lake, dataset: str) -> list[str]:
    sql = f"SELECT episode_index FROM takedowns WHERE dataset = {literal(dataset)}"
    episodes = lake.column(sql)
    if None in episodes:
        return ["all"]
    return [str(sorted(episodes))] if episodes else []


def _outcomes(lake: Lake, dataset: str) -> list[str]:
    if dataset not in lake.datasets_in("outcome"):
        return []
    rows = sorted(lake.rows(OUTCOMES, [dataset]))
    return [f"{episode} {success} {BY_PERSON}{file}" for episode, success, file in rows]


def _recording_changes(lake: Lake, dataset: str) -> list[str]:
    """What later passes and people found of its recordings."""
    return lake.column(
        "SELECT recording || ' ' || what || ' ' || created_at FROM recording_changes "
        f"WHERE dataset = {literal(dataset)} AND found_by <> {literal(LISTING)} ORDER BY 1"
    )


BESIDE_SOURCE = {
    "taken down": _takedowns,
    "outcomes": _outcomes,
    "recordings": _recording_changes,
}


def stale_chunks(lake: Lake, specs: Mapping[str, Specs]) -> dict[str, int]:
    """By dataset the chunks that a build would make anew, of the source as it was listed last: it is not looked at."""
    stale = grouped(
        (step.dataset, step.chunk)
        for step in plan(lake, specs, {})
        if step.status != CURRENT and step.chunk is not None
    )
    return {dataset: len(set(chunks)) for dataset, chunks in stale.items()}


def _stamps(lake: Lake, dataset: str, specs: Specs) -> dict[str, dict[int, str]]:
    """Hashes by chunk of what people said of a dataset, by what its stages read of that."""
    kinds = {kind for spec in specs for kind in spec.stage.reads if kind in STAMPS}
    return {kind: STAMPS[kind](lake, dataset) for kind in sorted(kinds)}


def chunk_steps(
    dataset: str,
    chunk: int,
    specs: Specs,
    history: History,
    outputs: dict[str, str],
    stamp_of: Callable[[str], str],
) -> Iterator[Step]:
    """The steps of a chunk, one at a time, after that of the listing (the first of `specs`).

    outputs: the output hash of each stage that is current, the listing's to begin with. Who runs a step puts its new
    output there before taking the next one, which waits otherwise.
    stamp_of: a hash of what people said of the chunk; empty: nothing. Asked when a stage that reads it comes.
    """
    fields = _fields(history.runs[specs[0].name, dataset, chunk, ""])
    present = {specs[0].name}
    rests_on: dict[str, tuple[str, ...]] = {specs[0].name: ()}
    for spec in _with_kept_labels(specs[1:], dataset, chunk, history):
        stage = spec.stage
        recorded = history.runs.get((spec.name, dataset, chunk, spec.label_run))
        # Some chunks have a stage only because people said something of them. What it made while there was a reason
        # for it has to go, and a stage that a chunk does not have is not waited for
        of_people = [kind for kind in stage.reads if kind in STAMPS]
        stamps = {kind: stamp for kind in of_people if (stamp := stamp_of(kind))}
        if not stamps and recorded is None and not PREREQUISITES.isdisjoint(of_people):
            continue
        present.add(spec.name)
        upstream = [name for name in stage.upstream if name in present]
        rests_on[spec.name] = _all_inputs(rests_on, upstream)
        # Its input is not settled yet
        if any(name not in outputs for name in upstream):
            yield Step(spec, dataset, chunk, WAITING, "", spec.inputs, rests_on[spec.name])
            continue

        upstream_hashes = {name: outputs[name] for name in upstream}
        inputs, input_hash, former = _inputs(spec, fields, upstream_hashes, stamps)
        status = _status(recorded, input_hash, former)
        # The rows of this label run may be as they should be while those of another run count
        counts = history.newest.get((spec.name, dataset, chunk)) == spec.label_run
        if "active_runs" in STAGE_TABLES[spec.name] and status == CURRENT and not counts:
            status = STALE
        # What rests on an incomplete stage is made of the episodes that it has
        if recorded is not None and status in (CURRENT, INCOMPLETE):
            outputs[spec.name] = recorded["output_hash"]
        yield Step(spec, dataset, chunk, status, input_hash, inputs, rests_on[spec.name])


def _fields(listed: Mapping[str, Any]) -> dict[str, str]:
    """The hash of each field of a chunk, by its line of `stage_runs`; earlier versions had one over most of them."""
    if stated := listed.get("inputs"):
        return json.loads(stated)
    hashes = {
        "episodes": listed["output_hash"],
        "outcome": listed.get("outcomes_hash"),
        "others": listed.get("others_hash"),
    }
    return {name: value for name, value in hashes.items() if value}


def _inputs(
    spec: StageSpec,
    fields: Mapping[str, str],
    upstream: Mapping[str, str],
    stamps: Mapping[str, str],
) -> tuple[dict[str, str], str, Callable[[], str]]:
    """The inputs of a stage of a chunk, their hash, and what gives the one that earlier versions published it with."""
    read = {name: fields[name] for name in spec.stage.reads if name in fields}
    beside = [read[name] for name in ("outcome", "others") if name in read]
    former = partial(former_hash, spec, [*upstream.values(), *beside, *stamps.values()])
    inputs = {**spec.inputs, **upstream, **read, **stamps}
    if "episodes" in fields:
        return inputs, former(), former
    # The listing's output is over all fields
    inputs.pop("episodes", None)
    return inputs, hash_of(inputs), former


def _with_kept_labels(specs: Specs, dataset: str, chunk: int, history: History) -> list[StageSpec]:
    """The stages of a chunk: where it has labels by a former version, and none by the present one, under that run."""
    kept_specs = list(specs)
    for place, spec in enumerate(specs):
        runs = (spec, *spec.former)
        stored_specs = (s for s in runs if (LABELS, dataset, chunk, s.label_run) in history.runs)
        kept_specs[place] = next(stored_specs, spec) if spec.former else spec
    return kept_specs


def _all_inputs(
    rests_on: Mapping[str, tuple[str, ...]], upstream: Sequence[str]
) -> tuple[str, ...]:
    """The stages that some stages read, whatever lies between, and these themselves, each once."""
    return tuple(dict.fromkeys(chain.from_iterable((*rests_on[name], name) for name in upstream)))


def _status(recorded: Mapping[str, str] | None, input_hash: str, former: Callable[[], str]) -> str:
    """`former`: the hash that an earlier version may have published it with; asked where it is not the present one."""
    if recorded is None:
        return MISSING
    published = recorded["input_hash"].removeprefix(UNANSWERED)
    if published != input_hash and published != former():
        return STALE
    return CURRENT if published == recorded["input_hash"] else INCOMPLETE
