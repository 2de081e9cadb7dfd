"""A prediction file's scores, by the name of its benchmark."""

from collections.abc import Callable, Iterable

from eval.benchmarks.question import BenchmarkError
from eval.benchmarks.rows import PredictionLine
from eval.scoring import graded, procvqa, progresslm, robofac
from eval.scoring.scored import ScoredBenchmark

SCORERS: dict[str, Callable[[str, Iterable[PredictionLine], bool], ScoredBenchmark]] = {
    "progress-bench": progresslm.score,
    "human-bench": progresslm.score,
    "procvqa-id": procvqa.score,
    "procvqa-ood": procvqa.score,
    "dataset": procvqa.score,
    "robofac": robofac.score,
    "rbm-eval": graded.score,
    "roboreward": graded.score,
}


def score_predictions(benchmark: str, rows: Iterable[PredictionLine], as_published: bool = False) -> ScoredBenchmark:
    """Scores of answers that any system gave. Raises BenchmarkError, which names the row that is wrong."""
    if benchmark not in SCORERS:
        raise BenchmarkError(f"unknown benchmark {benchmark!r}; prediction files are scored for {', '.join(SCORERS)}")
    return SCORERS[benchmark](benchmark, rows, as_published)
