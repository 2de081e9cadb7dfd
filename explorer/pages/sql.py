"""SQL in the browser: the sandbox of `proccorpus sql`, with charts, downloads and saved queries.

And one page for every list, table and view: rows with links, filters by the values of columns, an order, and a plot.
Addresses of former pages lead there.
"""

import hashlib
import hmac
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import chain
from string import Formatter
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import pyarrow as pa
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from core.errors import SqlError
from core.files import queries_of
from core.metrics import is_lower_better, leading_metrics
from core.rows import python_rows
from core.values import grouped, is_index, plain
from core.web import CSRF_HEADER, is_equal_secret
from explorer import charts
from explorer.access import PageError
from explorer.charts import Curve
from explorer.pages.episodes import MAX_CHARS, QUERIES, frozen_options, saved_texts
from explorer.site import Visiting, explorer_of, visiting, while_wanted
from warehouse.lake.connection import literal
from warehouse.lake.lists import LISTS, list_named
from warehouse.lake.schema import columns, relations
from warehouse.sql_process import LakeState, SqlProcess

router = APIRouter()
TIME_S = 30.0
AT_ONCE = 2
MEMORY = "600MB"  # of a query's process, some 160 MB of which Python and DuckDB take themselves
LINES = ("run0", "run1", "run2", "model0")  # colours of the style sheet, by line
NICENESS = 5  # of that process: other pages go first
# Of one page: what is shown of them takes the explorer itself a tenth of a second, in which it does nothing else
MAX_ROWS = 500
MAX_PAGE_BYTES = 8_000_000
MAX_VALUES = 200_000
MAX_DOWNLOAD = 1_000_000
MAX_DOWNLOAD_BYTES = 128_000_000
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
EXAMPLES = dict(
    zip(
        (
            "Coverage",
            "Steps by robot",
            "To look at first",
            "Worst demonstrations",
            "Why left out",
        ),
        map(str.strip, queries_of(__file__)),
        strict=True,
    )
)
SqlText = Annotated[str, Query(max_length=MAX_CHARS)]
ProofText = Annotated[str, Query(max_length=64)]


async def answer[T](
    request: Request, run_query: Callable[[SqlProcess, LakeState, Callable[[], bool]], T]
) -> T:
    """What a process of its own answers to a query; `run_query` gets the process, what it
    reads, and who says to give up.

    Raises SqlError; a browser that goes away stops its query.
    """

    def run_in_process(given_up: Callable[[], bool]) -> T:
        with (
            explorer_of(request).corpus.state() as state,
            request.app.state.queries.one() as process,
        ):
            return run_query(process, state, given_up)

    async with request.app.state.querying:
        return await while_wanted(request, run_in_process)


def proof(request: Request, sql: str) -> str:
    """What shows that a query was asked on a page of this explorer."""
    return hmac.new(request.state.csrf.encode(), sql.encode(), hashlib.sha256).hexdigest()


def may_run(request: Request, sql: str, query_proof: str) -> bool:
    """Did the user ask for this query: on our own page, by typing its address, or with a
    program?

    A link on another site shows a query, and runs none. `query_proof`: from a link of ours.
    """
    token = request.headers.get(CSRF_HEADER, "")
    if is_equal_secret(token, request.state.csrf) or is_equal_secret(
        query_proof, proof(request, sql)
    ):
        return True
    site = request.headers.get("sec-fetch-site")
    # Browsers leave it out where the address is neither this machine's nor encrypted
    if site is None:
        return request.state.is_program
    return site in ("same-origin", "none")


@router.get("/sql")
async def page(
    request: Request,
    q: SqlText = "",
    chart: Literal["table", "bars", "line"] = "table",
    asked: ProofText = "",
) -> HTMLResponse:
    result = None
    error = None
    if q.strip() and not may_run(request, q, asked):
        error = "This query comes from a link on another site. Read it, then press Run."
    elif q.strip():
        try:
            result = await page_result(request, q, chart)
        except SqlError as e:
            error = str(e)
    return await run_in_threadpool(_result_page, request, q, chart, asked, result, error)


