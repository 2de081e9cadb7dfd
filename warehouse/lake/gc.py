"""Away with what nothing names any more: the sweep moves it aside before a build makes something, gc deletes it.

The sweep moves files of the workspace that the lake does not list to .removed/: another catalog than this one may list
them. gc deletes them there, first expires lake snapshots that no release pins, so that what only they listed goes too,
and looks into buckets and into the fetched files of what was taken down. At its end it merges small files of rows.
"""

import glob
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, product
from math import inf
from pathlib import Path
from typing import Any

from core.files import HALF_FILE, files_below
from core.paths import Workspace
from core.tables import SPLITS, TABLES
from core.values import imported
from warehouse.lake.catalog import is_older
from warehouse.lake.connection import CATALOG
from warehouse.lake.lake import Lake
from warehouse.lake.place import LakeError, LakePlace
from warehouse.lake.schema import index_statistics
from warehouse.lake.statements import taken_down

GRACE_S = 900.0  # a file this young may belong to a build that has not recorded it yet
SMALL_BYTES = 32 << 20  # files of rows that are smaller are merged with others of their partition
MERGED_AT_ONCE = 200  # partitions, in one commit: a build waits for it
# Snapshots that are old enough and that no release pins; never the present one
EXPIRABLE = (
    "SELECT snapshot_id FROM ducklake_snapshots('lake') WHERE snapshot_time < ? AND snapshot_id <> ? AND "
    "snapshot_id NOT IN (SELECT snapshot FROM releases) ORDER BY 1"
)
# Files that only some episodes use; of an archive's member, `archive!/member`: the archive, which is whole
USED_ALONE = """
WITH used AS (SELECT episode_index, unnest(list_append(list_transform(videos, lambda v: v.uri), data_uri)) AS uri
              FROM episode_facts WHERE dataset = ?)
SELECT split_part(uri, '!/', 1) AS file FROM used
GROUP BY 1 HAVING file <> '' AND bool_and(list_contains(?, episode_index)) ORDER BY 1"""
ORPHANED = "CALL ducklake_delete_orphaned_files('lake', dry_run => true, cleanup_all => true)"
CLEAN_UP = "CALL ducklake_cleanup_old_files('lake', cleanup_all => true)"


@dataclass(frozen=True)
class Freed:
    """A kind of deleted files, or of files to delete; `what` is one of a few kinds."""

    what: str
    files: int
    bytes: int


def sweep(lake: Lake, grace_s: float = GRACE_S) -> int:
    """Move unlisted keyframes, shards, half-written files and orphaned lake data aside; returns how
    many files.

    What this catalog itself lists as to be deleted, since it was merged, is deleted. A bucket is
    left to gc.
    """
    with lake.lock():
        with lake.reading():
            old = [*unlisted_keyframes(lake, grace_s), *unlisted_shards(lake, grace_s)]
            orphaned = [] if lake.place.is_bucket else lake.column(ORPHANED)
            is_read = bool(_scheduled(lake, grace_s))
        set_aside(lake.workspace, lake.place, [*old, *map(Path, orphaned)])
        merged = [] if is_read else lake.rows(CLEAN_UP)
    return len(old) + len(orphaned) + len(merged)


def set_aside(workspace: Workspace, lake_place: LakePlace, paths: Iterable[Path]) -> None:
    """Move files of a workspace to the same place below .removed/, for gc to delete; half-written ones go at once."""
    roots = (workspace.root, Path(lake_place.data))
    for path in paths:
        if path.name.startswith(HALF_FILE):
            path.unlink()
            continue
        root = next((root for root in roots if path.is_relative_to(root)), path.parent)
        target = workspace.removed / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)


