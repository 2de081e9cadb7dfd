"""The episodes of a dataset as its metadata lists them: chunks, splits, recordings, findings. Decodes no episode."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding, Listing, record_row
from ingest.episodes import settled_listing
from ingest.outcomes import Outcome
from ingest.reasons import DataError
from ingest.recordings import (
    Address,
    Fingerprint,
    KnownRecording,
    Placement,
    file_digest,
    file_stamp,
    gone,
    is_unchanged,
    place,
    remembered_splits,
    rows_fingerprint,
)
from ingest.signals.gripper import GripperSignal, signal_row
from ingest.signals.survey import survey
from ingest.source import read_episode
from ingest.sources.files import Source
from ingest.sources.types import SourceError
from ingest.splits import assign_splits
from ingest.task_texts import other_tasks
from pipeline.config import DatasetBuild, config_rows, stored_build
from pipeline.pictures import episodes_figure
from pipeline.stage import ChangedSourceError, Output, Stage, StageContext
from warehouse.lake import Lake
from warehouse.lake.outcomes import outcomes_by_recording, outcomes_without_recording
from warehouse.lake.recordings import (
    LISTING,
    RecordingUpdate,
    known_recordings,
    new_id,
    recordings_with_words,
)
from warehouse.lake.statements import takedown_marks, withdrawn_reasons
from warehouse.lake.stored import stored_signals

CODE_VERSION = "episodes-7"
MAX_CHANGED = (
    0.5  # share of a dataset's recordings; more of them at other addresses are asked about first
)


@dataclass(frozen=True)
class PlacedListing:
    """A listing, the recording that each of its addresses holds, and those that left the source."""

    listing: Listing
    placements: list[Placement]
    left: list[KnownRecording]
    known: list[KnownRecording]


def run(context: StageContext) -> Output:
    lake = context.lake
    build = context.build
    source = context.source
    placed = placed_listing(lake, source)
    if not context.accept_changes:
        _check_changes(context, placed)

    # All is decided over the whole dataset, so that building a part of it first changes nothing later; the split of a
    # recording's group stays
    listing = placed.listing
    split_by_group = assign_splits(
        build.name,
        build.dataset.role,
        listing.records,
        build.stages.splits,
        remembered_splits(placed.placements, placed.known),
        _unusable(listing),
    )
    grippers = survey(source, listing.records, listing.robot, stored_signals(lake.con, build.name))
    withdrawn, unsure = _withdrawn(lake, placed.placements, build.name)
    records = _built_records(source, listing, _outcomes(lake, placed.placements, build.name))
    findings = _findings(source, listing, grippers.findings, records, withdrawn)

    # No samples of others may show an episode that was taken down
    not_shown = _unusable(listing) | withdrawn.keys() | unsure
    tables = _dataset_tables(source, listing, grippers.signals)
    tables |= _episode_tables(build, records, split_by_group, not_shown)
    # The configuration is kept beside the rows, so that the dataset can be built again without its file
    update = recording_update(placed, split_by_group, build.name)
    update.keep_pictures(lake)
    upserts = {"build_configs": config_rows([build]), "episode_ids": _ids(build.name, listing)}
    unusable = {finding.episode_index for finding in findings if finding.severity == "unusable"}
    numbers = {
        "episodes": len(records),
        "unusable_by_metadata": len(unusable),
        "outcomes_known": tables["episode_facts"]["success"].drop_null().length(),
    }
    outdated, renumbered = _numbers_that_changed(placed)
    return Output(
        tables,
        findings,
        upserts | update.upserts(),
        numbers=numbers | update.numbers,
        outdated=outdated,
        moved=renumbered,
    )


def placed_listing(lake: Lake, source: Source) -> PlacedListing:
    """The episodes of a source, and the recording that each holds. Reads rows only of episodes whose files changed.

    Raises SourceError.
    """
    dataset = source.config.name
    sql = "SELECT source_id, episode_index FROM episode_ids WHERE dataset = ?"
    listing = settled_listing(source, dict(lake.rows(sql, [dataset])))
    known_here = known_recordings(lake, "r.dataset = ?", [dataset], dataset=dataset)
    addresses = [Address(record, file_stamp(source, record)) for record in listing.records]

    def read(record: EpisodeRecord) -> Fingerprint:
        return _read_fingerprint(source, record)

    placements = place(known_here, addresses, read)
    placements = _with_missing_fingerprints(lake, dataset, placements, read)
    return PlacedListing(listing, placements, gone(known_here, placements), known_here)


def _read_fingerprint(source: Source, record: EpisodeRecord) -> Fingerprint:
    """What an episode's rows, or the bytes of its video, show; nothing of one that cannot be read, or is not here."""
    if source.config.is_remote and record.episode_index not in (source.selected or ()):
        return Fingerprint()
    try:
        if record.data_uri is None:
            return Fingerprint(num_frames=record.num_rows, file=file_digest(source, record))
        return rows_fingerprint(read_episode(source, record))
    # The pass over the rows says what is wrong with them
    except (DataError, SourceError, OSError):
        return Fingerprint()


