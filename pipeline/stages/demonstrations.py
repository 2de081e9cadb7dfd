"""How well each run of a chunk was demonstrated, measured on it alone; a view compares the runs of a task."""

import numpy as np

from annotate.quality import run_measures
from core.tables import TABLES
from pipeline.stage import Output, StageContext


def run(context: StageContext) -> Output:
    rows = []
    for episode in context.signals():
        measured = vars(run_measures(episode)).items()
        columns = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in measured
        }
        key = {
            "dataset": context.dataset,
            "episode_index": episode.episode_index,
            "chunk": context.chunk,
        }
        rows.append(
            key | columns | {"camera": episode.views[0], "end_phash": int(episode.phash[-1])}
        )
    return Output({"demonstration_measures": TABLES["demonstration_measures"].rows(rows)})
