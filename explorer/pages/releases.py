"""Frozen corpora: what each holds, and how to read, verify and compare them."""

import shlex

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from explorer.access import PageError
from explorer.site import Visiting

router = APIRouter()
SHARDS = 200  # shown of a release
RELEASES_SQL = """
    SELECT r.name, r.snapshot, r.config_hash, r.created_at, count(s.shard) AS shards, sum(s.episodes) AS episodes,
           sum(s.samples) AS samples, sum(s.bytes) AS bytes, count(DISTINCT s.dataset) AS datasets
    FROM releases r LEFT JOIN release_shards s ON s.name = r.name GROUP BY ALL ORDER BY r.created_at DESC, r.name"""
OF_RELEASE = {
    "parts": """
        SELECT dataset, split, count(*) AS shards, sum(episodes) AS episodes, sum(samples) AS samples,
               sum(bytes) AS bytes FROM release_shards WHERE name = ? GROUP BY ALL ORDER BY 1, 2""",
    "shards": f"FROM release_shards WHERE name = ? ORDER BY shard LIMIT {SHARDS}",
    "trained": "FROM training_runs WHERE release = ? ORDER BY created_at DESC",
    "evaluated": "FROM eval_runs WHERE release = ? ORDER BY created_at DESC, model",
}


@router.get("/releases")
def page(at: Visiting) -> HTMLResponse:
    return at.page("releases.html", title="Releases", releases=at.reader.dicts(RELEASES_SQL))


@router.get("/releases/{name}")
def release(at: Visiting, name: str) -> HTMLResponse:
    reader = at.reader
    found = reader.dicts("FROM releases WHERE name = ?", name)
    if not found:
        raise PageError(f"there is no release {name[:60]!r}")
    facts = {what: reader.dicts(sql, name) for what, sql in OF_RELEASE.items()}
    others = [r[0] for r in reader.rows("SELECT name FROM releases WHERE name <> ? ORDER BY created_at DESC", name)]
    return at.page(
        "release.html",
        title=f"Release {name}",
        release=found[0],
        total=sum(part["shards"] for part in facts["parts"]),
        others=others,
        place=shlex.quote(str(at.explorer.space.root)),
        **facts,
    )
