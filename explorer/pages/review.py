"""What a person should look at, the worst first: accept it, mend it, or reject it. Or accept all labels of a queue at
once, after a sample of them was looked at and each of it found right.

And recordings in review: an episode beside the recording that it resembles, and a person says whether it is the same.
"""

import random
from contextlib import closing
from itertools import islice
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import cv2
import numpy as np
from fastapi import APIRouter, Body, Path, Query
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from annotate.pictures import TINY
from core.files import queries_of
from core.values import grouped
from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.corrected_labels import corrected_places
from explorer.episode import (
    EpisodeIndex,
    find_dataset,
    find_episode,
    label_as_said,
    recording_at,
)
from explorer.index import Place, places_by_value
from explorer.pages.corrections import Flag, Index, Judged, Said, Snapshot, Text, accepted_label
from explorer.pages.episodes import MAX_CHARS
from explorer.pages.running import MOST_TASKS, listed_tasks
from explorer.review_queue import (
    CHANGED,
    FOLLOWING,
    ORDER,
    SIGNS,
    ReviewQueue,
    counts_are_of_now,
    said_since,
)
from explorer.site import Speaking, Visit, Visiting, visiting
from warehouse.lake import Lake, recordings
from warehouse.lake.corrections import ACCEPTED, REJECTED, CorrectionError, parsed
from warehouse.lake.lists import LISTS
from warehouse.lake.recordings import review_counts
from warehouse.lake.statements import check_recording
from warehouse.lake.stored import labels_of_chunk

NEWEST_SQL, RECORDINGS_SQL, OUTCOMES_SQL, ASSUMED_SQL, PACE_SQL = queries_of(__file__)
LONGEST_GAP_S = 300  # between two judgements of one sitting
FEWEST_JUDGED = 10  # before they tell how long the rest takes


router = APIRouter()
PER_PAGE = 50


