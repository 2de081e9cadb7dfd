"""All benchmarks in one table: where the questions of each come from, and how answers to them are scored."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from eval import confusion, probes, robustness
from eval.benchmarks import dataset, graded, procvqa, progresslm, robofac
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import (
    HUMAN_PARTS,
    PROGRESS_PARTS,
    BenchmarkError,
    Data,
    PredictionLine,
    Question,
)
from eval.scored import ScoredBenchmark
from warehouse.lake import Lake
from warehouse.releases.release import Release


@dataclass(frozen=True)
class Benchmark:
    """`score`: of a prediction file's lines, by the benchmark's name, strictly or as published. Where answers are
    compared with one another instead, `compare`: of the questions and the numbers that answer them by key.

    Questions are read from data (`load`; `hub`: where it is published, None: it is anybody's), or made `of_release`.
    `default`: of `parts`, where none is asked for.
    """

    parts: tuple[str, ...]
    score: Callable[[str, Iterable[PredictionLine], bool], ScoredBenchmark] | None = None
    load: Callable[[Data], Iterable[Question]] | None = None
    hub: str | None = None
    default: tuple[str, ...] = ()
    of_release: Callable[[Lake, Release, EvaluationOptions], list[Question]] | None = None
    compare: Callable[[Sequence[Question], Mapping[str, float]], ScoredBenchmark] | None = None


BENCHMARKS = {
    "progress-bench": Benchmark(PROGRESS_PARTS, progresslm.score, progresslm.load, progresslm.HUB),
    "human-bench": Benchmark(HUMAN_PARTS, progresslm.score, progresslm.load, progresslm.HUB),
    "dataset": Benchmark(dataset.FAMILIES, procvqa.score, dataset.load),
    "robofac": Benchmark(robofac.FAMILIES, robofac.score, robofac.load, robofac.HUB),
    "rbm-eval": Benchmark(
        ("train", "test"), graded.score, graded.load, "hf://robometer/rbm-1m-ood"
    ),
    "roboreward": Benchmark(
        ("test", "val", "train"),
        graded.score,
        graded.load,
        "hf://teetone/RoboReward",
        default=("test",),
    ),
    "procvqa-id": Benchmark(procvqa.FAMILIES, procvqa.score, of_release=procvqa.load),
    "procvqa-ood": Benchmark(procvqa.FAMILIES, procvqa.score, of_release=procvqa.load),
    "probes": Benchmark((), of_release=probes.load, compare=probes.score),
    "confusion": Benchmark((), of_release=confusion.load, compare=confusion.score),
    "robustness": Benchmark(robustness.PARTS, of_release=robustness.load, compare=robustness.score),
}
# Of questions, by what they ask
FAMILIES = ("text", "visual", "cross_view", *procvqa.FAMILIES, *dataset.FAMILIES, *robofac.FAMILIES)


def load_benchmark(
    options: EvaluationOptions,
    frames: Path,
    cache: Path | None = None,
    corpus: tuple[Lake, Release] | None = None,
) -> list[Question]:
    """The questions of a benchmark, all answers to one of them together.

    `frames`: folder for frames of videos, where `image_root` names none; `cache`: for files of a repository. `corpus`:
    lake and release of those that are made from one. Raises BenchmarkError, SourceError, ShardError.
    """
    name = options.benchmark
    if name not in BENCHMARKS:
        raise BenchmarkError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    if unknown := set(options.part) - set(benchmark.parts):
        raise BenchmarkError(
            f"{name} has no part {min(unknown)!r}; it has {', '.join(benchmark.parts) or 'no parts'}"
        )
    if benchmark.of_release:
        if corpus is None:
            raise BenchmarkError(f"{name} is a release's: give a workspace and a release")
        questions = benchmark.of_release(*corpus, options)
    else:
        assert benchmark.load is not None
        place = options.data or benchmark.hub
        if place is None:
            raise BenchmarkError(
                "the benchmark dataset needs the dataset's folder or address (--data)"
            )
        # A local path may have an @ in it
        address, _, revision = place.partition("@") if "://" in place else (place, "", "")
        parts = options.part or benchmark.default or benchmark.parts
        questions = benchmark.load(
            Data(options, address, revision or None, parts, options.image_root or frames, cache)
        )
    asked_again = product(questions, range(options.num_inferences))
    return [replace(question, inference=number) for question, number in asked_again]


def score_predictions(
    benchmark: str, lines: Iterable[PredictionLine], as_published: bool = False
) -> ScoredBenchmark:
    """Scores of answers that any system gave. Raises BenchmarkError, which names the row that is wrong."""
    scored = {name: scorer.score for name, scorer in BENCHMARKS.items() if scorer.score}
    if benchmark not in scored:
        raise BenchmarkError(
            f"unknown benchmark {benchmark!r}; prediction files are scored for {', '.join(scored)}"
        )
    return scored[benchmark](benchmark, lines, as_published)
