"""Accepting all labels of a queue, or of a selection of the gallery, at once, after a
sample of them was looked at and each of it found right.
"""

import random
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field, StrictInt

from explorer.access import LakeReader, PageError
from explorer.corrected_labels import corrected_places
from explorer.episode import find_episode, label_as_said, recording_at
from explorer.pages.corrections import (
    Judged,
    Said,
    Snapshot,
    accepted_label,
)
from explorer.pages.episodes import MAX_CHARS
from explorer.review_queue import ORDER, SIGNS, ReviewQueue
from explorer.site import Speaking, Visit, Visiting, visiting
from warehouse.lake.corrections import ACCEPTED, REJECTED, CorrectionError, parsed
from warehouse.lake.statements import Place, check_recording

router = APIRouter()
SAMPLE = 10  # runs that are looked at
SURE = 0.95  # of what a sample says of the others
AT_ONCE = 200  # labels of one request
RIGHT = "right"
WRONG = "wrong"
OPEN = "not looked at yet"
PlaceText = Annotated[str, Query(max_length=300, pattern=r"^[^/]+/\d{1,15}$")]


class BulkAcceptance(BaseModel):
    """All labels of a queue, or of a selection (`query`), after this sample of it was looked at."""

    kind: str = "all"
    dataset: str | None = None
    person: str | None = None
    query: Annotated[str, Field(max_length=MAX_CHARS)] | None = None
    sample: Annotated[
        list[tuple[str, Annotated[StrictInt, Field(ge=0, le=2**53)]]], Field(max_length=100)
    ]
    author: str | None = None
    snapshot: Snapshot = None


@router.get("/review/bulk")
def page(
    visit: Visiting,
    kind: str = "all",
    dataset: str | None = None,
    person: str | None = None,
    query: Annotated[str | None, Query(max_length=MAX_CHARS)] = None,
    sample: Annotated[list[PlaceText], Query(max_length=100)] = [],  # noqa: B006  (FastAPI copies it)
) -> Response:
    """The sample, which the address names once it is drawn, and what was found of it."""
    queue = _runs_to_accept(kind, dataset, person, query)
    choice = {"kind": kind, "dataset": dataset, "person": person, "query": query}
    choice = {name: value for name, value in choice.items() if value is not None}
    if not sample:
        drawn = [f"{place[0]}/{place[1]}" for place in _drawn_sample(visit, queue)]
        if not drawn:
            return RedirectResponse(queue.page, 303)
        return RedirectResponse(
            f"/review/bulk?{urlencode(choice | {'sample': drawn}, doseq=True)}", 303
        )
    places = [(text.rpartition("/")[0], int(text.rpartition("/")[2])) for text in sample]
    judgements = {place: judgement_of(visit.reader, place) for place in places}
    waiting = {(row["dataset"], row["episode_index"]): row for row in queue.rows(visit)}
    return visit.page(
        "bulk.html",
        title=f"Accept a {queue.noun}",
        queue=queue,
        asked=choice,
        sample=[[*place] for place in places],
        rows=[waiting[place] for place in places if judgements[place] == OPEN and place in waiting],
        num_open=sum(word == OPEN for word in judgements.values()),
        wrong=[place for place, word in judgements.items() if word == WRONG],
        others=len(waiting) - sum(place in waiting for place in places),
        most_wrong=1 - (1 - SURE) ** (1 / len(places)),
        sure=SURE,
    )


@router.post("/api/bulk")
def accept(speech: Speaking, bulk: BulkAcceptance) -> JSONResponse:
    """Accept as many labels of them as one request can; answers how many were, how many
    are left, and why some were not. 422: the sample was not looked at, or some of it is
    wrong.
    """
    author = speech.author(bulk.author)
    queue = _runs_to_accept(bulk.kind, bulk.dataset, bulk.person, bulk.query)
    with visiting(speech.request) as visit:
        _check_sample(visit.reader, [*dict.fromkeys(bulk.sample)], bulk.snapshot)
        rows = queue.rows(visit, f"ORDER BY {ORDER}")
    comment = f"accepted with its {queue.noun}; {len(bulk.sample)} of it were looked at and right"

    refused = speech.explorer.corpus.say(
        lambda reader: _accept_rows(reader, rows[:AT_ONCE], author, comment)
    )
    accepted = len(rows[:AT_ONCE]) - len(refused)
    return JSONResponse({"accepted": accepted, "left": len(rows) - accepted, "refused": refused})


def _accept_rows(
    reader: LakeReader, rows: list[dict[str, Any]], author: str, comment: str
) -> list[str]:
    """Accept the labels of rows of a queue that nobody has judged; returns why others were not."""
    refused = []
    for row in rows:
        place = row["dataset"], row["episode_index"]
        judged = Judged(reader, *place, author, Said(comment=comment))
        try:
            content_hash = judged.facts["content_hash"]
            label = accepted_label(judged, row["label_run"])
            judged.save(label, row["label_run"], content_hash)
        except CorrectionError as e:
            refused.append(str(e))
    return refused


def judgement_of(reader: LakeReader, place: Place) -> str:
    """What people found of a label: RIGHT where it was accepted as it is, WRONG where it
    was mended or rejected.
    """
    if place not in corrected_places(reader):
        return OPEN
    current = reader.dicts(
        "FROM current_corrections WHERE dataset = ? AND episode_index = ?", [*place]
    )
    by_status = {row["status"]: row for row in current}
    if REJECTED in by_status:
        return WRONG
    accepted = by_status.get(ACCEPTED)
    if accepted is None:
        return OPEN
    episode = find_episode(reader, *place)
    label = label_as_said(reader, episode, accepted["base_label_run"] or "")
    if label is None:
        return WRONG
    as_it_is = parsed(label).columns(episode.num_frames)
    if all(accepted[name] == value for name, value in as_it_is.items()):
        return RIGHT
    return WRONG


def _check_sample(
    reader: LakeReader,
    sample: list[Place],
    snapshot: int | None,
) -> None:
    """Raises PageError; ConflictError: a number is another recording's than on the page of a snapshot."""
    for place, recording in reader.recordings_shown(sample, snapshot).items():
        check_recording(place, recording, recording_at(reader, *place))
    if len(sample) < SAMPLE:
        raise PageError(f"look at {SAMPLE} of these runs first", 422)
    for place in sample:
        if (word := judgement_of(reader, place)) != RIGHT:
            raise PageError(f"{place[0]} {place[1]} of the sample is {word}", 422)


def _drawn_sample(visit: Visit, queue: ReviewQueue) -> list[Place]:
    rows = queue.rows(visit, f"ORDER BY {ORDER}")
    places = [(row["dataset"], row["episode_index"]) for row in rows]
    return random.sample(places, min(SAMPLE, len(places)))


def _runs_to_accept(
    kind: str, dataset: str | None, person: str | None, query: str | None
) -> ReviewQueue:
    if kind not in SIGNS:
        raise PageError(f"there is no queue {kind!r} whose labels can be accepted at once")
    selection = None if query is None else query.removeprefix("?")
    return ReviewQueue(kind, dataset or None, person or None, selection)
