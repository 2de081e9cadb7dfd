"""What a person should look at, the worst first: accept it, mend it, or reject it.

The queue as one works through it: what is in it, what comes next, how many are left, at what pace.

And recordings in review: an episode beside the recording that it resembles, and a person says whether it is the same.
"""

from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import cv2
import numpy as np
from fastapi import APIRouter, Path, Query
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, StrictBool
from starlette.datastructures import QueryParams

from annotate.pictures import TINY
from core.files import queries_of
from core.values import grouped
from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.corrected_labels import corrected_places
from explorer.episode import EpisodeIndex
from explorer.index import Place, places_by_value
from explorer.pages.labelling import MOST_TASKS, listed_tasks
from explorer.site import Speaking, Visit, Visiting
from warehouse.lake import Lake, recordings
from warehouse.lake.lists import LISTS
from warehouse.lake.recordings import review_counts
from warehouse.lake.stored import labels_of_chunk
from warehouse.lake.views import FAULTY

(
    CHANGED_SQL,
    NEWEST_SQL,
    RECORDINGS_SQL,
    OUTCOMES_SQL,
    ASSUMED_SQL,
    ASSIGNED_SQL,
    DONE_SQL,
) = queries_of(__file__)
# Of the view review_queue: kind in the address, title, and the sign as the view words it (None: any)
SIGNS = {
    "all": ("All signs", None),
    "checks": ("Faults found by checks", FAULTY),
    "unfinished": ("Look unfinished", "looks unfinished"),
    "doubtful": ("May be unfinished", "may be unfinished"),
    "disagreement": ("Labels disagree", "labels of two runs disagree"),
    "unsure": ("Low confidence", "the annotator is unsure"),
    "jumps": ("Progress jumps", "progress jumps"),
    "asked": ("Asked for", "the annotator asks for a person"),
    "contradicts": ("Against the source", "label and source contradict each other about success"),
    "length": ("Odd length", "odd length"),
    "order": ("Odd order", "odd order of steps"),
    "moments": ("Steps of a moment", "a step of a moment"),
    "unnamed": ("Steps without a name", "steps without a name"),
}
OF_ENDS = ("unfinished", "doubtful")  # kinds that ask how runs ended: who says it has answered
ORDER = "score DESC, dataset, episode_index"
# What stands before and after the episode $d, $e with the score $s in that order
IS_BEFORE = "(score > $s OR score = $s AND (dataset, episode_index) < ($d, $e))"
IS_AFTER = "(score < $s OR score = $s AND (dataset, episode_index) > ($d, $e))"
NAMED = "{dataset: dataset, episode_index: episode_index}"
RANK = "(-score, dataset, episode_index)"
AROUND = f"""
    count(*) AS total, count(*) FILTER {IS_BEFORE} AS ahead,
    max_by({NAMED}, {RANK}) FILTER {IS_BEFORE} AS former,
    min_by({NAMED}, {RANK}) FILTER {IS_AFTER} AS following"""
LONGEST_GAP_S = 300  # between two judgements of one sitting
FEWEST_JUDGED = 10  # before they tell how long the rest takes
# Who judged how many episodes in the last day, and how long one took, however often it was saved
PACE_SQL = f"""
    SELECT author, count(*) AS judged, median(took) AS seconds FROM (
      SELECT author, sum(gap) FILTER (gap < {LONGEST_GAP_S}) AS took FROM (
        SELECT author, dataset, episode_index,
               epoch(created_at - lag(created_at) OVER (PARTITION BY author ORDER BY created_at)) AS gap
        FROM corrections WHERE created_at > now() - INTERVAL 1 DAY)
      GROUP BY author, dataset, episode_index)
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10"""


