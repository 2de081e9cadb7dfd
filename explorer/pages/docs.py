"""The documentation's site, which `make site` builds: so that links of pages to it work without a network."""

import base64
import hashlib
import re
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from core.paths import ROOT
from explorer.access import PageError
from explorer.site import Visiting

router = APIRouter(prefix="/docs")
SITE = Path(__file__).parent.parent / "docs_site"  # part of an installed package, too
HOUR = {"Cache-Control": "private, max-age=3600"}
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


@router.get("")
def start() -> Response:
    return RedirectResponse("/docs/index.html", 307)


@router.get("/{path:path}")
def page(visit: Visiting, path: str) -> Response:
    """A file of the site; where that was not built, a page that says how."""
    if not SITE.is_dir():
        return _unbuilt(visit, path)
    file = (SITE / (path or "index.html")).resolve()
    if not file.is_relative_to(SITE.resolve()) or not file.is_file():
        raise PageError(f"the documentation has no page {path[:80]}")
    if file.suffix != ".html":
        return FileResponse(file, headers=HOUR)
    return FileResponse(
        file,
        headers={
            "Cache-Control": "no-cache",
            "content-security-policy": _policy(file, file.stat().st_mtime_ns),
        },
    )


def _unbuilt(visit: Visiting, path: str) -> HTMLResponse:
    source = ROOT / "docs" / f"{Path(path).stem}.md"
    has_sources = (ROOT / "Makefile").is_file()
    return visit.page(
        "docs.html",
        title="Documentation",
        code=str(ROOT) if has_sources else None,
        source=source if source.is_file() else None,
    )


@lru_cache(maxsize=200)
def _policy(file: Path, modified_ns: int) -> str:
    """The content security policy of a page: no script but its own, and none of another server.

    modified_ns: when the file was last changed; it is read anew after a change.
    """
    scripts = [hashlib.sha256(text.encode()).digest() for text in SCRIPT.findall(file.read_text())]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in scripts)
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; media-src 'self'; worker-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
