"""A benchmark's questions by its name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval.benchmarks import dataset, graded, procvqa, progresslm, robofac
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
    has_videos: bool = True  # whose frames are written to a folder
    default: tuple[str, ...] = ()


LOADERS = {
    "progress-bench": BenchmarkLoader(PROGRESS_PARTS, progresslm.load, progresslm.HUB, has_videos=False),
    "human-bench": BenchmarkLoader(HUMAN_PARTS, progresslm.load, progresslm.HUB, has_videos=False),
    "dataset": BenchmarkLoader(dataset.FAMILIES, dataset.load),
    "robofac": BenchmarkLoader(robofac.FAMILIES, robofac.load, robofac.HUB),
    "rbm-eval": BenchmarkLoader(("train", "test"), graded.load, "hf://robometer/rbm-1m-ood"),
    "roboreward": BenchmarkLoader(("test", "val", "train"), graded.load, "hf://teetone/RoboReward", default=("test",)),
}
PARTS = {name: loader.parts for name, loader in LOADERS.items()} | dict.fromkeys(procvqa.SPLITS, procvqa.FAMILIES)
WITH_VIDEOS = tuple(name for name, loader in LOADERS.items() if loader.has_videos)
# Of questions, by what they ask
FAMILIES = ("text", "visual", "cross_view", *procvqa.FAMILIES, *dataset.FAMILIES, *robofac.FAMILIES)


def load_benchmark(
    name: str,
    data: str | None = None,
    *,
    corpus: tuple[Lake, Release] | None = None,
    image_root: Path | None = None,
    cache: Path | None = None,
    parts: Sequence[str] = (),
    limit: int | None = None,
    inferences: int = 1,
    think: bool = True,
) -> list[Question]:
    """The questions of a benchmark, each `inferences` times, all of one question together.

    `data`: what holds it, a folder, a file, or hf://owner/name[@commit] (files are then fetched to `cache`); default of
    all but `dataset`: their repository on the hub. `corpus`: lake and release of procvqa-*, instead of `data`.
    `image_root`: folder of the pictures; for those WITH_VIDEOS the folder that their frames are written to. `limit`:
    rows of each part, or runs of `dataset`, before each is multiplied. `think`: ProgressLM's questions ask for reasons.
    Raises BenchmarkError, SourceError, ShardError.
    """
    if name not in PARTS:
        raise BenchmarkError(f"unknown benchmark {name!r}; known: {', '.join(PARTS)}")
    if unknown := set(parts) - set(PARTS[name]):
        raise BenchmarkError(f"{name} has no part {min(unknown)!r}; it has {', '.join(PARTS[name])}")
    if name in procvqa.SPLITS:
        if corpus is None:
            raise BenchmarkError(f"{name} is a release's: give a workspace and a release")
        questions = procvqa.load(name, *corpus, parts or procvqa.FAMILIES, limit)
    else:
        questions = LOADERS[name].load(_data(name, data, image_root, cache, parts, limit, think))
    return [replace(q, inference=k) if k else q for q in questions for k in range(inferences)]


def _data(
    name: str,
    data: str | None,
    image_root: Path | None,
    cache: Path | None,
    parts: Sequence[str],
    limit: int | None,
    think: bool,
) -> Data:
    loader = LOADERS[name]
    place = data or loader.hub
    if place is None:
        raise BenchmarkError("the benchmark dataset needs the dataset's folder or address (--data)")
    if loader.has_videos and image_root is None:
        raise BenchmarkError(f"the benchmark {name} needs a folder to write its frames to (--image-root)")
    # A local path may have an @ in it
    address, _, revision = place.partition("@") if "://" in place else (place, "", "")
    chosen = parts or loader.default or loader.parts
    return Data(name, address, revision or None, cache, image_root, tuple(parts), chosen, limit, think)
