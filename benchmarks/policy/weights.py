"""A weight for each frame by each arm: through a file of progress and LeRobot's own RA-BC code, or by outcome."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from lerobot.rewards.sarm.rabc import RABCWeights

from benchmarks.policy.recording import Frames
from warehouse.exports.rabc import FILE, SCHEMA, Kappas, episode_rows


def clock(length: int) -> np.ndarray:
    """Time gone by of a run, 0 to 1: float32 [length]."""
    return np.linspace(0, 1, length, dtype=np.float32)


def write_progress(path: Path, curves: Sequence[np.ndarray], chunk: int) -> None:
    """A file as `proccorpus export rabc` writes it, of each run's progress [frames] in order, with its kappa."""
    kappas, first = Kappas([chunk]), 0
    kappas.add([np.asarray(c, np.float32) for c in curves])
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for episode, curve in enumerate(curves):
            writer.write_table(episode_rows(first, episode, len(curve), (curve, curve)))
            first += len(curve)
        writer.add_key_value_metadata({"proccorpus": json.dumps({"suggested_kappa": kappas.suggested()})})


def rabc_weights(path: Path, column: str, chunk: int) -> np.ndarray:
    """LeRobot's weight of each frame [n], as it would be in one batch of all; kappa is the file's own suggestion.

    `column`: sparse or dense. Raises ValueError where no frame gains, or the file's rows are not in order.
    """
    with pq.ParquetFile(path) as file:
        index = file.read(["index"])["index"].to_numpy()
        facts = json.loads(file.metadata.metadata[b"proccorpus"])
    kappa = facts["suggested_kappa"][str(chunk)]
    if kappa is None:
        raise ValueError(f"no frame of {path} gains progress: there is nothing to weigh by")
    if not np.array_equal(index, np.arange(len(index))):
        raise ValueError(f"{path}: its rows are not those of frames 0 to {len(index) - 1} in order")
    weigher = RABCWeights(path, chunk_size=chunk, head_mode=column, kappa=kappa)
    found, _ = weigher.compute_batch_weights({"index": index})
    return found.numpy().astype(np.float64)


def arm_weights(frames: Frames, arms: Sequence[str], files: Mapping[str, Path], chunk: int) -> dict[str, np.ndarray]:
    """Of each arm, by its name: float64 [n]. `files`: where the progress of each arm of RA-BC is."""
    ones = np.ones(len(frames.task))
    by_outcome = {
        "experts": ones * (frames.quality == "expert"),
        "nothing": ones,
        "successes": ones * frames.success,
    }
    return {
        arm: by_outcome[arm]
        if arm in by_outcome
        else rabc_weights(files[arm], "dense" if arm.endswith("_dense") else "sparse", chunk)
        for arm in arms
    }


def share_by_quality(frames: Frames, weights: np.ndarray) -> dict[str, float]:
    """How much of all weight the frames of each quality have, less than their share of frames or more: 1 is as much."""
    mean = weights.mean()
    return {str(q): float(weights[frames.quality == q].mean() / mean) for q in np.unique(frames.quality)}


def export_file(folder: Path) -> Path:
    """The file of progress in a folder that `proccorpus export rabc` wrote."""
    return folder / FILE
