"""Scores of prediction files kept in a workspace: the file, and its rows of eval_runs and eval_scores."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from core.files import write_file
from core.tables import TABLES
from eval.metrics.score import RESAMPLES, Score
from eval.scoring.scored import Evaluated
from warehouse.lake import Lake, content_key

CODE_VERSION = "scores-1"


def score_row(eval_run: str, part: str, metric: str, score: Score) -> dict[str, Any]:
    """A row of eval_scores; what is not defined is null."""
    numbers = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in score.__dict__.items()}
    return {"eval_run": eval_run, "slice": part, "metric": metric, **numbers}


def store_scores(
    lake: Lake, evaluated: Evaluated, predictions: bytes, settings: Mapping[str, Any], release: str | None = None
) -> str:
    """Keep a prediction file and its scores; returns the eval_run. The same file under the same name replaces itself.

    The file is whole in its place before a row of the lake names it. `settings` go into eval_runs.config.
    """
    run = content_key(evaluated.model, evaluated.benchmark, predictions.decode(), CODE_VERSION)[:16]
    path = lake.workspace.root / "evals" / run / "predictions.jsonl"
    write_file(path, predictions)
    told = {"predictions": str(path.relative_to(lake.workspace.root)), "resamples": RESAMPLES}
    row = {
        "eval_run": run,
        "model": evaluated.model,
        "benchmark": evaluated.benchmark,
        "release": release,
        "config": json.dumps({**settings, **told, "counts": dict(evaluated.scored.counts)}, sort_keys=True),
        "code_version": CODE_VERSION,
        "created_at": datetime.now(UTC),
    }
    rows = [score_row(run, part, metric, s) for (part, metric), s in evaluated.scores.items()]
    lake.replace_where(
        "scores of a prediction file",
        "eval_run",
        eval_runs=TABLES["eval_runs"].rows([row]),
        eval_scores=TABLES["eval_scores"].rows(rows),
    )
    return run