async def page_result(request: Request, sql: str, chart: str) -> dict[str, Any]:
    """What a page shows of a query's result. Raises SqlError."""
    table = await answer(
        request, lambda p, s, g: p.query(s, sql, TIME_S, MAX_ROWS + 1, MAX_PAGE_BYTES, g)
    )
    return await run_in_threadpool(result_facts, table, chart)


def result_facts(table: pa.Table, chart: str) -> dict[str, Any]:
    """What the page shows of a result; `cut`: there are more rows.

    Raises SqlError: a value that cannot be shown, or too many.
    """
    part = table.slice(0, MAX_ROWS)
    names = table.schema.names
    chunks = chain.from_iterable(column.chunks for column in part.columns)
    num_values = sum(map(_num_values, chunks))
    if num_values > MAX_VALUES:
        raise SqlError(
            f"the result has {num_values:,} values, and a page shows {MAX_VALUES:,}: ask for fewer rows, or for a part "
            "of each list (a[:100]); the downloads have all of them"
        )
    # By unique names: a query may give two columns one name
    unique = part.rename_columns([f"{k}:{name}" for k, name in enumerate(names)])
    rows = [list(plain(row).values()) for row in python_rows(unique)]
    drawing = None if chart == "table" else chart_of(part, chart)
    cut = table.num_rows > MAX_ROWS
    return {"names": names, "rows": rows, "drawing": drawing, "cut": cut}


