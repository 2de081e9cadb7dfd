"""The application put together: its pages, its templates, and what becomes of errors."""

from asyncio import Semaphore
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from html import escape
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import duckdb
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.types import Scope

from core.errors import FailedError, UserError, first_line
from core.paths import Workspace
from core.wall import Pool
from core.web import Guard, Refusal
from explorer import pages
from explorer.access import CorpusView, PageError
from explorer.index import CorpusIndex
from explorer.pages import media, sql
from explorer.site import (
    FILTERS,
    STATIC,
    STATIC_VERSION,
    ChildJob,
    Explorer,
    Options,
    explorer_of,
)
from warehouse.lake import LakeError
from warehouse.lake.statements import ConflictError
from warehouse.sql_process import SqlProcess

HERE = Path(__file__).parent
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
OPEN = ("/healthz",)  # needs no token
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
}
PAGES = [import_module(f"explorer.pages.{found.name}") for found in iter_modules(pages.__path__)]


class LastingFiles(StaticFiles):
    """Files whose address changes when they do: a browser keeps them."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
        return response


def create_app(space: Workspace, options: Options = Options()) -> FastAPI:
    """The explorer of a workspace. Raises LakeError: no workspace, or no such snapshot."""
    lake = CorpusView(space, options.snapshot, options.release)
    jobs = {name: ChildJob(space.root / "explorer", name) for name in ("adapt", "export", "label")}
    explorer = Explorer(space, options, lake, CorpusIndex(lake), _templates(), jobs)
    queries = Pool(partial(SqlProcess, sql.MEMORY, sql.NICENESS))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for job in jobs.values():
            job.stop()
        queries.close()

    app = FastAPI(
        title="proccorpus explorer",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.explorer = explorer
    app.state.queries = queries
    app.state.querying = Semaphore(sql.AT_ONCE)
    app.state.converting = Semaphore(media.CONVERTED_AT_ONCE)
    app.state.is_ending = lambda: False  # whoever serves it knows
    # By an address that changes with them, so that a browser asks for each once; by the plain one they are there, too
    app.mount(f"/static/{STATIC_VERSION}", LastingFiles(directory=STATIC))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for page in PAGES:
        app.include_router(page.router)

    @app.get("/healthz")
    def alive() -> JSONResponse:
        """Can the lake be read? Else the answer is 503."""
        with lake.reading():
            return JSONResponse({"status": "alive"})

    # The guard stands round all of it: what it refuses reaches no page
    app.add_middleware(
        Guard,
        access=options.access,
        open_paths=OPEN,
        checks_csrf=True,
        refuse=_refused,
        headers=HEADERS,
    )
    for kind in ERRORS:
        app.add_exception_handler(kind, _error_page)
    return app


@cache
def _templates() -> Environment:
    """The templates, which escape every value and refuse to render one that is missing;
    all explorers of a process share them: to compile those of one page takes 0.3 s of
    CPU.
    """
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= FILTERS
    return templates


def _refused(scope: Scope, refusal: Refusal) -> Response:
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": refusal.reason}, refusal.status)
    text = escape(refusal.reason)
    page = f"<!doctype html><html lang=en><title>Refused</title><h1>Refused</h1><p role=alert>{text}</p>"
    return HTMLResponse(page, refusal.status)


# Every error becomes a page, or JSON below /api/, with a sentence and no trace: its sentence, and the status
ERRORS: dict[type[Exception], Callable[[Any, Request], tuple[str, int]]] = {
    PageError: lambda e, r: (str(e), e.status),
    LakeError: lambda e, r: (str(e), 503),
    ConflictError: lambda e, r: (str(e), 409),
    FailedError: lambda e, r: (str(e), 503),
    UserError: lambda e, r: (str(e), 422),
    duckdb.Error: lambda e, r: (f"the lake could not be read: {first_line(e)}", 503),
    RequestValidationError: lambda e, r: (
        f"{e.errors()[0]['loc'][-1]}: {e.errors()[0]['msg']}",
        400,
    ),
    HTTPException: lambda e, r: (
        f"there is no page {r.url.path}" if e.status_code == 404 else str(e.detail),
        e.status_code,
    ),
}


def _error_page(request: Request, e: Exception) -> Response:
    describe = next(describe for kind, describe in ERRORS.items() if isinstance(e, kind))
    return explorer_of(request).error(request, *describe(e, request))