@dataclass(frozen=True)
class ReviewQueue:
    """Labels with a sign of doubt, the oddest first: of one kind; of one dataset, of one
    person, or of all.
    """

    kind: str = "all"
    dataset: str | None = None
    person: str | None = None
    noun = "queue"

    @classmethod
    def of(cls, query: QueryParams) -> "ReviewQueue | None":
        """The queue that an episode's address names; None where it names none."""
        kind = query.get("queue")
        if kind in SIGNS:
            return cls(kind, query.get("of") or None, query.get("for") or None)
        return None

    @property
    def title(self) -> str:
        return SIGNS[self.kind][0]

    @property
    def is_of_ends(self) -> bool:
        return self.kind in OF_ENDS

    @property
    def page(self) -> str:
        """The address of its list."""
        query = {"kind": self.kind, "dataset": self.dataset, "person": self.person}
        return f"/review?{urlencode({name: value for name, value in query.items() if value})}"

    def at(self, episode: Place) -> str:
        """The address of an episode as one of this queue."""
        dataset, episode_index = episode
        query = {"queue": self.kind, "of": self.dataset, "for": self.person}
        chosen = urlencode({name: value for name, value in query.items() if value})
        return f"/episode/{quote(dataset, safe='')}/{episode_index}?{chosen}"

    def rows(
        self, visit: Visit, clauses: str = "", columns: str = "*", **named_values: Any
    ) -> list[dict[str, Any]]:
        """Rows as of the index's table `review`, without what was judged since then;
        `clauses`: of the query.
        """
        conditions = ["true"]
        values = named_values
        if self.person is not None:
            source = f"({ASSIGNED_SQL})"
            waiting = self._assigned(visit, self.person)
            values["datasets"] = [dataset for dataset, _ in waiting]
            values["numbers"] = [episode_index for _, episode_index in waiting]
        else:
            source = "review"
            judged = said_since(visit, "correction")
            if self.is_of_ends:
                judged += said_since(visit, "outcome")
            if judged:
                conditions.append(
                    "dataset || ' ' || episode_index NOT IN (SELECT unnest($judged::VARCHAR[]))"
                )
                values["judged"] = judged
        if sign := SIGNS[self.kind][1]:
            conditions.append("list_contains(signs, $sign)")
            values["sign"] = sign
        if self.dataset is not None:
            conditions.append("dataset = $dataset")
            values["dataset"] = self.dataset
        return visit.index.dicts(
            f"SELECT {columns} FROM {source} WHERE {' AND '.join(conditions)} {clauses}", **values
        )

    def _assigned(self, visit: Visit, person: str) -> list[Place]:
        """The episodes that a person has, and that nobody has judged since."""
        reader = visit.reader
        judged = reader.while_nothing_is_said(
            ("done", person), lambda: {*reader.rows(DONE_SQL, [person])}
        )
        assigned = places_by_value(reader, "assigned").get(person, [])
        return [place for place in assigned if place not in judged]

    def num_left(self, visit: Visit) -> int:
        """How many labels of the queue nobody has judged yet."""
        return self.rows(visit, columns="count(*) AS num")[0]["num"]

    def first_place(self, visit: Visit) -> Place | None:
        """The episode to begin with; None: nothing waits."""
        rows = self.rows(visit, f"ORDER BY {ORDER} LIMIT 1", "dataset, episode_index")
        return next(((row["dataset"], row["episode_index"]) for row in rows), None)


@dataclass(frozen=True)
class QueuePlace:
    """Where an episode stands in a queue. number: from 1, None: it is not, or no longer,
    in it; total: that are left.

    Addresses: `page` of the queue's list, `after` of the next episode, or of the list at
    the end, `before`.
    """

    page: str
    number: int | None
    total: int
    after: str
    before: str | None = None
    label_run: str | None = None
    why: tuple[str, ...] = ()
    queue: ReviewQueue | None = None


def place_of(visit: Visit, queue: ReviewQueue, dataset: str, episode_index: int) -> QueuePlace:
    """Where an episode stands; one that is no longer in the queue is followed by the queue's first."""
    key = {"d": dataset, "e": episode_index}
    queue_rows = queue.rows(
        visit, "AND dataset = $d AND episode_index = $e", "score, label_run, why", **key
    )

    def address(episode: dict[str, Any] | None) -> str | None:
        if episode:
            return queue.at((episode["dataset"], episode["episode_index"]))
        return None

    if not queue_rows:
        first = queue.first_place(visit)
        after = queue.at(first) if first else queue.page
        return QueuePlace(queue.page, None, queue.num_left(visit), after, queue=queue)
    # One look at the queue: its runs are counted, and the nearest on both sides found
    row = queue_rows[0]
    [around] = queue.rows(visit, columns=AROUND, **key, s=row["score"])
    return QueuePlace(
        queue.page,
        around["ahead"] + 1,
        around["total"],
        address(around["following"]) or queue.page,
        address(around["former"]),
        row["label_run"],
        tuple(row["why"]),
        queue,
    )


