"""The gallery: episodes chosen by facets and words, with pictures; and those pictures."""

from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer.access import LakeReader
from explorer.selection import PAGE, SORTS, EpisodeSelection, count, episodes_of, facets
from explorer.site import Options, explorer_of

router = APIRouter()
SHOWN = 12  # values of a facet before the rest is folded away


@router.get("/episodes")
def page(request: Request) -> HTMLResponse:
    explorer, selection = explorer_of(request), EpisodeSelection.of(request.query_params)
    with explorer.corpus.reading() as reader:
        index = explorer.index.at(reader)
        total = count(index, selection)
        pages = max(1, -(-total // PAGE))
        selection = replace(selection, page=min(selection.page, pages))
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
            episodes=episodes_of(index, selection),
            commands=selection.commands(str(explorer.space.root), frozen_options(explorer.options, reader)),
            shown=SHOWN,
        )


def frozen_options(options: Options, reader: LakeReader) -> str:
    """The command line's option for the state that is looked at: its release, else its snapshot."""
    return f"--release {options.release}" if options.release else f"--snapshot {reader.snapshot.number}"
