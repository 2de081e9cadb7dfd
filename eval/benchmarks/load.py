"""All benchmarks in one table: where the questions of each come from, and how answers to them are scored."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from eval import probes
from eval.benchmarks import dataset, held_out, procvqa, progresslm, videos, vpb
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import (
    IDENTITY,
    INFERENCE_INDEX,
    BenchmarkError,
    Data,
    PredictionLine,
    Question,
    read_row,
)
from eval.scored import ALL, BenchmarkAnswers, ScoredBenchmark, ScoredView
from warehouse.lake import Lake
from warehouse.releases.release import Release

INFERENCE = TypeAdapter(int)


@dataclass(frozen=True)
class Benchmark:
    """A converter of a benchmark's rows to questions, and how answers to them are scored.

    Questions are read from data (`load`; `hub`: where it is published, None: it is anybody's), or
    made `of_release`. `default`: of `parts`, where none is asked for. `question`: of a row that a
    prediction file carries; without it answers are compared with one another, and one that is
    missing counts as unread. `published`: as its authors' own code counts. `views`: the names and
    truths that the same answers are scored under; None: its own alone. `by_frame`: an answer is
    about a frame of a recording, and a newer evaluation of a model replaces an older one. A report
    shows the `main_slices` of its entries, and, with `has_examples`, pictures.
    """

    parts: tuple[str, ...]
    score: Callable[[BenchmarkAnswers], ScoredBenchmark]
    question: Callable[[str, Mapping[str, Any]], Question] | None = None
    load: Callable[[Data], Iterable[Question]] | None = None
    hub: str | None = None
    default: tuple[str, ...] = ()
    of_release: Callable[[Lake, Release, EvaluationOptions], list[Question]] | None = None
    published: Callable[[BenchmarkAnswers], ScoredBenchmark] | None = None
    views: Callable[[Sequence[Question]], list[ScoredView]] | None = None
    by_frame: bool = False
    without: tuple[str, ...] = ()  # baselines that do not stand beside it
    main_slices: Callable[[Sequence[ScoredBenchmark]], Sequence[str]] = lambda entries: (ALL,)
    has_examples: bool = False


PROGRESSLM: dict[str, Any] = {
    "score": progresslm.score,
    "question": progresslm.question,
    "load": progresslm.load,
    "hub": progresslm.HUB,
    "published": progresslm.published_score,
}


def _of_videos(converter: videos.Converter) -> dict[str, Any]:
    return {"question": converter.question, "load": partial(videos.load, converter)}


PROCVQA = Benchmark(procvqa.FAMILIES, procvqa.score, procvqa.question, of_release=procvqa.load)
BENCHMARKS = {
    "held-out": Benchmark(
        held_out.SPLITS,
        held_out.score,
        of_release=held_out.load,
        views=held_out.views,
        by_frame=True,
        without=("random", "goal image"),
        main_slices=held_out.main_slices,
    ),
    "progress-bench": Benchmark(progresslm.PROGRESS_PARTS, **PROGRESSLM),
    "human-bench": Benchmark(progresslm.HUMAN_PARTS, **PROGRESSLM),
    "dataset": Benchmark(dataset.FAMILIES, procvqa.score, procvqa.question, dataset.load),
    "vpb": Benchmark(
        vpb.PARTS,
        procvqa.score,
        vpb.question,
        vpb.load,
        hub="hf://InternRobotics/VLAC-Cut-Benchmark",
    ),
    "robofac": Benchmark(
        videos.FAMILIES,
        videos.robofac_score,
        **_of_videos(videos.ROBOFAC_RUNS),
        hub="hf://MINT-SJTU/RoboFAC-dataset",
    ),
    "rbm-eval": Benchmark(
        ("train", "test"),
        videos.graded_score,
        **_of_videos(videos.RBM_RUNS),
        hub="hf://robometer/rbm-1m-ood",
    ),
    "roboreward": Benchmark(
        ("test", "val", "train"),
        videos.graded_score,
        **_of_videos(videos.ROBOREWARD_RUNS),
        hub="hf://teetone/RoboReward",
        default=("test",),
    ),
    "procvqa-id": PROCVQA,
    "procvqa-ood": PROCVQA,
    "probes": Benchmark((), probes.probe_scores, of_release=probes.probe_questions),
    "confusion": Benchmark(
        (),
        probes.confusion_scores,
        of_release=probes.confusion_questions,
        main_slices=probes.main_slices,
    ),
    "robustness": Benchmark(
        probes.ROBUSTNESS_PARTS,
        probes.robustness_scores,
        of_release=probes.robustness_questions,
        main_slices=probes.main_slices,
        has_examples=True,
    ),
}
# Of questions, by what they ask
FAMILIES = ("text", "visual", "cross_view", *procvqa.FAMILIES, *dataset.FAMILIES, *videos.FAMILIES)


def load_benchmark(
    options: EvaluationOptions,
    frames: Path,
    cache: Path | None = None,
    corpus: tuple[Lake, Release] | None = None,
) -> list[Question]:
    """The questions of a benchmark, all answers to one of them together.

    `frames`: folder for frames of videos, where `image_root` names none; `cache`: for files of a
    repository. `corpus`: lake and release of those that are made from one. Raises BenchmarkError,
    SourceError, ShardError.
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
    """Scores of answers that any system gave. Raises BenchmarkError, which names the row that is
    wrong."""
    names = [name for name, b in BENCHMARKS.items() if b.question]
    if benchmark not in names:
        raise BenchmarkError(
            f"unknown benchmark {benchmark!r}; prediction files are scored for {', '.join(names)}"
        )
    score = BENCHMARKS[benchmark].published if as_published else BENCHMARKS[benchmark].score
    if score is None:
        published = [name for name, b in BENCHMARKS.items() if b.published]
        raise BenchmarkError(
            f"--as-published goes with {' and '.join(published)}, whose published table is reproduced; leave it out"
        )
    return score(_answers(benchmark, lines))


def _answers(benchmark: str, lines: Iterable[PredictionLine]) -> BenchmarkAnswers:
    """The lines with their questions. Raises BenchmarkError for a row that is broken, of another
    benchmark, or there twice."""
    question = BENCHMARKS[benchmark].question
    assert question is not None
    line_by_key: dict[str, tuple[Question, PredictionLine]] = {}
    for line in lines:
        stated_benchmark = line.meta_data.get("benchmark")
        if isinstance(stated_benchmark, str) and stated_benchmark != benchmark:
            raise BenchmarkError(
                f"{line.where} is of {stated_benchmark}, not of {benchmark}: give --benchmark {stated_benchmark}"
            )
        row = {name: v for name, v in line.meta_data.items() if name not in IDENTITY}
        try:
            q = read_row(partial(question, benchmark), row, line.where)
        except ValueError as e:
            raise BenchmarkError(f"{line.where} is no row of {benchmark}: {e}") from e
        inference = read_row(
            INFERENCE.validate_python, line.meta_data.get(INFERENCE_INDEX, 0), line.where
        )
        q = replace(q, inference=inference)
        # Two answers to one row would count it twice
        _, first = line_by_key.setdefault(q.key, (q, line))
        if first is not line:
            raise BenchmarkError(
                f"{line.where} is the same row as {first.where}: keep one answer (several inferences have an "
                "_inference_idx each)"
            )
    if not line_by_key:
        raise BenchmarkError("the prediction file holds no row")
    questions, answered = zip(*line_by_key.values(), strict=True)
    return BenchmarkAnswers.of(benchmark, questions, answered)
