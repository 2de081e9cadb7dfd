"""The sweep: what the lake does not list does not exist, so it is deleted; what a release names is kept."""

import time
from pathlib import Path

from warehouse.lake import Lake

GRACE_S = 900.0  # a file this young may belong to a build that has not recorded it yet


def sweep(lake: Lake, grace_s: float = GRACE_S) -> int:
    """Delete unlisted keyframes, shards, half-written files and orphaned lake data; returns how many files."""
    root = lake.workspace.root
    with lake.lock():
        orphans = lake.rows("CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)")
        keyframes = {f"{r[0]}.jpg" for r in lake.rows("SELECT DISTINCT sha256 FROM keyframes")}
        shards = {r[0] for r in lake.rows("SELECT shard FROM shards UNION SELECT shard FROM release_shards")}
        stems = {s.removesuffix(".tar") for s in shards}
        old = [p for p in _files(root / "keyframes", grace_s) if p.name not in keyframes]
        old += [p for p in _files(root / "shards", grace_s) if p.name.split(".", 1)[0] not in stems]
        for path in old:
            path.unlink(missing_ok=True)
    return len(old) + len(orphans)


def _files(folder: Path, grace_s: float) -> list[Path]:
    before = time.time() - grace_s
    return [p for p in folder.rglob("*") if p.is_file() and p.stat().st_mtime < before] if folder.exists() else []