def _num_values(array: pa.Array) -> int:
    """Single values of a column, those in lists and structs counted one by one."""
    kind = array.type
    if pa.types.is_map(kind):
        return len(array) + _num_values(array.keys) + _num_values(array.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return len(array) + _num_values(array.flatten())
    if pa.types.is_struct(kind):
        return len(array) + sum(map(_num_values, array.flatten()))
    return len(array)


def _result_page(
    request: Request,
    q: str,
    chart: str,
    asked: str,
    result: dict[str, Any] | None,
    error: str | None,
) -> HTMLResponse:
    with visiting(request) as visit:
        return visit.page(
            "sql.html",
            title="SQL",
            q=q,
            chart=chart,
            error=error,
            is_wrong=may_run(request, q, asked),  # else it is a question, not an error
            shown=result,
            columns=result["names"] if result else [],
            rows=linked_rows(result, result["names"], LINKS) if result else [],
            asked=proof(request, q),
            place=f"{frozen_options(visit)} --workspace {visit.place}",
            limits={"rows": MAX_ROWS, "time_s": TIME_S, "memory": MEMORY},
            saved=saved_texts(visit.explorer.space, QUERIES),
            examples=EXAMPLES,
            relations=relations_with_columns(),
        )


def chart_of(table: pa.Table, kind: str) -> dict[str, Any]:
    """A chart of a result: its first column against the first numbers after it; as lines against all others, where
    all of them are numbers.
    """
    numbers = [k for k, field in enumerate(table.schema) if k > 0 and _is_number(field.type)]
    if not numbers or not table.num_rows:
        return {
            "chart": None,
            "about": "A chart needs a first column and a later column of numbers.",
        }
    are_all = kind == "line" and len(numbers) == table.num_columns - 1
    chosen = [table.schema.names[k] for k in numbers[: len(LINES) if are_all else 1]]
    names = list(map(str, table.column(0).to_pylist()))
    columns = [_floats(table.column(name)) for name in chosen]
    # Of a bar, and where a curve's missing value counts for the axis
    heights = [value or 0.0 for value in chain.from_iterable(columns)]
    about = f"{', '.join(chosen)} by {table.schema.names[0]}"
    if kind == "bars":
        # Bars begin at zero and show nothing below it
        low = 0.0
        high = max(heights)
        drawn = charts.bars(
            [(name, max(0.0, height)) for name, height in zip(names, heights, strict=True)], about
        )
    else:
        low, high = charts.nice_ends([0.0, *heights])
        curves = [
            Curve(name, range(len(names)), values, f"line {line}")
            for name, values, line in zip(chosen, columns, LINES, strict=False)
        ]
        drawn = charts.curves(curves, len(names), low, high)
    return {
        "chart": drawn,
        "about": about,
        "legend": list(zip(chosen, LINES, strict=False)) if are_all else [],
        "low": low,
        "high": high,
        "first": names[0],
        "last": names[-1],
    }


def _floats(column: pa.ChunkedArray) -> list[float | None]:
    return [None if value is None else float(value) for value in column.to_pylist()]


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


@cache
def relations_with_columns() -> list[dict[str, Any]]:
    """Every table and view with its columns."""
    by_relation = grouped((column.relation, column) for column in columns())
    return [r | {"columns": by_relation.get(r["name"], [])} for r in relations()]


@router.get("/sql/download")
async def download(
    request: Request,
    q: SqlText,
    format: Literal["csv", "json", "parquet"] = "csv",
    asked: ProofText = "",
) -> Response:
    """All rows of a query, up to a million."""
    if not may_run(request, q, asked):
        raise PageError(
            "links on other sites cannot download: open the query on the page SQL and run it", 403
        )
    try:
        data = await answer(
            request,
            lambda p, s, g: p.file(s, q, format, TIME_S, MAX_DOWNLOAD, MAX_DOWNLOAD_BYTES, g),
        )
    except SqlError as e:
        raise PageError(str(e), 400) from e
    headers = {"Content-Disposition": f'attachment; filename="query.{format}"'}
    return Response(data, media_type=MEDIA_TYPES[format], headers=headers)


# Where the value of a column leads; of some lists another place. The others narrow the list to their value
LINKS = {
    "dataset": "/episodes?dataset={dataset}",
    "episode_index": "/episode/{dataset}/{episode_index}",
    "frame_index": "/episode/{dataset}/{episode_index}?frame={frame_index}",
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
    columns = [column for column in result["names"] if column not in facts["filters"]]
    condition = f" --where {shlex.quote(where)}" if where else ""
    metric = facts["filters"].get("metric", "")

    with visiting(request) as visit:
        return visit.page(
            "table.html",
            title=list_named(name).title,
            listing=list_named(name),
            columns=columns,
            rows=linked_rows(result, columns, LINKS | OF_LIST.get(name, {}), facts["filters"]),
            addresses={
                # Without the filter of the column
                column: str(request.url.remove_query_params(column).query)
                for column in facts["filters"]
            },
            orders={column: _ordered(request, column, facts["order"]) for column in columns},
            command=f"proccorpus show {name}{condition} --workspace {visit.place}",
            metric=metric,
            lower=is_lower_better(metric),
            most=MAX_ROWS,
            **facts,
        )


def linked_rows(
    result: dict[str, Any],
    columns: Sequence[str],
    links: Mapping[str, str],
    filters: Mapping[str, str] | None = None,
) -> list[list[tuple[Any, str]]]:
    """Some columns of a result: each value with where it leads ("": nowhere).

    links: by column. filters: that words in other columns narrow further; None: they lead nowhere.
    """
    named_rows = [dict(zip(result["names"], row, strict=True)) for row in result["rows"]]

    def address(row: Row, column: str) -> str:
        if column in links:
            return _filled(links[column], row)
        if filters is None or not _is_word(column, row[column]):
            return ""
        return f"?{urlencode({**filters, column: row[column]})}"

    def linked(row: Row) -> list[tuple[Any, str]]:
        return [(row[column], address(row, column)) for column in columns]

    return [linked(row) for row in named_rows]


def _filled(template: str, row: Row) -> str:
    """An address with the values of a row; "" where it lacks one of them."""
    fields = [field for _, field, _, _ in Formatter().parse(template) if field]
    for field in fields:
        value = row.get(field)
        if value is None or (field.endswith("_index") and not is_index(value)):
            return ""
    return template.format(**{field: quote(str(row[field]), safe="") for field in fields})


def _is_word(column: str, value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST and not column.endswith("_at")


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
    return RedirectResponse(_filled(FORMER[request.scope["route"].path], request.path_params))


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
