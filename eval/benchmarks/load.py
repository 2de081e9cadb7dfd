"""A benchmark's questions by its name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from eval import confusion, probes, robustness
from eval.benchmarks import dataset, graded, procvqa, progresslm, robofac
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, Question
from eval.benchmarks.rows import HUMAN_PARTS, PROGRESS_PARTS
from eval.benchmarks.source import Data
from warehouse.lake import Lake
from warehouse.releases import Release


@dataclass(frozen=True)
class BenchmarkLoader:
    """`hub`: where the benchmark is published; None: it is of a release, or anybody's dataset. `default`: of `parts`,
    where none is asked for."""

    parts: tuple[str, ...]
    load: Callable[[Data], Iterable[Question]]
    hub: str | None = None
    default: tuple[str, ...] = ()


LOADERS = {
    "progress-bench": BenchmarkLoader(PROGRESS_PARTS, progresslm.load, progresslm.HUB),
    "human-bench": BenchmarkLoader(HUMAN_PARTS, progresslm.load, progresslm.HUB),
    "dataset": BenchmarkLoader(dataset.FAMILIES, dataset.load),
    "robofac": BenchmarkLoader(robofac.FAMILIES, robofac.load, robofac.HUB),
    "rbm-eval": BenchmarkLoader(("train", "test"), graded.load, "hf://robometer/rbm-1m-ood"),
    "roboreward": BenchmarkLoader(("test", "val", "train"), graded.load, "hf://teetone/RoboReward", default=("test",)),
}
# Made from a release: parts, and the questions that are asked for
FromRelease = Callable[[Lake, Release, EvaluationOptions], list[Question]]
OF_RELEASE: dict[str, tuple[tuple[str, ...], FromRelease]] = {
    "procvqa-id": (procvqa.FAMILIES, procvqa.of_split),
    "procvqa-ood": (procvqa.FAMILIES, procvqa.of_split),
    "probes": ((), lambda lake, release, asked: probes.load(lake, release, asked.limit)),
    "confusion": ((), lambda lake, release, asked: confusion.load(lake, release, asked.limit)),
    "robustness": (robustness.PARTS, lambda lake, release, a: robustness.load(lake, release, a.limit, a.part)),
}
PARTS = {name: loader.parts for name, loader in LOADERS.items()}
PARTS |= {name: parts for name, (parts, _) in OF_RELEASE.items()}
# Of questions, by what they ask
FAMILIES = ("text", "visual", "cross_view", *procvqa.FAMILIES, *dataset.FAMILIES, *robofac.FAMILIES)


def load_benchmark(
    asked: EvaluationOptions, frames: Path, cache: Path | None = None, corpus: tuple[Lake, Release] | None = None
) -> list[Question]:
    """The questions of a benchmark, all answers to one of them together.

    `frames`: folder for frames of videos, where `image_root` names none; `cache`: for files of a repository. `corpus`:
    lake and release of those that are made from one. Raises BenchmarkError, SourceError, ShardError.
    """
    name = asked.benchmark
    if name not in PARTS:
        raise BenchmarkError(f"unknown benchmark {name!r}; known: {', '.join(PARTS)}")
    if unknown := set(asked.part) - set(PARTS[name]):
        raise BenchmarkError(f"{name} has no part {min(unknown)!r}; it has {', '.join(PARTS[name]) or 'no parts'}")
    if name in OF_RELEASE:
        if corpus is None:
            raise BenchmarkError(f"{name} is a release's: give a workspace and a release")
        questions = OF_RELEASE[name][1](*corpus, asked)
    else:
        loader = LOADERS[name]
        place = asked.data or loader.hub
        if place is None:
            raise BenchmarkError("the benchmark dataset needs the dataset's folder or address (--data)")
        # A local path may have an @ in it
        address, _, revision = place.partition("@") if "://" in place else (place, "", "")
        parts = asked.part or loader.default or loader.parts
        questions = loader.load(Data(asked, address, revision or None, parts, asked.image_root or frames, cache))
    return [replace(q, inference=k) if k else q for q in questions for k in range(asked.num_inferences)]