def said_since(visit: Visit, kind: str) -> list[str]:
    """Episodes (dataset, blank, number) of which somebody said something of a kind since the index was made."""
    places = visit.reader.places_said_since(kind, visit.index.newest_statement)
    return sorted(f"{dataset} {episode}" for dataset, episode in places)


def counts_are_of_now(visit: Visit) -> bool:
    """Has nothing come since the index was made but what people said, which queues and
    their counts leave out?
    """
    return visit.reader.snapshot() == visit.index.snapshot.number


router = APIRouter()
PER_PAGE = 50
WAITING = "corrections"
CHANGED = "changed"
OF_DATASET = "($dataset IS NULL OR dataset::VARCHAR = $dataset)"
OTHERS = {
    CHANGED: "Labelled anew: old and new",
    WAITING: "Corrections to look at again",
}


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
    kind = kind if kind in SIGNS or kind in OTHERS else "all"
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
    queue = ReviewQueue(kind, dataset, person or None) if kind in SIGNS else None
    num_left = queue.num_left(visit) if queue else counts[kind]
    pace = visit.reader.dicts(PACE_SQL)
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
        kinds={k: t for k, (t, _) in SIGNS.items()} | OTHERS,
        counts=counts,
        rows=_rows(visit, queue, kind, dataset, f"LIMIT {PER_PAGE} OFFSET {(page - 1) * PER_PAGE}"),
        queue=queue,
        first=queue.first_place(visit) if queue else None,
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


def assumed_outcomes(visit: Visit, dataset: str | None) -> dict[str, int]:
    """Of how many usable `episodes`, of all datasets or of one, nobody says how they ended (`assumed`)."""
    return visit.index.dicts(ASSUMED_SQL, ended=said_since(visit, "outcome"), dataset=dataset)[0]


def _counts(visit: Visit, dataset: str | None) -> dict[str, int]:
    """Episodes by kind, of all datasets or of one; without those that were judged since
    the index was made.
    """
    indexed = visit.index
    judged = said_since(visit, "correction")
    ended = said_since(visit, "outcome")

    def count() -> dict[str, int]:
        counts = {name: ReviewQueue(name, dataset).num_left(visit) for name in SIGNS}
        is_left = "NOT list_contains($judged, dataset || ' ' || episode_index)"
        sql = f"SELECT count(*) AS num FROM waiting WHERE {OF_DATASET} AND {is_left}"
        counts[WAITING] = indexed.dicts(sql, dataset=dataset, judged=judged)[0]["num"]
        return counts

    changed = visit.reader.rows(f"SELECT count(*) FROM ({CHANGED_SQL})", [dataset])[0][0]
    judged_places = frozenset(judged), frozenset(ended)
    return indexed.once(("review counts", dataset, judged_places), count) | {CHANGED: changed}


def _rows(
    visit: Visit, queue: ReviewQueue | None, kind: str, dataset: str | None, limit: str
) -> list[dict[str, Any]]:
    """A page of a queue, without the episodes that people have judged since the index was
    made: each with its newest correction, which a judgement made on the page follows; of
    quarantined ones with the finding's detail.
    """
    if kind == CHANGED:
        rows = visit.reader.dicts(f"{CHANGED_SQL} {limit}", [dataset])
        for row in rows:  # both labels as strips
            labels = labels_of_chunk(
                visit.reader.con, row["dataset"], row["chunk"], row["episode_index"]
            )[row["episode_index"]]
            both = [labels[row[name]] for name in ("old_run", "label_run")]
            row["strips"] = [
                charts.spans([*map(vars, label.segments)], label.num_frames) for label in both
            ]
    elif queue is None:
        rows = visit.index.dicts(
            f"FROM waiting WHERE NOT list_contains($judged, dataset || ' ' || episode_index) AND {OF_DATASET} "
            f"ORDER BY created_at, correction_id {limit}",
            judged=said_since(visit, "correction"),
            dataset=dataset,
        )
    else:
        rows = queue.rows(visit, f"ORDER BY {ORDER} {limit}")
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


PICTURE_PX = 128  # a tiny picture on the page, on each side
MOST_RECORDINGS = 50  # episodes


class Decision(BaseModel):
    """Whether an episode is the recording that it resembles, and who says so."""

    is_same: StrictBool
    author: str | None = None


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
