"""The gallery: episodes chosen by facets and words, with pictures; and those pictures.

And what people keep by name in the workspace: queries, and views of the gallery; a JSON
file of each kind.
"""

import json
import threading
from dataclasses import replace
from math import ceil, floor
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.datastructures import QueryParams

from core.files import write_file
from core.paths import Workspace
from explorer.access import PageError
from explorer.index import RANGES, SORTS, Indexed, tags_of
from explorer.selection import (
    PAGE,
    EpisodeSelection,
    count,
    counted_marks,
    episodes_of,
    facets,
)
from explorer.site import Visit, Visiting, explorer_of
from warehouse.releases.contents import licence_flags

router = APIRouter()
SHOWN = 12  # values of a facet before the rest is folded away
MAX_SAVED = 200  # of one kind
MAX_CHARS = 20_000
QUERIES = "queries"
VIEWS = "views"
KEYS = {QUERIES: "sql", VIEWS: "query"}  # of the text in the file, by kind
_saving = threading.Lock()
Name = Annotated[str, Body(min_length=1, max_length=80)]


@router.get("/episodes")
def page(visit: Visiting) -> HTMLResponse:
    reader = visit.reader
    index = visit.index
    selection = EpisodeSelection.of(visit.request.query_params).at(reader, index)
    total = count(index, selection)
    pages = max(1, -(-total // PAGE))
    selection = replace(selection, page=min(selection.page, pages))
    episodes = episodes_of(index, selection)
    tags = tags_of(reader, [(e["dataset"], e["episode_index"]) for e in episodes])
    return visit.page(
        "episodes.html",
        title="Episodes",
        index=index,
        selection=selection,
        facets=facets(index, selection),
        sorts=SORTS,
        total=total,
        pages=pages,
        first=PAGE * (selection.page - 1),
        episodes=[e | {"marks": tags[e["dataset"], e["episode_index"]]} for e in episodes],
        marked=counted_marks(reader, index, selection),
        ranges=range_sliders(index, selection),
        views=saved_texts(visit.explorer.space, VIEWS),
        commands=selection.commands(
            str(visit.explorer.space.root),
            frozen_options(visit),
            licence_flags(reader.licences()),
        ),
        shown=SHOWN,
    )


def range_sliders(index: Indexed, selection: EpisodeSelection) -> list[dict[str, Any]]:
    """The sliders: of each number its name, title, least and largest value of the corpus,
    step, and what is chosen.
    """
    chosen = {name: (low, high) for name, low, high in selection.ranges}
    shown_ranges = []
    for name, (title, column, _) in RANGES.items():
        sql = f"SELECT min({column}), max({column}) FROM episodes"
        [(low, high)] = index.once(("range", name), lambda sql=sql: index.rows(sql))
        if low is None:
            continue
        if name == "confidence":
            low, high, step = (0.0, 1.0, 0.01)
        else:
            low, high, step = (floor(low), max(ceil(high), 1), 1)
        from_, upper = chosen.get(name, (None, None))
        ends = [
            ("from", low, high, low if from_ is None else from_),
            ("to", low, high, high if upper is None else upper),
        ]
        shown_ranges.append({"name": name, "title": title, "step": step, "ends": ends})
    return shown_ranges


def frozen_options(visit: Visit) -> str:
    """The command line's option for the state that is looked at: its release, else its snapshot."""
    release = visit.explorer.options.release
    if release:
        return f"--release {release}"
    return f"--snapshot {visit.reader.snapshot()}"


def saved_texts(space: Workspace, kind: str) -> list[dict[str, str]]:
    """Rows of name and text, by name. Raises PageError when the file holds something else."""
    path = _path(space, kind)
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())
        for row in rows:
            is_row = (
                isinstance(row, dict)
                and {*row} == {"name", KEYS[kind]}
                and {*map(type, row.values())} == {str}
            )
            if not is_row:
                raise ValueError(f"each needs name and {KEYS[kind]}, which are texts")
        return rows
    except (ValueError, TypeError) as e:
        reason = str(e).splitlines()[0]
        raise PageError(f"{path} holds no saved {kind}: {reason}; mend or delete it", 500) from e


def _path(space: Workspace, kind: str) -> Path:
    return space.root / "explorer" / f"{kind}.json"


def _save_text(request: Request, kind: str, name: str, text: str | None) -> JSONResponse:
    """Save a text under a name, or delete it (None). Raises PageError: too many; read-only."""
    space = explorer_of(request).space
    key = KEYS[kind]
    with _saving:
        texts = {row["name"]: row[key] for row in saved_texts(space, kind)} | {name: text}
        rows = [
            {"name": name, key: text} for name, text in sorted(texts.items()) if text is not None
        ]
        if len(rows) > MAX_SAVED:
            raise PageError(f"at most {MAX_SAVED} {kind} are kept: delete one first", 400)
        try:
            write_file(_path(space, kind), json.dumps(rows, indent=1, ensure_ascii=False).encode())
        except OSError as e:
            raise PageError(f"the workspace cannot be written: {e.strerror}", 403) from e
    return JSONResponse(rows)


@router.post("/api/queries")
def save_query(
    request: Request,
    name: Name,
    sql: Annotated[str, Body(min_length=1, max_length=MAX_CHARS)],
) -> JSONResponse:
    return _save_text(request, QUERIES, name, sql)


@router.post("/api/views")
def save_view(
    request: Request, name: Name, query: Annotated[str, Body(max_length=MAX_CHARS)]
) -> JSONResponse:
    """Keep a selection of the gallery, as in its address; what cannot be one is refused (400)."""
    address = EpisodeSelection.of(QueryParams(query.removeprefix("?"))).url(page=1)
    return _save_text(request, VIEWS, name.strip() or "view", address.partition("?")[2])


@router.delete("/api/{kind}/{name:path}")
def forget(request: Request, kind: Literal["queries", "views"], name: str) -> JSONResponse:
    return _save_text(request, kind, name, None)
