"""The episodes of a dataset as its metadata lists them: chunks, splits, recordings, findings. Decodes no episode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import pyarrow as pa

from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding, Listing, record_row
from ingest.episodes import settled_listing, with_numbers
from ingest.outcomes import Outcome
from ingest.reasons import DataError
from ingest.recordings import (
    NO_NUMBER,
    Address,
    Fingerprint,
    KnownRecording,
    Placement,
    file_digest,
    file_stamp,
    is_unstamped,
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
from pipeline.stage import ChangedSourceError, Output, StageContext
from warehouse.lake import Lake
from warehouse.lake.connection import literal
from warehouse.lake.outcomes import outcomes_by_recording
from warehouse.lake.recordings import (
    LISTING,
    RecordingUpdate,
    known_recordings,
    new_id,
    recordings_with_words,
)
from warehouse.lake.statements import takedown_marks, withdrawn_reasons
from warehouse.lake.stored import stored_signals

MAX_CHANGED = (
    0.5  # share of a dataset's recordings; more of them at other addresses are asked about first
)


@dataclass(frozen=True)
class PlacedListing:
    """A listing by our numbers, the recording that each of its addresses holds, by source id; left: those that do not
    have one any more."""

    listing: Listing
    placements: dict[str, Placement]
    known: list[KnownRecording]

    @cached_property
    def left(self) -> list[KnownRecording]:
        present = {p.known.recording for p in self.placements.values() if p.known}
        return [k for k in self.known if k.is_here and k.recording not in present]

    @property
    def moved(self) -> list[tuple[EpisodeRecord, KnownRecording]]:
        """Recordings that are at another address than before."""
        formers = ((r, self.placements[r.source_id].known) for r in self.listing.records)
        return [(r, k) for r, k in formers if k and k.is_here and k.source_id != r.source_id]


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
        remembered_splits(listing.records, placed.placements, placed.known),
        _unusable(listing),
    )
    grippers = survey(source, listing.records, listing.robot, stored_signals(lake.con, build.name))
    withdrawn, unsure = _withdrawn(lake, placed, build.name)
    records = _built_records(source, placed, _outcomes(lake, placed))
    findings = _findings(source, listing, grippers.findings, records, withdrawn)

    # No samples of others may show an episode that was taken down
    not_shown = _unusable(listing) | withdrawn.keys() | unsure
    tables = _dataset_tables(source, listing, grippers.signals)
    tables |= _episode_tables(build, records, split_by_group, not_shown)
    # The configuration is kept beside the rows, so that the dataset can be built again without its file
    update = recording_update(placed, split_by_group, build.name)
    update.keep_pictures(lake)
    upserts = {"build_configs": config_rows([build])}
    unusable = {finding.episode_index for finding in findings if finding.severity == "unusable"}
    outcomes = tables["episode_facts"]["success"]
    numbers = {
        "episodes": len(records),
        "unusable_by_metadata": len(unusable),
        "outcomes_known": len(outcomes) - outcomes.null_count,
    }
    return Output(
        tables,
        findings,
        upserts | update.upserts(),
        numbers=numbers | update.numbers,
        outdated={recording.episode_index for recording in placed.left},
    )


def placed_listing(lake: Lake, source: Source) -> PlacedListing:
    """The episodes of a source, and the recording that each holds: one that was seen before under its number, a new one
    under a new one. Reads rows only of episodes whose files changed.

    Raises SourceError.
    """
    dataset = source.config.name
    listing = settled_listing(source)
    known = known_recordings(lake, "r.dataset = ?", [dataset], f"dataset = {literal(dataset)}")
    records = {record.source_id: record for record in listing.records}
    addresses = [
        Address(name, file_stamp(source, record), record.source_stamp)
        for name, record in records.items()
    ]

    def read(name: str) -> Fingerprint:
        return _read_fingerprint(source, records[name])

    # Of two that had one address the one that is there counts
    ordered = sorted(known, key=lambda r: (r.is_here, -r.episode_index))
    formers = {recording.source_id: recording for recording in ordered}
    placements = place(formers, reversed(ordered), addresses, read)
    # A lake of an earlier version has no rows' layers: of what people spoke of they are read while the files are still
    # those that people spoke of
    spoken_of = recordings_with_words(lake, dataset)
    for name, placement in placements.items():
        former = placement.known
        has_rows = former and (former.fingerprint.rows or placement.fingerprint.rows)
        if former and former.recording in spoken_of and not has_rows and not placement.why:
            placements[name] = replace(placement, fingerprint=read(name))
    recording_by_address = {name: p.known for name, p in placements.items() if p.known}
    numbers = {
        name: k.episode_index
        for name, k in recording_by_address.items()
        if k.episode_index != NO_NUMBER
    }
    first_free = 1 + max((k.episode_index for k in known), default=NO_NUMBER)
    return PlacedListing(with_numbers(listing, numbers, first_free), placements, known)


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


def _outcomes(lake: Lake, placed: PlacedListing) -> dict[int, Outcome]:
    """By episode what people said of how the recording ended that it holds."""
    numbers = {k.recording: k.episode_index for p in placed.placements.values() if (k := p.known)}
    outcomes = outcomes_by_recording(lake, numbers)
    return {numbers[recording]: outcome for recording, outcome in outcomes.items()}


def _withdrawn(lake: Lake, placed: PlacedListing, dataset: str) -> tuple[dict[int, str], set[int]]:
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
    for record in placed.listing.records:
        placement = placed.placements[record.source_id]
        recording = placement.known or placement.resembles
        if whole:
            withdrawn[record.episode_index] = whole[0]
        elif recording and recording.recording in reasons and placement.known and placement.is_sure:
            withdrawn[record.episode_index] = reasons[recording.recording]
        elif recording and not reasons.keys().isdisjoint(
            {recording.recording, recording.resembles}
        ):
            unsure.add(record.episode_index)
    return withdrawn, unsure


def recording_update(
    placed: PlacedListing, split_by_group: Mapping[str, str], dataset: str
) -> RecordingUpdate:
    """What a listing writes of recordings: those that are new, or whose address, group, split or files changed."""
    update = RecordingUpdate(dataset, LISTING)
    ids = {recording.recording for recording in placed.known}
    for record in placed.listing.records:
        placement = placed.placements[record.source_id]
        former = placement.known
        new_recording = former or KnownRecording(
            recording=new_id(dataset, record.source_id, ids),
            dataset=dataset,
            episode_index=record.episode_index,
            source_id=record.source_id,
            is_here=True,
            resembles=placement.resembles and placement.resembles.recording,
            why=placement.why,
        )
        ids.add(new_recording.recording)
        present = _as_listed(new_recording, placement, record, split_by_group)
        if former != present:
            update.put(present)
        change = _change(placement, present)
        is_told_otherwise = change or former is None or former.stamp != present.stamp
        if is_told_otherwise and not present.fingerprint.is_empty:
            update.put_fingerprint(present)
        if placed.known and change:
            update.note(change, former or placement.resembles, present, placement.why)
    resembled_ids = {p.resembles.recording for p in placed.placements.values() if p.resembles}
    for recording in placed.left:
        update.put(replace(recording, is_here=False))
        update.put_fingerprint(recording)
        if recording.recording not in resembled_ids:
            update.note("gone", recording, None)
    return update


def _as_listed(
    recording: KnownRecording,
    placement: Placement,
    record: EpisodeRecord,
    split_by_group: Mapping[str, str],
) -> KnownRecording:
    """A recording as it is at the address of a record; it keeps the split that it, or its like, was given."""
    former = placement.known or placement.resembles
    return replace(
        recording,
        episode_index=record.episode_index,
        source_id=record.source_id,
        is_here=True,
        # One that an earlier version kept without is stamped when it is decoded
        stamp="" if is_unstamped(placement.known, record) else placement.stamp,
        source_stamp=record.source_stamp,
        group=record.group,
        split=(former and former.split) or split_by_group.get(record.group),
        fingerprint=recording.fingerprint.filled(placement.fingerprint),
    )


def _change(placement: Placement, present: KnownRecording) -> str:
    """What happened to the recording at an address; empty: nothing."""
    if placement.known is None:
        return "probable" if placement.resembles else "new"
    if not placement.known.is_here:
        return "back"
    return "moved" if placement.known.source_id != present.source_id else ""


def _check_changes(context: StageContext, placed: PlacedListing) -> None:
    """Raises ChangedSourceError where the robot, or most of what was known, changed: it may be another dataset."""
    lake = context.lake
    dataset = context.build.name
    present_recordings = [recording for recording in placed.known if recording.is_here]
    if not present_recordings:
        return
    robots = lake.column("SELECT robot FROM datasets WHERE dataset = ?", [dataset])
    robot = placed.listing.robot
    former_robot = next(iter(robots), None)
    accept = f"if so it shall be: proccorpus build --dataset {dataset} --accept-changes (with --source where it is new)"
    if robot and former_robot and robot != former_robot:
        raise ChangedSourceError(
            f"{dataset}: the robot was {former_robot} and is {robot} now: is it another dataset? Give that one another "
            f"--name; {accept}"
        )
    _check_place(context, placed, accept)
    moved = placed.moved
    names = {name for name, placement in placed.placements.items() if placement.known is None}
    replaced = [recording for recording in placed.left if recording.source_id in names]
    if len(moved) + len(replaced) <= MAX_CHANGED * len(present_recordings):
        return
    parts = [f"{len(moved)} are at other numbers or names"] if moved else []
    parts += [f"{len(replaced)} have other contents"] if replaced else []
    example = ""
    if moved:
        record, former = moved[0]
        example = f" (such as {former.source_id}, which is {record.source_id} now)"
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
    source: Source, placed: PlacedListing, outcomes: Mapping[int, Outcome]
) -> list[EpisodeRecord]:
    """The selected episodes: by their number, by that in the source, or by that of the one that they may be.

    What people said of how one ended stands in the place of its source's word.
    """
    records = []
    for record in placed.listing.records:
        numbers = {record.episode_index, record.number_in_source}
        if resembled := placed.placements[record.source_id].resembles:
            numbers.add(resembled.episode_index)
        if source.selected is not None and numbers.isdisjoint(source.selected):
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
