"""Adapting a model from an episode's page: which models there are, the command, and starting it on this machine."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from explorer.access import LakeReader, PageError
from explorer.adapting import Adapting, command
from explorer.episode import find_episode
from explorer.jobs import in_words
from explorer.pages.episode import EpisodeIndex
from explorer.site import Explorer, explorer_of
from explorer.writing import json_body, text_of, why_read_only

router = APIRouter(prefix="/api/adapt/{dataset}/{episode_index}")


def _job(request: Request) -> Adapting:
    return request.app.state.adapting


def _models(reader: LakeReader) -> list[str]:
    """Training runs with a checkpoint, the newest first."""
    rows = reader.rows("SELECT training_run FROM checkpoints GROUP BY 1 ORDER BY max(created_at) DESC, 1 LIMIT 200")
    return [r[0] for r in rows]


def _why_not(explorer: Explorer) -> str | None:
    """Why nothing is started from here; None: it is."""
    if not explorer.options.access.is_local:
        return "training can only be started on the explorer's machine: copy the command and run it there"
    return why_read_only(explorer)


@router.get("")
def state(request: Request, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """Models to adapt, the command with {model} and {recipe} left open, and what is running."""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        find_episode(reader, dataset, episode_index)
        models = _models(reader)
    text = in_words(command(explorer.space, dataset, episode_index, "MODEL", "RECIPE"))
    facts = {"models": models, "command": text, "why_not": _why_not(explorer)}
    return JSONResponse(facts | {"job": _job(request).state()})


@router.post("")
def start(
    request: Request, dataset: str, episode_index: EpisodeIndex, body: Annotated[dict[str, Any], Depends(json_body)]
) -> JSONResponse:
    """Start proccorpus adapt; only on loopback, only with a model of the corpus, only one at a time."""
    explorer = explorer_of(request)
    why = _why_not(explorer)
    if why:
        raise PageError(why, 403)
    model, recipe = text_of(body, "model"), text_of(body, "recipe", default="")
    with explorer.corpus.reading() as reader:
        find_episode(reader, dataset, episode_index)
        if model not in _models(reader):
            raise PageError(f"the corpus has no trained model {model!r}", 422)
    _job(request).start(dataset, episode_index, model, recipe)
    return JSONResponse({"job": _job(request).state()}, 202)
