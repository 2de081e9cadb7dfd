"""Decide what is up to date: one answer for the command line, the build loop and Dagster's sensors."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from core.tables import STAGE_TABLES
from ingest.outcomes import BY_PERSON
from pipeline.stage import UNANSWERED, StageSpec, Step
from warehouse.lake import WHOLE_DATASET, Lake, content_key
from warehouse.lake.connection import literal
from warehouse.lake.corrections import correction_stamps
from warehouse.lake.recordings import LISTING
from warehouse.lake.references import reference_stamps

CURRENT = "current"
MISSING = "missing"
STALE = "stale"
WAITING = "waiting"
INCOMPLETE = "incomplete"  # made, but for episodes that a build asks about again
LABELS = "segments"  # the stage that makes the labels of a label run
STAMPS = {
    "corrections": correction_stamps,
    "references": reference_stamps,
}  # by what a stage reads, hashes by chunk
# Columns of stage_runs; a lake that is only looked at may be of an earlier version, without some of them
COLUMNS = (
    "^(stage|dataset|chunk|label_run|snapshot|code_version|(input|output|outcomes|others)_hash)$"
)
OUTCOMES = (
    "SELECT episode_index, (value->>'success')::BOOLEAN, value->>'file' FROM standing_statements "
    "WHERE kind = 'outcome' AND dataset = ?"
)

Specs = Sequence[StageSpec]


@dataclass(frozen=True)
class History:
    """What `stage_runs` says of some datasets, or of one chunk of them.

    runs: rows by stage, dataset, chunk and label run. newest: the label run that each stage last published for.
    """

    runs: Mapping[tuple[str, str, int, str], Mapping[str, Any]]
    newest: Mapping[tuple[str, str, int], str]

    @classmethod
    def read(cls, lake: Lake, datasets: Collection[str], chunk: int | None = None) -> "History":
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


def stage_input_hash(spec: StageSpec, *hashes: str) -> str:
    """Input hash of a stage: over its configuration, and what it reads.

    hashes: of the listing the source's fingerprint, of any other stage the outputs of those before it; what people said
    comes last.
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
            input_hash = _listing_input(
                lake, dataset, listing, fingerprints.get(dataset), recorded or {}
            )
            status = _status(recorded, input_hash)
            steps.append(Step(listing, dataset, None, status, input_hash))

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
                    outputs = {listing.name: output} if as_listed or status == CURRENT else {}
                    steps += chunk_steps(
                        dataset, chunk, of_dataset, history, outputs, of_chunk.__getitem__
                    )
    return steps


def _listing_input(
    lake: Lake,
    dataset: str,
    listing: StageSpec,
    fingerprint: str | None,
    recorded: Mapping[str, str],
) -> str:
    """`fingerprint` None: as it was, if it was listed by the same code."""
    if fingerprint is None:
        if recorded.get("code_version") == listing.code_version:
            return recorded["input_hash"]
        return ""
    return stage_input_hash(listing, fingerprint, *listing_stamps(lake, dataset))


def listing_stamps(lake: Lake, dataset: str) -> list[str]:
    """What a dataset's listing depends on, beside its source; nothing where nobody said anything.

    By the numbers that the episodes had when it was said: those do not change when recordings move.
    """
    stamps = []
    condition = f"dataset = {literal(dataset)}"
    taken_down = lake.column(f"SELECT episode_index FROM takedowns WHERE {condition}")
    if taken_down:
        episodes = "all" if None in taken_down else str(sorted(taken_down))
        stamps.append(content_key("taken down", episodes))
    if dataset in lake.datasets_in("outcome"):
        outcomes = [
            f"{episode} {success} {BY_PERSON}{file}"
            for episode, success, file in sorted(lake.rows(OUTCOMES, [dataset]))
        ]
        if outcomes:
            stamps.append(content_key("outcomes", *outcomes))
    # What later passes and people found of its recordings
    changes = lake.column(
        "SELECT recording || ' ' || what || ' ' || created_at FROM recording_changes "
        f"WHERE {condition} AND found_by <> {literal(LISTING)} ORDER BY 1"
    )
    if changes:
        stamps.append(content_key("recordings", *changes))
    return stamps


