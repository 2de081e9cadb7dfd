"""Frames like one frame, and runs like one run, as pictures that lead to the moment."""

import threading
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from core.errors import UserError
from explorer.episode import EpisodeIndex, episode_and_facts
from explorer.site import Visiting
from warehouse.lake.similarity import SimilarityQuery, most_similar

router = APIRouter()
MOST_LIKE = 24
TIME_S = 60.0  # a search reads every picture's numbers: 60,000 runs of 10 s take half a minute
AT_ONCE = 2
_searching = threading.Semaphore(AT_ONCE)


@router.get("/like/{dataset}/{episode_index}")
def like_page(
    visit: Visiting,
    dataset: str,
    episode_index: EpisodeIndex,
    frame: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    camera: Annotated[str | None, Query(max_length=200)] = None,
    among: Annotated[str | None, Query(max_length=200)] = None,
) -> HTMLResponse:
    """`frame`: frames like this one; without it runs. `camera`: that shows it. `among`:
    only runs of this dataset.
    """
    episode, facts = episode_and_facts(visit.reader, dataset, episode_index)
    query: SimilarityQuery | None = None
    similar: list[dict[str, Any]] = []
    why_not = ""
    with _searching, visit.explorer.corpus.reading(TIME_S) as reader:
        try:
            query, similar = most_similar(
                reader.con, dataset, episode_index, frame, camera, among, MOST_LIKE
            )
        except UserError as e:
            why_not = str(e)
    return visit.page(
        "similar.html",
        title=f"{'Runs' if frame is None else 'Frames'} like {dataset} {episode_index}",
        episode=episode,
        facts=facts,
        frame=frame,
        among=among,
        asked=query,
        similar=similar,
        why_not=why_not,
    )
