"""The episodes stage: list a dataset from its metadata, give indices that stick, instructions, chunks and splits.

Decodes no episode.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from itertools import chain, count
from typing import Any

import pyarrow as pa

from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding, Listing, record_row
from ingest.outcomes import Outcome
from ingest.reasons import Limits
from ingest.registry import DatasetConfig
from ingest.signals.gripper import GripperSignal, signal_row
from ingest.signals.survey import survey
from ingest.source import list_episodes
from ingest.source_parts import joined
from ingest.sources.files import Source
from ingest.splits import SplitConfig, assign_splits
from ingest.task_texts import other_tasks

CODE_VERSION = "episodes-7"
UNKNOWN = "\ufffd"  # in the place of a NUL character
MAX_DETAILS = 20  # of one thing, in one finding
NOBODY: Mapping[int, Outcome] = {}  # said how a run ended
RATE_TOLERANCE = 0.02  # relative; a rate within it is taken as the same


def settle(listing: Listing, config: DatasetConfig, known_indices: Mapping[str, int]) -> Listing:
    """The listing with final source ids, indices and instructions, in order of episode_index.

    `known_indices` holds the indices that source ids were ever given. Where the source has no indices of its own, an
    episode
    keeps the one it had, and new ones count on from the largest: an index is never given twice.
    """
    findings = list(listing.findings)
    # Copies first: what is decided by source id must not be decided twice
    unique = _with_unique_ids(listing.records, findings)
    records = [_with_chosen_task(record, config, findings) for record in unique]
    if config.task is not None:
        findings = [finding for finding in findings if finding.reason != "no_task"]
    findings += _by_registry(listing, records, config)
    # Where the source has numbers of its own these stay, and a missing one is a finding
    if listing.numbered:
        gaps = _gaps([record.episode_index for record in records])
        findings += [Finding("index_gap", f"no episode {gap}", "warning") for gap in gaps]
    else:
        # Findings name episodes by the index as listed, too
        indices = _kept_indices(records, known_indices)
        findings = [_renumbered(finding, indices) for finding in findings]
        records = [_renumbered(record, indices) for record in records]
        records.sort(key=lambda r: r.episode_index)
    return replace(listing, records=tuple(records), findings=tuple(findings))


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


def _kept_indices(records: list[EpisodeRecord], known_indices: Mapping[str, int]) -> dict[int, int]:
    """The index that each episode keeps or gets, by its index as listed."""
    new = count(max(known_indices.values(), default=-1) + 1)
    indices = [(record.episode_index, known_indices.get(record.source_id)) for record in records]
    return {listed: next(new) if index is None else index for listed, index in indices}


def _renumbered[T: (EpisodeRecord, Finding)](item: T, indices: Mapping[int, int]) -> T:
    """A record, or a finding of an episode, with the index that the episode keeps."""
    if item.episode_index is None:
        return item
    return replace(item, episode_index=indices.get(item.episode_index, item.episode_index))


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
        findings.append(Finding("uninformative_task", detail, "warning", record.episode_index))
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


# The stage


@dataclass(frozen=True)
class EpisodesResult:
    tables: dict[str, pa.Table]
    findings: list[Finding]
    records: tuple[EpisodeRecord, ...]
    ids: pa.Table  # of the whole dataset, for the table episode_ids
    split_by_group: Mapping[str, str]  # of the whole dataset


def settled_listing(source: Source, known_indices: Mapping[str, int]) -> Listing:
    """The episodes of a source with the ids, indices and instructions that count; `known_indices`: the indices of
    source ids.

    Raises SourceError.
    """
    return settle(
        storable(list_episodes(source), source.config.limits), source.config, known_indices
    )


def episodes_stage(
    source: Source,
    listing: Listing,
    splits: SplitConfig,
    former_splits: Mapping[str, str],
    stated_outcomes: Mapping[int, Outcome] = NOBODY,
    signals: Sequence[GripperSignal] = (),
    withdrawn: Collection[int] = (),
) -> EpisodesResult:
    """Facts and splits of a dataset's episodes, of those that the source has selected, and its grippers.

    listing: all episodes (`settled_listing`). `former_splits` holds the splits that groups were given earlier,
    `signals` the
    grippers that an earlier survey showed. All are decided over the whole dataset, so that building a part of it first
    changes nothing later. `stated_outcomes`: outcomes by episode that people gave, which count before the source's.
    `withdrawn`:
    episodes that were taken down, which no samples of others may show.
    """
    config = source.config
    unusable = {
        f.episode_index
        for f in listing.findings
        if f.severity == "unusable" and f.episode_index is not None
    }
    split_by_group = assign_splits(
        config.name, config.role, listing.records, splits, former_splits, unusable
    )
    # Ids of all episodes are stored, so that one that is built later has the index that it has now
    ids = [
        {
            "dataset": config.name,
            "episode_index": record.episode_index,
            "source_id": record.source_id,
        }
        for record in listing.records
    ]

    surveyed = survey(source, listing.records, listing.robot, signals)
    records = listing.records
    findings = [*listing.findings, *surveyed.findings, *_views_without_files(source, listing)]
    # Findings of the dataset as a whole stay, whatever part of it is selected
    if source.selected is not None:
        records = tuple(r for r in records if r.episode_index in source.selected)
        selected = {r.episode_index for r in records}
        findings = [f for f in findings if f.episode_index is None or f.episode_index in selected]
    # Outcomes that people gave stand in the place of their source's
    outcome_pairs = ((record, stated_outcomes.get(record.episode_index)) for record in records)
    records = tuple(
        replace(r, success=o.success, success_source=o.source) if o else r for r, o in outcome_pairs
    )
    # `chunk` is the part of its dataset that an episode is built and stored with
    facts = []
    split_rows = []
    for record in records:
        index = record.episode_index
        group = record.group
        key = {"dataset": config.name, "chunk": index // config.chunk_size}
        facts.append(key | record_row(record))
        if group in split_by_group:
            split_rows.append(
                key | {"episode_index": index, "group": group, "split": split_by_group[group]}
            )
    # Of what is selected: nothing else may be shown, nor fetched
    task_rows = other_tasks(
        config.name, records, split_by_group, unusable.union(withdrawn), config.chunk_size
    )
    other_rows = [{"dataset": config.name} | task_row for task_row in task_rows]
    of_signals = enumerate(surveyed.signals)
    signal_rows = [
        signal_row(signal) | {"dataset": config.name, "signal_index": k} for k, signal in of_signals
    ]
    tables = {
        "datasets": TABLES["datasets"].rows([dataset_row(source, listing)]),
        "signals": TABLES["signals"].rows(signal_rows),
        "source_parts": TABLES["source_parts"].rows(
            [{"dataset": config.name} | vars(p) for p in listing.parts]
        ),
        "episode_facts": TABLES["episode_facts"].rows(facts),
        "splits": TABLES["splits"].rows(split_rows),
        "other_tasks": TABLES["other_tasks"].rows(other_rows),
    }
    return EpisodesResult(
        tables, findings, records, TABLES["episode_ids"].rows(ids), split_by_group
    )


def _views_without_files(source: Source, listing: Listing) -> list[Finding]:
    """A finding for each camera that labels are to be made by and that no episode has."""
    present_cameras = set(chain.from_iterable(record.cameras for record in listing.records))
    detail = (
        "no episode has it, and labels are to be made by it; there are "
        f"{', '.join(sorted(present_cameras)) or 'none'}"
    )
    lacking = [view for view in source.config.cameras.views if view not in present_cameras]
    return [Finding("camera_without_files", detail, "warning", camera=view) for view in lacking]


def storable(listing: Listing, limits: Limits) -> Listing:
    """What no table can keep (NUL characters, texts beyond the limit) is shown otherwise, or cut
    off.

    An episode that has it cannot be used.
    """
    records = []
    findings = list(listing.findings)
    for record in listing.records:
        texts = list(_texts(record))
        is_kept = not any("\0" in text for text in texts)
        if not is_kept:
            detail = "a text of it holds a NUL character, which no table can keep"
            findings.append(Finding("unreadable_data", detail, "unusable", record.episode_index))
        elif problem := limits.excess(
            "max_text", max(map(len, texts)), "characters of one of its texts"
        ):
            findings.append(Finding("over_limit", problem, "unusable", record.episode_index))
            is_kept = False
        records.append(record if is_kept else _shown(record, limits))
    cameras = _shown(listing.cameras, limits)
    robot = _shown(listing.robot, limits)
    parts = joined(_shown(part, limits) for part in listing.parts)
    longest = max(map(len, (listing.robot or "", *listing.cameras)))
    if problem := limits.excess(
        "max_text", longest, "characters of the name of its robot or of a camera"
    ):
        findings.append(Finding("over_limit", problem, "warning"))
    return replace(
        listing,
        robot=robot,
        cameras=cameras,
        records=tuple(records),
        findings=tuple(findings),
        parts=parts,
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


def _texts(value: Any) -> Iterator[str]:
    """A text, or all that are in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple) or is_dataclass(value):
        for part in value if isinstance(value, tuple) else vars(value).values():
            yield from _texts(part)


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
    finding_groups: dict[tuple[int | None, str | None, str], list[Finding]] = {}
    for f in findings:
        finding_groups.setdefault((f.episode_index, f.camera, f.reason), []).append(f)
    rows = []
    for f in map(_merged, finding_groups.values()):
        row = {
            "dataset": dataset,
            "episode_index": f.episode_index,
            "chunk": None if f.episode_index is None else f.episode_index // chunk_size,
            "camera": f.camera,
            "stage": stage,
            "reason": f.reason,
            "detail": f.detail,
            "file": f.file,
            "severity": f.severity,
        }
        rows.append(
            {k: v.replace("\0", UNKNOWN) if isinstance(v, str) else v for k, v in row.items()}
        )
    return TABLES["findings"].rows(rows)


def _merged(findings: list[Finding]) -> Finding:
    """One finding that says what several did, with the worst severity; of very many it names the first."""
    # With its file, where they are of several
    is_of_one = len({f.file for f in findings}) == 1
    details = list(
        dict.fromkeys(
            f.detail if is_of_one or not f.file else f"{f.file} {f.detail}" for f in findings
        )
    )
    remainder = [f"and {len(details) - MAX_DETAILS} more"] if len(details) > MAX_DETAILS else []
    severity = max((f.severity for f in findings), key=("warning", "unusable").index)
    return replace(
        findings[0], detail="; ".join([*details[:MAX_DETAILS], *remainder]), severity=severity
    )
