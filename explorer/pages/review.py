"""What a person should look at, the worst first: accept it, mend it, or reject it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import RedirectResponse, Response

from core.files import queries_of
from explorer import charts
from explorer.access import LakeReader
from explorer.corrected_labels import corrected_places
from explorer.facets import places_by_value
from explorer.review_queue import (
    FEWEST_JUDGED,
    ORDER,
    PACE_SQL,
    SIGNS,
    ReviewQueue,
    counts_are_of_now,
    said_since,
)
from explorer.site import Visit, Visiting
from explorer.tasks import MOST_TASKS, listed_tasks
from warehouse.lake.recordings import review_counts
from warehouse.lake.stored import labels_of_chunk

router = APIRouter()
PER_PAGE = 50
WAITING = "corrections"
CHANGED = "changed"
OF_DATASET = "($dataset IS NULL OR dataset::VARCHAR = $dataset)"
OTHERS = {
    CHANGED: "Labelled anew: old and new",
    WAITING: "Corrections to look at again",
}
CHANGED_SQL, NEWEST_SQL, RECORDINGS_SQL, OUTCOMES_SQL, ASSUMED_SQL = queries_of(__file__)


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
        num_words=sum(review_counts(visit.lake).values()),
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

    changed = visit.reader.rows(f"SELECT count(*) FROM ({CHANGED_SQL})", dataset)[0][0]
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
        rows = visit.reader.dicts(f"{CHANGED_SQL} {limit}", dataset)
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
    values = dict(reader.rows(sql, places)) if sql else {}
    return [row | {name: values.get(place)} for row, place in zip(rows, places, strict=True)]
