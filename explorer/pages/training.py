"""Training runs: curves of several over one another, scores of their models, and how their configurations differ."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from explorer import charts
from explorer.access import PageError
from explorer.charts import Curve
from explorer.pages.leaderboard import is_lower_better
from explorer.site import explorer_of
from explorer.training_runs import curves_of, differences, scores_of, training_runs

router = APIRouter()
MOST_RUNS = 4  # that are compared: as many as models have colours
AT_FIRST = 2


@router.get("/training")
def page(request: Request, run: Annotated[list[str] | None, Query()] = None) -> HTMLResponse:
    """`run`: the training runs to compare, four at most; default: the newest two."""
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        runs = training_runs(reader)
        by_name = {r["training_run"]: r for r in runs}
        chosen = list(dict.fromkeys(run or [r["training_run"] for r in runs if r["points"]][:AT_FIRST]))
        for name in chosen:
            if name not in by_name:
                raise PageError(f"there is no training run {name[:60]!r} in this corpus")
        if len(chosen) > MOST_RUNS:
            raise PageError(f"{len(chosen)} runs are too many for one picture: choose {MOST_RUNS} at most", 400)
        curves = {name: curves_of(reader, name) for name in chosen}
        differ, same = differences([by_name[name]["config"] for name in chosen])
        return explorer.page(
            request,
            "training.html",
            reader,
            title="Training",
            runs=runs,
            chosen=chosen,
            most=MOST_RUNS,
            panels=panels(curves),
            scores={b: [_with_best(row) for row in rows] for b, rows in scores_of(reader, chosen).items()},
            differ=differ,
            same=same,
        )


def panels(curves: dict[str, dict[str, list[tuple[int, float]]]]) -> list[dict[str, Any]]:
    """A chart for each kind of curve that any of the runs has, all of them over the same steps."""
    titles = list(dict.fromkeys(title for of_run in curves.values() for title in of_run))
    steps = 1 + max((points[-1][0] for of_run in curves.values() for points in of_run.values()), default=0)
    found = []
    for title in titles:
        lines = []
        for k, of_run in enumerate(curves.values()):
            points = of_run.get(title, [])
            lines.append(Curve(f"run {k}", [s for s, _ in points], [v for _, v in points], f"line model{k}"))
        low, high = charts.nice_ends([0.0, *(v for line in lines for v in line.values if v is not None)])
        found.append(
            {
                "title": title,
                "low": low,
                "high": high,
                "last": [f"{line.values[-1]:.4g}" if line.values else "–" for line in lines],
                "chart": charts.curves(lines, steps, low, high),
                "data": {"steps": steps, "lines": [{"frames": line.frames, "values": line.values} for line in lines]},
            }
        )
    return found


def _with_best(row: dict[str, Any]) -> dict[str, Any]:
    """A row of scores, with the best one of it; None where there is nothing to compare."""
    values = [score["value"] for score in row["scores"] if score and score["value"] is not None]
    best = (min if is_lower_better(row["metric"]) else max)(values) if len(set(values)) > 1 else None
    return row | {"best": best}
