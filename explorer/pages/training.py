"""Training runs: curves of several over one another, scores of their models, and how
their configurations differ.

And adapting a model to one episode from its page: which models there are, the command,
and starting it.
"""

import json
import re
from functools import partial
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

from core.metrics import is_lower_better
from explorer import charts
from explorer.access import LakeReader, PageError
from explorer.charts import Curve
from explorer.episode import EpisodeIndex, find_episode
from explorer.jobs import command_line
from explorer.site import Explorer, Visiting, freeze_command_line

router = APIRouter()
MOST_RUNS = 4  # that are compared: as many as models have colours
AT_FIRST = 2
MOST_POINTS = 600  # of a curve
# Kinds of them, of one kind of training only, beside those that every training has
MOST_CURVES = 12
# Columns of training_points that are drawn, in this order, with what they are
CURVES = {
    "loss": "loss",
    "text": "cross entropy of answers",
    "progress": "error of progress",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "samples_per_s": "samples per second",
}
POINTS_SQL = f"""
    SELECT step, {", ".join(CURVES)}, extra FROM (
      SELECT *, row_number() OVER (ORDER BY step) AS place, count(*) OVER () AS num FROM training_points
      WHERE training_run = ?)
    WHERE (place - 1) % greatest(1, num // {MOST_POINTS}) = 0 OR place = num ORDER BY step"""
# Of a score without a value, too, the newest is shown
SCORES_SQL = """
    SELECT r.benchmark, s.metric, r.model,
           arg_max_null(s.value, r.created_at) AS value,
           arg_max_null(s.low, r.created_at) AS low,
           arg_max_null(s.high, r.created_at) AS high,
           arg_max(r.eval_run, r.created_at) AS eval_run
    FROM eval_scores s JOIN eval_runs r USING (eval_run)
    WHERE s.slice = 'all' AND list_contains(?, r.model) GROUP BY ALL ORDER BY 1, 2, 3"""
# Every training run, the newest first, with how many steps of it were kept
RUNS_SQL = """
    SELECT r.*, coalesce(p.num, 0) AS points, p.samples, p.tokens FROM training_runs r LEFT JOIN (
      SELECT training_run, count(*) AS num, max(samples) AS samples, max(tokens) AS tokens FROM training_points
      GROUP BY 1) p USING (training_run) ORDER BY r.created_at DESC NULLS LAST, r.training_run"""
# The name of a built-in one; a file is for the command line
RECIPE = re.compile(r"[A-Za-z0-9_]{1,80}")


@router.get("/training")
def page(visit: Visiting, run: Annotated[list[str] | None, Query()] = None) -> HTMLResponse:
    """`run`: the training runs to compare, four at most; default: the newest two."""
    reader = visit.reader
    runs = reader.dicts(RUNS_SQL)
    by_name = {r["training_run"]: r for r in runs}
    chosen = list(dict.fromkeys(run or [r["training_run"] for r in runs if r["points"]][:AT_FIRST]))
    for name in chosen:
        if name not in by_name:
            raise PageError(f"there is no training run {name[:60]!r} in this corpus")
    if len(chosen) > MOST_RUNS:
        raise PageError(
            f"{len(chosen)} runs are too many for one picture: choose {MOST_RUNS} at most", 400
        )
    curves = {name: curves_of(reader, name) for name in chosen}
    differ, same = differences([by_name[name]["config"] for name in chosen])
    return visit.page(
        "training.html",
        title="Training",
        runs=runs,
        chosen=chosen,
        most=MOST_RUNS,
        panels=panels(curves),
        scores=scores_of(reader, chosen),
        differ=differ,
        same=same,
        freeze=freeze_command_line(visit),
        place=visit.place,
    )


def panels(curves: dict[str, dict[str, list[tuple[int, float]]]]) -> list[dict[str, Any]]:
    """A chart for each kind of curve that any of the runs has, all of them over the same steps."""
    titles = list(dict.fromkeys(chain.from_iterable(curves.values())))
    all_points = chain.from_iterable(of_run.values() for of_run in curves.values())
    steps = 1 + max((points[-1][0] for points in all_points), default=0)
    shown_panels = []
    for title in titles:
        lines = []
        for k, of_run in enumerate(curves.values()):
            points = of_run.get(title, [])
            lines.append(
                Curve(f"run {k}", [s for s, _ in points], [v for _, v in points], f"line model{k}")
            )
        values = chain.from_iterable(line.values for line in lines)
        low, high = charts.nice_ends([0.0, *(v for v in values if v is not None)])
        shown_panels.append(
            {
                "title": title,
                "low": low,
                "high": high,
                "last": [f"{line.values[-1]:.4g}" if line.values else "–" for line in lines],
                "chart": charts.curves(lines, steps, low, high),
                "data": {
                    "steps": steps,
                    "lines": [{"frames": line.frames, "values": line.values} for line in lines],
                },
            }
        )
    return shown_panels


