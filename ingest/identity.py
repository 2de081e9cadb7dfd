"""Which episode is which, and what is asked of it: indices that stick, copies, known-bad episodes, the instruction."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ingest.episode import EpisodeRecord, Finding, Listing
from ingest.registry import DatasetConfig

RATE_TOLERANCE = 0.02  # relative; a rate within it is taken as the same


def settle(listing: Listing, config: DatasetConfig, known: Mapping[str, int]) -> Listing:
    """The listing with final source ids, indices and instructions, in order of episode_index.

    `known` holds the indices that source ids were ever given. Where the source has no indices of its own, an episode
    keeps the one it had, and new ones count on from the largest: an index is never given twice.
    """
    findings = list(listing.findings)
    # Copies first: what is decided by source id must not be decided twice
    unique = _with_unique_ids(listing.records, findings)
    records = [_with_chosen_task(record, config, findings) for record in unique]
    findings += _known_bad(records, config)
    findings += _published_rate(listing, config)
    # Where the source has numbers of its own these stay, and a missing one is a finding
    if listing.numbered:
        gaps = _gaps([record.episode_index for record in records])
        findings += [Finding("index_gap", f"no episode {gap}", "warning") for gap in gaps]
    else:
        # Findings name episodes by the index as listed, too
        indices = _kept_indices(records, known)
        findings = [_renumbered(finding, indices) for finding in findings]
        records = [_renumbered(record, indices) for record in records]
        records.sort(key=lambda r: r.episode_index)
    return replace(listing, records=tuple(records), findings=tuple(findings))


def _known_bad(records: list[EpisodeRecord], config: DatasetConfig) -> Iterator[Finding]:
    """Episodes that the registry names as broken."""
    for record in records:
        if record.source_id in config.bad_episodes:
            detail = f"the registry says: {config.bad_episodes[record.source_id]}"
            yield Finding("known_bad", detail, "unusable", record.episode_index)


def _published_rate(listing: Listing, config: DatasetConfig) -> Iterator[Finding]:
    """Does the copy differ in its frame rate from what was published?"""
    stated = config.published.fps
    if stated and listing.fps and abs(listing.fps / stated - 1) > RATE_TOLERANCE:
        detail = f"published with {stated:g} fps, this copy says {listing.fps:g}: the copy counts"
        yield Finding("frame_rate", detail, "warning")


def _kept_indices(records: list[EpisodeRecord], known: Mapping[str, int]) -> dict[int, int]:
    """The index that each episode keeps or gets, by its index as listed."""
    indices: dict[int, int] = {}
    following = max(known.values(), default=-1) + 1
    for record in records:
        if record.source_id in known:
            indices[record.episode_index] = known[record.source_id]
        else:
            indices[record.episode_index] = following
            following += 1
    return indices


def _renumbered[T: (EpisodeRecord, Finding)](item: T, indices: Mapping[int, int]) -> T:
    """A record, or a finding of an episode, with the index that the episode keeps."""
    if item.episode_index is None:
        return item
    return replace(item, episode_index=indices.get(item.episode_index, item.episode_index))


def _with_unique_ids(records: tuple[EpisodeRecord, ...], findings: list[Finding]) -> list[EpisodeRecord]:
    """Each source id once: the second record of an id is a copy, gets a name of its own, and is not used."""
    seen: Counter[str] = Counter()
    unique = []
    for record in records:
        seen[record.source_id] += 1
        times = seen[record.source_id]
        # The copy's name tells its place among those of its id
        if times > 1:
            detail = f"{record.source_id} is listed before (this one is in {record.data_uri or 'the metadata'})"
            findings.append(
                Finding("duplicate_episode", detail, "unusable", record.episode_index, file=record.data_uri)
            )
            record = replace(record, source_id=f"{record.source_id}#{times}")
        unique.append(record)
    return unique


def _with_chosen_task(record: EpisodeRecord, config: DatasetConfig, findings: list[Finding]) -> EpisodeRecord:
    """The instruction that counts, by the registry's policy; `tasks` keeps all."""
    if not record.tasks:
        return record
    if config.instruction == "uninformative":
        detail = f"{record.tasks[0]!r} says nothing of this episode"
        findings.append(Finding("uninformative_task", detail, "warning", record.episode_index))
        return replace(record, task=None)
    if config.instruction == "paraphrases":
        # By hash, so that the choice does not depend on what else is listed
        digest = hashlib.sha256(f"{config.name}\0{record.source_id}".encode()).digest()
        number = int.from_bytes(digest[:8], "big")
        return replace(record, task=record.tasks[number % len(record.tasks)])
    return record


def _gaps(indices: list[int]) -> list[str]:
    """Missing indices between 0 and the largest. Example: _gaps([1, 2, 6]) == ["0", "3-5"]."""
    gaps, expected = [], 0
    for index in sorted(indices):
        if index > expected:
            gaps.append(str(expected) if index == expected + 1 else f"{expected}-{index - 1}")
        expected = index + 1
    return gaps