def _with_missing_fingerprints(
    lake: Lake,
    dataset: str,
    placements: Sequence[Placement],
    read: Callable[[EpisodeRecord], Fingerprint],
) -> list[Placement]:
    """Placements with the rows' layers of recordings that people spoke of, and of which no pass kept them.

    A lake of an earlier version has none; they are read while the files are still those that people spoke of.
    """
    spoken_of = recordings_with_words(lake, dataset)
    filled = []
    for placement in placements:
        recording = placement.known
        if (
            recording
            and recording.recording in spoken_of
            and not (recording.fingerprint.rows or placement.fingerprint.rows)
            and is_unchanged(recording, placement.address)
        ):
            placement = placement.with_fingerprint(read(placement.address.record))
        filled.append(placement)
    return filled


def _outcomes(lake: Lake, placements: Sequence[Placement], dataset: str) -> dict[int, Outcome]:
    """By episode what people said of how the recording ended that it holds."""
    outcomes = outcomes_by_recording(lake, [p.known.recording for p in placements if p.known])
    of_recordings = {
        p.index: outcomes[p.known.recording]
        for p in placements
        if p.known and p.known.recording in outcomes
    }
    return outcomes_without_recording(lake, dataset) | of_recordings


def _withdrawn(
    lake: Lake, placements: Sequence[Placement], dataset: str
) -> tuple[dict[int, str], set[int]]:
    """The reason of each episode whose recording was taken down; and episodes that may hold such a recording.

    These are decoded, and left out by the pass over the pictures where they turn out to be it.
    """
    marks = takedown_marks(lake, dataset)
    whole = [mark["reason"] for mark in marks if mark["episode_index"] is None]
    withdrawn = {
        mark["episode_index"]: mark["reason"]
        for mark in marks
        if mark["recording"] is None and not whole
    }
    reasons = withdrawn_reasons(lake)
    unsure = set[int]()
    for placement in placements:
        recording = placement.known or placement.resembles
        if whole:
            withdrawn[placement.index] = whole[0]
        elif recording is None or recording.recording not in reasons:
            continue
        elif placement.known is not None and placement.is_sure:
            withdrawn[placement.index] = reasons[recording.recording]
        else:
            unsure.add(placement.index)
    return withdrawn, unsure


def recording_update(
    placed: PlacedListing, split_by_group: Mapping[str, str], dataset: str
) -> RecordingUpdate:
    """What a listing writes of recordings: those that are new, or whose place, group, split or files changed."""
    update = RecordingUpdate(dataset, LISTING)
    ids = {recording.recording for recording in placed.known}
    for placement in placed.placements:
        former = placement.known
        present = _present_recording(placement, split_by_group, dataset, ids)
        ids.add(present.recording)
        if former is None or former != present:
            update.put(present)
        is_changed = (
            former is None
            or former.stamp != present.stamp
            or placement.is_moved
            or placement.is_back
        )
        if is_changed and not present.fingerprint.is_empty:
            update.put_fingerprint(present)
        if placed.known:
            _note_change(update, placement, present)
    for recording in placed.left:
        update.put(recording.changed(is_here=False))
        update.put_fingerprint(recording)
        if not any(p.resembles is recording for p in placed.placements):
            update.note("gone", recording, None)
    return update


def _present_recording(
    placement: Placement, split_by_group: Mapping[str, str], dataset: str, ids: set[str]
) -> KnownRecording:
    """The recording at an address as it is from now on."""
    record = placement.address.record
    former = placement.known
    resembled = placement.resembles
    given_before = (former or resembled or NOTHING_KNOWN).split
    fields = {
        "episode_index": record.episode_index,
        "source_id": record.source_id,
        "is_here": True,
        "stamp": placement.address.stamp,
        "source_stamp": record.source_stamp,
        "group": record.group,
        "split": given_before or split_by_group.get(record.group),
    }
    if former is not None:
        return former.changed(
            **fields, fingerprint=former.fingerprint.filled(placement.fingerprint)
        )
    return KnownRecording(
        recording=new_id(dataset, record.source_id, ids),
        dataset=dataset,
        resembles=resembled and resembled.recording,
        why=placement.why,
        fingerprint=placement.fingerprint,
        **fields,
    )


