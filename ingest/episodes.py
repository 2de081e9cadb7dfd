"""The episodes that a source lists, with the ids, numbers, instructions and texts that count. Decodes no episode."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass, replace
from operator import attrgetter
from typing import Any

from ingest.episode import EpisodeRecord, Finding, Listing, joined
from ingest.reasons import Limits
from ingest.registry import DatasetConfig
from ingest.source import list_episodes
from ingest.sources.files import Source

UNKNOWN = "\ufffd"  # in the place of a NUL character
RATE_TOLERANCE = 0.02  # relative; a rate within it is taken as the same


def settle(listing: Listing, config: DatasetConfig) -> Listing:
    """The listing with final source ids and instructions, and the source's numbers."""
    findings = list(listing.findings)
    # Copies first: what is decided by source id must not be decided twice
    unique = _with_unique_ids(listing.records, findings)
    records = [_with_chosen_task(record, config, findings) for record in unique]
    if config.task is not None:
        findings = [finding for finding in findings if finding.reason != "no_task"]
    findings += _by_registry(listing, records, config)
    # Where the source has numbers of its own, a missing one is a finding
    if listing.numbered:
        gaps = _gaps([record.episode_index for record in records])
        findings += [Finding("no_data", f"no episode {gap}", "warning") for gap in gaps]
    return replace(listing, records=tuple(records), findings=tuple(findings))


def with_numbers(listing: Listing, numbers: Mapping[str, int], first_free: int) -> Listing:
    """The listing by our numbers, and in their order: each by source id, as `numbers` has it.

    New ones count on from `first_free`, and are never below the source's number: those of a first
    build are the source's.
    """
    number_by_source: dict[int, int] = {}
    for record in listing.records:
        number = numbers.get(record.source_id)
        if number is None:
            number = max(first_free, record.episode_index)
            first_free = number + 1
        number_by_source[record.episode_index] = number
    records = [
        _numbered(record, number_by_source, is_told=listing.numbered) for record in listing.records
    ]
    # Findings name episodes by the number as listed, too
    findings = [
        replace(
            finding,
            episode_index=number_by_source.get(finding.episode_index, finding.episode_index),
        )
        if finding.episode_index is not None
        else finding
        for finding in listing.findings
    ]
    ordered = sorted(records, key=attrgetter("episode_index"))
    return replace(listing, records=tuple(ordered), findings=tuple(findings))


def _numbered(
    record: EpisodeRecord, number_by_source: Mapping[int, int], *, is_told: bool
) -> EpisodeRecord:
    """A record by our number; `number_by_source`: ours by the source's. is_told: the source has numbers of its own."""
    number = number_by_source[record.episode_index]
    furthest = record.as_far_as
    if furthest:
        index = number_by_source.get(furthest.episode_index)
        furthest = None if index is None else replace(furthest, episode_index=index)
    is_other = is_told and number != record.episode_index
    return replace(
        record,
        episode_index=number,
        source_index=record.episode_index if is_other else None,
        as_far_as=furthest,
    )


def _by_registry(
    listing: Listing, records: list[EpisodeRecord], config: DatasetConfig
) -> Iterator[Finding]:
    """Episodes that the registry names as broken, and a frame rate that differs from what was published."""
    for record in records:
        if record.source_id in config.bad_episodes:
            detail = f"the registry says: {config.bad_episodes[record.source_id]}"
            yield Finding("known_bad", detail, "unusable", record.episode_index)
    stated_fps = config.published.fps
    if stated_fps and listing.fps and abs(listing.fps / stated_fps - 1) > RATE_TOLERANCE:
        detail = (
            f"published with {stated_fps:g} fps, this copy says {listing.fps:g}: the copy counts"
        )
        yield Finding("frame_rate", detail, "warning")


