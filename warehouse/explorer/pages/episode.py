"""One episode: cameras, labels, curves and measurements on one time axis."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, JSONResponse

from warehouse.explorer.app import explorer
from warehouse.explorer.episode import episode_data, find_episode
from warehouse.output import plain

router = APIRouter()
EpisodeIndex = Annotated[int, Path(ge=0, le=2**62)]


@router.get("/api/episode/{dataset}/{episode_index}")
def data(request: Request, dataset: str, episode_index: EpisodeIndex) -> JSONResponse:
    """Everything of an episode: label runs with segments and curves, cameras, predictions, measurements."""
    with explorer(request).corpus.reading() as reader:
        return JSONResponse(plain(episode_data(reader, find_episode(reader, dataset, episode_index))))


@router.get("/episode/{dataset}/{episode_index}")
def page(request: Request, dataset: str, episode_index: EpisodeIndex) -> HTMLResponse:
    made = explorer(request)
    with made.corpus.reading() as reader:
        episode = find_episode(reader, dataset, episode_index)
        found = episode_data(reader, episode)
        title = f"{dataset} {episode_index}"
        return made.page(request, "episode.html", reader, title=title, episode=episode, facts=episode.facts, data=found)
