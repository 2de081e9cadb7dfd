"""Frozen corpora: what each holds, and how to read, verify and compare them."""

import shlex

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from explorer.access import PageError
from explorer.site import Visiting

router = APIRouter()
SHARDS = 200  # shown of a release


@router.get("/releases")
def page(at: Visiting) -> HTMLResponse:
    rows = at.reader.dicts(
        "SELECT r.name, r.snapshot, r.config_hash, r.created_at, count(s.shard) AS shards, sum(s.episodes) AS"
        " episodes,"
        " sum(s.samples) AS samples, sum(s.bytes) AS bytes, count(DISTINCT s.dataset) AS datasets"
        " FROM releases r LEFT JOIN release_shards s ON s.name = r.name GROUP BY ALL ORDER BY r.created_at"
        " DESC, r.name"
    )
    return at.page("releases.html", title="Releases", releases=rows)


@router.get("/releases/{name}")
def release(at: Visiting, name: str) -> HTMLResponse:
    reader = at.reader
    found = reader.dicts("FROM releases WHERE name = ?", name)
    if not found:
        raise PageError(f"there is no release {name[:60]!r}")
    parts = reader.dicts(
        "SELECT dataset, split, count(*) AS shards, sum(episodes) AS episodes, sum(samples) AS samples,"
        " sum(bytes) AS bytes FROM release_shards WHERE name = ? GROUP BY ALL ORDER BY 1, 2",
        name,
    )
    shards = reader.dicts(
        "SELECT shard, split, dataset, episodes, samples, bytes, sha256 FROM release_shards WHERE name = ?"
        f" ORDER BY 1 LIMIT {SHARDS}",
        name,
    )
    trained = reader.dicts(
        "SELECT training_run, recipe, steps, final_loss, created_at FROM training_runs"
        " WHERE release = ? ORDER BY created_at DESC",
        name,
    )
    evaluated = reader.dicts(
        "SELECT eval_run, model, benchmark, created_at FROM eval_runs WHERE release = ?"
        " ORDER BY created_at DESC, model",
        name,
    )
    others = [r[0] for r in reader.rows("SELECT name FROM releases WHERE name <> ? ORDER BY created_at DESC", name)]
    return at.page(
        "release.html",
        title=f"Release {name}",
        release=found[0],
        parts=parts,
        shards=shards,
        total=sum(p["shards"] for p in parts),
        trained=trained,
        evaluated=evaluated,
        others=others,
        place=shlex.quote(str(at.explorer.space.root)),
    )