def _with_unique_ids(
    records: tuple[EpisodeRecord, ...], findings: list[Finding]
) -> list[EpisodeRecord]:
    """Each source id once: the second record of an id is a copy, gets a name of its own, and is not used."""
    id_counts: Counter[str] = Counter()
    unique = []
    for record in records:
        id_counts[record.source_id] += 1
        times = id_counts[record.source_id]
        # The copy's name tells its place among those of its id
        if times > 1:
            detail = f"{record.source_id} is listed before (this one is in {record.data_uri or 'the metadata'})"
            index = record.episode_index
            file = record.data_uri
            findings.append(Finding("duplicate_episode", detail, "unusable", index, file=file))
            record = replace(record, source_id=f"{record.source_id}#{times}")
        unique.append(record)
    return unique


def _with_chosen_task(
    record: EpisodeRecord, config: DatasetConfig, findings: list[Finding]
) -> EpisodeRecord:
    """The instruction that counts, by the registry's policy; `tasks` keeps all that the source has."""
    if not record.tasks:
        if config.task is None:
            return record
        return replace(record, task=config.task, tasks=(config.task,))
    if config.instruction == "uninformative":
        detail = f"{record.tasks[0]!r} says nothing of this episode"
        if config.task is not None:
            detail += f"; the registry says {config.task!r}"
        findings.append(Finding("no_task", detail, "warning", record.episode_index))
        return replace(record, task=config.task)
    if config.instruction == "paraphrases":
        # By hash, so that the choice does not depend on what else is listed
        digest = hashlib.sha256(f"{config.name}\0{record.source_id}".encode()).digest()
        number = int.from_bytes(digest[:8], "big")
        return replace(record, task=record.tasks[number % len(record.tasks)])
    return record


def _gaps(indices: list[int]) -> list[str]:
    """Missing indices between 0 and the largest. Example: _gaps([1, 2, 6]) == ["0", "3-5"]."""
    gaps = []
    expected = 0
    for index in sorted(indices):
        if index > expected:
            gaps.append(str(expected) if index == expected + 1 else f"{expected}-{index - 1}")
        expected = index + 1
    return gaps


# What tables can keep


def settled_listing(source: Source) -> Listing:
    """The episodes of a source with the ids and instructions that count, by its numbers. Raises SourceError."""
    return settle(storable(list_episodes(source), source.config.limits), source.config)


def storable(listing: Listing, limits: Limits) -> Listing:
    """What no table can keep (NUL characters, texts beyond the limit) is shown otherwise, or cut off.

    An episode that has it cannot be used.
    """
    findings = list(listing.findings)
    records = list(listing.records)
    for place, record in enumerate(records):
        texts = list(_texts(record))
        if any("\0" in text for text in texts):
            detail = "a text of it holds a NUL character, which no table can keep"
            finding = Finding("unreadable_data", detail, "unusable", record.episode_index)
        elif problem := limits.excess(
            "max_text", max(map(len, texts)), "characters of one of its texts"
        ):
            finding = Finding("over_limit", problem, "unusable", record.episode_index)
        else:
            continue
        findings.append(finding)
        records[place] = _shown(record, limits)
    longest = max(map(len, (listing.robot or "", *listing.cameras)))
    if problem := limits.excess(
        "max_text", longest, "characters of the name of its robot or of a camera"
    ):
        findings.append(Finding("over_limit", problem, "warning"))
    return replace(
        listing,
        robot=_shown(listing.robot, limits),
        cameras=_shown(listing.cameras, limits),
        records=tuple(records),
        findings=tuple(findings),
        parts=joined(_shown(listing.parts, limits)),
    )


def _shown(value: Any, limits: Limits) -> Any:
    """A text, or what has texts in it, as tables can keep it."""
    if isinstance(value, str):
        return value[: limits.max_text].replace("\0", UNKNOWN)
    if isinstance(value, tuple):
        return tuple(_shown(part, limits) for part in value)
    if is_dataclass(value):
        return type(value)(**{k: _shown(v, limits) for k, v in vars(value).items()})
    return value


def _texts(record: Any) -> Iterator[str]:
    """All texts that are in a record, or in a tuple."""
    for value in record if isinstance(record, tuple) else vars(record).values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple) or is_dataclass(value):
            yield from _texts(value)