NOTHING_KNOWN = KnownRecording("", "", 0, "", is_here=False)


def _note_change(update: RecordingUpdate, placement: Placement, present: KnownRecording) -> None:
    if placement.is_back:
        update.note("back", placement.known, present, placement.why)
    elif placement.is_moved:
        update.note("moved", placement.known, present, placement.why)
    elif placement.resembles is not None:
        update.note("probable", placement.resembles, present, placement.why)
    elif placement.known is None:
        update.note("new", None, present)


def _numbers_that_changed(placed: PlacedListing) -> tuple[set[int], dict[int, int]]:
    """Episodes that hold another recording than before, or none; and by former number the present one of those that
    moved."""
    former_recordings = {
        recording.episode_index: recording.recording
        for recording in placed.known
        if recording.is_here
    }
    present_recordings = {p.index: p.known.recording for p in placed.placements if p.known}
    outdated = {
        index
        for index, recording in former_recordings.items()
        if present_recordings.get(index) != recording
    }
    renumbered = {
        p.known.episode_index: p.index for p in placed.placements if p.known and p.known.is_here
    }
    return outdated, {
        former: present for former, present in renumbered.items() if former != present
    }


def _check_changes(context: StageContext, placed: PlacedListing) -> None:
    """Raises ChangedSourceError where the robot, or most of what was known, changed: it may be another dataset."""
    lake = context.lake
    dataset = context.build.name
    present_recordings = [recording for recording in placed.known if recording.is_here]
    robots = lake.column("SELECT robot FROM datasets WHERE dataset = ?", [dataset])
    robot = placed.listing.robot
    former_robot = next(iter(robots), None)
    accept = f"if so it shall be: proccorpus build --dataset {dataset} --accept-changes (with --source where it is new)"
    if present_recordings and robot and former_robot and robot != former_robot:
        raise ChangedSourceError(
            f"{dataset}: the robot was {former_robot} and is {robot} now: is it another dataset? Give that one another "
            f"--name; {accept}"
        )
    _check_place(context, placed, accept)
    renumbered = [p for p in placed.placements if p.is_moved]
    names = {p.address.source_id for p in placed.placements if p.known is None}
    replaced = [recording for recording in placed.left if recording.source_id in names]
    if len(renumbered) + len(replaced) <= MAX_CHANGED * len(present_recordings):
        return
    parts = [f"{len(renumbered)} are at other numbers or names"] if renumbered else []
    parts += [f"{len(replaced)} have other contents"] if replaced else []
    example = ""
    if renumbered and renumbered[0].known is not None:
        example = f" (such as {renumbered[0].known.source_id}, which is {renumbered[0].address.source_id} now)"
    raise ChangedSourceError(
        f"{dataset}: of {len(present_recordings)} known recordings {' and '.join(parts)}{example}, "
        f"{len(placed.left)} are gone. "
        f"What people said, and splits, go with the recordings; {accept}"
    )


def _check_place(context: StageContext, placed: PlacedListing, accept: str) -> None:
    """Raises ChangedSourceError where the source is at another place and holds nothing of what was known."""
    location = context.source.config.source
    stored = stored_build(context.lake, context.build.name)
    present_recordings = [recording for recording in placed.known if recording.is_here]
    is_elsewhere = stored is not None and stored.dataset.source != location
    if (
        stored
        and is_elsewhere
        and present_recordings
        and placed.placements
        and len(placed.left) == len(present_recordings)
    ):
        raise ChangedSourceError(
            f"{context.build.name}: it was read from {stored.dataset.source}, and {location} holds none of its "
            f"{len(present_recordings)} recordings: is it another dataset? Give that one another --name; {accept}"
        )


# The rows of what is listed


def _unusable(listing: Listing) -> set[int]:
    """Episodes that the listing found a fault with that nothing mends."""
    return {
        f.episode_index
        for f in listing.findings
        if f.severity == "unusable" and f.episode_index is not None
    }


def _built_records(
    source: Source, listing: Listing, outcomes: Mapping[int, Outcome]
) -> list[EpisodeRecord]:
    """The selected episodes. What people said of how one ended stands in the place of its source's word."""
    records = []
    for record in listing.records:
        if source.selected is not None and record.episode_index not in source.selected:
            continue
        outcome = outcomes.get(record.episode_index)
        if outcome:
            record = replace(record, success=outcome.success, success_source=outcome.source)
        records.append(record)
    return records


