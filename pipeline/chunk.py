"""One chunk of a build, stage after stage, in this process or in a worker's."""

import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
from threadpoolctl import threadpool_limits

from core.files import disk_full
from core.paths import Workspace
from core.values import grouped
from pipeline.config import DatasetBuild
from pipeline.picture_cache import PictureCache
from pipeline.plan import CURRENT, STAMPS, History, chunk_steps
from pipeline.sources import OUT_OF_REACH
from pipeline.stage import StageContext, StageReport, run_stage
from pipeline.stages import LISTING, stage_specs
from pipeline.stages.episodes import ChangedSourceError
from warehouse.lake import open_lake, was_interrupted
from warehouse.lake.recordings import FRAMES, sentence


@dataclass(frozen=True, kw_only=True)
class StepFailure:
    dataset: str
    chunk: int | None
    stage: str
    message: str
    trace: str
    disk_full: str | None = None  # what is full: every other chunk would fail of it, too
    asks: bool = False  # a person has to say that it shall be so; nothing is broken
    out_of_reach: bool = False  # the source could not be looked at, or not be listed

    @property
    def facts(self) -> dict[str, str]:
        """What a report says of it; `chunk` all: of the dataset as a whole."""
        chunk = "all" if self.chunk is None else str(self.chunk)
        return {"dataset": self.dataset, "chunk": chunk, "stage": self.stage, "why": self.message}

    @classmethod
    def of(
        cls, dataset: str, chunk: int | None, stage: str, e: Exception, full: str | None = None
    ) -> "StepFailure":
        # A source that waits until a person accepts how it changed is no fault of ours: its words are enough
        asks = isinstance(e, ChangedSourceError)
        kind = "" if asks else f"{type(e).__name__}: "
        return cls(
            dataset=dataset,
            chunk=chunk,
            stage=stage,
            message=" ".join(f"{kind}{e}".split()),
            trace="".join(traceback.format_exception(e)),
            disk_full=full,
            asks=asks,
            out_of_reach=chunk is None and isinstance(e, OUT_OF_REACH),
        )


def failure_text(facts: Mapping[str, str]) -> str:
    """The facts of a failure in words."""
    return f"{facts['stage']} of {facts['dataset']} chunk {facts['chunk']}: {facts['why']}"


def reasons(failed: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Facts of failures in words, by dataset."""
    return grouped((facts["dataset"], failure_text(facts)) for facts in failed)


@dataclass(frozen=True)
class StageMoment:
    """A stage of a chunk begins (`duration_s` None), has done some episodes, or has ended: what who waits sees."""

    dataset: str
    chunk: int
    stage: str
    duration_s: float | None = None
    episodes: int = 0  # done of a stage that goes on


type Tell = Callable[[StageMoment], None]


@dataclass(frozen=True)
class ChunkTask:
    """One chunk to bring up to date, as it is sent to a worker process."""

    root: str
    build: DatasetBuild
    fingerprint: str
    chunk: int
    threads: int  # for each video that it decodes
    build_id: str  # of all chunks of one build: what budgets of models count by
    only: frozenset[str] | None = None  # these stages; None: all


@dataclass(frozen=True)
class ChunkResult:
    done: list[StageReport]
    failed: StepFailure | None


# More threads add in another order, which changes the last digits of labels
@threadpool_limits.wrap(limits=1, user_api="blas")
def run_chunk(task: ChunkTask, on_moment: Tell = lambda moment: None) -> ChunkResult:
    """Bring one chunk up to date, stage after stage: what one puts out decides what the next one's input is."""
    # Builds are parallel by processes and by decoders' threads: those of OpenCV would only get in their way
    cv2.setNumThreads(1)
    # Arrow keeps memory of the chunk before, up to all that this one took
    pa.default_memory_pool().release_unused()
    lake = open_lake(Workspace(Path(task.root)))
    build = task.build
    chunk = task.chunk
    source = replace(
        build.source(lake.workspace.sources, task.fingerprint), decoding_threads=task.threads
    )
    specs = [spec for spec in stage_specs(build) if task.only is None or spec.name in task.only]
    history = History.read(lake, [build.name], chunk)
    listed = history.runs.get((LISTING.name, build.name, chunk, ""))
    if listed is None:  # the source has lost the chunk meanwhile
        return ChunkResult([], None)
    outputs = {LISTING.name: listed["output_hash"]}

    def stamp_of(kind: str) -> str:
        """Read when it is asked for: what references show depends on what was measured of this chunk, too."""
        with lake.reading():
            return STAMPS[kind](lake, build.name).get(chunk, "")

    reports: list[StageReport] = []
    memory = dict[str, Any]()
    with closing(PictureCache(lake.workspace, build, task.threads)) as pictures:
        for step in chunk_steps(build.name, chunk, specs, history, outputs, stamp_of):
            if step.status == CURRENT:
                continue
            moment = StageMoment(build.name, chunk, step.stage.name)
            on_moment(moment)

            def told(episodes: int, moment: StageMoment = moment) -> None:
                on_moment(replace(moment, episodes=episodes))

            result = run_guarded(
                StageContext(lake, build, step, source, task.build_id, pictures, memory, told)
            )
            on_moment(
                replace(moment, duration_s=sum(ended.run.duration_s for ended in result.done))
            )
            reports += result.done
            if result.failed:
                return ChunkResult(reports, result.failed)
            # The listing took a recording for another one: what people said of it has to be listed anew first
            if step.stage.name == FRAMES and any(
                sentence("", ended.numbers) for ended in result.done
            ):
                return ChunkResult(reports, None)
            outputs[step.stage.name] = result.done[-1].run.output_hash
    return ChunkResult(reports, None)


def run_guarded(context: StageContext) -> ChunkResult:
    """Run one step; an error becomes a StepFailure, so that other chunks go on.

    Raises KeyboardInterrupt where a person ended it.
    """
    step = context.step
    try:
        return ChunkResult([run_stage(context)], None)
    except Exception as e:
        if was_interrupted(e):
            raise KeyboardInterrupt from e
        full = disk_full(e, context.lake.workspace.root)
        return ChunkResult([], StepFailure.of(step.dataset, step.chunk, step.stage.name, e, full))
