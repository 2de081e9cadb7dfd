"""Recordings in review: an episode beside the recording that it resembles, and a person
says whether it is the same.
"""

from contextlib import closing
from itertools import islice
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from fastapi import APIRouter, Path
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, StrictBool

from annotate.pictures import TINY
from core.values import grouped
from explorer.access import LakeReader, PageError
from explorer.episode import EpisodeIndex
from explorer.site import Speaking, Visiting
from warehouse.lake import Lake, recordings
from warehouse.lake.lists import LISTS

router = APIRouter()
PICTURE_PX = 128  # a tiny picture on the page, on each side
MOST_LISTED = 50  # episodes


class Decision(BaseModel):
    """Whether an episode is the recording that it resembles, and who says so."""

    is_same: StrictBool
    author: str | None = None


@router.get("/recordings")
def page(visit: Visiting) -> HTMLResponse:
    """What people said of recordings that episodes only resemble, episode by episode."""
    words = visit.reader.dicts(LISTS["words_in_review"].sql)
    by_place = grouped(((word["dataset"], word["episode_index"]), word) for word in words)
    return visit.page(
        "recordings.html",
        title="Recordings in review",
        episodes=[
            _episode(visit.reader, place, place_words)
            for place, place_words in islice(by_place.items(), MOST_LISTED)
        ],
        num_more=max(0, len(by_place) - MOST_LISTED),
    )


def _episode(
    lake: LakeReader, place: tuple[str, int], words: list[dict[str, Any]]
) -> dict[str, Any]:
    """An episode in review; `former` and `present`: are there pictures of that side?"""
    former, present = recordings.pictures_in_review(lake, *place)
    return {
        "dataset": place[0],
        "episode_index": place[1],
        "why": words[0]["why"],
        "words": words,
        "former": bool(former),
        "present": bool(present),
    }


@router.get("/recordings/{dataset}/{episode_index}/{side}.png")
def strip(
    visit: Visiting,
    dataset: str,
    episode_index: EpisodeIndex,
    side: Annotated[Literal["former", "present"], Path()],
) -> Response:
    """Pictures of the moments of an episode, or of the recording that it resembles, from
    left to right.

    Raises PageError: none are kept.
    """
    former, present = recordings.pictures_in_review(visit.reader, dataset, episode_index)
    pictures = former if side == "former" else present
    if not pictures:
        raise PageError("no pictures of it are kept")
    tiny = np.frombuffer(b"".join(pictures), np.uint8).reshape(len(pictures), TINY, TINY)
    large = cv2.resize(
        np.concatenate([*tiny], axis=1),
        (PICTURE_PX * len(tiny), PICTURE_PX),
        interpolation=cv2.INTER_CUBIC,
    )
    return Response(cv2.imencode(".png", large)[1].tobytes(), media_type="image/png")


@router.post("/api/recordings/{dataset}/{episode_index}")
def decide(
    speech: Speaking, dataset: str, episode_index: EpisodeIndex, decision: Decision
) -> JSONResponse:
    """What a person decides; 422 where there is nothing to decide."""
    try:
        lake = Lake(speech.explorer.space)
    except OSError as e:
        raise PageError(f"the workspace cannot be written to: {e.strerror}", 403) from e
    with closing(lake.con):
        recording = recordings.decide(
            lake,
            dataset,
            episode_index,
            is_same=decision.is_same,
            author=speech.author(decision.author),
        )
    return JSONResponse({"recording": recording})
