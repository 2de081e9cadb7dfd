"""A benchmark as a step of the second half: what is asked of whom, and the outcome that Dagster's asset shows."""

import math
from collections.abc import Callable

from core.figures import render
from eval.benchmarks.run import BenchmarkConfig, evaluate_benchmark
from eval.report import curves_figure, different
from eval.runners.start import RunnerConfig
from pipeline.outcome import Outcome
from warehouse.lake import Lake
from warehouse.releases import Release

EPISODES = 3  # whose curves the event shows


def benchmark_step(
    lake: Lake,
    config: BenchmarkConfig,
    runner: RunnerConfig,
    release: Release | None,
    on_rows: Callable[[str, int, int], None] = lambda name, done, of: None,
) -> Outcome:
    """Evaluate a model on a benchmark; the outcome has its scores, a table with the baselines, and curves."""
    evaluation = evaluate_benchmark(lake, config, runner, release, on_rows)
    assert evaluation.report is not None, "without shards an evaluation ends with its report"
    assert evaluation.page is not None
    own = evaluation.entries[0]
    numbers: dict[str, int | float | str] = {
        "eval_run": evaluation.run,
        "predictions": str(evaluation.predictions),
    }
    for (part, metric), score in own.scores.items():
        if part == "all" and not math.isnan(score.value):
            numbers[metric] = round(score.value, 4)
    picture = b""
    series = own.scored.series
    if series is not None and len(series.runs.target):
        picture = render(curves_figure(evaluation.report, own, different(own, EPISODES)))
    table = tuple({k: str(v) for k, v in row.items()} for row in evaluation.rows())
    files = (evaluation.page, evaluation.predictions)
    return Outcome("evaluation", evaluation.run, True, numbers, picture, files, table)
