"""Commands that a page runs here, one of a kind at a time: a selection exported, a model adapted."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.datastructures import QueryParams

from explorer.access import PageError
from explorer.episode import find_episode
from explorer.jobs import command_line
from explorer.selection import EpisodeSelection
from explorer.site import Explorer, Visit, Visiting
from warehouse.exports.export import MANIFEST
from warehouse.releases.contents import licence_flags

router = APIRouter()
# Kinds of export that need no option of their own, and are folders
EXPORTS = ["lerobot", "datasets", "rabc", "rerun"]
REQUIRED = ("kind", "model")  # fields that need a choice
TYPED_FIRST = {"name": "exported"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")

type Values = Mapping[str, str]


@dataclass(frozen=True)
class PageCommand:
    """A command, and what a person chooses for it.

    choices: by field; [] for a name that is typed. arguments: of `proccorpus`, by the values of
    fields and of the page; raises PageError. out: the folder that is written, if any.
    """

    choices: Callable[[Visit], dict[str, list[str]]]
    arguments: Callable[[Visit, Values], list[str]]
    needs: str = ""  # where there is nothing to choose from
    reads_releases: bool = False

    def why_not(self, explorer: Explorer) -> str | None:
        """Why nothing is started from here; None: it is."""
        if not explorer.options.access.is_local:
            return "commands are only started on the explorer's machine: copy it and run it there"
        if self.reads_releases and explorer.options.release:
            return None
        return explorer.options.why_read_only


def _export(visit: Visit, values: Values) -> list[str]:
    root = visit.explorer.space.root.resolve()
    name = values.get("name", "")
    out = root / "exports" / name
    if not NAME.fullmatch(name) or not out.resolve().is_relative_to(root):
        raise PageError("name: a folder of the workspace's exports", 422)
    release = visit.explorer.options.release
    selection = EpisodeSelection.of(QueryParams(values.get("query", "").removeprefix("?")))
    return [
        *("export", values["kind"], f"--where={selection.lake_sql()}"),
        *([f"--release={release}"] if release else []),
        *shlex.split(licence_flags(visit.reader.licences())),
        f"--out={out}",
    ]


def _adapt(visit: Visit, values: Values) -> list[str]:
    number = values.get("episode", "")
    if not number.isdecimal():
        raise PageError("episode: a number is needed", 422)
    episode = find_episode(visit.reader, values.get("dataset", ""), int(number))
    chosen = (f"--dataset={episode.dataset}", f"--episode={episode.episode_index}")
    recipe = [f"--recipe={values['recipe']}"] if values.get("recipe") else []
    return ["adapt", *chosen, f"--model={values['model']}", *recipe]


def _models(visit: Visit) -> dict[str, list[str]]:
    """Training runs with a checkpoint, the newest first; the recipe's name, typed."""
    sql = (
        "SELECT training_run FROM checkpoints GROUP BY 1 ORDER BY max(created_at) DESC, 1 LIMIT 200"
    )
    return {"model": visit.reader.column(sql), "recipe": []}


COMMANDS = {
    "export": PageCommand(
        lambda _: {"kind": EXPORTS, "name": []},
        _export,
        reads_releases=True,
    ),
    "adapt": PageCommand(
        _models,
        _adapt,
        needs="The corpus has no trained model yet: proccorpus train makes one.",
    ),
}
type CommandName = Literal["export", "adapt"]


def _arguments(visit: Visit, name: CommandName, values: Values) -> list[str]:
    """Of `proccorpus`. Raises PageError: a value that is none of the choices, or no name."""
    for field, choices in COMMANDS[name].choices(visit).items():
        value = values.get(field, "")
        if (choices or field in REQUIRED) and value not in choices:
            listed = ", ".join(choices) or "none"
            raise PageError(f"{field}: choose one of {listed}", 422)
        if not choices and value and not NAME.fullmatch(value):
            raise PageError(f"{field}: letters, digits, - and _", 422)
    arguments = COMMANDS[name].arguments(visit, values)
    return [*arguments, f"--workspace={visit.explorer.space.root}"]


@router.get("/running/{name}")
def state(visit: Visiting, name: CommandName) -> HTMLResponse:
    """A part of a page: the form of a command, and how far the newest one is."""
    job = visit.explorer.jobs[name]
    running = job.running
    newest = job.about().get("arguments", [])
    out = next((Path(a[6:]) for a in newest if a.startswith("--out=")), None)
    files = [path for path in out.rglob("*") if path.is_file()] if out else []
    fields = COMMANDS[name].choices(visit)
    has_choice = all(fields[field] for field in fields if field in REQUIRED)
    values = dict(visit.request.query_params)
    first = {
        field: next(iter(choices), TYPED_FIRST.get(field, "")) for field, choices in fields.items()
    }
    return visit.part(
        "running.html",
        name=name,
        command=COMMANDS[name],
        fields=fields if has_choice else {},
        values=values,
        first=first,
        why_not=COMMANDS[name].why_not(visit.explorer),
        example=command_line(_arguments(visit, name, values | first)) if has_choice else "",
        newest=newest and command_line(newest),
        running=running,
        is_whole=(out is not None and (out / MANIFEST).is_file()) or job.has_succeeded,
        job=job,
        out=out,
        num_files=len(files),
        num_bytes=sum(path.stat().st_size for path in files),
    )


@router.post("/api/running/{name}")
def start(visit: Visiting, name: CommandName, form: dict[str, Any]) -> JSONResponse:
    """Start a command; only on loopback."""
    if reason := COMMANDS[name].why_not(visit.explorer):
        raise PageError(reason, 403)
    job = visit.explorer.jobs[name]
    arguments = _arguments(visit, name, {field: str(value) for field, value in form.items()})
    busy = f"one {name} at a time: {command_line(job.about().get('arguments', []))} is running"
    job.start(arguments, {"arguments": arguments}, busy)
    return JSONResponse({}, 202)
