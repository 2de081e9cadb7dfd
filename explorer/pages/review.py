"""What a person should look at, the worst first: accept it, mend it, or reject it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from explorer.access import LakeReader
from explorer.corrected_labels import corrected_places
from explorer.index import Indexed
from explorer.labelling import TaskRuns, shown_tasks
from explorer.marks import places_by_value
from explorer.review_queue import ORDER, SIGNS, ReviewQueue, first_of, judged_since, num_left, pace
from explorer.site import explorer_of
from explorer.writing import why_read_only

router = APIRouter()
PER_PAGE = 50
MOST_TASKS = 20  # of a dataset, and datasets, that are listed to be labelled by showing
WAITING, QUARANTINED = "corrections", "quarantined"
OF_DATASET = "($1 IS NULL OR dataset::VARCHAR = $1)"
OTHERS = {WAITING: "Corrections to look at again", QUARANTINED: "Quarantined"}


@router.get("/review")
def page(
    request: Request,
    kind: str = "all",
    dataset: str | None = None,
    person: str | None = None,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> HTMLResponse:
    explorer = explorer_of(request)
    kind = kind if kind in SIGNS or kind in OTHERS else "all"
    with explorer.corpus.reading() as reader:
        indexed = explorer.index.at(reader)
        counts = _counts(indexed, dataset)
        datasets = [name for (name,) in reader.rows("SELECT dataset FROM datasets ORDER BY 1")]
        # Of a corpus of one dataset that one is meant
        chosen = dataset if dataset in datasets else datasets[0] if len(datasets) == 1 else None
        tasks = _tasks(reader, indexed, chosen) if chosen else []
        queue = ReviewQueue(kind, dataset, person or None) if kind in SIGNS else None
        left = num_left(reader, indexed, queue) if queue else counts[kind]
        rows = _rows(reader, indexed, queue or kind, dataset, (page - 1) * PER_PAGE)
        if kind == QUARANTINED:
            rows = _with_details(reader, rows)
        else:
            rows = _with_newest(reader, rows)
        return explorer.page(
            request,
            "review.html",
            reader,
            title="Review",
            index=indexed,
            kind=kind,
            dataset=dataset,
            datasets=datasets[:MOST_TASKS],
            chosen=chosen,
            tasks=tasks[:MOST_TASKS],
            num_tasks=len(tasks),
            kinds={k: t for k, (t, _) in SIGNS.items()} | OTHERS,
            counts=counts,
            rows=rows,
            queue=queue,
            first=first_of(reader, indexed, queue) if queue else None,
            left=left,
            people={name: len(places) for name, places in places_by_value(reader, "assigned").items()},
            person=person,
            pace=pace(reader),
            page=page,
            pages=max(1, -(-left // PER_PAGE)),
            can_act=kind != QUARANTINED,
            why_read_only=why_read_only(explorer),
            author=request.state.user or explorer.options.access.author,
            author_is_known=request.state.user is not None,
        )


def _tasks(reader: LakeReader, indexed: Indexed, dataset: str) -> list[TaskRuns]:
    """The tasks of a dataset whose runs can be labelled like others; counted once for each index."""
    tasks = indexed.once(("tasks", dataset), lambda: shown_tasks(reader, dataset))
    return [task for task in tasks if task.can_be_shown]


def _counts(indexed: Indexed, dataset: str | None) -> dict[str, int]:
    """Episodes by kind, as the index has them, of all datasets or of one."""

    def count() -> dict[str, int]:
        def number(what: str) -> int:
            return indexed.rows(f"SELECT count(*) FROM {what}", dataset)[0][0]

        by_why = dict(
            indexed.rows(
                f"SELECT w, count(*) FROM (SELECT unnest(why) AS w FROM review WHERE {OF_DATASET}) GROUP BY 1", dataset
            )
        )
        counts = {k: by_why.get(why, 0) for k, (_, why) in SIGNS.items()}
        counts["all"] = number(f"review WHERE {OF_DATASET}")
        counts[WAITING] = number(f"waiting WHERE {OF_DATASET}")
        counts[QUARANTINED] = number(f"episodes WHERE reason <> 'ok' AND {OF_DATASET}")
        return counts

    return indexed.once(("review counts", dataset), count)


def _rows(
    reader: LakeReader, indexed: Indexed, kind: ReviewQueue | str, dataset: str | None, offset: int
) -> list[dict[str, Any]]:
    """A page of a queue, without the episodes that people have judged since the index was made."""
    if kind == QUARANTINED:
        return indexed.dicts(
            "SELECT dataset::VARCHAR AS dataset, episode_index, t.text AS task, reason::VARCHAR AS reason "
            "FROM episodes LEFT JOIN tasks t USING (task_id) WHERE reason <> 'ok' "
            f"AND {OF_DATASET} ORDER BY row LIMIT {PER_PAGE} OFFSET {offset}",
            dataset,
        )
    if not isinstance(kind, ReviewQueue):
        return indexed.dicts(
            "FROM waiting WHERE NOT list_contains($judged, dataset || ' ' || episode_index) "
            "AND ($dataset IS NULL OR dataset = $dataset) "
            f"ORDER BY created_at, correction_id LIMIT {PER_PAGE} OFFSET {offset}",
            judged=judged_since(reader, indexed),
            dataset=dataset,
        )
    where, values = kind.where(reader, indexed)
    return indexed.dicts(
        f"FROM review WHERE {where} ORDER BY {ORDER} LIMIT {PER_PAGE} OFFSET {offset}",
        **values,
    )


def _with_newest(reader: LakeReader, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with its episode's newest correction: a judgement made on the page names it as what it follows."""
    places = [f"{row['dataset']} {row['episode_index']}" for row in rows]
    newest: dict[str, str] = {}
    if any((row["dataset"], row["episode_index"]) in corrected_places(reader) for row in rows):
        newest = dict(
            reader.rows(
                "SELECT dataset || ' ' || episode_index AS place, arg_max(correction_id, (created_at, correction_id)) "
                "FROM corrections WHERE list_contains(?, dataset || ' ' || episode_index) GROUP BY 1",
                places,
            )
        )
    return [row | {"follows": newest.get(place)} for row, place in zip(rows, places, strict=True)]


def _with_details(reader: LakeReader, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with the detail of the finding that makes its episode unusable."""
    findings = reader.rows(
        "SELECT dataset, episode_index, min_by(detail, (stage, reason)) FROM findings WHERE severity = 'unusable' "
        "AND list_contains(?, dataset) AND list_contains(?, episode_index) GROUP BY ALL",
        sorted({row["dataset"] for row in rows}),
        sorted({row["episode_index"] for row in rows}),
    )
    details = {(dataset, episode_index): detail for dataset, episode_index, detail in findings}
    return [row | {"detail": details.get((row["dataset"], row["episode_index"]))} for row in rows]
