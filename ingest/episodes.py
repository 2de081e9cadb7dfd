"""The episodes stage: list a dataset from its metadata, give chunks and splits. Decodes nothing."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding, Listing, record_row
from ingest.identity import settle
from ingest.limits import Limits
from ingest.other_tasks import other_tasks
from ingest.outcomes import Outcome
from ingest.signals.gripper import GripperSignal, signal_row
from ingest.signals.survey import survey
from ingest.source import list_episodes
from ingest.sources.files import Source
from ingest.splits import SplitConfig, assign_splits

CODE_VERSION = "episodes-4"
MAX_DETAILS = 20  # of one thing, in one finding
NOBODY: Mapping[int, Outcome] = {}  # said how a run ended


@dataclass(frozen=True)
class EpisodesResult:
    tables: dict[str, pa.Table]
    findings: list[Finding]
    records: tuple[EpisodeRecord, ...]
    ids: pa.Table  # of the whole dataset, for the table episode_ids


def episodes_stage(
    source: Source,
    splits: SplitConfig,
    before: Mapping[str, str],
    known: Mapping[str, int],
    stated: Mapping[int, Outcome] = NOBODY,
    signals: Sequence[GripperSignal] = (),
    withdrawn: Collection[int] = (),
) -> EpisodesResult:
    """Facts and splits of a dataset's episodes, of those that the source has selected, and its grippers.

    `before` holds the splits that groups were given earlier, `known` the indices of source ids, `signals` the grippers
    that an earlier survey showed. All are decided over the whole dataset, so that building a part of it first changes
    nothing later. `stated`: outcomes by episode that people gave, which count before the source's. `withdrawn`:
    episodes that were taken down, which no samples of others may show.
    """
    config = source.config
    # Indices and splits are decided over the whole dataset, before a part of it is selected
    listing = settle(storable(list_episodes(source), config.limits), config, known)
    unusable = {f.episode_index for f in listing.findings if f.severity == "unusable" and f.episode_index is not None}
    split_by_group = assign_splits(config.name, config.role, listing.records, splits, before, unusable)
    # Ids of all episodes are stored, so that one that is built later has the index that it has now
    ids = [
        {"dataset": config.name, "episode_index": record.episode_index, "source_id": record.source_id}
        for record in listing.records
    ]

    surveyed = survey(source, listing.records, listing.robot, signals)
    records, findings = listing.records, [*listing.findings, *surveyed.findings, *_views_without_files(source, listing)]
    # Findings of the dataset as a whole stay, whatever part of it is selected
    if source.selected is not None:
        records = tuple(r for r in records if r.episode_index in source.selected)
        selected = {r.episode_index for r in records}
        findings = [f for f in findings if f.episode_index is None or f.episode_index in selected]
    records = _with_stated(records, stated)
    # `chunk` is the part of its dataset that an episode is built and stored with
    facts, split_rows = [], []
    for record in records:
        index, group = record.episode_index, record.group
        where = {"dataset": config.name, "chunk": index // config.chunk_size}
        facts.append(where | record_row(record))
        if group in split_by_group:
            split_rows.append(where | {"episode_index": index, "group": group, "split": split_by_group[group]})
    # Of what is selected: nothing else may be shown, nor fetched
    others = other_tasks(config.name, records, split_by_group, unusable.union(withdrawn), config.chunk_size)
    other_rows = [{"dataset": config.name} | other for other in others]
    of_signals = enumerate(surveyed.signals)
    signal_rows = [signal_row(signal) | {"dataset": config.name, "signal_index": k} for k, signal in of_signals]
    tables = {
        "datasets": TABLES["datasets"].rows([dataset_row(source, listing)]),
        "signals": TABLES["signals"].rows(signal_rows),
        "episode_facts": TABLES["episode_facts"].rows(facts),
        "splits": TABLES["splits"].rows(split_rows),
        "other_tasks": TABLES["other_tasks"].rows(other_rows),
    }
    return EpisodesResult(tables, findings, records, TABLES["episode_ids"].rows(ids))


def _views_without_files(source: Source, listing: Listing) -> list[Finding]:
    """A finding for each camera that labels are to be made by and that no episode has."""
    there = {camera for record in listing.records for camera in record.cameras}
    detail = f"no episode has it, and labels are to be made by it; there are {', '.join(sorted(there)) or 'none'}"
    lacking = [view for view in source.config.cameras.views if view not in there]
    return [Finding("camera_without_files", detail, "warning", camera=view) for view in lacking]


def _with_stated(records: tuple[EpisodeRecord, ...], stated: Mapping[int, Outcome]) -> tuple[EpisodeRecord, ...]:
    """The records, with the outcomes that people gave in the place of their source's."""
    pairs = ((record, stated.get(record.episode_index)) for record in records)
    return tuple(replace(r, success=o.success, success_source=o.source) if o else r for r, o in pairs)


