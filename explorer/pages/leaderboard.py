"""Evaluated models beside the baselines, with intervals; and the episodes behind a number."""

from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from core.metrics import is_lower_better, leading_metrics, sentence_of
from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.site import Visiting, freeze_command_line

router = APIRouter()
# What needs no training: a score means little without them beside it. Some know what no model knows of a run
KNOW_THE_END = "baseline that knows how the run ends"
KNOW_THE_LABELS = "baseline that knows the labels"
BASELINES = {
    "clock": KNOW_THE_END,
    "visual distance": KNOW_THE_END,
    "goal image": KNOW_THE_END,
    "best constant": KNOW_THE_LABELS,
    "the label itself": KNOW_THE_LABELS,
    "the other pass": KNOW_THE_LABELS,
    "running clock": "baseline",
    "reference clock": "baseline",
    "random": "baseline",
    "direct": "baseline",
    "gvl": "baseline",
    "topreward": "baseline",
    "uniform cuts": "baseline",
    "random cuts": "baseline",
}
# Beginnings of a slice and a metric that are a cell of a confusion matrix together
VIDEO = "video: "
UNDER = "under: "
PAGE = 100  # episodes of one page
RUNS = "FROM eval_scores s JOIN eval_runs r USING (eval_run) WHERE r.benchmark = ?"
SCORES_SQL = f"""
    SELECT eval_run, r.model, r.release, r.created_at, s.value, s.low, s.high, s.n, s.coverage, s.seen_episodes {RUNS}
    AND s.slice = ? AND s.metric = ? ORDER BY s.value {{order}} NULLS LAST, r.model"""
SLICES_SQL = f"""
    SELECT eval_run, r.model, r.release, s.slice, s.value, s.n, coalesce(s.seen_episodes, 0) AS seen_episodes,
           s.value = {{best}}(s.value) FILTER (NOT coalesce(s.seen_episodes > 0, false))
             OVER (PARTITION BY s.slice) AND NOT coalesce(s.seen_episodes > 0, false) AS is_best {RUNS} AND s.metric = ?
    AND s.value IS NOT NULL ORDER BY r.model, eval_run"""
# The last answer is that about the last frame, also where it cannot be read
BEHIND_SQL = f"""
    SELECT dataset, episode_index, count(*) AS answers, count(prediction) AS readable,
           avg(abs(prediction - target)) AS mae,
           arg_max_null(prediction, frame_index) AS last,
           arg_max_null(target, frame_index) AS last_target,
           count(*) OVER () AS total
    FROM eval_predictions WHERE eval_run = ? GROUP BY dataset, episode_index
    ORDER BY mae DESC NULLS FIRST, dataset, episode_index LIMIT {PAGE} OFFSET ?"""
CONFUSION_SQL = f"""
    SELECT substr(slice, {len(VIDEO) + 1}) AS video, substr(metric, {len(UNDER) + 1}) AS told, value FROM eval_scores
    WHERE eval_run = ? AND starts_with(slice, '{VIDEO}') AND starts_with(metric, '{UNDER}') AND value IS NOT NULL
    ORDER BY ALL"""


@router.get("/leaderboard")
def page(
    visit: Visiting,
    benchmark: str = "",
    slice: str = "all",
    metric: str = "",
    by: Literal["", "slices"] = "",
) -> HTMLResponse:
    """`by` slices: every model by every slice, by one metric."""
    reader = visit.reader
    [[benchmarks]] = reader.rows(
        "SELECT coalesce(list(DISTINCT benchmark ORDER BY benchmark), []) FROM eval_runs"
    )
    if benchmark and benchmark not in benchmarks:
        raise PageError(f"there is no benchmark {benchmark[:60]!r} in this corpus")
    shown_benchmark = benchmark or next(iter(benchmarks), "")
    slices, metrics = (_names(reader, column, shown_benchmark) for column in ("slice", "metric"))
    # The metric to begin with: the one that says most of those that a benchmark has
    chosen = metric or next((m for m in (*leading_metrics(), *metrics) if m in metrics), "")
    rows, rows_of_seen = score_rows(reader, shown_benchmark, slice, chosen)
    return visit.page(
        "leaderboard.html",
        title="Leaderboard",
        freeze="" if reader.rows("SELECT 1 FROM releases LIMIT 1") else freeze_command_line(visit),
        untrained=not reader.rows("SELECT 1 FROM training_runs LIMIT 1"),
        benchmarks=benchmarks,
        slices=slices,
        metrics=metrics,
        chosen={"benchmark": shown_benchmark, "slice": slice, "metric": chosen},
        rows=rows,
        rows_of_seen=rows_of_seen,
        lower=is_lower_better(chosen),
        sentence=sentence_of(chosen),
        by=by,
        matrix=slices_matrix(reader, shown_benchmark, chosen) if by else None,
    )


