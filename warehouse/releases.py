"""Releases: a corpus frozen under a name: a lake snapshot, a shard list and a card."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from warehouse.checks import split_leaks
from warehouse.lake import Lake, content_key
from warehouse.tables import TABLES
from warehouse.workspace import write_file

NAME = re.compile(r"^[a-z0-9][a-z0-9._-]*$")


class ReleaseError(Exception):
    """A release that cannot be made or found: what, and what to do."""


@dataclass(frozen=True)
class Release:
    """`config_hash` is over the shards and the configurations behind them: equal content, equal hash."""

    name: str
    snapshot: int
    config_hash: str
    shard_list: tuple[tuple[str, str], ...]  # (split, shard)

    def shards(self, *splits: str) -> list[str]:
        return [shard for split, shard in self.shard_list if split in splits]


def content_hash(lake: Lake) -> str:
    """What a release made now would hold."""
    configs = [r[0] for r in lake.rows("SELECT config_hash FROM build_configs ORDER BY dataset")]
    shards = [r[0] for r in lake.rows("SELECT shard FROM shards ORDER BY shard")]
    return content_key("configs", *configs, "shards", *shards)


def find_release(lake: Lake, name: str | None = None) -> Release | None:
    """A release by name, or the newest one; None when there is none."""
    where, values = ("WHERE name = ?", [name]) if name else ("", [])
    rows = lake.rows(
        f"SELECT name, snapshot, config_hash FROM releases {where} ORDER BY created_at DESC LIMIT 1", values
    )
    if not rows:
        return None
    shards = lake.rows("SELECT split, shard FROM release_shards WHERE name = ? ORDER BY shard", [rows[0][0]])
    return Release(rows[0][0], rows[0][1], rows[0][2], tuple((split, shard) for split, shard in shards))


def get_release(lake: Lake, name: str | None = None) -> Release:
    """As find_release; raises ReleaseError when there is none."""
    release = find_release(lake, name)
    if release is None:
        names = ", ".join(r[0] for r in lake.rows("SELECT name FROM releases ORDER BY 1")) or "none yet"
        raise ReleaseError(
            f"there is no release {name!r}; releases: {names}"
            if name
            else "there is no release yet: proccorpus release create NAME"
        )
    return release


def create_release(lake: Lake, name: str, *, replace: bool = False) -> Release:
    """Freeze the corpus as it is now under a name; writes the card. Raises ReleaseError.

    Its snapshot is the one that records it. Shards it names are never swept away.
    """
    if not NAME.match(name):
        raise ReleaseError(f"a release is named with a-z, 0-9, '.', '_' and '-', not {name!r}")
    if not replace and find_release(lake, name):
        raise ReleaseError(f"the release {name} exists, and releases do not change: choose another name")
    shards = lake.rows("SELECT split, shard FROM shards ORDER BY shard")
    if not shards:
        raise ReleaseError("the corpus has no shards yet: build it first")
    lost = [s for split, s in shards if not lake.workspace.shard(split, s).exists()]
    if lost:
        raise ReleaseError(f"{len(lost)} shards are recorded but not there, such as {lost[0]}: build again")
    leaks = split_leaks(lake)
    if not leaks.passed:
        raise ReleaseError(f"no release while test data leaks into training: {leaks.detail}")
    release = Release(name, 0, content_hash(lake), tuple(shards))
    snapshot = lake.freeze(
        release={"name": name, "config_hash": release.config_hash, "created_at": datetime.now(UTC)},
        shards=TABLES["release_shards"].rows([{"name": name, "split": p, "shard": s} for p, s in shards]),
    )
    release = Release(name, snapshot, release.config_hash, release.shard_list)
    write_file(card_path(lake, name), card(lake, release).encode())
    return release


def card_path(lake: Lake, name: str) -> Path:
    return lake.workspace.root / "releases" / name / "card.md"


def card(lake: Lake, release: Release) -> str:
    """The release's card, Markdown: what it holds, under which licences, made how."""
    rows = lake.dicts(
        "SELECT d.dataset, d.title, d.license, d.format, c.* EXCLUDE (dataset) FROM coverage c JOIN datasets d "
        "USING (dataset) ORDER BY 1"
    )
    splits = lake.rows("SELECT split, count(*), sum(samples), sum(bytes) FROM shards GROUP BY 1 ORDER BY 1")
    runs = lake.dicts(
        "SELECT DISTINCT r.label_run, r.annotator, r.model, r.code_version, r.params FROM active_runs a "
        "JOIN label_runs r USING (label_run) ORDER BY 1"
    )
    lines = [
        f"# Release {release.name}",
        "",
        f"Lake snapshot {release.snapshot}, content {release.config_hash[:16]}. Read it with "
        f"`proccorpus sql --release {release.name}`.",
        "",
        "| dataset | title | licence | role | episodes | quarantined | frames | hours | samples |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['dataset']} | {r['title']} | {r['license'] or 'not stated'} | {r['role']} | {r['ok']} | "
        f"{r['quarantined']} | {r['frames']} | {r['hours']:.2f} | {r['samples']} |"
        for r in rows
    ]
    lines += ["", "| split | shards | samples | MB |", "|---|---|---|---|"]
    lines += [f"| {s} | {n} | {k} | {b / 1e6:.1f} |" for s, n, k, b in splits]
    lines += ["", "Labels come from these label runs:", ""]
    lines += [
        f"- `{r['label_run']}`: {r['annotator']}{' ' + r['model'] if r['model'] else ''}, code {r['code_version']}, "
        f"parameters `{json.dumps(json.loads(r['params']))}`"
        for r in runs
    ]
    return "\n".join(lines) + "\n"
