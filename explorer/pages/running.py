"""Commands that a page runs here, one of a kind at a time: a selection exported, a model adapted, runs labelled.

And what is labelled by showing it once: the tasks of a dataset, and which run of each to label first.
"""

import re
import shlex
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.datastructures import QueryParams

from core.errors import UserError
from core.files import queries_of
from explorer.access import LakeReader, PageError
from explorer.episode import EpisodeIndex, build_config, find_dataset, find_episode
from explorer.selection import EpisodeSelection
from explorer.site import Explorer, Visit, Visiting, command_line
from warehouse.exports.export import MANIFEST
from warehouse.lake.references import SHOWN_BY, pending_chunks, stated_annotator
from warehouse.releases.contents import licence_flags

router = APIRouter()
# Kinds of export that need no option of their own, and are folders
EXPORTS = ["lerobot", "datasets", "rabc", "rerun"]
REQUIRED = ("kind", "model")  # fields that need a choice
TYPED_FIRST = {"name": "exported"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")

MOST_TASKS = 20  # of a dataset, and datasets, that are listed to be labelled by showing
MOST_LISTED = 50  # runs of a task that follow no reference, by number
# As the command line words what goes on
NOW = re.compile(r"^(.+); \d+ of \d+ done, \d+:\d\d$", re.MULTILINE)
# What stages make; others as they are
IN_WORDS = {"segments": "cuts", "embeddings": "pictures", "transfer": "labels"}
TASKS_SQL, DONE_SQL = queries_of(__file__)
_asking = threading.Lock()

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
    is_local: bool = True  # only started on the explorer's machine

    def why_not(self, explorer: Explorer) -> str | None:
        """Why nothing is started from here; None: it is."""
        if self.is_local and not explorer.options.access.is_local:
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


def _label(visit: Visit, values: Values) -> list[str]:
    """Builds a dataset as it was built last."""
    dataset = values.get("dataset", "")
    find_dataset(visit.reader, dataset)
    if reason := why_unused(visit.reader, dataset):
        raise PageError(reason, 403)
    return ["build", f"--dataset={dataset}"]


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
    "label": PageCommand(lambda _: {}, _label, is_local=False),
}
type CommandName = Literal["export", "adapt", "label"]


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
    sizes = _sizes(out) if out else []
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
        num_files=len(sizes),
        num_bytes=sum(sizes),
    )


def _sizes(folder: Path) -> list[int]:
    """Bytes of each file below a folder, without those that go while it is looked through."""
    sizes = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                sizes.append(path.stat().st_size)
    return sizes


@router.post("/api/running/{name}")
def start(visit: Visiting, name: CommandName, form: dict[str, Any]) -> JSONResponse:
    """Start a command; only on loopback."""
    if reason := COMMANDS[name].why_not(visit.explorer):
        raise PageError(reason, 403)
    job = visit.explorer.jobs[name]
    values = {field: str(value) for field, value in form.items()}
    arguments = _arguments(visit, name, values)
    about = {"arguments": arguments, "dataset": values.get("dataset")}
    busy = f"one {name} at a time: {command_line(job.about().get('arguments', []))} is running"
    events = [f"--events={job.file('events')}"] if name == "label" else []
    started_at = datetime.now(UTC).isoformat()
    job.start([*arguments, *events], about | {"started_at": started_at}, busy)
    return JSONResponse({}, 202)


def shown_tasks(reader: LakeReader, dataset: str) -> list[dict[str, Any]]:
    """The tasks of a dataset, that of most runs first."""
    return reader.dicts(TASKS_SQL, [dataset, MOST_LISTED])


def listed_tasks(visit: Visit, dataset: str) -> list[dict[str, Any]]:
    """The tasks of a dataset whose runs can be labelled like others; counted once for each index."""
    tasks = visit.index.once(("tasks", dataset), lambda: shown_tasks(visit.reader, dataset))
    return [task for task in tasks if task["can_be_shown"]]


def why_unused(reader: LakeReader, dataset: str) -> str | None:
    """Why a build of the dataset, as it is kept, would not follow references; None: it does."""
    config = build_config(reader, dataset)
    if config is None:
        return (
            f"the lake does not know the source of {dataset}: build it once with proccorpus build"
        )
    annotator = stated_annotator(config)
    if annotator in SHOWN_BY:
        return None
    return (
        f"{dataset} is built with the annotator {annotator}, which follows no references: "
        f"proccorpus build --dataset {dataset} --annotator transfer"
    )