def collect(
    lake: Lake, keep_days: float = 7.0, *, dry_run: bool = False, grace_s: float = GRACE_S
) -> list[Freed]:
    """Delete what neither the present corpus nor a release uses; with `dry_run` only list it.

    Snapshots younger than `keep_days` stay too, and with them the lake's data that they list (not shards or keyframes).
    A query that still reads an expired snapshot may fail. Raises LakeError: a catalog that is an older copy does not
    say what is of no use.
    """
    if reason := is_older(lake.workspace, lake.snapshot()):
        raise LakeError(f"{lake.place.catalog}: {reason}; gc deletes nothing meanwhile")
    # To look is no write: a workspace that may only be read can be looked at, too
    with nullcontext() if dry_run else lake.lock():
        # What nothing names any more, while all of it is still there to be counted
        old = datetime.now(UTC) - timedelta(days=keep_days)
        expired = lake.column(EXPIRABLE, [old, lake.snapshot()])
        data_bytes = _data_of_expired(lake, expired)
        files = {
            "keyframes": list(unlisted_keyframes(lake, grace_s)),
            "shards": [*unlisted_shards(lake, grace_s), *_unlisted_in_stores(lake, grace_s)],
            "fetched source files": list(_sources_taken_down(lake)),
            "edited pictures": list(_edits_taken_down(lake)),
            "files set aside": _files(lake.workspace.removed),
        }
        freed = [
            Freed("lake snapshots", len(expired), 0),
            Freed("lake data", len(data_bytes), sum(data_bytes)),
        ]
        for kind, paths in files.items():
            freed.append(Freed(kind, len(paths), sum(p.stat().st_size for p in paths)))
        # Snapshots first: a crash in between leaves files that nothing lists, not lists of files that are gone
        if not dry_run:
            _expire(lake, expired, grace_s)
            _delete(chain.from_iterable(files.values()))
            roots = (lake.workspace.sources, lake.workspace.root / "edits", lake.workspace.removed)
            folders = filter(Path.is_dir, chain.from_iterable(root.rglob("*") for root in roots))
            for folder in sorted(folders, reverse=True):  # the innermost first
                if not any(folder.iterdir()):
                    folder.rmdir()
    if not dry_run:
        lake.back_up()
    return freed


def _expire(lake: Lake, snapshots: list[int], grace_s: float) -> None:
    """Forget snapshots, and delete the lake's data that no other lists."""
    merged = _scheduled(lake, grace_s)
    if snapshots:
        lake.con.execute(f"CALL ducklake_expire_snapshots('lake', versions => {snapshots})")
    if merged:
        # DuckLake will not mind that the files are gone
        data = imported("upath:UPath")(lake.place.data)
        _delete(data / path for path in sorted(_scheduled(lake) - merged))
    else:
        lake.con.execute(CLEAN_UP)
    lake.con.execute("CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)")


def _scheduled(lake: Lake, grace_s: float | None = None) -> set[str]:
    """Files that DuckLake is to delete, by their path within the data: all, or those that came
    there so lately.

    What was merged lately may be read by somebody who asked before. (DuckLake's own `older_than`
    counts whole days where the catalog is SQLite's.)
    """
    if grace_s is None:
        since = ""
    else:
        since = f"WHERE schedule_start::TIMESTAMPTZ > now() - to_seconds({float(grace_s)})"
    return set(
        lake.column(f"SELECT path FROM {CATALOG}.ducklake_files_scheduled_for_deletion {since}")
    )


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


# Small files


def merge(lake: Lake) -> tuple[int, int]:
    """Merge small files of rows within each partition; how many, and into how many.

    What queries answer stays, and so do releases and all snapshots. A build may run beside it: each
    commit merges some partitions of one table under the lock. The sweep, or gc, deletes the merged
    files once nobody can be reading them.
    """
    # A lake of an earlier version lacks it
    index_statistics(lake)
    merged = num_made = 0
    deletes = "SELECT delete_file_count FROM ducklake_table_info('lake') WHERE table_name = ?"
    for name, folders in _small_files(lake).items():
        if lake.rows(deletes, [name])[0][0]:
            lake.rewrite(name, folders)
        while True:
            files, into = lake.merge(name, folders, SMALL_BYTES, MERGED_AT_ONCE)
            merged = merged + files
            num_made = num_made + into
            if not files:
                break
    return merged, num_made


def small_files(lake: Lake) -> int:
    """How many files of rows there are to be merged, at most."""
    return sum(sum(of_table.values()) for of_table in _small_files(lake).values())


