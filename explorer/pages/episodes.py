"""The gallery: episodes chosen by facets and words, with pictures; and those pictures."""

from dataclasses import replace
from math import ceil, floor
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from explorer.facets import RANGES, SORTS, tags_of
from explorer.index import Indexed
from explorer.pages.saved import VIEWS, saved
from explorer.selection import PAGE, EpisodeSelection, count, episodes_of, facets, marked
from explorer.site import Visit, Visiting

router = APIRouter()
SHOWN = 12  # values of a facet before the rest is folded away


@router.get("/episodes")
def page(at: Visiting) -> HTMLResponse:
    reader, index = at.reader, at.index
    selection = EpisodeSelection.of(at.request.query_params).at(reader, index)
    total = count(index, selection)
    pages = max(1, -(-total // PAGE))
    selection = replace(selection, page=min(selection.page, pages))
    episodes = episodes_of(index, selection)
    tags = tags_of(reader, [(e["dataset"], e["episode_index"]) for e in episodes])
    return at.page(
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
        marked=marked(reader, index, selection),
        ranges=ranges(index, selection),
        views=saved(at.explorer.space, VIEWS),
        commands=selection.commands(str(at.explorer.space.root), frozen_options(at)),
        shown=SHOWN,
    )


def ranges(index: Indexed, selection: EpisodeSelection) -> list[dict[str, Any]]:
    """The sliders: of each number its name, title, least and largest value of the corpus, step, and what is chosen."""
    chosen = {name: (low, high) for name, low, high in selection.ranges}
    found = []
    for name, (title, column, _) in RANGES.items():
        sql = f"SELECT min({column}), max({column}) FROM episodes"
        [(low, high)] = index.once(("range", name), lambda sql=sql: index.rows(sql))
        if low is None:
            continue
        low, high, step = (0.0, 1.0, 0.01) if name == "confidence" else (floor(low), max(ceil(high), 1), 1)
        from_, to = chosen.get(name, (None, None))
        ends = [("from", low, high, low if from_ is None else from_), ("to", low, high, high if to is None else to)]
        found.append({"name": name, "title": title, "step": step, "ends": ends})
    return found


def frozen_options(at: Visit) -> str:
    """The command line's option for the state that is looked at: its release, else its snapshot."""
    release = at.explorer.options.release
    return f"--release {release}" if release else f"--snapshot {at.reader.snapshot.number}"
