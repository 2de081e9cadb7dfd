"""Conditions for a release: nothing leaks between splits, and all rows obey the schema.

Each release keeps, with its snapshot, which datasets were looked into. The next one reads only those that have changed
since: the guards read every frame's row, which takes half a minute for 60 million.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import duckdb

from core.tables import STAGED_TABLES
from warehouse.lake import Lake
from warehouse.lake.checks import split_leaks
from warehouse.lake.connection import CATALOG
from warehouse.lake.soundness import corpus_soundness
from warehouse.releases.contents import ReleaseError

# Raised where a guard finds something that it did not find before: then what was looked into once says nothing
CODE_VERSION = "guards-1"
GUARDED_TABLES = (*STAGED_TABLES, "findings")  # what the guards read that has rows of datasets


@dataclass(frozen=True)
class Guarded:
    """The newest release whose guards were these: its snapshot, and the datasets that they looked into."""

    snapshot: int
    datasets: frozenset[str]


def guard(lake: Lake, datasets: Sequence[str]) -> str:
    """Look into what is to be released; returns what the release keeps of it. Raises ReleaseError."""
    unchanged = unchanged_datasets(lake)
    changed = [name for name in datasets if name not in unchanged]
    # One dataset may leak into another: where one has changed, all are compared
    if changed:
        leaks = split_leaks(lake, datasets)
        if not leaks.passed:
            raise ReleaseError(
                f"no release while test data leaks into training: {leaks.detail}. Mend the splits (group_field in the "
                "registry entry), or take one of the two down: proccorpus takedown DATASET --episodes N --reason TEXT"
            )
        sound = corpus_soundness(lake, changed)
        if not sound.passed:
            raise ReleaseError(f"no release of a corpus that is broken: {sound.detail}. Build what is named again")
    return json.dumps({"guards": CODE_VERSION, "datasets": sorted(datasets)})


def unchanged_datasets(lake: Lake) -> frozenset[str]:
    """Datasets that the guards of the newest release looked into, together, and of which no row has changed since."""
    last = _last_guarded(lake)
    if last is None:
        return frozenset()
    try:
        return last.datasets - _changed_since(lake, last.snapshot, last.datasets)
    except duckdb.Error:
        # A table that was made or altered since, or a snapshot that is gone: all is looked into
        return frozenset()


def _last_guarded(lake: Lake) -> Guarded | None:
    rows = lake.rows(
        f"SELECT r.snapshot, c.commit_extra_info FROM releases r JOIN {CATALOG}.ducklake_snapshot_changes c "
        "ON c.snapshot_id = r.snapshot ORDER BY r.snapshot DESC LIMIT 1"
    )
    kept = json.loads(rows[0][1]) if rows and rows[0][1] else {}
    if kept.get("guards") != CODE_VERSION:
        return None
    return Guarded(rows[0][0], frozenset(kept["datasets"]))


def _changed_since(lake: Lake, snapshot: int, datasets: Collection[str]) -> set[str]:
    """Those of some datasets with rows that were added or deleted after a snapshot, whoever did it."""
    changed: set[str] = set()
    now = lake.snapshot()
    for table in GUARDED_TABLES:
        # Only files of that time are read, and of them the column alone
        sql = "SELECT DISTINCT dataset FROM ducklake_table_changes('lake', 'main', ?, ?, ?)"
        changed.update(lake.column(sql, [table, snapshot, now]))
    return changed.intersection(datasets)