def _names(reader: LakeReader, column: str, benchmark: str) -> list[str]:
    names = (
        r[0]
        for r in reader.rows(f"SELECT DISTINCT s.{column} {RUNS}", benchmark)
        if not r[0].startswith(UNDER)
    )
    return sorted(names, key=lambda name: (name != "all", name))


def score_rows(
    reader: LakeReader, benchmark: str, slice: str, metric: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each model's score on a benchmark, the best first, with a drawing of its interval;
    apart from them those on episodes that the model was trained on, which are no scores
    of new runs.
    """
    sql = SCORES_SQL.format(order="ASC" if is_lower_better(metric) else "DESC")
    rows = reader.dicts(sql, benchmark, slice, metric)
    # One axis for all models, so that their intervals can be compared by eye
    drawn = chain.from_iterable((r["value"], r["low"], r["high"]) for r in rows)
    ends = charts.nice_ends([value for value in drawn if value is not None])
    for r in rows:
        r["drawing"] = charts.interval(r["value"], r["low"], r["high"], ends)
        r["baseline"] = BASELINES.get(r["model"])
    return [r for r in rows if not r["seen_episodes"]], [r for r in rows if r["seen_episodes"]]


def slices_matrix(reader: LakeReader, benchmark: str, metric: str) -> dict[str, Any]:
    """Models by slices: `slices`, and `rows` of (evaluation, cells); a cell has value, n,
    and whether it is the best of its slice; None where nothing was asked. The best on all
    episodes stands first.
    """
    lower = is_lower_better(metric)
    rows = reader.dicts(SLICES_SQL.format(best="min" if lower else "max"), benchmark, metric)
    slices = sorted({row["slice"] for row in rows}, key=lambda name: (name != "all", name))
    runs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for row in rows:
        _, cells = runs.setdefault(
            row["eval_run"], (row | {"baseline": BASELINES.get(row["model"])}, {})
        )
        cells[row["slice"]] = row

    def place(run_cells: tuple[dict[str, Any], dict[str, Any]]) -> tuple[bool, float, str]:
        run, cells = run_cells
        value = cells["all"]["value"] if "all" in cells else 0.0
        return "all" not in cells, value if lower else -value, run["model"]

    in_order = sorted(runs.values(), key=place)
    return {
        "slices": slices,
        "rows": [(run, list(map(cells.get, slices))) for run, cells in in_order],
    }


@router.get("/leaderboard/{eval_run}")
def behind(
    visit: Visiting,
    eval_run: str,
    page: Annotated[int, Query(ge=1, le=10**5)] = 1,
    slice: str = "all",
) -> HTMLResponse:
    """The episodes behind an evaluation's numbers, the worst first: by the mean error of its answers."""
    reader = visit.reader
    runs = reader.dicts("FROM eval_runs WHERE eval_run = ?", eval_run)
    if not runs:
        raise PageError(f"there is no evaluation {eval_run[:40]!r}")
    rows = reader.dicts(BEHIND_SQL, eval_run, PAGE * (page - 1))
    total = rows[0]["total"] if rows else 0
    all_scores = reader.dicts("FROM eval_scores WHERE eval_run = ? ORDER BY metric", eval_run)
    return visit.page(
        "behind.html",
        title=f"{runs[0]['model']} on {runs[0]['benchmark']}",
        run=runs[0],
        rows=rows,
        total=total,
        number=page,
        pages=max(1, -(-total // PAGE)),
        scores=[score for score in all_scores if score["slice"] == slice],
        slices=sorted({score["slice"] for score in all_scores}),
        slice=slice,
        matrix=confusion_matrix(reader, eval_run),
    )


def confusion_matrix(reader: LakeReader, eval_run: str) -> dict[str, Any] | None:
    """Heads of columns, and of each task of a video a row of cells: value and drawing,
    None where nothing was asked.

    None of an evaluation without such a matrix.
    """
    cells = {
        (video, instruction): value
        for video, instruction, value in reader.rows(CONFUSION_SQL, eval_run)
    }
    if not cells:
        return None

    def cell(video: str, instruction: str) -> tuple[float, Markup, bool] | None:
        value = cells.get((video, instruction))
        if value is None:
            return None
        return (value, charts.share(value), video == instruction)

    instructions = sorted({instruction for _, instruction in cells})
    videos = sorted({video for video, _ in cells})
    rows = [(video, [cell(video, instruction) for instruction in instructions]) for video in videos]
    return {"heads": [f"#{instruction}" for instruction in instructions], "rows": rows}
