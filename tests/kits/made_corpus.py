"""What the tests of the assets share: a workspace that the build loop made, with its source and its
report."""

import fcntl
import gc
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from annotate.config import EmbeddingsConfig
from core.paths import Workspace
from pipeline.build import BuildReport, run_build
from pipeline.config import DatasetBuild, source_build
from pipeline.plan import STALE
from pipeline.stage import Output, StageContext
from pipeline.stages import Stage, Step
from warehouse.lake import Lake, forget_lakes, open_lake

CHUNK_SIZE = 2


def build_of(source: Path, chunk_size: int = CHUNK_SIZE) -> DatasetBuild:
    """The dataset `tiny`, at whose pictures no encoder looks."""
    build = source_build(source, "tiny", None, None)
    dataset = build.dataset.model_copy(update={"chunk_size": chunk_size})
    return with_stages(
        build.model_copy(update={"dataset": dataset}), embeddings=EmbeddingsConfig(when="never")
    )


def with_stages(build: DatasetBuild, **changes: object) -> DatasetBuild:
    return build.model_copy(update={"stages": build.stages.model_copy(update=changes)})


def stage_output(
    stage: Stage,
    lake: Lake,
    build: DatasetBuild,
    chunk: int,
    threads: int = 1,
) -> Output:
    """What a stage makes of a chunk, unpublished."""
    step = Step(stage.spec(build), build.name, chunk, STALE, "in")
    source = replace(build.source(lake.workspace.sources), decoding_threads=threads)
    return stage.run(StageContext(lake, build, step, source))


@dataclass(frozen=True)
class Made:
    """A workspace, the build that made it and what that reported."""

    space: Workspace
    build: DatasetBuild
    report: BuildReport

    @property
    def source(self) -> Path:
        return Path(self.build.dataset.source)

    def rows(self, sql: str) -> list[tuple]:
        return open_lake(self.space).rows(sql)

    def rebuild(self, build: DatasetBuild | None = None) -> list[tuple[str, int | None]]:
        """(stage, chunk) of all that a build runs now."""
        return [
            (r.run.stage, r.run.chunk) for r in built(build or self.build, self.space).report.done
        ]

    def copy(self, folder: Path) -> "Made":
        """Source and workspace of one's own; times of files are kept, so nothing is stale."""
        source = shutil.copytree(self.source, folder / "source")
        space = Workspace(shutil.copytree(self.space.root, folder / "workspace"))
        return Made(space, build_of(source, self.build.dataset.chunk_size), self.report)


def built(build: DatasetBuild, space: Workspace) -> Made:
    """By one worker; nothing fails."""
    report = run_build(space, [build], workers=1)
    assert report.failed == [], report.failed
    return Made(space, build, report)


def restored(place: Path, make: Callable[[Path], object]) -> Path:
    """A folder as `make` wrote it, whatever tests did to it since: made once, then copied.

    It is always at the same path, and its files keep their times: to a build nothing in it has
    changed.
    """
    first = place.with_name(f"{place.name}.first")
    if not first.exists():
        make(place)
        put(place, first)
    return put(first, place)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` writes, the same one for all workers of a session; not for changing.

    The first worker that asks makes it, and the others wait.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    place = base / "made-once" / name
    place.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Its position is of when it was opened, before the wait
        if os.fstat(lock.fileno()).st_size == 0:
            make(place)
            lock.write("made")
    return place


def shared(
    factory: pytest.TempPathFactory,
    name: str,
    write: Callable[[Path], Path],
    chunk_size: int = CHUNK_SIZE,
) -> Made:
    """A corpus of the source that `write` writes, built by one worker of a session: that source,
    and this worker's own copy of the workspace."""

    def make(folder: Path) -> None:
        build = build_of(write(folder / "source"), chunk_size)
        built(build, Workspace(folder / "workspace"))

    place = made_once(factory, name, make)
    space = shutil.copytree(place / "workspace", factory.mktemp(name) / "workspace")
    return Made(Workspace(space), build_of(place / "source", chunk_size), BuildReport())


def put(folder: Path, place: Path) -> Path:
    """A copy of a folder in the place of what lay there; this process may still have its catalogs
    open."""
    forget_lakes()
    gc.collect()
    shutil.rmtree(place, ignore_errors=True)
    return shutil.copytree(folder, place)


OF_EPISODES = (
    "episode_facts",
    "episode_content",
    "splits",
    "segments",
    "episode_labels",
    "progress",
    "label_quality",
    "active_runs",
    "frames",
    "keyframes",
)
APART = 10  # between an episode and its next copy


def repeat(made_corpus: Made, times: int) -> list[int]:
    """Add each episode's rows so many times again, as further episodes of its videos; returns their
    indices."""
    lake = Lake(made_corpus.space)
    for table in OF_EPISODES:
        for k in range(1, times + 1):
            moved_columns = f"episode_index + {k * APART} AS episode_index, chunk + {k * APART // CHUNK_SIZE} AS chunk"
            lake.con.execute(
                f"INSERT INTO {table} SELECT * REPLACE ({moved_columns}) FROM {table} WHERE episode_index < {APART}"
            )
    added = lake.column(
        f"SELECT episode_index FROM episode_facts WHERE episode_index >= {APART} ORDER BY 1"
    )
    lake.con.close()
    return added
