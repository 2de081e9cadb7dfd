"""Tagging and assigning episodes: what the gallery and the page of an episode send, as JSON."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from explorer.access import PageError
from explorer.site import explorer_of
from explorer.writing import json_body, text_of, writing
from warehouse.lake.corrections import ConflictError, CorrectionError
from warehouse.lake.marks import ASSIGNED, TAG, Place, mark

router = APIRouter(prefix="/api/marks")


@router.post("")
def save(request: Request, body: Annotated[dict[str, Any], Depends(json_body)]) -> JSONResponse:
    """`kind` (tag or assigned), `value`, `on`, `author`, and `episodes`: [dataset, episode_index, assignment seen].

    409 where somebody else has assigned one of them meanwhile, 422 for what cannot be.
    """
    explorer = explorer_of(request)
    kind, is_on = text_of(body, "kind"), body.get("on", True)
    if kind not in (TAG, ASSIGNED):
        raise PageError(f"kind: {TAG} or {ASSIGNED} is needed", 422)
    if not isinstance(is_on, bool):
        raise PageError("on: true or false is needed", 422)
    seen = _episodes(body)
    author = request.state.user or text_of(body, "author", default=explorer.options.access.author)
    try:
        with writing(explorer) as lake:
            rows = mark(lake, [*seen], kind, text_of(body, "value"), author=author, is_on=is_on, follows=seen)
    except ConflictError as e:
        raise PageError(str(e), 409) from e
    except CorrectionError as e:
        raise PageError(str(e), 422) from e
    return JSONResponse({"changed": len(rows)})


def _episodes(body: dict[str, Any]) -> dict[Place, str | None]:
    """The episodes of a request, each with the assignment that its author has seen. Raises PageError."""
    given = body.get("episodes")
    found: dict[Place, str | None] = {}
    for item in given if isinstance(given, list) else [None]:
        match item:
            case [str(dataset), int(episode), None | str() as seen] if not isinstance(episode, bool) and episode >= 0:
                found[dataset, episode] = seen
            case _:
                raise PageError("episodes: a list of [dataset, episode_index, assignment or null] is needed", 422)
    return found
