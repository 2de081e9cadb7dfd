"""Ground truth of shipped samples: what only their simulators know."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of one dataset: progress by (episode, frame), policy by episode."""

    progress: dict[int, np.ndarray]
    policy: dict[int, str]


def load_truth(folder: Path, dataset: str) -> GroundTruth | None:
    """Ground truth as samples/truth/<dataset> holds it; None where there is none."""
    if not (folder / dataset / "frames.parquet").exists():
        return None
    frames = pq.read_table(folder / dataset / "frames.parquet").sort_by(
        [("episode_index", "ascending"), ("frame_index", "ascending")]
    )
    index, values = frames["episode_index"].to_numpy(), frames["true_progress"].to_numpy()
    # Rows are sorted by episode: cut the column where the episode changes
    cuts = np.flatnonzero(np.diff(index)) + 1
    firsts = np.r_[0, cuts]
    progress = {int(index[a]): part for a, part in zip(firsts, np.split(values, cuts), strict=True)}
    episodes = pq.read_table(folder / dataset / "episodes.parquet")
    policy = dict(zip(episodes["episode_index"].to_pylist(), episodes["policy"].to_pylist(), strict=True))
    return GroundTruth(progress, policy)
