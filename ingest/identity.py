"""Which episode is which, and what is asked of it: indices that stick, copies, known-bad episodes, the instruction."""

import hashlib
from collections import Counter
from collections.abc import Mapping
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
    records = [_chosen_task(r, config, findings) for r in _told_apart(listing.records, findings)]
    for r in records:
        if r.source_id in config.bad_episodes:
            why = f"the registry says: {config.bad_episodes[r.source_id]}"
            findings.append(Finding("known_bad", why, "unusable", r.episode_index))
    stated = config.published.fps
    if stated and listing.fps and abs(listing.fps / stated - 1) > RATE_TOLERANCE:
        detail = f"published with {stated:g} fps, this copy says {listing.fps:g}: the copy counts"
        findings.append(Finding("frame_rate", detail, "warning"))
    if listing.numbered:
        gaps = _gaps([r.episode_index for r in records])
        findings += [Finding("index_gap", f"no episode {g}", "warning") for g in gaps]
        return replace(listing, records=tuple(records), findings=tuple(findings))
    index: dict[int, int] = {}  # as listed -> as it stays
    following = max(known.values(), default=-1) + 1
    for r in records:
        if r.source_id in known:
            index[r.episode_index] = known[r.source_id]
        else:
            index[r.episode_index] = following
            following += 1
    records = sorted((replace(r, episode_index=index[r.episode_index]) for r in records), key=lambda r: r.episode_index)
    moved = [
        f if f.episode_index is None else replace(f, episode_index=index.get(f.episode_index, f.episode_index))
        for f in findings
    ]
    return replace(listing, records=tuple(records), findings=tuple(moved))


def _told_apart(records: tuple[EpisodeRecord, ...], findings: list[Finding]) -> list[EpisodeRecord]:
    """Each source id once: the second record of an id is a copy, is called so, and is not used."""
    seen: Counter[str] = Counter()
    out = []
    for r in records:
        seen[r.source_id] += 1
        if seen[r.source_id] > 1:
            detail = f"{r.source_id} is listed before (this one is in {r.data_uri or 'the metadata'})"
            findings.append(Finding("duplicate_episode", detail, "unusable", r.episode_index, file=r.data_uri))
            r = replace(r, source_id=f"{r.source_id}#{seen[r.source_id]}")
        out.append(r)
    return out


def _chosen_task(record: EpisodeRecord, config: DatasetConfig, findings: list[Finding]) -> EpisodeRecord:
    """The instruction that counts, by the registry's policy; `tasks` keeps all."""
    if not record.tasks:
        return record
    if config.instruction == "uninformative":
        detail = f"{record.tasks[0]!r} says nothing of this episode"
        findings.append(Finding("uninformative_task", detail, "warning", record.episode_index))
        return replace(record, task=None)
    if config.instruction == "paraphrases":
        number = int.from_bytes(hashlib.sha256(f"{config.name}\0{record.source_id}".encode()).digest()[:8], "big")
        return replace(record, task=record.tasks[number % len(record.tasks)])
    return record


def _gaps(indices: list[int]) -> list[str]:
    """Missing indices between 0 and the largest, as '3' or '5-9'."""
    gaps, wanted = [], 0
    for index in sorted(indices):
        if index > wanted:
            gaps.append(str(wanted) if index == wanted + 1 else f"{wanted}-{index - 1}")
        wanted = index + 1
    return gaps
