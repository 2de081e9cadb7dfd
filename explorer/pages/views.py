"""Views of the gallery that people keep by name, for all who look at the workspace."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import QueryParams

from core.paths import Workspace
from explorer.saved import MAX_NAME, Kept
from explorer.selection import EpisodeSelection
from explorer.site import explorer_of

router = APIRouter(prefix="/api/views")
VIEWS = Kept("views", "query")


class SavedView(BaseModel):
    """A selection of the gallery, as in its address, with a name."""

    name: str = Field(min_length=1, max_length=MAX_NAME)
    query: str = Field(max_length=20_000)


def saved_views(space: Workspace) -> list[dict[str, str]]:
    """Rows of `name` and `query`, by name."""
    return VIEWS.read(space)


@router.post("")
def save(request: Request, view: SavedView) -> JSONResponse:
    """Keep a selection; what cannot be one is refused (400)."""
    address = EpisodeSelection.of(QueryParams(view.query.removeprefix("?"))).url(page=1)
    query = address.partition("?")[2]
    return JSONResponse(VIEWS.change(explorer_of(request).space, {view.name.strip() or "view": query}))


@router.delete("/{name:path}")
def forget(request: Request, name: str) -> JSONResponse:
    return JSONResponse(VIEWS.change(explorer_of(request).space, {name: None}))
