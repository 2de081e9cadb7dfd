"""One page for every list, table and view: rows with links, filters by the values of columns, an order, and a plot.
Addresses of former pages lead here.
"""

import shlex
from collections.abc import Mapping
from string import Formatter
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from core.errors import SqlError
from core.metrics import is_lower_better, leading_metrics
from explorer.access import PageError
from explorer.pages.sql import MAX_ROWS, page_result
from explorer.site import Visiting, visiting
from warehouse.lake.connection import literal
from warehouse.lake.lists import LISTS, list_named
from warehouse.lake.schema import relations

router = APIRouter()
# Where the value of a column leads; of some lists another place. The others narrow the list to their value
LINKS = {
    "dataset": "/episodes?dataset={dataset}",
    "episode_index": "/episode/{dataset}/{episode_index}",
    "eval_run": "/t/scored_episodes?eval_run={eval_run}",
    "label_run": "/episodes?label_run={label_run}",
    "release": "/t/release_contents?name={release}",
    "training_run": "/t/training_points?training_run={training_run}&chart=line",
}
OF_LIST = {
    "labels_apart": {"apart": "/compare/{dataset}/{episode_index}?a={run_a}&b={run_b}"},
    "leaderboard": {"model": LINKS["eval_run"]},
    "release_commands": {"command": ""},
    "releases": {"name": "/t/release_contents?name={name}"},
    "training_runs": {"model": "/t/leaderboard?model={model}&slice=all"},
    "scored_episodes": {"error": "/compare/{dataset}/{episode_index}?b={eval_run}"},
}
LONGEST = 80  # characters of a value that narrows the list
Row = Mapping[str, Any]


@router.get("/t")
def lists(visit: Visiting) -> HTMLResponse:
    """Every list, with the question that it answers."""
    return visit.page("lists.html", title="Lists", lists=LISTS, relations=relations())


@router.get("/t/{name}")
async def table(
    request: Request,
    name: str,
    order: str = "",
    chart: Literal["table", "bars", "line"] = "table",
) -> HTMLResponse:
    """`order`: a column, or -COLUMN for the highest first; other parameters: columns with their values."""
    if name not in LISTS and name not in {relation["name"] for relation in relations()}:
        raise PageError(f"there is no list {name[:60]!r}")
    filters = {
        column: value
        for column, value in request.query_params.items()
        if column not in ("order", "chart")
    }
    where = " AND ".join(f"{_quoted(k)}::VARCHAR = {literal(v)}" for k, v in filters.items())
    sql = f"FROM ({list_named(name).sql})" + (f" WHERE {where}" if where else "")
    if order:
        direction = ("ASC", "DESC")[order.startswith("-")]
        sql += f" ORDER BY {_quoted(order.removeprefix('-'))} {direction} NULLS LAST"
    try:
        result = await page_result(request, sql, chart)
    except SqlError as e:
        raise PageError(str(e)) from e
    facts = {"name": name, "filters": filters, "order": order, "chart": chart, "result": result}
    return await run_in_threadpool(_page, request, where, facts)


def _quoted(column: str) -> str:
    name = column.replace('"', '""')
    return f'"{name}"'


def _page(request: Request, where: str, facts: dict[str, Any]) -> HTMLResponse:
    name = facts["name"]
    result = facts["result"]
    named_rows = [dict(zip(result["names"], row, strict=True)) for row in result["rows"]]
    columns = [column for column in result["names"] if column not in facts["filters"]]
    condition = f" --where {shlex.quote(where)}" if where else ""
    metric = facts["filters"].get("metric", "")

    def linked(row: dict[str, Any]) -> list[tuple[Any, str]]:
        return [(row[column], address(name, column, row, facts["filters"])) for column in columns]

    with visiting(request) as visit:
        return visit.page(
            "table.html",
            title=list_named(name).title,
            listing=list_named(name),
            columns=columns,
            rows=list(map(linked, named_rows)),
            addresses={column: _narrowed(request, column) for column in facts["filters"]},
            orders={column: _ordered(request, column, facts["order"]) for column in columns},
            command=f"proccorpus show {name}{condition} --workspace {visit.place}",
            metric=metric,
            lower=is_lower_better(metric),
            most=MAX_ROWS,
            **facts,
        )


def address(name: str, column: str, row: Row, filters: dict[str, str]) -> str:
    """Where a cell leads; "": nowhere. Other words narrow the list further."""
    template = (LINKS | OF_LIST.get(name, {})).get(column)
    value = row[column]
    if template is None:
        is_word = isinstance(value, str) and 0 < len(value) <= LONGEST
        if not is_word or column.endswith("_at"):
            return ""
        return f"?{urlencode(filters | {column: value})}"
    fields = [field for _, field, _, _ in Formatter().parse(template) if field]
    if any(row.get(field) is None for field in fields):
        return ""
    return template.format(**{field: quote(str(row[field]), safe="") for field in fields})


def _narrowed(request: Request, column: str) -> str:
    """The address without the filter of a column."""
    return str(request.url.remove_query_params(column).query)


def _ordered(request: Request, column: str, order: str) -> str:
    """The address in the order of a column; of the present one the other way round."""
    return str(
        request.url.include_query_params(order=f"-{column}" if order == column else column).query
    )


# Former addresses, and where they lead now
FORMER = {
    "/releases": "/t/releases",
    "/releases/{name}": OF_LIST["releases"]["name"],
    "/leaderboard/{eval_run}": LINKS["eval_run"],
}


def former(request: Request) -> RedirectResponse:
    values = {name: quote(value, safe="") for name, value in request.path_params.items()}
    return RedirectResponse(FORMER[request.scope["route"].path].format(**values))


for former_path in FORMER:
    router.get(former_path)(former)


@router.get("/compare/{dataset}")
def compare(dataset: str, a: str = "", b: str = "") -> RedirectResponse:
    """The list has every two labels once, the lesser name first."""
    pair = dict(zip(("run_a", "run_b"), sorted((a, b)), strict=True)) if a and b else {}
    return RedirectResponse(f"/t/labels_apart?{urlencode({'dataset': dataset} | pair)}")


@router.get("/training")
def training(run: Annotated[list[str] | None, Query()] = None) -> RedirectResponse:
    """The curves of a run; of several those of the newest; without one the list of all."""
    if run and len(run) == 1:
        query = urlencode({"training_run": run[0], "chart": "line"})
        return RedirectResponse(f"/t/training_points?{query}")
    return RedirectResponse("/t/training_losses?chart=line" if run else "/t/training_runs")


@router.get("/leaderboard")
def leaderboard(
    visit: Visiting, benchmark: str = "", slice: str = "all", metric: str = ""
) -> RedirectResponse:
    """By the metric that says most of those that there are."""
    metrics = visit.reader.column("SELECT DISTINCT metric FROM leaderboard")
    leading = next((name for name in leading_metrics() if name in metrics), "")
    chosen = {"benchmark": benchmark, "slice": slice, "metric": metric or leading}
    query = urlencode({name: value for name, value in chosen.items() if value})
    return RedirectResponse(f"/t/leaderboard?{query}")
