"""Training runs beside each other: curves by step, scores of their models, and how their configurations differ."""

import json
from typing import Any

from explorer.access import LakeReader

MOST_POINTS = 1200  # of a curve
MOST_CURVES = 12  # kinds of them, of one kind of training only, beside those that every training has
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
SCORES_SQL = """
    SELECT r.benchmark, s.metric, r.model, arg_max(s.value, r.created_at) AS value, arg_max(s.low, r.created_at) AS low,
           arg_max(s.high, r.created_at) AS high, arg_max(r.eval_run, r.created_at) AS eval_run
    FROM eval_scores s JOIN eval_runs r USING (eval_run)
    WHERE s.slice = 'all' AND list_contains(?, r.model) GROUP BY ALL ORDER BY 1, 2, 3"""


def training_runs(reader: LakeReader) -> list[dict[str, Any]]:
    """Every training run, the newest first, with how many steps of it were kept."""
    return reader.dicts(
        "SELECT r.*, coalesce(p.num, 0) AS points, p.samples, p.tokens FROM training_runs r LEFT JOIN ("
        " SELECT training_run, count(*) AS num, max(samples) AS samples, max(tokens) AS tokens FROM training_points"
        " GROUP BY 1) p USING (training_run) ORDER BY r.created_at DESC NULLS LAST, r.training_run"
    )


def curves_of(reader: LakeReader, run: str) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each curve that a run has; long runs are thinned evenly."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in reader.dicts(POINTS_SQL, run):
        extra = json.loads(row["extra"]) if row["extra"] else {}
        values = {title: row[name] for name, title in CURVES.items()} | (extra if isinstance(extra, dict) else {})
        for title, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(title, []).append((row["step"], float(value)))
    order = [*CURVES.values()]
    names = [title for title in order if title in found]
    return {title: found[title] for title in [*names, *sorted(found.keys() - {*order})[:MOST_CURVES]]}


def scores_of(reader: LakeReader, runs: list[str]) -> dict[str, list[dict[str, Any]]]:
    """By benchmark a row for each metric: `metric`, and by training run the newest score of its model."""
    by_metric: dict[tuple[str, str], dict[str, Any]] = {}
    for row in reader.dicts(SCORES_SQL, runs):
        by_metric.setdefault((row["benchmark"], row["metric"]), {})[row["model"]] = row
    benchmarks: dict[str, list[dict[str, Any]]] = {}
    for (benchmark, metric), scores in by_metric.items():
        benchmarks.setdefault(benchmark, []).append({"metric": metric, "scores": [scores.get(run) for run in runs]})
    return benchmarks


def differences(configs: list[str]) -> tuple[list[tuple[str, list[str | None]]], int]:
    """What differs between configurations (JSON): a setting's name and its value in each, None where it has none; and
    how many settings are the same in all.

    Example: {"a": {"b": 1}, "c": 2} and {"a": {"b": 3}, "c": 2} give [("a.b", ["1", "3"])], 1.
    """
    settings = [dict(_flat(json.loads(config or "{}"))) for config in configs]
    names = sorted(set().union(*settings))
    rows = [(name, [of_run.get(name) for of_run in settings]) for name in names]
    differ = [(name, values) for name, values in rows if len(set(values)) > 1]
    return differ, len(rows) - len(differ)


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """The settings of a configuration by their dotted names; lists are one value."""
    if isinstance(value, dict) and value:
        return [found for key, inner in value.items() for found in _flat(inner, f"{name}.{key}" if name else str(key))]
    return [(name, json.dumps(value, ensure_ascii=False))]
