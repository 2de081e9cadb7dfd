"""How well each run of a chunk was demonstrated, measured on it alone; a view compares the runs of a task."""

from typing import Any

import numpy as np

from annotate.quality import CODE_VERSION, measures
from core.tables import TABLES
from pipeline.stage import Output, Stage, StageContext


def run(context: StageContext) -> Output:
    rows: list[dict[str, Any]] = []
    for episode in context.signals():
        measured = measures(episode.signals())
        rows.append(
            {
                "dataset": context.dataset,
                "episode_index": episode.episode_index,
                "chunk": context.chunk,
                "camera": episode.camera,
                "end_phash": int(episode.phash[-1]),
                **{name: _listed(value) for name, value in vars(measured).items()},
            }
        )
    return Output({"demonstration_measures": TABLES["demonstration_measures"].rows(rows)})


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


STAGE = Stage(
    name="demonstrations",
    upstream=("frames",),
    run=run,
    config=lambda build: build.views,
    code_version=CODE_VERSION,
    description="How well each run was demonstrated: stand-stills, jerk, length, where it ends. Needs no label.",
)
