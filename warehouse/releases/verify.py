"""Is a release still what was frozen? Every byte of its shards, its index files, its card and its snapshot."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.files import sha256_file
from warehouse.lake import Lake, LakeError
from warehouse.releases.release import Release, card_path
from warehouse.shards import check_shard


@dataclass(frozen=True)
class Failure:
    what: str
    wrong: str


def verify_release(lake: Lake, release: Release) -> list[Failure]:
    """Everything about a release that is not as it was recorded; reads all of its bytes."""
    found = []
    for s in release.shard_list:
        path = s.path(lake.workspace)
        found += [Failure(str(path), wrong) for wrong in check_shard(path, s.sha256, s.bytes)]
    path = card_path(lake.workspace, release.name)
    if not path.exists():
        found.append(Failure(str(path), "the card is missing"))
    return found + list(_lake(lake, release))


def file_failure(path: Path, size: int, sha256: str) -> Failure | None:
    """What is wrong with one file's bytes. A bucket's client may also say that it is not to be reached."""
    if not path.exists():
        return Failure(str(path), "missing")
    have = path.stat().st_size
    if have != size:
        return Failure(str(path), f"has {have} bytes, not {size}: {'cut off' if have < size else 'too long'}")
    if sha256_file(path) != sha256:
        return Failure(str(path), "its bytes are not those that were written (sha256 differs)")
    return None


def _lake(lake: Lake, release: Release) -> Iterator[Failure]:
    """Does the lake, as it was at the release's snapshot, list the same shards with as many samples?"""
    where = f"snapshot {release.snapshot}"
    try:
        then = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    except LakeError as e:
        yield Failure(where, str(e))
        return
    try:
        recorded = dict(then.rows("SELECT shard, sha256 FROM shards"))
        samples = dict(then.rows("SELECT shard, count(*) FROM sample_location GROUP BY 1"))
        frozen = {r[0] for r in then.rows("SELECT shard FROM release_shards WHERE name = ?", [release.name])}
    finally:
        then.con.close()
    for s in release.shard_list:
        if recorded.get(s.shard) != s.sha256:
            yield Failure(where, f"the lake does not list {s.shard} as the release does")
        elif samples.get(s.shard, 0) != s.samples:
            yield Failure(
                where, f"the lake has {samples.get(s.shard, 0)} samples of {s.shard}, the release {s.samples}"
            )
    if frozen != {s.shard for s in release.shard_list}:
        yield Failure(where, "the release listed other shards there than it does now")