def _build_state(visit: Visit) -> dict[str, Any]:
    """How far the newest build is; `dataset` None: there was none.

    stages: of the build's plan; None before it is made. done: those in the lake by now;
    last, now: of them. error: why it failed, in words.
    """
    # Whether it runs is asked first: what it writes at its end is there once it does not
    job = visit.explorer.jobs["label"]
    running = job.running
    about = job.about()
    if not about:
        return {"dataset": None, "running": False}
    events = job.events()
    has_ended_well = [e["exit_code"] for e in events if e["event"] == "end"] == [0]
    started_at = datetime.fromisoformat(about["started_at"])
    num_done, last = visit.reader.rows(DONE_SQL, [about["dataset"], started_at])[0]
    return {
        "dataset": about["dataset"],
        "running": running,
        "seconds": (datetime.now(UTC) - started_at).total_seconds(),
        "stages": next((e["stages"] for e in events if e["event"] == "plan"), None),
        "done": num_done,
        "last": IN_WORDS.get(last, last),
        "now": (NOW.findall(job.log()) or [""])[-1],
        "error": None if running or has_ended_well else job.error(),
        "command": command_line(about.get("arguments", [])),
    }


def _panel(visit: Visit, dataset: str, episode_index: int | None = None) -> HTMLResponse:
    """What is said of tasks that somebody has shown: how far a build is, whether one
    would label anything anew.

    Of the task alone that an episode shows, where one is given. Empty where nothing is
    shown.
    """
    job = _build_state(visit)
    # A page asks each second while a build runs, and shows nothing else
    if job["running"]:
        return visit.part("labelling.html", job=job, others=[])
    tasks = shown_tasks(visit.reader, dataset)
    is_reference = episode_index is not None
    reference_tasks = [
        task
        for task in tasks
        if task["references"] and episode_index in (None, *task["references"])
    ]
    tasks_to_label = [task for task in reference_tasks if task["others"]]
    if not (tasks_to_label if is_reference else reference_tasks):
        return HTMLResponse("")
    reason = visit.explorer.options.why_read_only or why_unused(visit.reader, dataset)
    unbuilt = visit.reader.rows(
        "SELECT count(DISTINCT episode_index) FROM pending_corrections WHERE dataset = ?", [dataset]
    )
    # Chunks that the next build labels anew
    if reason is None:
        waiting = pending_chunks(visit.reader, dataset)
    else:
        waiting = []
    return visit.part(
        "labelling.html",
        dataset=dataset,
        job=job,
        why_not=reason,
        waiting=len(waiting),
        is_reference=is_reference,
        others=tasks_to_label,
        num_runs=sum(task["runs"] for task in reference_tasks),
        unbuilt=unbuilt[0][0],
    )


@router.get("/labelling/{dataset}")
def labelling(visit: Visiting, dataset: str) -> HTMLResponse:
    """Of the tasks of a dataset: a part of a page."""
    find_dataset(visit.reader, dataset)
    return _panel(visit, dataset)


@router.get("/labelling/{dataset}/suggestions")
def suggestions(visit: Visiting, dataset: str) -> HTMLResponse:
    """The tasks with which run to label next, and why; takes seconds on large ones. Kept
    until the lake changes.
    """
    find_dataset(visit.reader, dataset)
    suggest = visit.explorer.options.suggest
    suggested = []
    reason = None
    if suggest is not None and not visit.explorer.options.why_read_only:
        with _asking:
            try:
                suggested = visit.reader.while_nothing_is_said(
                    ("suggestions", dataset), lambda: suggest(dataset)
                )
            except UserError as e:
                reason = f"no run can be suggested: {e}"
    by_task = {suggestion["task"]: suggestion for suggestion in suggested}
    tasks = listed_tasks(visit, dataset)[:MOST_TASKS]
    return visit.part(
        "tasks.html", chosen=dataset, tasks=tasks, suggestions=by_task, why_none=reason
    )


@router.get("/labelling/{dataset}/{episode_index}")
def episode_state(visit: Visiting, dataset: str, episode_index: EpisodeIndex) -> HTMLResponse:
    """The same of the task of one episode alone, where that shows the others how the task goes."""
    find_episode(visit.reader, dataset, episode_index)
    return _panel(visit, dataset, episode_index)
