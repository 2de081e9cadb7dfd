"""The application: its pages, its templates, and what becomes of errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import duckdb
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from core.paths import Workspace
from explorer import filters as words
from explorer.access import Corpus, PageError, Reader
from explorer.index import Index
from explorer.media import Pictures
from explorer.safety import Access
from warehouse.lake import LakeError

HERE = Path(__file__).parent
# Pages in the navigation: path and name. A module that adds pages adds a line here and its router in `create_app`
NAVIGATION = [
    ("/", "Corpus"),
    ("/episodes", "Episodes"),
    ("/review", "Review"),
    ("/sql", "SQL"),
    ("/releases", "Releases"),
    ("/leaderboard", "Leaderboard"),
]


@dataclass(frozen=True)
class Options:
    """What the command line says. `release` is the name of what `snapshot` froze; both None: the corpus as it is."""

    snapshot: int | None = None
    release: str | None = None
    dagster_url: str | None = None
    access: Access = field(default_factory=Access)

    def in_dagster(self, asset: str, partition: str) -> str | None:
        """Where the Dagster UI shows a partition of an asset, with the runs that made it; None without its address."""
        if self.dagster_url is None:
            return None
        query = urlencode({"view": "partitions", "partition": partition})
        return f"{self.dagster_url.rstrip('/')}/assets/{quote(asset, safe='')}?{query}"


@dataclass(frozen=True)
class Explorer:
    """What every page needs; at `request.app.state.explorer`."""

    space: Workspace
    options: Options
    corpus: Corpus
    index: Index
    pictures: Pictures
    templates: Environment

    def page(self, request: Request, template: str, reader: Reader, **values: Any) -> HTMLResponse:
        """A page with its frame: navigation, and the snapshot and its age."""
        return self._html(request, template, 200, snapshot=reader.snapshot, **values)

    def error(self, request: Request, message: str, status: int) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": message}, status)
        return self._html(request, "error.html", status, snapshot=None, message=message, title="Not possible")

    def _html(self, request: Request, template: str, status: int, **values: Any) -> HTMLResponse:
        frame = {"request": request, "navigation": NAVIGATION, "options": self.options, "now": datetime.now(UTC)}
        frame["csrf"] = request.state.csrf
        return HTMLResponse(self.templates.get_template(template).render(**frame, **values), status)


def explorer(request: Request) -> Explorer:
    return request.app.state.explorer


def create_app(space: Workspace, options: Options = Options()) -> FastAPI:
    """The explorer of a workspace. Raises LakeError: no workspace, or no such snapshot."""
    from explorer.changes import add_changes
    from explorer.pages import compare, corpus, episode, episodes, leaderboard, media, releases, sql, why

    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= words.FILTERS
    lake = Corpus(space, options.snapshot)
    made = Explorer(space, options, lake, Index(lake), Pictures(lake), templates)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.adapting.stop()

    app = FastAPI(title="proccorpus explorer", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.explorer = made
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for page in (corpus, episodes, episode, compare, why, media, sql, releases, leaderboard):
        app.include_router(page.router)
    add_changes(app, made)
    _handle_errors(app, made)
    return app


def _handle_errors(app: FastAPI, made: Explorer) -> None:
    """Every error becomes a page, or JSON below /api/, with a sentence and no trace."""

    @app.exception_handler(PageError)
    def page_error(request: Request, e: PageError) -> Response:
        return made.error(request, str(e), e.status)

    @app.exception_handler(LakeError)
    def lake_error(request: Request, e: LakeError) -> Response:
        return made.error(request, str(e), 503)

    @app.exception_handler(duckdb.Error)
    def database_error(request: Request, e: duckdb.Error) -> Response:
        return made.error(request, f"the lake could not be read: {str(e).splitlines()[0]}", 503)

    @app.exception_handler(RequestValidationError)
    def bad_value(request: Request, e: RequestValidationError) -> Response:
        first = e.errors()[0]
        return made.error(request, f"{first['loc'][-1]}: {first['msg']}", 400)

    @app.exception_handler(HTTPException)
    def not_found(request: Request, e: HTTPException) -> Response:
        message = f"there is no page {request.url.path}" if e.status_code == 404 else str(e.detail)
        return made.error(request, message, e.status_code)