def storable(listing: Listing, limits: Limits) -> Listing:
    """What no table can keep (NUL characters, texts beyond the limit) is shown otherwise, or cut off.

    An episode that has it cannot be used.
    """

    def shown(text: str) -> str:
        return _without_nul(text[: limits.max_text])

    records, findings = [], list(listing.findings)
    for record in listing.records:
        episode = record.episode_index
        if any("\0" in text for text in _texts(record)):
            detail = "a text of it holds a NUL character, which no table can keep"
            findings.append(Finding("unreadable_data", detail, "unusable", episode))
            record = _as_shown(record, shown)
        longest = max(map(len, _texts(record)))
        if problem := limits.excess("max_text", longest, "characters of one of its texts"):
            findings.append(Finding("over_limit", problem, "unusable", episode))
            record = _as_shown(record, shown)
        records.append(record)
    cameras, robot = tuple(map(shown, listing.cameras)), listing.robot and shown(listing.robot)
    longest = max(map(len, (listing.robot or "", *listing.cameras)))
    if problem := limits.excess("max_text", longest, "characters of the name of its robot or of a camera"):
        findings.append(Finding("over_limit", problem, "warning"))
    return replace(listing, robot=robot, cameras=cameras, records=tuple(records), findings=tuple(findings))


def _as_shown(record: EpisodeRecord, shown: Callable[[str], str]) -> EpisodeRecord:
    videos = [replace(v, camera=shown(v.camera), uri=shown(v.uri)) for v in record.videos]
    steps = [replace(step, name=shown(step.name), notes=step.notes and shown(step.notes)) for step in record.steps]
    return replace(
        record,
        source_id=shown(record.source_id),
        task=record.task and shown(record.task),
        tasks=tuple(map(shown, record.tasks)),
        group=shown(record.group),
        data_uri=record.data_uri and shown(record.data_uri),
        data_key=shown(record.data_key),
        videos=tuple(videos),
        steps=tuple(steps),
        plan=tuple(map(shown, record.plan)),
    )


def _texts(record: EpisodeRecord) -> Iterator[str]:
    yield from (record.source_id, record.task or "", *record.tasks)
    yield from (record.group, record.data_uri or "", record.data_key)
    for video in record.videos:
        yield from (video.camera, video.uri)
    for step in record.steps:
        yield from (step.name, step.notes or "")
    yield from record.plan


def _without_nul(text: str) -> str:
    return text.replace("\0", "\ufffd")


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


def findings_table(dataset: str, stage: str, findings: list[Finding], chunk_size: int) -> pa.Table:
    """Findings of one stage as rows; what is found several times of one thing is one row that says so."""
    alike: dict[tuple[int | None, str | None, str], list[Finding]] = {}
    for f in findings:
        alike.setdefault((f.episode_index, f.camera, f.reason), []).append(f)
    merged = map(_merged, alike.values())
    return TABLES["findings"].rows([_finding_row(dataset, stage, f, chunk_size) for f in merged])


def _finding_row(dataset: str, stage: str, f: Finding, chunk_size: int) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "episode_index": f.episode_index,
        "chunk": None if f.episode_index is None else f.episode_index // chunk_size,
        "camera": f.camera and _without_nul(f.camera),
        "stage": stage,
        "reason": f.reason,
        "detail": _without_nul(f.detail),
        "file": f.file and _without_nul(f.file),
        "severity": f.severity,
    }


def _details(findings: list[Finding]) -> list[str]:
    """What findings say, each once; with its file, where they are of several."""
    if len({f.file for f in findings}) == 1:
        details = [f.detail for f in findings]
    else:
        details = [f"{f.file} {f.detail}" if f.file else f.detail for f in findings]
    return list(dict.fromkeys(details))


def _merged(findings: list[Finding]) -> Finding:
    """One finding that says what several did, with the worst severity; of very many it names the first."""
    if len(findings) == 1:
        return findings[0]
    details = _details(findings)
    parts = details[:MAX_DETAILS]
    if len(details) > MAX_DETAILS:
        parts.append(f"and {len(details) - MAX_DETAILS} more")
    severity = "unusable" if any(f.severity == "unusable" for f in findings) else "warning"
    return replace(findings[0], detail="; ".join(parts), severity=severity)
