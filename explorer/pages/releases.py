"""Frozen corpora: what each holds, and how to read, verify and compare them."""

import shlex

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer.access import PageError
from explorer.site import explorer_of

router = APIRouter()
SHARDS = 200  # shown of a release


@router.get("/releases")
def page(request: Request) -> HTMLResponse:
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        rows = reader.dicts(
            "SELECT r.name, r.snapshot, r.config_hash, r.created_at, count(s.shard) AS shards, sum(s.episodes) AS"
            " episodes,"
            " sum(s.samples) AS samples, sum(s.bytes) AS bytes, count(DISTINCT s.dataset) AS datasets"
            " FROM releases r LEFT JOIN release_shards s ON s.name = r.name GROUP BY ALL ORDER BY r.created_at"
            " DESC, r.name"
        )
        return explorer.page(request, "releases.html", reader, title="Releases", releases=rows)


@router.get("/releases/{name}")
def release(request: Request, name: str) -> HTMLResponse:
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
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
        return explorer.page(
            request,
            "release.html",
            reader,
            title=f"Release {name}",
            release=found[0],
            parts=parts,
            shards=shards,
            total=sum(p["shards"] for p in parts),
            trained=trained,
            evaluated=evaluated,
            others=others,
            place=shlex.quote(str(explorer.space.root)),
        )
