"""What a person should look at, the worst first: accept it, mend it, or reject it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from explorer.access import LakeReader
from explorer.index import Indexed
from explorer.site import explorer_of
from explorer.writing import why_read_only

router = APIRouter()
PER_PAGE = 50
# Of the view review_queue: kind in the address, title, and the reason as the view words it (None: any)
SIGNS = {
    "all": ("All signs", None),
    "disagreement": ("Labels disagree", "labels of two runs disagree"),
    "unsure": ("Low confidence", "the annotator is unsure"),
    "jumps": ("Progress jumps", "progress jumps"),
    "asked": ("Asked for", "the annotator asks for a person"),
    "contradicts": ("Against the source", "label and source contradict each other about success"),
    "length": ("Odd length", "odd length"),
    "order": ("Odd order", "odd order of steps"),
}
WAITING, QUARANTINED = "corrections", "quarantined"
OTHERS = {WAITING: "Corrections to look at again", QUARANTINED: "Quarantined"}


@router.get("/review")
def page(
    request: Request,
    kind: str = "all",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> HTMLResponse:
    explorer = explorer_of(request)
    kind = kind if kind in SIGNS or kind in OTHERS else "all"
    with explorer.corpus.reading() as reader:
        indexed = explorer.index.at(reader)
        said = _said_since(reader, indexed)
        counts = _counts(indexed)
        rows = _rows(indexed, kind, said, (page - 1) * PER_PAGE)
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
            kinds={k: t for k, (t, _) in SIGNS.items()} | OTHERS,
            counts=counts,
            rows=rows,
            page=page,
            pages=max(1, -(-counts.get(kind, 0) // PER_PAGE)),
            can_act=kind != QUARANTINED,
            why_read_only=why_read_only(explorer),
            author=request.state.user or explorer.options.access.author,
            author_is_known=request.state.user is not None,
        )


def _counts(indexed: Indexed) -> dict[str, int]:
    """Episodes by kind, as the index has them."""

    def count() -> dict[str, int]:
        by_why = dict(indexed.rows("SELECT w, count(*) FROM (SELECT unnest(why) AS w FROM review) GROUP BY 1"))
        counts = {k: by_why.get(why, 0) for k, (_, why) in SIGNS.items()}
        counts["all"] = indexed.rows("SELECT count(*) FROM review")[0][0]
        counts[WAITING] = indexed.rows("SELECT count(*) FROM waiting")[0][0]
        counts[QUARANTINED] = indexed.rows("SELECT count(*) FROM episodes WHERE reason <> 'ok'")[0][0]
        return counts

    return indexed.once("review counts", count)


def _said_since(reader: LakeReader, indexed: Indexed) -> list[str]:
    """Episodes (dataset, blank, number) of which people said something that the index does not know yet."""
    first, last = indexed.snapshot.number + 1, reader.snapshot.number
    if first > last or not reader.has_view("pending_corrections"):
        return []
    rows = reader.rows(
        "SELECT DISTINCT dataset || ' ' || episode_index "
        f"FROM ducklake_table_insertions('lake', 'main', 'corrections', {first}, {last})"
    )
    return [r[0] for r in rows]


def _rows(indexed: Indexed, kind: str, said: list[str], offset: int) -> list[dict[str, Any]]:
    """A page of a queue; what people judged since the index was made is gone from it."""
    judged = "list_contains($said, dataset || ' ' || episode_index)"
    if kind == QUARANTINED:
        return indexed.dicts(
            "SELECT dataset::VARCHAR AS dataset, episode_index, t.text AS task, reason::VARCHAR AS reason "
            "FROM episodes LEFT JOIN tasks t USING (task_id) WHERE reason <> 'ok' ORDER BY row "
            f"LIMIT {PER_PAGE} OFFSET {offset}"
        )
    if kind == WAITING:
        return indexed.dicts(
            f"FROM waiting WHERE NOT {judged} ORDER BY created_at, correction_id LIMIT {PER_PAGE} OFFSET {offset}",
            said=said,
        )
    why = SIGNS[kind][1]
    fits = "true" if why is None else "list_contains(why, $why)"
    return indexed.dicts(
        f"FROM review WHERE {fits} AND NOT {judged} ORDER BY score DESC, dataset, episode_index "
        f"LIMIT {PER_PAGE} OFFSET {offset}",
        **{"said": said} | ({} if why is None else {"why": why}),
    )


def _with_newest(reader: LakeReader, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With what was said last of each episode: what a judgement made on the page follows."""
    places = [f"{r['dataset']} {r['episode_index']}" for r in rows]
    if not rows:
        return rows
    newest = dict(
        reader.rows(
            "SELECT dataset || ' ' || episode_index AS place, arg_max(correction_id, (created_at, correction_id)) "
            "FROM corrections WHERE list_contains(?, dataset || ' ' || episode_index) GROUP BY 1",
            places,
        )
    )
    return [r | {"follows": newest.get(place)} for r, place in zip(rows, places, strict=True)]


def _with_details(reader: LakeReader, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With what was found, in words."""
    details = {
        (dataset, episode): detail
        for dataset, episode, detail in reader.rows(
            "SELECT dataset, episode_index, min_by(detail, (stage, reason)) FROM findings WHERE severity = 'unusable' "
            "AND list_contains(?, dataset) AND list_contains(?, episode_index) GROUP BY ALL",
            sorted({r["dataset"] for r in rows}),
            sorted({r["episode_index"] for r in rows}),
        )
    }
    return [r | {"detail": details.get((r["dataset"], r["episode_index"]))} for r in rows]
