"""One chunk of a build, stage after stage, in this process or in a worker's."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
from threadpoolctl import threadpool_limits

from core.paths import Workspace
from pipeline.config import DatasetBuild
from pipeline.picture_cache import PictureCache
from pipeline.plan import CURRENT, STAMPS, History, chunk_steps
from pipeline.stage import StageContext, StageReport, StepFailure, run_guarded
from pipeline.stages import LISTING, stage_specs
from warehouse.lake import open_lake
from warehouse.lake.recordings import FRAMES, sentence


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
    """What was done of a chunk, or of a dataset's listing, and what failed then."""

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

            context = StageContext(lake, build, step, source, task.build_id, pictures, memory, told)
            report = run_guarded(context)
            if isinstance(report, StepFailure):
                on_moment(replace(moment, duration_s=0.0))
                return ChunkResult(reports, report)
            on_moment(replace(moment, duration_s=report.run.duration_s))
            reports.append(report)
            # The listing took a recording for another one: what people said of it has to be listed anew first
            if step.stage.name == FRAMES and sentence("", report.numbers):
                return ChunkResult(reports, None)
            outputs[step.stage.name] = report.run.output_hash
    return ChunkResult(reports, None)
