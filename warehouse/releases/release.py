"""Releases: a corpus frozen under a name: a lake snapshot, a shard list and a card; and is all of it still so?"""

import re
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from core.files import sha256_file, write_file
from core.names import LATEST, did_you_mean
from core.paths import Workspace
from core.tables import TABLES
from warehouse.lake import Lake, LakeError, content_key
from warehouse.lake.checks import corpus_soundness, split_leaks
from warehouse.releases.card import card
from warehouse.releases.contents import LOCAL, SHARD_COLUMNS, Contents, ReleaseError, ShardFile, contents
from warehouse.shards.check import check_shard, glance

NAME = re.compile(r"^[a-z0-9][a-z0-9._-]*$")


@dataclass(frozen=True)
class Release:
    """`config_hash` is over the shards and the configurations behind them: equal content, equal hash."""

    name: str
    snapshot: int
    config_hash: str
    shard_list: tuple[ShardFile, ...]

    def shards(self, *splits: str) -> list[ShardFile]:
        """Those of some splits, in order of name."""
        return [s for s in self.shard_list if s.split in splits]

    def paths(self, workspace: Workspace, *splits: str) -> list[Path]:
        return [s.path(workspace) for s in self.shards(*splits)]


def content_hash(lake: Lake, held: Contents) -> str:
    """What a release of these contents holds, whatever its name."""
    configs = lake.rows(
        "SELECT dataset, config_hash FROM build_configs WHERE list_contains(?, dataset) ORDER BY 1", [held.datasets]
    )
    shards = [f"{s.shard} {s.sha256}" for s in held.shards]
    return content_key("configs", *chain.from_iterable(configs), "shards", *shards)


def find_release(lake: Lake, name: str | None = None) -> Release | None:
    """A release by name, or the newest one (no name, or `latest`); None when there is none."""
    where, values = ("WHERE name = ?", [name]) if name not in (None, "", LATEST) else ("", [])
    rows = lake.rows(
        f"SELECT name, snapshot, config_hash FROM releases {where} ORDER BY created_at DESC LIMIT 1", values
    )
    if not rows:
        return None
    [(release, snapshot, config_hash)] = rows
    shards = lake.rows(f"SELECT {SHARD_COLUMNS} FROM release_shards WHERE name = ? ORDER BY shard", [release])
    return Release(release, snapshot, config_hash, tuple(ShardFile(*s) for s in shards))


def get_release(lake: Lake, name: str | None = None) -> Release:
    """As find_release; raises ReleaseError when there is none."""
    release = find_release(lake, name)
    if release is None:
        if not name or name == LATEST:
            raise ReleaseError("there is no release yet: proccorpus release create NAME")
        names = lake.column("SELECT name FROM releases ORDER BY 1")
        there = f"{', '.join(names) or 'none yet'}{did_you_mean(name, names)}"
        raise ReleaseError(f"there is no release {name!r}; releases: {there}")
    return release


def local_release(lake: Lake) -> Release:
    """The corpus as it is, whatever its licences, for training and scoring here: named `local`, never published.

    Raises ReleaseError.
    """
    held = contents(lake, None)
    existing = find_release(lake, LOCAL)
    if existing and existing.config_hash == content_hash(lake, held):
        return existing
    return create_release(lake, LOCAL, replace=True, held=held)


def create_release(
    lake: Lake, name: str, *, allow: Collection[str] = (), replace: bool = False, held: Contents | None = None
) -> Release:
    """Freeze the corpus as it is now under a name; writes the card. Raises ReleaseError.

    Datasets whose licence is not open stay out, unless `allow` names it. The release's snapshot is the one that records
    it. Shards it names are never swept away. `held`: what `contents(lake, allow)` said just before.
    """
    if not NAME.match(name):
        raise ReleaseError(f"a release is named with a-z, 0-9, '.', '_' and '-', not {name!r}")
    if name == LATEST:
        raise ReleaseError(f"{LATEST} stands for the newest release, whatever its name: choose another name")
    # A release is quoted by its name, so the name keeps its content; only `replace` gives it another
    if not replace and find_release(lake, name):
        raise ReleaseError(f"the release {name} exists, and releases do not change: choose another name")
    held = held or contents(lake, allow)
    # nothing is frozen that is not whole: the shards' files, the splits, the tables
    _check(lake, held)
    config_hash = content_hash(lake, held)

    # The card names its snapshot, which is known only inside the commit that freezes the release
    def write(snapshot: int) -> None:
        text = card(lake, name, snapshot, config_hash, held)
        write_file(card_path(lake.workspace, name), text.encode())

    snapshot = lake.freeze(
        release={"name": name, "config_hash": config_hash, "created_at": datetime.now(UTC)},
        shards=TABLES["release_shards"].rows([{"name": name} | asdict(s) for s in held.shards]),
        write=write,
    )
    lake.back_up()
    return Release(name, snapshot, config_hash, held.shards)


def _check(lake: Lake, held: Contents) -> None:
    """Raises ReleaseError for files that are not as recorded, test data in training, or rows against the schema."""
    for s in held.shards:
        path = s.path(lake.workspace)
        if wrong := glance(path, s.bytes):
            raise ReleaseError(f"the shard {path} {wrong}: delete it, and build its dataset {s.dataset} again")
    leaks = split_leaks(lake, held.datasets)
    if not leaks.passed:
        raise ReleaseError(
            f"no release while test data leaks into training: {leaks.detail}. Mend the splits (group_field in the "
            "registry entry), or take one of the two down: proccorpus takedown DATASET --episodes N --reason TEXT"
        )
    sound = corpus_soundness(lake, held.datasets)
    if not sound.passed:
        raise ReleaseError(f"no release of a corpus that is broken: {sound.detail}. Build what is named again")


def delete_release(lake: Lake, name: str) -> Release:
    """Forget a release and its card; the next gc frees what nothing else names. Raises ReleaseError."""
    release = get_release(lake, name)
    lake.remove(f"delete release {name}", "name = ?", [name], "releases", "release_shards")
    card_path(lake.workspace, name).unlink(missing_ok=True)
    return release


def card_path(workspace: Workspace, name: str) -> Path:
    return workspace.root / "releases" / name / "card.md"


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