def _small_files(lake: Lake) -> dict[str, dict[str, int]]:
    """Of each table the folders of partitions with several small files, and how many each has."""
    rows = lake.rows(
        "SELECT t.table_name, regexp_replace(f.path, '[^/]*$', '') AS folder, count(*) "
        f"FROM {CATALOG}.ducklake_data_file f JOIN {CATALOG}.ducklake_table t ON t.table_id = f.table_id "
        "AND t.end_snapshot IS NULL WHERE f.end_snapshot IS NULL AND f.file_size_bytes < ? "
        "GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL",
        [SMALL_BYTES],
    )
    by_table: dict[str, dict[str, int]] = {}
    for table, folder, files in rows:
        if table in TABLES:
            by_table.setdefault(table, {})[folder] = files
    return by_table


# Snapshots


def _data_of_expired(lake: Lake, expired: list[int]) -> list[int]:
    """Bytes of each of the lake's files that only expired snapshots list, and of those waiting to
    be deleted.

    Read from DuckLake's own catalog, since a dry run of expiring does not say which files it would
    free.
    """
    expired_ids = ", ".join(map(str, expired)) or "-1"
    staying = f"SELECT snapshot_id FROM {CATALOG}.ducklake_snapshot WHERE snapshot_id NOT IN ({expired_ids})"
    sql = " UNION ALL ".join(
        f"SELECT file_size_bytes FROM {CATALOG}.{table} f WHERE f.end_snapshot IS NOT NULL AND NOT EXISTS "
        f"(FROM ({staying}) k WHERE k.snapshot_id >= f.begin_snapshot AND k.snapshot_id < f.end_snapshot)"
        for table in ("ducklake_data_file", "ducklake_delete_file")
    )
    return lake.column(sql)


# Files


def unlisted_keyframes(lake: Lake, grace_s: float) -> Iterator[Path]:
    """Pictures that neither the corpus nor a release lists.

    The files that are there are looked up among the listed ones, of which there may be millions: those need not stand
    in memory.
    """
    entries = _old_entries(lake.workspace.root / "keyframes", grace_s)
    files = {entry.name.removesuffix(".jpg"): entry.path for entry in entries}
    unlisted = list(files)
    releases = lake.rows("SELECT snapshot, name, created_at, created_at FROM releases")
    of_releases = [
        (_keyframes_of_release(lake, snapshot), values) for snapshot, *values in releases
    ]
    for sql, values in [("SELECT sha256 FROM keyframes", []), *of_releases]:
        # Each list takes its pictures out of what is left, until nothing is left to ask about
        if unlisted:
            unlisted = _unlisted(lake, unlisted, sql, values)
    return (Path(files[name]) for name in unlisted)


def _unlisted(lake: Lake, names: Sequence[str], sql: str, values: Sequence[Any]) -> list[str]:
    """Which of some names a query with parameters does not have."""
    # As one text, with a sign that no file's name has: a list is slower, and Arrow takes 0.05 s to import
    hash_query = "SELECT unnest(string_split(?, '/')) AS sha256"
    return lake.column(
        f"FROM ({hash_query}) ANTI JOIN ({sql}) USING (sha256)", ["/".join(names), *values]
    )


def _keyframes_of_release(lake: Lake, snapshot: int) -> str:
    """SQL for the pictures that a release holds; its parameters are the release's name, and twice
    its time.

    What was taken down by then is in the release's snapshot, but not in the release. Its numbers
    are those of then: one from before recordings were known has the numbers that were said.
    """
    numbers = "SELECT dataset, episode_index FROM takedowns WHERE created_at <= ? AND episode_index IS NOT NULL"
    if snapshot >= _first_snapshot_of_recordings(lake):
        numbers = (
            "SELECT coalesce(r.dataset, t.dataset), coalesce(r.episode_index, t.episode_index) FROM takedowns t "
            f"LEFT JOIN (FROM recordings AT (VERSION => {snapshot}) WHERE left_at IS NULL) r USING (recording) "
            "WHERE t.created_at <= ? AND t.episode_index IS NOT NULL "
            "AND (t.recording IS NULL OR r.recording IS NOT NULL)"
        )
    return (
        f"SELECT sha256 FROM (FROM keyframes AT (VERSION => {snapshot})) k "
        "WHERE dataset IN (SELECT dataset FROM release_shards WHERE name = ?) "
        f"AND (dataset, episode_index) NOT IN ({numbers}) "
        "AND dataset NOT IN (SELECT dataset FROM takedowns WHERE created_at <= ? AND episode_index IS NULL)"
    )


