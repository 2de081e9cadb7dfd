"""Show it once: the tasks of a dataset, which run of each to label first, and the build that
labels the others of its task like it, one at a time.
"""

import re
import threading
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse

from core.errors import UserError
from core.files import queries_of
from explorer.access import LakeReader, PageError
from explorer.episode import EpisodeIndex, build_config, find_dataset, find_episode
from explorer.jobs import command_line
from explorer.site import Explorer, Visit, Visiting
from warehouse.lake.references import SHOWN_BY, pending_chunks, stated_annotator

MOST_TASKS = 20  # of a dataset, and datasets, that are listed to be labelled by showing
MOST_LISTED = 50  # runs of a task that follow no reference, by number

[TASKS_SQL] = queries_of(__file__)


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


router = APIRouter()
# As the command line words what goes on
NOW = re.compile(r"^(.+); \d+ of \d+ done, \d+:\d\d$", re.MULTILINE)
# What stages make; others as they are
IN_WORDS = {"segments": "cuts", "embeddings": "pictures", "transfer": "labels"}
DONE_SQL = """
    SELECT count(*), arg_max(stage, finished_at) FROM stage_runs
    WHERE dataset = ? AND chunk >= 0 AND stage <> 'episodes' AND finished_at >= ?"""
_asking = threading.Lock()


def _command(explorer: Explorer, dataset: str) -> list[str]:
    """The arguments of `proccorpus`."""
    return ["build", f"--dataset={dataset}", f"--workspace={explorer.space.root}"]


def _job_state(visit: Visit) -> dict[str, Any]:
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
        "command": command_line(_command(visit.explorer, about["dataset"])),
    }


def _panel(visit: Visit, dataset: str, episode_index: int | None = None) -> HTMLResponse:
    """What is said of tasks that somebody has shown: how far a build is, whether one
    would label anything anew.

    Of the task alone that an episode shows, where one is given. Empty where nothing is
    shown.
    """
    job = _job_state(visit)
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
def state(visit: Visiting, dataset: str) -> HTMLResponse:
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


@router.post("/api/labelling/{dataset}")
def start(visit: Visiting, dataset: str) -> JSONResponse:
    """Build a dataset of the lake as it was built last."""
    find_dataset(visit.reader, dataset)
    if reason := visit.explorer.options.why_read_only or why_unused(visit.reader, dataset):
        raise PageError(reason, 403)
    job = visit.explorer.jobs["label"]
    arguments = [*_command(visit.explorer, dataset), f"--events={job.file('events')}"]
    about = {"dataset": dataset, "started_at": datetime.now(UTC).isoformat()}
    busy_dataset = job.about().get("dataset", "another dataset")
    job.start(arguments, about, f"runs of {busy_dataset} are being labelled: one build at a time")
    return JSONResponse({}, 202)
