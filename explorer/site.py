"""What every page of the explorer shares: the corpus, the options of the command line, and the frame of a page."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment

from core.paths import Workspace
from core.web import Access
from explorer.access import CorpusView, LakeReader, PageError
from explorer.index import CorpusIndex, Indexed
from warehouse.lake import Lake

# Pages in the navigation: path and name. A module that adds a page adds a line here and its router in explorer/app.py
NAVIGATION = [
    ("/", "Corpus"),
    ("/episodes", "Episodes"),
    ("/review", "Review"),
    ("/sql", "SQL"),
    ("/releases", "Releases"),
    ("/training", "Training"),
    ("/leaderboard", "Leaderboard"),
]


@dataclass(frozen=True)
class Options:
    """Options of the command line. `release` is the name of what `snapshot` froze; both None: the corpus as it is.

    suggest: which run of each task of a dataset to label next, and why, which takes seconds; None: nobody says.
    """

    snapshot: int | None = None
    release: str | None = None
    dagster_url: str | None = None
    access: Access = field(default_factory=Access)
    suggest: Callable[[str], list[dict[str, Any]]] | None = None

    @property
    def why_read_only(self) -> str | None:
        """Why nothing can be changed here; None: it can."""
        if self.snapshot is None:
            return None
        what = f"the release {self.release}" if self.release else f"snapshot {self.snapshot}"
        return f"this is {what}, which cannot be changed: run proccorpus explore without it to correct labels"

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
    corpus: CorpusView
    index: CorpusIndex
    templates: Environment

    def error(self, request: Request, message: str, status: int) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": message}, status)
        return self.html(request, "error.html", status, snapshot=None, message=message, title="Not possible")

    def html(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page with its frame: navigation, who judges, and why nothing can be changed."""
        frame = {
            "request": request,
            "navigation": NAVIGATION,
            "options": self.options,
            "now": datetime.now(UTC),
            "csrf": request.state.csrf,
            "why_read_only": self.options.why_read_only,
            # Who judges: the name that a proxy gives, which is known, else the one to begin with
            "author": request.state.user or self.options.access.author,
            "author_is_known": bool(request.state.user),
        }
        return HTMLResponse(self.templates.get_template(template).render(frame | values), status)


def explorer_of(request: Request) -> Explorer:
    return request.app.state.explorer


@dataclass(frozen=True)
class Visit:
    """A request that reads the corpus, in one state: what the routes of pages take as `at`."""

    request: Request
    explorer: Explorer
    reader: LakeReader

    @cached_property
    def index(self) -> Indexed:
        return self.explorer.index.at(self.reader)

    def page(self, template: str, **values: Any) -> HTMLResponse:
        return self.explorer.html(self.request, template, snapshot=self.reader.snapshot, **values)

    def part(self, template: str, **values: Any) -> HTMLResponse:
        """A part of a page, which its script fetches."""
        return HTMLResponse(self.explorer.templates.get_template(template).render(values))


def _visit(request: Request) -> Iterator[Visit]:
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        yield Visit(request, explorer, reader)


Visiting = Annotated[Visit, Depends(_visit)]


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