def _first_snapshot_of_recordings(lake: Lake) -> int:
    """The first snapshot in which the lake had the table of recordings."""
    sql = (
        f"SELECT min(begin_snapshot) FROM {CATALOG}.ducklake_table WHERE table_name = 'recordings'"
    )
    return lake.rows(sql)[0][0]


def unlisted_shards(lake: Lake, grace_s: float) -> Iterator[Path]:
    """Tars and indices in the workspace that neither the corpus nor a release lists."""
    listed = _listed_stems(lake)
    return (
        path
        for path in _files(lake.workspace.root / "shards", grace_s)
        if _stem(path) not in listed
    )


def _listed_stems(lake: Lake) -> set[str]:
    names = lake.column("SELECT shard FROM shards UNION SELECT shard FROM release_shards")
    return {name.removesuffix(".tar") for name in names}


def _unlisted_in_stores(lake: Lake, grace_s: float) -> Iterator[Any]:
    """Tars and indices of this corpus's datasets below the addresses that shards were written to.

    Only files named as ours are: a store may hold other things.
    """
    stores = lake.column(
        "SELECT store FROM shards WHERE store IS NOT NULL UNION "
        "SELECT store FROM release_shards WHERE store IS NOT NULL"
    )
    # Stems, since a tar and its index go or stay together
    listed = _listed_stems(lake)
    our_names = tuple(f"{name}-" for name in lake.column("SELECT dataset FROM datasets"))
    latest_time = time.time() - grace_s
    # A store may be a bucket of many terabytes: only the folders that shards are written to are listed
    address = imported("upath:UPath")
    folders = (address(store) / split for store, split in product(stores, SPLITS))
    for path in chain.from_iterable(folder.iterdir() for folder in folders if folder.exists()):
        is_ours = path.name.startswith(our_names) and path.name.endswith((".tar", ".index.json"))
        if is_ours and _stem(path) not in listed and _modified(path) < latest_time:
            yield path


def _stem(path: Path) -> str:
    """The name that a tar and its index share."""
    return path.name.split(".", 1)[0]


def _modified(path: Any) -> float:
    modified_time = path.fs.modified(path.path)
    if isinstance(modified_time, datetime):
        return modified_time.timestamp()
    return float(modified_time)


def _files(folder: Path, grace_s: float = -inf) -> list[Path]:
    """Files below a folder; those that are older than a time of grace."""
    return [*map(Path, _old_entries(folder, grace_s))]


def _old_entries(folder: Path, grace_s: float) -> Iterator[os.DirEntry[str]]:
    latest_time = time.time() - grace_s
    for file in files_below(folder):
        with suppress(FileNotFoundError):  # a build has finished it, and given it its name
            if file.stat().st_mtime < latest_time:
                yield file


# Of what was taken down


def _sources_taken_down(lake: Lake) -> Iterator[Path]:
    """Files fetched from elsewhere that only episodes taken down use, in each revision that was fetched."""
    for dataset, episodes in taken_down(lake).items():
        cache = lake.workspace.sources / dataset
        if episodes is None:
            yield from _files(cache)
        elif cache.exists():
            for uri in lake.column(USED_ALONE, [dataset, sorted(episodes)]):
                yield from filter(Path.is_file, cache.glob(f"*/{glob.escape(uri)}"))


def _edits_taken_down(lake: Lake) -> Iterator[Path]:
    """Pictures that an image editor made of episodes taken down."""
    for dataset, episodes in taken_down(lake).items():
        of_episodes = (lake.workspace.edits(dataset, episode) for episode in sorted(episodes or ()))
        for folder in (
            [lake.workspace.root / "edits" / dataset] if episodes is None else of_episodes
        ):
            yield from sorted(_files(folder))
