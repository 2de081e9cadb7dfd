"""Adapting a model to one episode from its page: which models there are, the command, and starting it."""

import re
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse

from explorer.access import LakeReader, PageError
from explorer.episode import EpisodeIndex, find_episode
from explorer.jobs import ChildJob, in_words
from explorer.site import Explorer, Visiting, json_body, text_of

router = APIRouter()
RECIPE = re.compile(r"[A-Za-z0-9_]{1,80}")  # the name of a built-in one; a file is for the command line


def _job(request: Request) -> ChildJob:
    return request.app.state.adapt_job


def _job_state(job: ChildJob) -> dict[str, Any]:
    """Its episode and model, whether it runs, its exit code when it has ended, and the end of its log."""
    if job.process is None:
        return {"about": None, "running": False, "exit_code": None, "log": ""}
    code = job.process.poll()
    return {"about": job.about().get("about"), "running": code is None, "exit_code": code, "log": job.log()}


def _command(explorer: Explorer, dataset: str, episode_index: int, model: str, recipe: str) -> list[str]:
    """The arguments of `proccorpus`; without a recipe it takes that of the model's kind."""
    chosen = [f"--dataset={dataset}", f"--episode={episode_index}", f"--model={model}"]
    return ["adapt", *chosen, *([f"--recipe={recipe}"] if recipe else []), f"--workspace={explorer.space.root}"]


def _models(reader: LakeReader) -> list[str]:
    """Training runs with a checkpoint, the newest first."""
    rows = reader.rows("SELECT training_run FROM checkpoints GROUP BY 1 ORDER BY max(created_at) DESC, 1 LIMIT 200")
    return [r[0] for r in rows]


def _why_not(explorer: Explorer) -> str | None:
    """Why nothing is started from here; None: it is."""
    if not explorer.options.access.is_local:
        return "training can only be started on the explorer's machine: copy the command and run it there"
    return explorer.options.why_read_only


@router.get("/adapt/{dataset}/{episode_index}")
def state(at: Visiting, dataset: str, episode_index: EpisodeIndex) -> HTMLResponse:
    """Models to adapt, the command with MODEL and RECIPE left open, and what is running: a part of a page."""
    models, named = _models(at.reader), partial(_command, at.explorer, dataset, episode_index)
    return at.part(
        "adapt.html",
        episode=find_episode(at.reader, dataset, episode_index),
        models=models,
        command=in_words(named("MODEL", "RECIPE")),
        first=in_words(named(models[0], "")) if models else "",
        why_not=_why_not(at.explorer),
        job=_job_state(_job(at.request)),
    )


@router.post("/api/adapt/{dataset}/{episode_index}")
def start(
    at: Visiting, dataset: str, episode_index: EpisodeIndex, body: Annotated[dict[str, Any], Depends(json_body)]
) -> JSONResponse:
    """Start proccorpus adapt; only on loopback, only with a model of the corpus and a built-in recipe."""
    job = _job(at.request)
    if why := _why_not(at.explorer):
        raise PageError(why, 403)
    model, recipe = text_of(body, "model"), text_of(body, "recipe", default="")
    find_episode(at.reader, dataset, episode_index)
    if model not in _models(at.reader):
        raise PageError(f"the corpus has no trained model {model!r}", 422)
    if recipe and not RECIPE.fullmatch(recipe):
        raise PageError("recipe: the name of a built-in recipe is needed", 422)
    busy = f"an adaptation is running already: {job.about().get('about', 'of another episode')}"
    about = {"about": f"{dataset} {episode_index} with {model}"}
    job.start(_command(at.explorer, dataset, episode_index, model, recipe), about, busy)
    return JSONResponse({}, 202)
