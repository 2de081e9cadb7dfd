"""Ground truth of shipped samples: what only their simulators know."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of one dataset by episode: progress at each frame, how the run was made, was the task done."""

    progress: dict[int, np.ndarray]
    policy: dict[int, str]
    success: dict[int, bool]


def load_truth(folder: Path, dataset: str) -> GroundTruth | None:
    """Ground truth as samples/truth/<dataset> holds it; None where there is none."""
    if not (folder / dataset / "episodes.parquet").exists():
        return None
    episodes = pq.read_table(folder / dataset / "episodes.parquet").to_pydict()
    policy, success = (dict(zip(episodes["episode_index"], episodes[c], strict=True)) for c in ("policy", "success"))
    frames = pq.read_table(folder / dataset / "frames.parquet").sort_by(
        [("episode_index", "ascending"), ("frame_index", "ascending")]
    )
    # On one thread, so that each list keeps the order of the frames
    lists = frames.group_by("episode_index", use_threads=False).aggregate([("true_progress", "list")])
    curves = (curve.values.to_numpy() for curve in lists["true_progress_list"])
    return GroundTruth(dict(zip(lists["episode_index"].to_pylist(), curves, strict=True)), policy, success)
