"""What nothing names any more is deleted: by the sweep before each build, and by gc, which also forgets old snapshots.

The sweep deletes files that the lake does not list. gc first expires lake snapshots that no release pins, so that what
only they listed goes too, and looks into buckets and into the fetched files of what was taken down.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from core.tables import SPLITS
from warehouse.lake.lake import Lake
from warehouse.releases.takedown import taken_down

if TYPE_CHECKING:
    from upath import UPath

GRACE_S = 900.0  # a file this young may belong to a build that has not recorded it yet
KEEP_DAYS = 7.0


@dataclass(frozen=True)
class Freed:
    """What was deleted, or would be; `what` is one of a few kinds."""

    what: str
    files: int
    bytes: int


def sweep(lake: Lake, grace_s: float = GRACE_S) -> int:
    """Delete unlisted keyframes, shards, half-written files and orphaned lake data; returns how many files."""
    with lake.lock():
        orphans = lake.rows("CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)")
        old = [*unlisted_keyframes(lake, grace_s), *unlisted_shards(lake, grace_s)]
        for path in old:
            path.unlink(missing_ok=True)
    return len(old) + len(orphans)


def collect(
    lake: Lake, keep_days: float = KEEP_DAYS, *, dry_run: bool = False, grace_s: float = GRACE_S
) -> list[Freed]:
    """Delete what neither the present corpus nor a release names; with `dry_run` only say what that is.

    Snapshots younger than `keep_days` stay too, and with them the lake's data that they list (not shards or keyframes).
    A query that still reads an expired snapshot may fail.
    """
    with lake.lock():
        expired = _expirable(lake, keep_days)
        data = _data_of_expired(lake, expired)
        files = {
            "keyframes": list(unlisted_keyframes(lake, grace_s)),
            "shards": [*unlisted_shards(lake, grace_s), *_unlisted_in_stores(lake, grace_s)],
            "fetched source files": list(_sources_taken_down(lake)),
            "edited pictures": list(_edits_taken_down(lake)),
        }
        freed = [
            Freed("lake snapshots", len(expired), 0),
            Freed("lake data", len(data), sum(size for _, size in data)),
            *(Freed(what, len(paths), sum(p.stat().st_size for p in paths)) for what, paths in files.items()),
        ]
        if not dry_run:
            if expired:
                lake.con.execute(f"CALL ducklake_expire_snapshots('lake', versions => {expired})")
            lake.con.execute("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)")
            lake.con.execute("CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)")
            for paths in files.values():
                for path in paths:
                    path.unlink(missing_ok=True)
            _drop_empty_folders(lake.workspace.sources)
            _drop_empty_folders(lake.workspace.root / "edits")
    return freed


# Snapshots


def _expirable(lake: Lake, keep_days: float) -> list[int]:
    """Snapshots that are old enough and that no release pins; never the present one."""
    before = datetime.now(UTC) - timedelta(days=keep_days)
    rows = lake.rows("SELECT snapshot_id, snapshot_time FROM ducklake_snapshots('lake') ORDER BY 1")
    pinned = {r[0] for r in lake.rows("SELECT snapshot FROM releases")} | {lake.snapshot()}
    return [snapshot for snapshot, at in rows if snapshot not in pinned and at < before]


def _data_of_expired(lake: Lake, expired: list[int]) -> list[tuple[str, int]]:
    """(path, bytes) of the lake's files that only expired snapshots list, and of those waiting to be deleted.

    Read from DuckLake's own catalog, since a dry run of expiring does not say which files it would free.
    """
    gone = [str(s) for s in expired] or ["-1"]
    catalog = "__ducklake_metadata_lake"
    kept = f"SELECT snapshot_id FROM {catalog}.ducklake_snapshot WHERE snapshot_id NOT IN ({', '.join(gone)})"
    sql = " UNION ALL ".join(
        f"SELECT path, file_size_bytes FROM {catalog}.{table} f WHERE f.end_snapshot IS NOT NULL AND NOT EXISTS "
        f"(FROM ({kept}) k WHERE k.snapshot_id >= f.begin_snapshot AND k.snapshot_id < f.end_snapshot)"
        for table in ("ducklake_data_file", "ducklake_delete_file")
    )
    return lake.rows(sql)


# Files


def unlisted_keyframes(lake: Lake, grace_s: float) -> Iterator[Path]:
    """Asked of the files that are there: there may be millions of listed ones, but they need not stand in memory."""
    files = {p.name.removesuffix(".jpg"): p for p in _files(lake.workspace.root / "keyframes", grace_s)}
    unlisted = list(files)
    releases = lake.rows("SELECT name, snapshot, created_at FROM releases")
    wanted = [("SELECT sha256 FROM keyframes", [])]
    for name, snapshot, created_at in releases:
        # what was taken down by then is in the snapshot, but not in the release
        of_release = (
            f"SELECT sha256 FROM (FROM keyframes AT (VERSION => {snapshot})) k WHERE dataset IN "
            "(SELECT dataset FROM release_shards WHERE name = ?) "
            "AND NOT EXISTS (FROM takedowns t WHERE t.dataset = k.dataset AND t.created_at <= ? "
            "AND (t.episode_index IS NULL OR t.episode_index = k.episode_index))"
        )
        wanted.append((of_release, [name, created_at]))
    for listed, values in wanted:
        if unlisted:
            lake.con.register("found_files", pa.table({"sha256": unlisted}))
            unlisted = [r[0] for r in lake.rows(f"FROM found_files ANTI JOIN ({listed}) USING (sha256)", values)]
            lake.con.unregister("found_files")
    return (files[name] for name in unlisted)


def unlisted_shards(lake: Lake, grace_s: float) -> Iterator[Path]:
    stems = _listed_stems(lake)
    return (p for p in _files(lake.workspace.root / "shards", grace_s) if p.name.split(".", 1)[0] not in stems)


def _listed_stems(lake: Lake) -> set[str]:
    rows = lake.rows("SELECT shard FROM shards UNION SELECT shard FROM release_shards")
    return {r[0].removesuffix(".tar") for r in rows}


def _unlisted_in_stores(lake: Lake, grace_s: float) -> Iterator["UPath"]:
    """Tars and indices of this corpus's datasets below the addresses that shards were written to.

    Only files named as ours are: a store may hold other things.
    """
    from upath import UPath

    stores = lake.rows(
        "SELECT store FROM shards WHERE store IS NOT NULL UNION "
        "SELECT store FROM release_shards WHERE store IS NOT NULL"
    )
    stems = _listed_stems(lake)
    ours = tuple(f"{r[0]}-" for r in lake.rows("SELECT dataset FROM datasets"))
    before = time.time() - grace_s
    for (store,) in stores:
        for split in SPLITS:
            folder = UPath(store) / split
            for path in folder.iterdir() if folder.exists() else ():
                name = path.name
                known = name.startswith(ours) and name.endswith((".tar", ".index.json"))
                if known and name.split(".", 1)[0] not in stems and _modified(path) < before:
                    yield path


def _modified(path: "UPath") -> float:
    at = path.fs.modified(path.path)
    return at.timestamp() if isinstance(at, datetime) else float(at)


def _files(folder: Path, grace_s: float) -> list[Path]:
    before = time.time() - grace_s
    return [p for p in folder.rglob("*") if p.is_file() and p.stat().st_mtime < before] if folder.exists() else []


# Sources


def _sources_taken_down(lake: Lake) -> Iterator[Path]:
    """Files fetched from elsewhere that only episodes taken down use."""
    for dataset, episodes in taken_down(lake).items():
        cache = lake.workspace.sources / dataset
        if not cache.exists():
            continue
        if episodes is None:
            yield from (p for p in cache.rglob("*") if p.is_file())
            continue
        down, others = _uses(lake, dataset, episodes)
        for uri in sorted(down - others):
            yield from (p for p in cache.glob(f"*/{_literal_glob(uri)}") if p.is_file())


def _edits_taken_down(lake: Lake) -> Iterator[Path]:
    for dataset, episodes in taken_down(lake).items():
        whole = lake.workspace.root / "edits" / dataset
        folders = [whole] if episodes is None else [lake.workspace.edits(dataset, e) for e in sorted(episodes)]
        yield from (p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file())


def _uses(lake: Lake, dataset: str, episodes: Iterable[int]) -> tuple[set[str], set[str]]:
    """Files that some episodes use, and files that its others use; of an archive's member: the archive."""
    rows = lake.rows(
        "SELECT list_contains(?, episode_index), data_uri, list_transform(videos, lambda v: v.uri) FROM episode_facts "
        "WHERE dataset = ?",
        [sorted(episodes), dataset],
    )
    used: dict[bool, set[str]] = {True: set(), False: set()}
    for down, rows_uri, videos in rows:
        used[down] |= {uri.split("!/", 1)[0] for uri in [rows_uri, *(videos or [])] if uri}
    return used[True], used[False]


def _literal_glob(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _drop_empty_folders(root: Path) -> None:
    for folder in sorted((p for p in root.rglob("*") if p.is_dir()), reverse=True) if root.exists() else ():
        if not any(folder.iterdir()):
            folder.rmdir()
