"""Show it once: which run to label first, and the build that labels the others of its task like it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from core.values import plain
from explorer.access import LakeReader, PageError
from explorer.episode import find_episode
from explorer.labelling import Labelling, num_unbuilt, num_waiting, shown_tasks, task_of, why_unused
from explorer.pages.episode import EpisodeIndex
from explorer.site import Explorer, explorer_of
from explorer.suggestions import Suggestions
from explorer.writing import json_body, why_read_only

router = APIRouter(prefix="/api/labelling")


def _labelling(request: Request) -> Labelling:
    return request.app.state.labelling


def _check_dataset(reader: LakeReader, dataset: str) -> None:
    if reader.row("SELECT 1 FROM datasets WHERE dataset = ?", dataset) is None:
        raise PageError(f"there is no dataset {dataset!r} in this corpus")


def why_not(explorer: Explorer, reader: LakeReader, dataset: str) -> str | None:
    """Why nothing is labelled from here; None: it is."""
    return why_read_only(explorer) or why_unused(reader, dataset)


@router.get("")
def job_state(request: Request) -> JSONResponse:
    """How far the newest build is: what a page asks again and again."""
    with explorer_of(request).corpus.reading() as reader:
        return JSONResponse({"job": _labelling(request).state(reader)})


@router.get("/{dataset}")
def state(request: Request, dataset: str) -> JSONResponse:
    """The tasks of a dataset and their references, whether a build would label anything anew, and how far one is."""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        _check_dataset(reader, dataset)
        tasks = [task.facts() for task in shown_tasks(reader, dataset)]
        why = why_not(explorer, reader, dataset)
        facts = {
            "tasks": tasks,
            "unbuilt": num_unbuilt(reader, dataset) if tasks else 0,
            "waiting": num_waiting(explorer.space, reader, dataset) if tasks and why is None else 0,
            "why_not": why,
            "job": _labelling(request).state(reader),
        }
    return JSONResponse(facts)


@router.get("/{dataset}/suggestions")
def suggestions(request: Request, dataset: str) -> JSONResponse:
    """Which run of each task to label next, and why; takes seconds on large tasks."""
    explorer = explorer_of(request)
    asked: Suggestions | None = request.app.state.suggestions
    with explorer.corpus.reading() as reader:
        _check_dataset(reader, dataset)
        snapshot = reader.snapshot.number
    if asked is None or why_read_only(explorer):
        return JSONResponse({"suggestions": []})
    return JSONResponse(plain({"suggestions": asked.of(dataset, snapshot)}))


@router.get("/{dataset}/{episode_index}")
def episode_state(request: Request, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """The same of the task of one episode alone; `reference`: does it show the others how the task goes?"""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        find_episode(reader, dataset, episode_index)
        text = task_of(reader, dataset, episode_index)
        task = next((task for task in shown_tasks(reader, dataset) if task.task == text), None)
        why = why_not(explorer, reader, dataset)
        is_reference = task is not None and episode_index in task.references
        facts = {
            "tasks": [task.facts()] if task else [],
            "reference": is_reference,
            "waiting": num_waiting(explorer.space, reader, dataset) if is_reference and why is None else 0,
            "why_not": why,
            "job": _labelling(request).state(reader),
        }
    return JSONResponse(facts)


@router.post("/{dataset}")
def start(request: Request, dataset: str, _: Annotated[dict[str, Any], Depends(json_body)]) -> JSONResponse:
    """Build a dataset of the lake as it was built last; one at a time in a workspace."""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        _check_dataset(reader, dataset)
        why = why_not(explorer, reader, dataset)
        if why:
            raise PageError(why, 403)
        job = _labelling(request)
        job.start(dataset)
        return JSONResponse({"job": job.state(reader)}, 202)
