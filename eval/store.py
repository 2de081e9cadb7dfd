"""The one writer of the lake's eval_* tables: an evaluation with its predictions and scores, as named types."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from core.files import write_file
from core.tables import TABLES
from eval.metrics.score import RESAMPLES, Score
from eval.scored import Evaluated
from warehouse.lake import Lake, content_key

CODE_VERSION = "scores-1"
HELD_OUT_VERSION = "eval-6"  # 5: success is detected, runs are ranked; 6: clocks by other runs are baselines


def eval_run_id(model: str, benchmark: str, release_hash: str) -> str:
    return hashlib.sha256(f"{model}\0{benchmark}\0{release_hash}\0{HELD_OUT_VERSION}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class EvalPrediction:
    """A row of eval_predictions, whose columns core.tables describes."""

    dataset: str
    episode_index: int
    frame_index: int
    prediction: float | None  # None where the answer could not be read
    target: float | None = None
    raw: str | None = None
    question: str | None = None
    done: float | None = None
    content_hash: str | None = None


@dataclass(frozen=True)
class EvalRun:
    """A row of eval_runs with its predictions, and its scores by (slice, metric). `config` is JSON: all that the
    predictions depend on beside model and code."""

    eval_run: str
    model: str
    benchmark: str
    config: str
    code_version: str
    release: str | None = None
    scores: Mapping[tuple[str, str], Score] = field(default_factory=dict)
    predictions: Sequence[EvalPrediction] = ()


def store_evaluations(lake: Lake, message: str, runs: Sequence[EvalRun]) -> None:
    """Write evaluations in one transaction; an evaluation replaces what its eval_run has stored before."""
    lake.replace_where(message, "eval_run", **_tables(runs))


def add_predictions(lake: Lake, message: str, run: EvalRun) -> None:
    """Add predictions to an evaluation that grows, in one transaction; those of the same frame are replaced."""
    lake.upsert(message, **_tables([run]))


def drop_predictions(lake: Lake, message: str, eval_run: str, dataset: str, episodes: Sequence[int]) -> None:
    """Remove the predictions for some episodes of a dataset, where there are any."""
    where = "eval_run = ? AND dataset = ? AND list_contains(?, episode_index)"
    values = [eval_run, dataset, list(episodes)]
    if lake.rows(f"SELECT 1 FROM eval_predictions WHERE {where} LIMIT 1", values):
        lake.remove(message, where, values, "eval_predictions")


def _tables(runs: Sequence[EvalRun]) -> dict[str, Any]:
    """The rows of evaluations by table. Some have no predictions here: their answers are kept in a file."""
    rows: dict[str, list[dict[str, Any]]] = {"eval_runs": [], "eval_predictions": [], "eval_scores": []}
    for run in runs:
        facts = {**vars(run), "created_at": datetime.now(UTC)}
        del facts["scores"], facts["predictions"]
        rows["eval_runs"].append(facts)
        rows["eval_predictions"] += [{"eval_run": run.eval_run, **vars(p)} for p in run.predictions]
        for (part, metric), score in run.scores.items():
            # A number that is not defined is null
            numbers = {k: None if math.isnan(v) else v for k, v in vars(score).items()}
            rows["eval_scores"].append({"eval_run": run.eval_run, "slice": part, "metric": metric, **numbers})
    return {name: TABLES[name].rows(of_table) for name, of_table in rows.items() if of_table}


def store_scores(lake: Lake, evaluated: Evaluated, predictions: bytes, settings: Mapping[str, Any]) -> str:
    """Keep a prediction file and its scores; returns the eval_run. The same file under the same name replaces itself.

    The file is whole in its place before a row of the lake names it. `settings` go into eval_runs.config.
    """
    eval_run = content_key(evaluated.model, evaluated.benchmark, predictions.decode(), CODE_VERSION)[:16]
    path = lake.workspace.root / "evals" / eval_run / "predictions.jsonl"
    write_file(path, predictions)
    config = {
        **settings,
        "predictions": str(path.relative_to(lake.workspace.root)),
        "resamples": RESAMPLES,
        "counts": dict(evaluated.scored.counts),
    }
    run = EvalRun(
        eval_run,
        evaluated.model,
        evaluated.benchmark,
        config=json.dumps(config, sort_keys=True),
        code_version=CODE_VERSION,
        scores=evaluated.scores,
    )
    store_evaluations(lake, "scores of a prediction file", [run])
    return eval_run
