"""The episodes stage: list a dataset from its metadata, give chunks and splits. Decodes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from ingest.episode import EpisodeRecord, Finding, Listing, record_row
from ingest.files import Source
from ingest.identity import settle
from ingest.source import list_episodes
from ingest.splits import SplitConfig, assign_splits
from warehouse.tables import TABLES

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
    listing = settle(list_episodes(source), config, known)
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
                "camera": f.camera,
                "stage": stage,
                "reason": f.reason,
                "detail": f.detail,
                "file": f.file,
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
