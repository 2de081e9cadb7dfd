"""Changes by the explorer's pages: reading a request's JSON, and opening the lake to write to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from explorer.access import PageError
from explorer.site import Explorer
from warehouse.lake import Lake


async def json_body(request: Request) -> dict[str, Any]:
    """The object that a request brings. Raises PageError for anything else."""
    # A form of another site can send no such content type without asking first
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise PageError("send JSON, with the content type application/json", 415)
    try:
        body = json.loads(await request.body())
    # Deep nesting of brackets is a RecursionError, not a ValueError
    except (ValueError, RecursionError) as e:
        raise PageError("the request is not valid JSON", 400) from e
    except ClientDisconnect as e:
        raise PageError("the request was cut off", 400) from e
    if not isinstance(body, dict):
        raise PageError("the request is not a JSON object", 400)
    return body


def text_of(body: dict[str, Any], name: str, *, default: str | None = None) -> str:
    """A text of the request. Raises PageError where it is none, or missing without a default."""
    value = body.get(name, default)
    if not isinstance(value, str):
        raise PageError(f"{name}: a text is needed", 422)
    return value


def id_of(body: dict[str, Any], name: str) -> str | None:
    """An id of the request, or None where it is null or missing. Raises PageError."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise PageError(f"{name}: a text or null is needed", 422)
    return value


@contextmanager
def writing(explorer: Explorer) -> Iterator[Lake]:
    """The lake to write to, for one request. Raises PageError where nothing can be changed."""
    if why := explorer.options.why_read_only:
        raise PageError(why, 403)
    try:
        lake = Lake(explorer.space)
    except OSError as e:
        raise PageError(f"the workspace cannot be written to: {e.strerror}", 403) from e
    try:
        yield lake
    finally:
        lake.con.close()
