"""Exporting what the gallery shows: a command of proccorpus that the page starts, one at
a time, into the workspace.
"""

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import QueryParams

from explorer.access import PageError
from explorer.jobs import ChildJob, command_line
from explorer.pages.episodes import MAX_CHARS
from explorer.selection import EpisodeSelection
from explorer.site import Explorer, Visit, Visiting
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST
from warehouse.releases.contents import licence_flags

router = APIRouter()
# Kinds of export that need no option of their own, and are folders
KINDS = ("lerobot", "datasets", "rabc", "rerun")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


class ExportRequest(BaseModel):
    """What to export: the kind, the name of its folder, and the gallery's address with the selection."""

    kind: str
    name: str
    query: str = Field(default="", max_length=MAX_CHARS)


def _why_not(explorer: Explorer) -> str | None:
    """Why nothing is exported from here; None: it is."""
    if not explorer.options.access.is_local:
        return "exports can only be started on the explorer's machine: copy the command and run it there"
    if explorer.options.snapshot is not None and explorer.options.release is None:
        return "this is a snapshot, and exports are made of the corpus as it is, or of a release"
    return None


def _folder(explorer: Explorer, name: str) -> Path:
    """Where an export of a name goes, in the workspace. Raises PageError."""
    root = explorer.space.root.resolve()
    out = (root / "exports" / name).resolve()
    if not NAME.fullmatch(name) or not out.is_relative_to(root):
        raise PageError(
            "name: letters, digits, - and _ are needed, and the folder has to lie in the workspace",
            422,
        )
    return out


def _command(visit: Visit, kind: str, query: str, out: Path) -> list[str]:
    """The arguments of `proccorpus`. Raises PageError: the address makes no sense."""
    release = visit.explorer.options.release
    selection = EpisodeSelection.of(QueryParams(query.removeprefix("?")))
    return [
        *("export", kind, f"--where={selection.lake_sql()}"),
        *([f"--release={release}"] if release else []),
        *shlex.split(licence_flags(visit.reader.licences())),
        *(f"--out={out}", f"--workspace={visit.explorer.space.root}"),
    ]


def _job_state(job: ChildJob) -> dict[str, Any]:
    """How far the newest export is, whoever started it; empty: there was none. `files`,
    `bytes`: written by now.
    """
    running = job.running
    about = job.about()
    if not about:
        return {}
    files = [path for path in Path(about["out"]).rglob("*") if path.is_file()]
    is_whole = (Path(about["out"]) / MANIFEST).is_file()
    return about | {
        "running": running,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "error": None if running or is_whole else job.error(),
    }


@router.get("/exports")
def state(visit: Visiting, query: Annotated[str, Query(max_length=MAX_CHARS)] = "") -> HTMLResponse:
    """The form for a selection of the gallery, and how far an export is: a part of a page."""
    kinds = [EXPORT_KINDS[name] for name in KINDS]
    job = _job_state(visit.explorer.jobs["export"])
    return visit.part(
        "exporting.html", kinds=kinds, job=job, query=query, why_not=_why_not(visit.explorer)
    )


@router.post("/api/exports")
def start(visit: Visiting, export_request: ExportRequest) -> JSONResponse:
    """Start proccorpus export; only on loopback, only into the workspace."""
    if reason := _why_not(visit.explorer):
        raise PageError(reason, 403)
    if export_request.kind not in KINDS:
        raise PageError(f"kind: one of {', '.join(KINDS)} is needed", 422)
    out = _folder(visit.explorer, export_request.name)
    arguments = _command(visit, export_request.kind, export_request.query, out)
    about = {"kind": export_request.kind, "out": str(out), "command": command_line(arguments)}
    visit.explorer.jobs["export"].start(
        arguments, about, "an export is running already: one at a time"
    )
    return JSONResponse({}, 202)
