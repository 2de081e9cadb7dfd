"""The episodes stage: list a dataset from its metadata, give chunks and splits. Decodes nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding, Listing, record_row
from ingest.identity import settle
from ingest.source import list_episodes
from ingest.sources.files import Source
from ingest.splits import SplitConfig, assign_splits

CODE_VERSION = "episodes-2"
MAX_DETAILS = 20  # of one thing, in one finding


@dataclass(frozen=True)
class EpisodesResult:
    tables: dict[str, pa.Table]
    findings: list[Finding]
    records: tuple[EpisodeRecord, ...]
    ids: pa.Table  # of the whole dataset, for the table episode_ids


def episodes_stage(
    source: Source, splits: SplitConfig, before: Mapping[str, str], known: Mapping[str, int]
) -> EpisodesResult:
    """Facts and splits of a dataset's episodes, of those that the source has selected.

    `before` holds the splits that groups were given earlier, `known` the indices of source ids. Both are decided over
    the whole dataset, so that building a part of it first changes nothing later.
    """
    config, selected = source.config, source.selected
    listing = settle(without_nul(list_episodes(source)), config, known)
    given = assign_splits(config.name, config.role, listing.records, splits, before)
    records = tuple(r for r in listing.records if selected is None or r.episode_index in selected)
    kept = {r.episode_index for r in records}
    findings = [f for f in listing.findings if f.episode_index is None or f.episode_index in kept]
    facts, rows = [], []
    for r in records:
        where = {"dataset": config.name, "chunk": r.episode_index // config.chunk_size}
        facts.append(where | record_row(r))
        rows.append(where | {"episode_index": r.episode_index, "group": r.group, "split": given[r.group]})
    tables = {
        "datasets": TABLES["datasets"].rows([dataset_row(source, listing)]),
        "episode_facts": TABLES["episode_facts"].rows(facts),
        "splits": TABLES["splits"].rows(rows),
    }
    name = config.name
    ids = [{"dataset": name, "episode_index": r.episode_index, "source_id": r.source_id} for r in listing.records]
    return EpisodesResult(tables, findings, records, TABLES["episode_ids"].rows(ids))


def without_nul(listing: Listing) -> Listing:
    """NUL characters, which the lake cannot hold, are shown as another; an episode that has one cannot be used."""
    records, findings = [], list(listing.findings)
    for r in listing.records:
        if any("\0" in text for text in _texts(r)):
            detail = "a text of it holds a NUL character, which no table can keep"
            findings.append(Finding("unreadable_data", detail, "unusable", r.episode_index))
            r = replace(
                r,
                source_id=_shown(r.source_id),
                task=r.task and _shown(r.task),
                tasks=tuple(map(_shown, r.tasks)),
                group=_shown(r.group),
                data_uri=r.data_uri and _shown(r.data_uri),
                data_key=_shown(r.data_key),
                videos=tuple(replace(v, camera=_shown(v.camera), uri=_shown(v.uri)) for v in r.videos),
                steps=tuple(replace(s, name=_shown(s.name)) for s in r.steps),
            )
        records.append(r)
    cameras, robot = tuple(map(_shown, listing.cameras)), listing.robot and _shown(listing.robot)
    return replace(listing, robot=robot, cameras=cameras, records=tuple(records), findings=tuple(findings))


def _texts(r: EpisodeRecord) -> Iterator[str]:
    yield from (r.source_id, r.task or "", *r.tasks, r.group, r.data_uri or "", r.data_key)
    for v in r.videos:
        yield from (v.camera, v.uri)
    for s in r.steps:
        yield s.name


def _shown(text: str) -> str:
    return text.replace("\0", "\ufffd")


def dataset_row(source: Source, listing: Listing) -> dict:
    config = source.config
    return {
        "dataset": config.name,
        "title": config.title or config.name,
        "robot": listing.robot,
        "format": listing.format,
        "fps": listing.fps,
        "license": config.license,
        "source_uri": config.source,
        "source_revision": config.revision,
        "chunk_size": config.chunk_size,
        "role": config.role,
        "cameras": list(listing.cameras),
        "notes": config.notes,
    }


def findings_table(dataset: str, stage: str, findings: list[Finding], chunk_size: int) -> pa.Table:
    """Findings of one stage as rows; what is found several times of one thing is one row that says so."""
    alike: dict[tuple, list[Finding]] = {}
    for f in findings:
        alike.setdefault((f.episode_index, f.camera, f.reason), []).append(f)
    return TABLES["findings"].rows(
        [
            {
                "dataset": dataset,
                "episode_index": f.episode_index,
                "chunk": None if f.episode_index is None else f.episode_index // chunk_size,
                "camera": f.camera and _shown(f.camera),
                "stage": stage,
                "reason": f.reason,
                "detail": _shown(f.detail),
                "file": f.file and _shown(f.file),
                "severity": f.severity,
            }
            for f in map(_merged, alike.values())
        ]
    )


def _merged(findings: list[Finding]) -> Finding:
    """One finding that says what several did, with the worst severity; of very many it names the first."""
    if len(findings) == 1:
        return findings[0]
    files = {f.file for f in findings}
    details = dict.fromkeys(f.detail if len(files) == 1 or not f.file else f"{f.file} {f.detail}" for f in findings)
    shown = [*details][:MAX_DETAILS]
    rest = [f"and {len(details) - len(shown)} more"] if len(details) > len(shown) else []
    severity = "unusable" if any(f.severity == "unusable" for f in findings) else "warning"
    return replace(findings[0], detail="; ".join([*shown, *rest]), severity=severity)
