"""Show it once: which run to label first, and the build that labels the others of its task like it, one at a time."""

import re
import threading
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from core.errors import UserError
from core.values import plain
from explorer.access import PageError
from explorer.episode import EpisodeIndex, find_episode
from explorer.jobs import ChildJob, in_words
from explorer.site import Explorer, Visit, Visiting, json_body
from explorer.tasks import num_unbuilt, num_waiting, shown_tasks, task_of, why_unused

router = APIRouter(prefix="/api/labelling")
ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)  # as the command line words what went wrong
NOW = re.compile(r"^(.+); \d+ of \d+ done, \d+:\d\d$", re.MULTILINE)  # and what goes on
BROKEN_OFF = "it was stopped before it finished"
DONE_SQL = """
    SELECT count(*), arg_max(stage, finished_at) FROM stage_runs
    WHERE dataset = ? AND chunk >= 0 AND stage <> 'episodes' AND finished_at >= ?"""
_asking = threading.Lock()


def _job(request: Request) -> ChildJob:
    return request.app.state.label_job


def _command(explorer: Explorer, dataset: str) -> list[str]:
    """The arguments of `proccorpus`."""
    return ["build", f"--dataset={dataset}", f"--workspace={explorer.space.root}"]


def _state(at: Visit) -> dict[str, Any]:
    """How far the newest build is, whoever started it; `dataset` None: there was none.

    stages: of the build's plan; None before it is made. done: those in the lake by now; last, now: of them.
    error: why it failed, in words.
    """
    # Whether it runs is asked first: what it writes at its end is there once it does not
    job = _job(at.request)
    running, about = job.running, job.about()
    if not about:
        return {"dataset": None, "running": False}
    events = job.events()
    has_ended_well = [e["exit_code"] for e in events if e["event"] == "end"] == [0]
    started_at = datetime.fromisoformat(about["started_at"])
    done, last = at.reader.rows(DONE_SQL, about["dataset"], started_at)[0]
    return {
        "dataset": about["dataset"],
        "running": running,
        "seconds": (datetime.now(UTC) - started_at).total_seconds(),
        "stages": next((e["stages"] for e in events if e["event"] == "plan"), None),
        "done": done,
        "last": last,
        "now": (NOW.findall(job.log()) or [""])[-1],
        "error": None if running or has_ended_well else "; ".join(ERROR.findall(job.log())) or BROKEN_OFF,
        "command": in_words(_command(at.explorer, about["dataset"])),
    }


def _why_not(at: Visit, dataset: str) -> str | None:
    """Why nothing is labelled from here; None: it is."""
    return at.explorer.options.why_read_only or why_unused(at.reader, dataset)


@router.get("")
def job_state(at: Visiting) -> JSONResponse:
    """How far the newest build is: what a page asks again and again."""
    return JSONResponse({"job": _state(at)})


def _answer(at: Visit, dataset: str, tasks: list[dict[str, Any]], *, are_shown: bool, **more: Any) -> JSONResponse:
    """Tasks, whether a build would label anything like their references anew, and how far one is."""
    why = _why_not(at, dataset)
    waiting = num_waiting(at.explorer.space, at.reader, dataset) if are_shown and why is None else 0
    return JSONResponse({"tasks": tasks, "waiting": waiting, "why_not": why, "job": _state(at)} | more)


@router.get("/{dataset}")
def state(at: Visiting, dataset: str) -> JSONResponse:
    """The tasks of a dataset, and how many runs people judged since its last build."""
    at.reader.check_dataset(dataset)
    tasks = shown_tasks(at.reader, dataset)
    return _answer(at, dataset, tasks, are_shown=bool(tasks), unbuilt=num_unbuilt(at.reader, dataset) if tasks else 0)


@router.get("/{dataset}/suggestions")
def suggestions(at: Visiting, dataset: str) -> JSONResponse:
    """Which run of each task to label next, and why; takes seconds on large tasks. Kept until the lake changes."""
    at.reader.check_dataset(dataset)
    suggest = at.explorer.options.suggest
    if suggest is None or at.explorer.options.why_read_only:
        return JSONResponse({"suggestions": []})
    with _asking:
        try:
            found = at.reader.once(("suggestions", dataset), lambda: suggest(dataset))
        except UserError as e:
            raise PageError(f"no run can be suggested: {e}", 503) from e
    return JSONResponse(plain({"suggestions": found}))


@router.get("/{dataset}/{episode_index}")
def episode_state(at: Visiting, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """The same of the task of one episode alone; `reference`: does it show the others how the task goes?"""
    find_episode(at.reader, dataset, episode_index)
    text = task_of(at.reader, dataset, episode_index)
    tasks = [task for task in shown_tasks(at.reader, dataset) if task["task"] == text]
    is_reference = any(episode_index in task["references"] for task in tasks)
    return _answer(at, dataset, tasks, are_shown=is_reference, reference=is_reference)


@router.post("/{dataset}")
def start(at: Visiting, dataset: str, _: Annotated[dict[str, Any], Depends(json_body)]) -> JSONResponse:
    """Build a dataset of the lake as it was built last."""
    at.reader.check_dataset(dataset)
    if why := _why_not(at, dataset):
        raise PageError(why, 403)
    job = _job(at.request)
    arguments = [*_command(at.explorer, dataset), f"--events={job.file('events')}"]
    about = {"dataset": dataset, "started_at": datetime.now(UTC).isoformat()}
    of = job.about().get("dataset", "another dataset")
    job.start(arguments, about, f"runs of {of} are being labelled: one build at a time")
    return JSONResponse({"job": _state(at)}, 202)
