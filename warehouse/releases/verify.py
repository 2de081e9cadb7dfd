"""Is a release still what was frozen? Every byte of its shards, its index files, its card and its snapshot."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from core.files import sha256_file
from warehouse.lake import Lake, LakeError
from warehouse.releases.release import Release, card_path
from warehouse.shards import check_shard, glance


@dataclass(frozen=True)
class Failure:
    what: str
    wrong: str


def verify_release(lake: Lake, release: Release) -> list[Failure]:
    """Everything about a release that is not as it was recorded; reads all of its bytes."""
    failures = []
    for shard in release.shard_list:
        path = shard.path(lake.workspace)
        failures += [Failure(str(path), wrong) for wrong in check_shard(path, shard.sha256, shard.bytes)]
    card = card_path(lake.workspace, release.name)
    if not card.exists():
        failures.append(Failure(str(card), "the card is missing"))
    return failures + list(_lake_failures(lake, release))


def file_failure(path: Path, size: int, sha256: str) -> Failure | None:
    """The problem with one file's bytes; None: there is none."""
    wrong = glance(path, size)
    if not wrong and sha256_file(path) != sha256:
        wrong = "its bytes are not those that were written (sha256 differs)"
    return Failure(str(path), wrong) if wrong else None


def _lake_failures(lake: Lake, release: Release) -> Iterator[Failure]:
    """Does the lake, as it was at the release's snapshot, list the same shards with as many samples?"""
    where = f"snapshot {release.snapshot}"
    try:
        then = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    except LakeError as e:
        yield Failure(where, str(e))
        return
    with closing(then.con):
        hashes = dict(then.rows("SELECT shard, sha256 FROM shards"))
        samples = dict(then.rows("SELECT shard, count(*) FROM sample_location GROUP BY 1"))
        frozen = set(then.column("SELECT shard FROM release_shards WHERE name = ?", [release.name]))
    # The release's list and the lake at its snapshot were written together, so they have to agree
    for shard in release.shard_list:
        name, there = shard.shard, samples.get(shard.shard, 0)
        if hashes.get(name) != shard.sha256:
            yield Failure(where, f"the lake does not list {name} as the release does")
        elif there != shard.samples:
            yield Failure(where, f"the lake has {there} samples of {name}, the release {shard.samples}")
    if frozen != {shard.shard for shard in release.shard_list}:
        yield Failure(where, "the release listed other shards there than it does now")
