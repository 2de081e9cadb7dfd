"""A task: the progress of all its runs in one plot, how long its steps take, and which
runs are unlike the others.
"""

from collections import Counter
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from core.files import queries_of
from core.values import spread
from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.charts import Curve
from explorer.episode import find_dataset
from explorer.site import Visiting

router = APIRouter()
PLACES = 101  # at which runs are compared: whole percents of their time
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_RUNS = 500  # that are compared, spread over the task's runs
MOST_LINES = 40  # single runs in the plot, beside the odd ones
MOST_ODD, FEWEST_LISTED = 12, 5  # runs that are listed as far from the others
MOST_STEPS = 40
BEYOND = 1.5  # times the width of the middle half of values, beyond which one is odd
RUNS_SQL, CURVES_SQL, STEPS_SQL, JOINED_SQL = queries_of(__file__)


@router.get("/task/{dataset}")
def page(visit: Visiting, dataset: str, task: str = "") -> HTMLResponse:
    """`task`: its text; empty: the runs without one. Raises PageError: no labelled run has it."""
    find_dataset(visit.reader, dataset)
    joined = visit.reader.rows(JOINED_SQL, [dataset, task])
    runs = visit.index.dicts(RUNS_SQL, dataset, [task, *(joined_text for (joined_text,) in joined)])
    if not runs:
        raise PageError(
            f"no run of {dataset} that can be used has a label and the task {task[:60]!r}"
        )
    outcomes = Counter(run["success"] for run in runs)
    compared = spread(runs, MOST_RUNS)
    curves = visit.reader.kept(
        ("task curves", dataset, task), lambda: _curves(visit.reader, dataset, compared)
    )
    distances = np.abs(curves - np.median(curves, axis=0)).mean(axis=1)
    farthest: list[int] = []
    if len(compared) > 2:
        farthest = np.argsort(-distances, kind="stable")[:MOST_ODD].tolist()
    _, most_usual = _usual_range(distances)
    outliers = {place for place in farthest if distances[place] > most_usual}
    listed = farthest[: max(len(outliers), FEWEST_LISTED)]
    rows = [
        compared[place] | {"apart": float(distances[place]), "is_odd": place in outliers}
        for place in listed
    ]
    return visit.page(
        "task.html",
        title=f"Task of {dataset}",
        dataset=dataset,
        task=task,
        num_runs=len(runs),
        num_compared=len(compared),
        outcomes={outcome: outcomes[outcome] for outcome in ("yes", "no", "unknown")},
        median_s=float(np.median([run["duration_s"] for run in runs])),
        plot=_plot(dataset, compared, curves, outliers),
        odd=rows,
        steps=_steps(visit.reader, dataset, compared),
    )


def _usual_range(values: np.ndarray) -> tuple[float, float]:
    """The values below and above which one is odd among the others."""
    lower, upper = np.quantile(values, (0.25, 0.75)).tolist()
    reach = BEYOND * (upper - lower)
    return lower - reach, upper + reach


def _curves(reader: LakeReader, dataset: str, runs: list[dict[str, Any]]) -> np.ndarray:
    """Progress of runs [runs, PLACES], each over its own time."""
    numbers = [run["episode_index"] for run in runs]
    lengths = [run["num_frames"] for run in runs]
    places: dict[int, list[int]] = {number: [] for number in numbers}
    values: dict[int, list[float]] = {number: [] for number in numbers}
    for episode_index, place, progress in reader.rows(
        CURVES_SQL, [numbers, lengths, dataset, PLACES]
    ):
        places[episode_index].append(place)
        values[episode_index].append(progress)
    # A run of fewer frames than places has none for some of them
    return np.array(
        [np.interp(np.arange(PLACES), places[n] or [0], values[n] or [0.0]) for n in numbers]
    )


def _plot(
    dataset: str, runs: list[dict[str, Any]], curves: np.ndarray, outliers: set[int]
) -> charts.Markup:
    """Quantiles over all runs, some single runs, and the odd ones; each run leads to its page."""
    lines = []
    usual_runs = [place for place in range(len(runs)) if place not in outliers]
    for place in [*spread(usual_runs, MOST_LINES), *sorted(outliers)]:
        number = runs[place]["episode_index"]
        kind = "line unlike" if place in outliers else "line single"
        curve = Curve(f"{dataset} {number}", range(PLACES), curves[place].tolist(), kind)
        lines.append((curve, f"/episode/{quote(dataset, safe='')}/{number}"))
    quantiles = np.quantile(curves, QUANTILES, axis=0)
    bands = [("wide", quantiles[0], quantiles[4]), ("middle", quantiles[1], quantiles[3])]
    median = Curve("median", range(PLACES), quantiles[2].tolist(), "line median")
    return charts.runs_plot(
        [(kind, low.tolist(), high.tolist()) for kind, low, high in bands], median, lines
    )


def _steps(reader: LakeReader, dataset: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each step of the task in the order of plans: how many runs have it, how long it
    takes, and odd lengths.
    """
    timed = [run for run in runs if run["duration_s"]]
    numbers = [run["episode_index"] for run in timed]
    rates = [run["num_frames"] / run["duration_s"] for run in timed]
    steps = reader.dicts(STEPS_SQL, [dataset, numbers, rates, BEYOND, MOST_STEPS])
    longest = max((step["longest"] for step in steps), default=1.0)
    ends = (0.0, charts.nice_ends([0.0, longest])[1])
    return [step | {"drawing": _drawn_lengths(dataset, step, ends)} for step in steps]


def _drawn_lengths(dataset: str, step: dict[str, Any], ends: tuple[float, float]) -> charts.Markup:
    quantiles = tuple(step[name] for name in ("low", "lower", "median", "upper", "high"))
    links = [
        (seconds, f"{number}: {seconds:.1f} s", f"/episode/{quote(dataset, safe='')}/{number}")
        for seconds, number in zip(step["odd_s"], step["odd_runs"], strict=True)
    ]
    return charts.lengths(quantiles, links, ends)