def curves_of(reader: LakeReader, run: str) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each curve that a run has; long runs are thinned evenly."""
    points_by_title: dict[str, list[tuple[int, float]]] = {}
    for row in reader.dicts(POINTS_SQL, run):
        extra = json.loads(row["extra"]) if row["extra"] else {}
        values = {title: row[name] for name, title in CURVES.items()} | (
            extra if isinstance(extra, dict) else {}
        )
        for title, value in values.items():
            if type(value) in (int, float):
                points_by_title.setdefault(title, []).append((row["step"], float(value)))
    other_titles = sorted(points_by_title.keys() - {*CURVES.values()})[:MOST_CURVES]
    return {
        title: points_by_title[title]
        for title in (*CURVES.values(), *other_titles)
        if title in points_by_title
    }


def scores_of(reader: LakeReader, runs: list[str]) -> dict[str, list[dict[str, Any]]]:
    """By benchmark a row for each metric: `metric`, by training run the newest score of
    its model, and the `best`; None where there is nothing to compare.
    """
    by_metric: dict[tuple[str, str], dict[str, Any]] = {}
    for row in reader.dicts(SCORES_SQL, runs):
        by_metric.setdefault((row["benchmark"], row["metric"]), {})[row["model"]] = row
    benchmarks: dict[str, list[dict[str, Any]]] = {}
    for (benchmark, metric), scores in by_metric.items():
        values = [score["value"] for score in scores.values() if score["value"] is not None]
        if len(set(values)) > 1:
            best = (min if is_lower_better(metric) else max)(values)
        else:
            best = None
        row = {"metric": metric, "scores": [scores.get(run) for run in runs], "best": best}
        benchmarks.setdefault(benchmark, []).append(row)
    return benchmarks


def differences(configs: list[str]) -> tuple[list[tuple[str, list[str | None]]], int]:
    """What differs between configurations (JSON): a setting's name and its value in each,
    None where it has none; and how many settings are the same in all.

    Example: {"a": {"b": 1}, "c": 2} and {"a": {"b": 3}, "c": 2} give
    [("a.b", ["1", "3"])], 1.
    """
    settings = [dict(_dotted_settings(json.loads(config or "{}"))) for config in configs]
    names = sorted(set().union(*settings))
    differ = []
    for name in names:
        values = [of_run.get(name) for of_run in settings]
        if len(set(values)) > 1:
            differ.append((name, values))
    return differ, len(names) - len(differ)


def _dotted_settings(value: Any, name: str = "") -> list[tuple[str, str]]:
    """The settings of a configuration by their dotted names; lists are one value."""
    if isinstance(value, dict) and value:
        prefix = f"{name}." if name else ""
        inner_settings = (_dotted_settings(inner, f"{prefix}{key}") for key, inner in value.items())
        return [*chain.from_iterable(inner_settings)]
    return [(name, json.dumps(value, ensure_ascii=False))]


class AdaptationRequest(BaseModel):
    """What to adapt, and how; without a recipe as the model's kind is."""

    model: str
    recipe: str = ""


def _command(
    explorer: Explorer, dataset: str, episode_index: int, model: str, recipe: str
) -> list[str]:
    """The arguments of `proccorpus`; without a recipe it takes that of the model's kind."""
    chosen = [f"--dataset={dataset}", f"--episode={episode_index}", f"--model={model}"]
    return [
        "adapt",
        *chosen,
        *([f"--recipe={recipe}"] if recipe else []),
        f"--workspace={explorer.space.root}",
    ]


def _model_names(reader: LakeReader) -> list[str]:
    """Training runs with a checkpoint, the newest first."""
    return reader.column(
        "SELECT training_run FROM checkpoints GROUP BY 1 ORDER BY max(created_at) DESC, 1 LIMIT 200"
    )


def _why_not(explorer: Explorer) -> str | None:
    """Why nothing is started from here; None: it is."""
    if not explorer.options.access.is_local:
        return "training can only be started on the explorer's machine: copy the command and run it there"
    return explorer.options.why_read_only


@router.get("/adapt/{dataset}/{episode_index}")
def state(visit: Visiting, dataset: str, episode_index: EpisodeIndex) -> HTMLResponse:
    """Models to adapt, the command with MODEL and RECIPE left open, and what is running: a part of a page."""
    job = visit.explorer.jobs["adapt"]
    code = job.process and job.process.poll()
    models = _model_names(visit.reader)
    arguments = partial(_command, visit.explorer, dataset, episode_index)
    return visit.part(
        "adapt.html",
        episode=find_episode(visit.reader, dataset, episode_index),
        models=models,
        command=command_line(arguments("MODEL", "RECIPE")),
        first=command_line(arguments(models[0], "")) if models else "",
        why_not=_why_not(visit.explorer),
        about=job.process and job.about().get("about"),
        running=job.process is not None and code is None,
        exit_code=code,
        log=job.process and job.log(),
    )


@router.post("/api/adapt/{dataset}/{episode_index}")
def start(
    visit: Visiting, dataset: str, episode_index: EpisodeIndex, request_body: AdaptationRequest
) -> JSONResponse:
    """Start proccorpus adapt; only on loopback, only with a model of the corpus and a built-in recipe."""
    job = visit.explorer.jobs["adapt"]
    if reason := _why_not(visit.explorer):
        raise PageError(reason, 403)
    find_episode(visit.reader, dataset, episode_index)
    if request_body.model not in _model_names(visit.reader):
        raise PageError(f"the corpus has no trained model {request_body.model!r}", 422)
    if request_body.recipe and not RECIPE.fullmatch(request_body.recipe):
        raise PageError("recipe: the name of a built-in recipe is needed", 422)
    busy = f"an adaptation is running already: {job.about().get('about', 'of another episode')}"
    about = {"about": f"{dataset} {episode_index} with {request_body.model}"}
    job.start(
        _command(visit.explorer, dataset, episode_index, request_body.model, request_body.recipe),
        about,
        busy,
    )
    return JSONResponse({}, 202)