@router.get("/review")
def page(
    visit: Visiting,
    kind: str = "all",
    dataset: str | None = None,
    person: str | None = None,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    if kind == "quarantined":  # an address of an earlier version
        return RedirectResponse("/t/quarantine")
    kind = kind if kind in SIGNS else "all"
    counts = _counts(visit, dataset)
    datasets = visit.reader.column("SELECT dataset FROM datasets ORDER BY 1")
    # Of a corpus of one dataset that one is meant
    if dataset in datasets:
        chosen = dataset
    elif len(datasets) == 1:
        chosen = datasets[0]
    else:
        chosen = None
    tasks = listed_tasks(visit, chosen) if chosen else []
    queue = ReviewQueue(kind, dataset, person or None)
    num_left = queue.num_left(visit)
    pace = visit.reader.dicts(PACE_SQL, [LONGEST_GAP_S])
    return visit.page(
        "review.html",
        title="Review",
        index=visit.index,
        of_now=counts_are_of_now(visit),
        kind=kind,
        dataset=dataset,
        datasets=datasets[:MOST_TASKS],
        chosen=chosen,
        tasks=tasks[:MOST_TASKS],
        suggestions=None,
        num_tasks=len(tasks),
        kinds={k: t for k, (t, _) in SIGNS.items()},
        counts=counts,
        rows=_rows(visit, queue, f"LIMIT {PER_PAGE} OFFSET {(page - 1) * PER_PAGE}"),
        queue=queue,
        first=queue.first_place(visit),
        left=num_left,
        people={
            p: ReviewQueue(person=p).num_left(visit)
            for p in [*places_by_value(visit.reader, "assigned")][:MOST_TASKS]
        },
        person=person,
        assumed=assumed_outcomes(visit, dataset),
        pace=pace,
        seconds_each=pace[0]["seconds"] if pace and pace[0]["judged"] >= FEWEST_JUDGED else None,
        page=page,
        pages=max(1, -(-num_left // PER_PAGE)),
        num_words=sum(review_counts(visit.reader).values()),
    )


@router.get("/review/beside/{dataset}")
@router.get("/review/beside/{dataset}/{episode_index}")
def beside(
    visit: Visiting,
    dataset: str,
    episode_index: int | None = None,
    camera: str | None = None,
) -> RedirectResponse:
    """A run whose label follows a reference, as one of their queue; without a number the first one."""
    find_dataset(visit.reader, dataset)
    queue = ReviewQueue(FOLLOWING, dataset, camera=camera)
    place = queue.first_place(visit) if episode_index is None else (dataset, episode_index)
    return RedirectResponse(queue.at(place) if place else queue.page, 303)


def assumed_outcomes(visit: Visit, dataset: str | None) -> dict[str, int]:
    """Of how many usable `episodes`, of all datasets or of one, nobody says how they ended (`assumed`)."""
    return visit.index.dicts(ASSUMED_SQL, ended=said_since(visit, "outcome"), dataset=dataset)[0]


def _counts(visit: Visit, dataset: str | None) -> dict[str, int]:
    """Episodes by kind, of all datasets or of one; without those that were judged since
    the index was made.
    """
    judged = [frozenset(said_since(visit, kind)) for kind in ("correction", "outcome")]
    key = ("review counts", dataset, *judged, visit.reader.snapshot())
    return visit.index.once(
        key, lambda: {name: ReviewQueue(name, dataset).num_left(visit) for name in SIGNS}
    )


def _rows(visit: Visit, queue: ReviewQueue, limit: str) -> list[dict[str, Any]]:
    """A page of a queue, without the episodes that people have judged since the index was
    made: each with its newest correction, which a judgement made on the page follows; of
    those labelled anew both labels as strips.
    """
    rows = queue.rows(visit, f"ORDER BY {ORDER} {limit}")
    if queue.kind == CHANGED:
        for row in rows:
            place = row["dataset"], row["chunk"], row["episode_index"]
            labels = labels_of_chunk(visit.reader.con, *place)[row["episode_index"]]
            row["strips"] = [
                charts.spans([*map(vars, labels[run].segments)], labels[run].num_frames)
                for run in (row["about"], row["label_run"])
                if run in labels
            ]
    ended = corrected_places(visit.reader, "outcome")
    are_ended = any((row["dataset"], row["episode_index"]) in ended for row in rows)
    rows = _with_column(visit.reader, rows, "outcome", OUTCOMES_SQL if are_ended else None)
    are_corrected = any(
        (row["dataset"], row["episode_index"]) in corrected_places(visit.reader) for row in rows
    )
    rows = _with_column(visit.reader, rows, "recording", RECORDINGS_SQL if rows else None)
    return _with_column(visit.reader, rows, "follows", NEWEST_SQL if are_corrected else None)


def _with_column(
    reader: LakeReader, rows: list[dict[str, Any]], name: str, sql: str | None
) -> list[dict[str, Any]]:
    """The rows with what a query says of their episodes."""
    places = [f"{row['dataset']} {row['episode_index']}" for row in rows]
    values = dict(reader.rows(sql, [places])) if sql else {}
    return [row | {name: values.get(place)} for row, place in zip(rows, places, strict=True)]


SAMPLE = 10  # runs that are looked at
SURE = 0.95  # of what a sample says of the others
MOST_ACCEPTED = 200  # labels of one request
RIGHT = "right"
WRONG = "wrong"
OPEN = "not looked at yet"
PlaceText = Annotated[str, Query(max_length=300, pattern=r"^[^/]+/\d{1,15}$")]


@router.get("/review/bulk")
def bulk_page(
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
def accept_others(
    speech: Speaking,
    sample: Annotated[list[tuple[str, Index]], Body(max_length=100)],
    kind: Annotated[str, Body()] = "all",
    dataset: Text = None,
    person: Text = None,
    query: Annotated[str | None, Body(max_length=MAX_CHARS)] = None,
    author: Text = None,
    snapshot: Snapshot = None,
) -> JSONResponse:
    """Accept labels of a queue, or of a selection (`query`), after this sample of it was
    looked at: as many as one request can. Answers how many were, how many
    are left, and why some were not. 422: the sample was not looked at, or some of it is
    wrong.
    """
    author = speech.author(author)
    queue = _runs_to_accept(kind, dataset, person, query)
    with visiting(speech.request) as visit:
        _check_sample(visit.reader, [*dict.fromkeys(sample)], snapshot)
        rows = queue.rows(visit, f"ORDER BY {ORDER}")
    comment = f"accepted with its {queue.noun}; {len(sample)} of it were looked at and right"

    refused = speech.explorer.corpus.say(
        lambda reader: _accept_rows(reader, rows[:MOST_ACCEPTED], author, comment)
    )
    accepted = len(rows[:MOST_ACCEPTED]) - len(refused)
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


PICTURE_PX = 128  # a tiny picture on the page, on each side
MOST_RECORDINGS = 50  # episodes


@router.get("/recordings")
def recordings_page(visit: Visiting) -> HTMLResponse:
    """What people said of recordings that episodes only resemble, episode by episode."""
    words = visit.reader.dicts(LISTS["words_in_review"].sql)
    by_place = grouped(((word["dataset"], word["episode_index"]), word) for word in words)
    return visit.page(
        "recordings.html",
        title="Recordings in review",
        episodes=[
            _recording_in_review(visit.reader, place, place_words)
            for place, place_words in islice(by_place.items(), MOST_RECORDINGS)
        ],
        num_more=max(0, len(by_place) - MOST_RECORDINGS),
    )


def _recording_in_review(
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
    speech: Speaking,
    dataset: str,
    episode_index: EpisodeIndex,
    is_same: Flag,
    author: Text = None,
) -> JSONResponse:
    """A person decides whether an episode is the recording that it resembles; 422 where there is nothing to decide."""
    try:
        lake = Lake(speech.explorer.space)
    except OSError as e:
        raise PageError(f"the workspace cannot be written to: {e.strerror}", 403) from e
    with closing(lake.con):
        recording = recordings.decide(
            lake,
            dataset,
            episode_index,
            is_same=is_same,
            author=speech.author(author),
        )
    return JSONResponse({"recording": recording})
