"""Adapting a model from an episode's page: which models there are, the command, and starting it on this machine."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from explorer.access import PageError, Reader
from explorer.adapting import DEFAULT_RECIPE, Adapting, command, in_words
from explorer.app import Explorer, explorer
from explorer.episode import find_episode
from explorer.pages.episode import EpisodeIndex
from explorer.writing import json_body, text_of, why_read_only

router = APIRouter(prefix="/api/adapt/{dataset}/{episode_index}")


def _job(request: Request) -> Adapting:
    return request.app.state.adapting


def _models(reader: Reader) -> list[str]:
    """Training runs with a checkpoint, the newest first."""
    rows = reader.rows("SELECT training_run FROM checkpoints GROUP BY 1 ORDER BY max(created_at) DESC, 1 LIMIT 200")
    return [r[0] for r in rows]


def _why_not(made: Explorer) -> str | None:
    """Why nothing is started from here; None: it is."""
    if not made.options.access.is_local:
        return "training is started on the machine itself: copy the command"
    return why_read_only(made)


@router.get("")
def state(request: Request, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """Models to adapt, the command with {model} and {recipe} left open, and what is running."""
    made = explorer(request)
    with made.corpus.reading() as reader:
        find_episode(reader, dataset, episode_index)
        models = _models(reader)
    text = in_words(command(made.space, dataset, episode_index, "MODEL", "RECIPE"))
    told = {"models": models, "recipe": DEFAULT_RECIPE, "command": text, "why_not": _why_not(made)}
    return JSONResponse(told | {"job": _job(request).state()})


@router.post("")
def start(
    request: Request, dataset: str, episode_index: EpisodeIndex, body: Annotated[dict[str, Any], Depends(json_body)]
) -> JSONResponse:
    """Start proccorpus adapt; only on loopback, only with a model of the corpus, only one at a time."""
    made = explorer(request)
    why = _why_not(made)
    if why:
        raise PageError(why, 403)
    model, recipe = text_of(body, "model"), text_of(body, "recipe", default=DEFAULT_RECIPE)
    with made.corpus.reading() as reader:
        find_episode(reader, dataset, episode_index)
        if model not in _models(reader):
            raise PageError(f"the corpus has no trained model {model!r}", 422)
    _job(request).start(dataset, episode_index, model, recipe)
    return JSONResponse({"job": _job(request).state()}, 202)
