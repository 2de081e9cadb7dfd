"""Adapting a model to one episode from its page: which models there are, the command, and starting it."""

import re
from functools import partial

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

from explorer.access import LakeReader, PageError
from explorer.episode import EpisodeIndex, find_episode
from explorer.jobs import ChildJob, in_words
from explorer.site import Explorer, Visiting

router = APIRouter()
RECIPE = re.compile(r"[A-Za-z0-9_]{1,80}")  # the name of a built-in one; a file is for the command line


class Wanted(BaseModel):
    """What to adapt, and how; without a recipe as the model's kind is."""

    model: str
    recipe: str = ""


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
    job: ChildJob = at.request.app.state.adapt_job
    code = job.process and job.process.poll()
    models, named = _models(at.reader), partial(_command, at.explorer, dataset, episode_index)
    return at.part(
        "adapt.html",
        episode=find_episode(at.reader, dataset, episode_index),
        models=models,
        command=in_words(named("MODEL", "RECIPE")),
        first=in_words(named(models[0], "")) if models else "",
        why_not=_why_not(at.explorer),
        about=job.process and job.about().get("about"),
        running=job.process is not None and code is None,
        exit_code=code,
        log=job.process and job.log(),
    )


@router.post("/api/adapt/{dataset}/{episode_index}")
def start(at: Visiting, dataset: str, episode_index: EpisodeIndex, wanted: Wanted) -> JSONResponse:
    """Start proccorpus adapt; only on loopback, only with a model of the corpus and a built-in recipe."""
    job: ChildJob = at.request.app.state.adapt_job
    if why := _why_not(at.explorer):
        raise PageError(why, 403)
    find_episode(at.reader, dataset, episode_index)
    if wanted.model not in _models(at.reader):
        raise PageError(f"the corpus has no trained model {wanted.model!r}", 422)
    if wanted.recipe and not RECIPE.fullmatch(wanted.recipe):
        raise PageError("recipe: the name of a built-in recipe is needed", 422)
    busy = f"an adaptation is running already: {job.about().get('about', 'of another episode')}"
    about = {"about": f"{dataset} {episode_index} with {wanted.model}"}
    job.start(_command(at.explorer, dataset, episode_index, wanted.model, wanted.recipe), about, busy)
    return JSONResponse({}, 202)