def _findings(
    source: Source,
    listing: Listing,
    of_grippers: Sequence[Finding],
    records: Sequence[EpisodeRecord],
    withdrawn: Mapping[int, str],
) -> list[Finding]:
    """What is wrong with the selected episodes, and with the dataset as a whole whatever is selected."""
    findings = [*listing.findings, *of_grippers, *_views_without_files(source, listing)]
    built = {record.episode_index: record for record in records}
    if source.selected is not None:
        findings = [f for f in findings if f.episode_index is None or f.episode_index in built]
    taken_down = [
        Finding("taken_down", withdrawn[index], episode_index=index)
        for index in built
        if index in withdrawn
    ]
    return findings + taken_down


def _views_without_files(source: Source, listing: Listing) -> list[Finding]:
    """A finding for each camera that labels are to be made by and that no episode has."""
    present_cameras = set(chain.from_iterable(record.cameras for record in listing.records))
    detail = (
        "no episode has it, and labels are to be made by it; there are "
        f"{', '.join(sorted(present_cameras)) or 'none'}"
    )
    lacking = [view for view in source.config.cameras.views if view not in present_cameras]
    return [Finding("camera_without_files", detail, "warning", camera=view) for view in lacking]


def _ids(dataset: str, listing: Listing) -> pa.Table:
    """Rows of `episode_ids` of all episodes, so that one that is built later has the index that it has now."""
    return TABLES["episode_ids"].rows(
        [
            {
                "dataset": dataset,
                "episode_index": record.episode_index,
                "source_id": record.source_id,
            }
            for record in listing.records
        ]
    )


def _dataset_tables(
    source: Source, listing: Listing, signals: Sequence[GripperSignal]
) -> dict[str, pa.Table]:
    """What is known of the dataset as a whole: itself, its grippers, the parts of its source."""
    dataset = source.config.name
    signal_rows = [
        signal_row(signal) | {"dataset": dataset, "signal_index": index}
        for index, signal in enumerate(signals)
    ]
    part_rows = [{"dataset": dataset} | vars(part) for part in listing.parts]
    return {
        "datasets": TABLES["datasets"].rows([dataset_row(source, listing)]),
        "signals": TABLES["signals"].rows(signal_rows),
        "source_parts": TABLES["source_parts"].rows(part_rows),
    }


def _episode_tables(
    build: DatasetBuild,
    records: Sequence[EpisodeRecord],
    split_by_group: Mapping[str, str],
    not_shown: set[int],
) -> dict[str, pa.Table]:
    """Facts and splits of the selected episodes, and which runs of other tasks a chunk may show.

    `chunk` is the part of its dataset that an episode is built and stored with.
    """
    dataset = build.name
    chunk_size = build.dataset.chunk_size
    facts = []
    splits = []
    for record in records:
        index = record.episode_index
        group = record.group
        key = {"dataset": dataset, "chunk": index // chunk_size}
        facts.append(key | record_row(record))
        if group in split_by_group:
            split = split_by_group[group]
            splits.append(key | {"episode_index": index, "group": group, "split": split})
    # Of what is selected: nothing else may be shown, nor fetched
    other_rows = other_tasks(dataset, records, split_by_group, not_shown, chunk_size)
    return {
        "episode_facts": TABLES["episode_facts"].rows(facts),
        "splits": TABLES["splits"].rows(splits),
        "other_tasks": TABLES["other_tasks"].rows(
            [{"dataset": dataset} | row for row in other_rows]
        ),
    }


def dataset_row(source: Source, listing: Listing) -> dict[str, Any]:
    config = source.config
    return {
        "dataset": config.name,
        "title": config.title or config.name,
        "robot": listing.robot,
        "format": listing.format,
        "fps": listing.fps,
        "license": config.license,
        "source_uri": config.source,
        "source_revision": source.revision,
        "chunk_size": config.chunk_size,
        "role": config.role,
        "cameras": list(listing.cameras),
        "views": list(config.cameras.views),
        "notes": config.notes,
    }


def config_parts(build: DatasetBuild) -> tuple[BaseModel | str, ...]:
    # Where the data lies does not change what it is
    facts = build.dataset.model_dump_json(exclude={"source", "annotator"})
    return (f"{facts}{build.episodes}{build.stages.splits.model_dump_json()}",)


STAGE = Stage(
    name="episodes",
    upstream=(),
    run=run,
    config=config_parts,
    settings=(
        "dataset",
        "episodes",
        "stages.splits",
    ),
    code_version=CODE_VERSION,
    description="Episodes of a dataset as its metadata lists them, with splits and findings; registers its chunks.",
    reads_source=True,
    picture=episodes_figure,
)
