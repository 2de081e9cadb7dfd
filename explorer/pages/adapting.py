"""Adapting a model to one episode from its page: which models there are, the command, and starting it."""

import re
from functools import partial

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

from explorer.access import LakeReader, PageError
from explorer.episode import EpisodeIndex, find_episode
from explorer.jobs import command_line
from explorer.site import Explorer, Visiting

router = APIRouter()
# The name of a built-in one; a file is for the command line
RECIPE = re.compile(r"[A-Za-z0-9_]{1,80}")


class AdaptationRequest(BaseModel):
    """What to adapt, and how; without a recipe as the model's kind is."""

    model: str
    recipe: str = ""


def _command(
    explorer: Explorer, dataset: str, episode_index: int, model: str, recipe: str
) -> list[str]:
    """The arguments of `proccorpus`; without a recipe it takes that of the model's kind."""
    chosen = [f"--dataset={dataset}", f"--episode={episode_index}", f"--model={model}"]
    return [
        "adapt",
        *chosen,
        *([f"--recipe={recipe}"] if recipe else []),
        f"--workspace={explorer.space.root}",
    ]


def _model_names(reader: LakeReader) -> list[str]:
    """Training runs with a checkpoint, the newest first."""
    return reader.column(
        "SELECT training_run FROM checkpoints GROUP BY 1 ORDER BY max(created_at) DESC, 1 LIMIT 200"
    )


def _why_not(explorer: Explorer) -> str | None:
    """Why nothing is started from here; None: it is."""
    if not explorer.options.access.is_local:
        return "training can only be started on the explorer's machine: copy the command and run it there"
    return explorer.options.why_read_only


@router.get("/adapt/{dataset}/{episode_index}")
def state(
    visit: Visiting,
    dataset: str,
    episode_index: EpisodeIndex,
) -> HTMLResponse:
    """Models to adapt, the command with MODEL and RECIPE left open, and what is running: a part of a page."""
    job = visit.explorer.jobs["adapt"]
    code = job.process and job.process.poll()
    models = _model_names(visit.reader)
    arguments = partial(_command, visit.explorer, dataset, episode_index)
    return visit.part(
        "adapt.html",
        episode=find_episode(visit.reader, dataset, episode_index),
        models=models,
        command=command_line(arguments("MODEL", "RECIPE")),
        first=command_line(arguments(models[0], "")) if models else "",
        why_not=_why_not(visit.explorer),
        about=job.process and job.about().get("about"),
        running=job.process is not None and code is None,
        exit_code=code,
        log=job.process and job.log(),
    )


@router.post("/api/adapt/{dataset}/{episode_index}")
def start(
    visit: Visiting, dataset: str, episode_index: EpisodeIndex, request_body: AdaptationRequest
) -> JSONResponse:
    """Start proccorpus adapt; only on loopback, only with a model of the corpus and a built-in recipe."""
    job = visit.explorer.jobs["adapt"]
    if reason := _why_not(visit.explorer):
        raise PageError(reason, 403)
    find_episode(visit.reader, dataset, episode_index)
    if request_body.model not in _model_names(visit.reader):
        raise PageError(f"the corpus has no trained model {request_body.model!r}", 422)
    if request_body.recipe and not RECIPE.fullmatch(request_body.recipe):
        raise PageError("recipe: the name of a built-in recipe is needed", 422)
    busy = f"an adaptation is running already: {job.about().get('about', 'of another episode')}"
    about = {"about": f"{dataset} {episode_index} with {request_body.model}"}
    job.start(
        _command(visit.explorer, dataset, episode_index, request_body.model, request_body.recipe),
        about,
        busy,
    )
    return JSONResponse({}, 202)
