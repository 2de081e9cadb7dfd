"""What every page of the explorer shares: the corpus, the options of the command line, and the frame of a page."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment

from core.paths import Workspace
from core.web import Access
from explorer.access import CorpusView, LakeReader
from explorer.index import CorpusIndex
from explorer.media import Pictures
from explorer.suggestions import Suggest

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

    suggest: which runs of a dataset to label next; None: nobody says.
    """

    snapshot: int | None = None
    release: str | None = None
    dagster_url: str | None = None
    access: Access = field(default_factory=Access)
    suggest: Suggest | None = None

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
    pictures: Pictures
    templates: Environment

    def page(self, request: Request, template: str, reader: LakeReader, **values: Any) -> HTMLResponse:
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


def explorer_of(request: Request) -> Explorer:
    return request.app.state.explorer
