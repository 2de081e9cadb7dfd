"""The gallery: episodes chosen by facets and words, with pictures; and those pictures."""

from dataclasses import replace
from math import ceil, floor
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer.access import LakeReader
from explorer.index import Indexed
from explorer.marks import marks_of
from explorer.pages.views import saved_views
from explorer.selection import PAGE, RANGES, SORTS, EpisodeSelection, count, episodes_of, facets, marked
from explorer.site import Options, explorer_of
from explorer.writing import why_read_only

router = APIRouter()
SHOWN = 12  # values of a facet before the rest is folded away


@router.get("/episodes")
def page(request: Request) -> HTMLResponse:
    explorer, selection = explorer_of(request), EpisodeSelection.of(request.query_params)
    with explorer.corpus.reading() as reader:
        index = explorer.index.at(reader)
        selection = selection.at(reader, index)
        total = count(index, selection)
        pages = max(1, -(-total // PAGE))
        selection = replace(selection, page=min(selection.page, pages))
        episodes = episodes_of(index, selection)
        marks = marks_of(reader, [(e["dataset"], e["episode_index"]) for e in episodes])
        return explorer.page(
            request,
            "episodes.html",
            reader,
            title="Episodes",
            index=index,
            selection=selection,
            facets=facets(index, selection),
            sorts=SORTS,
            total=total,
            pages=pages,
            first=PAGE * (selection.page - 1),
            episodes=[e | {"marks": marks[e["dataset"], e["episode_index"]]} for e in episodes],
            marked=marked(reader, index, selection),
            ranges=ranges(index, selection),
            views=saved_views(explorer.space),
            why_read_only=why_read_only(explorer),
            author=request.state.user or explorer.options.access.author,
            author_is_known=request.state.user is not None,
            commands=selection.commands(str(explorer.space.root), frozen_options(explorer.options, reader)),
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
        at = chosen.get(name, (None, None))
        found.append(
            {
                "name": name,
                "title": title,
                "step": step,
                "ends": [
                    ("from", low, high, low if at[0] is None else at[0]),
                    ("to", low, high, high if at[1] is None else at[1]),
                ],
            }
        )
    return found


def frozen_options(options: Options, reader: LakeReader) -> str:
    """The command line's option for the state that is looked at: its release, else its snapshot."""
    return f"--release {options.release}" if options.release else f"--snapshot {reader.snapshot.number}"