def stale_chunks(lake: Lake, specs: Mapping[str, Specs]) -> dict[str, int]:
    """By dataset the chunks that a build would make anew, of the source as it was listed last: it is not looked at."""
    stale: dict[str, set[int | None]] = {}
    for step in plan(lake, specs, {}):
        if step.status != CURRENT and step.chunk is not None:
            stale.setdefault(step.dataset, set()).add(step.chunk)
    return {dataset: len(chunks) for dataset, chunks in stale.items()}


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
    listed = history.runs[specs[0].name, dataset, chunk, ""]
    present = {specs[0].name}
    inputs: dict[str, tuple[str, ...]] = {specs[0].name: ()}
    for spec in _with_kept_labels(specs[1:], dataset, chunk, history):
        stage = spec.stage
        recorded = history.runs.get((spec.name, dataset, chunk, spec.label_run))
        # Some chunks have a stage only because people said something of them. What it made while there was a reason
        # for it has to go, and a stage that a chunk does not have is not waited for
        is_optional = any(kind in STAMPS for kind in stage.reads)
        stamp = "".join(stamp_of(kind) for kind in stage.reads if kind in STAMPS)
        if is_optional and not stamp and recorded is None:
            continue
        present.add(spec.name)
        upstream = [name for name in stage.upstream if name in present]
        inputs[spec.name] = _all_inputs(inputs, upstream)
        # Its input is not settled yet
        if any(name not in outputs for name in upstream):
            yield Step(spec, dataset, chunk, WAITING, "")
            continue

        # What people said is no stage's output, yet changes this stage's input
        other_hashes = [
            listed.get(f"{kind}_hash") for kind in ("outcomes", "others") if kind in stage.reads
        ]
        upstream_hashes = [outputs[name] for name in upstream]
        input_hash = stage_input_hash(spec, *upstream_hashes, *filter(None, [*other_hashes, stamp]))
        status = _status(recorded, input_hash)
        # The rows of this label run may be as they should be while those of another run count
        counts = history.newest.get((spec.name, dataset, chunk)) == spec.label_run
        if "active_runs" in STAGE_TABLES[spec.name] and status == CURRENT and not counts:
            status = STALE
        # What rests on an incomplete stage is made of the episodes that it has
        if recorded is not None and status in (CURRENT, INCOMPLETE):
            outputs[spec.name] = recorded["output_hash"]
        yield Step(spec, dataset, chunk, status, input_hash, stamp, inputs[spec.name])


def _with_kept_labels(specs: Specs, dataset: str, chunk: int, history: History) -> list[StageSpec]:
    """The stages of a chunk: where it has labels by a former version, and none by the present one, under that run."""
    kept_specs = list(specs)
    for place, spec in enumerate(specs):
        runs = (spec, *spec.former)
        stored_specs = (s for s in runs if (LABELS, dataset, chunk, s.label_run) in history.runs)
        kept_specs[place] = next(stored_specs, spec) if spec.former else spec
    return kept_specs


def _all_inputs(inputs: Mapping[str, tuple[str, ...]], upstream: Sequence[str]) -> tuple[str, ...]:
    """The stages that some stages read, whatever lies between, and these themselves, each once."""
    return tuple(dict.fromkeys(chain.from_iterable((*inputs[name], name) for name in upstream)))


def _status(recorded: Mapping[str, str] | None, input_hash: str) -> str:
    if recorded is None:
        return MISSING
    if recorded["input_hash"] == input_hash:
        return CURRENT
    if recorded["input_hash"] == UNANSWERED + input_hash:
        return INCOMPLETE
    return STALE
