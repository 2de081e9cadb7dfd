"""A weight for each frame by each arm: through a file of progress and LeRobot's own RA-BC code, or by outcome."""

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from lerobot.rewards.sarm.rabc import RABCWeights

from benchmarks.policy.protocol import AWR_MOST, FAR, TOP
from benchmarks.policy.recording import Frames
from warehouse.exports.rabc import (
    FILE,
    SCHEMA,
    FrameRows,
    progress_columns,
    suggested_kappa,
    write_frames,
)
from warehouse.exports.weights import LEROBOT_FILE, weights_by_lerobot


def write_progress(folder: Path, curves: Sequence[np.ndarray], *chunks: int) -> Path:
    """A file as `proccorpus export rabc` writes it, of each run's progress [frames] in order, with its kappas."""
    path = folder / FILE
    progress = [np.asarray(curve, np.float32) for curve in curves]
    kappas = {str(size): suggested_kappa(progress, size) for size in chunks}
    folder.mkdir(parents=True, exist_ok=True)
    starts = accumulate(map(len, curves), initial=0)
    rows = (
        FrameRows(start, episode, np.arange(len(curve)), progress_columns(curve, curve, None))
        for episode, (start, curve) in enumerate(zip(starts, curves, strict=False))
    )
    facts = {"proccorpus": json.dumps({"suggested_kappa": kappas})}
    write_frames(path, SCHEMA, rows, facts)
    return path


def rabc_weights(path: Path, chunk: int) -> np.ndarray:
    """LeRobot's weight of each frame [n], as it would be in one batch of all; kappa is the file's own suggestion.

    Raises ValueError where no frame gains, or the file's rows are not in order.
    """
    with pq.ParquetFile(path) as file:
        index = file.read(["index"])["index"].to_numpy()
        facts = json.loads(file.metadata.metadata[b"proccorpus"])
    kappa = facts["suggested_kappa"][str(chunk)]
    if kappa is None:
        raise ValueError(f"no frame of {path} gains progress: there is nothing to weigh by")
    if not np.array_equal(index, np.arange(len(index))):
        raise ValueError(f"{path}: its rows are not those of frames 0 to {len(index) - 1} in order")
    weigher = RABCWeights(path, chunk_size=chunk, head_mode="sparse", kappa=kappa)
    weights, _ = weigher.compute_batch_weights({"index": index})
    return weights.numpy().astype(np.float64)


def gains(path: Path, task: np.ndarray, chunk: int) -> np.ndarray:
    """Progress that the next frames of a run bring, standardised within its task: float64 [n]; 0 where nobody knows."""
    table = pq.read_table(path)
    progress, episode = (table[name].to_numpy() for name in ("progress_sparse", "episode_index"))
    last = np.searchsorted(episode, episode, "right") - 1
    gain = (progress[np.minimum(np.arange(len(progress)) + chunk, last)] - progress).astype(
        np.float64
    )
    for task_mask in (task == name for name in np.unique(task)):
        gain[task_mask] = (gain[task_mask] - np.nanmean(gain[task_mask])) / np.nanstd(
            gain[task_mask]
        )
    return np.nan_to_num(gain)


def arm_weights(
    frames: Frames,
    arms: Sequence[str],
    files: Mapping[str, Path],
    chunk: int,
    segments: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Of each arm, by its name: float64 [n].

    files: where the progress of each arm of RA-BC is, and of `export weights` what LeRobot reads. segments [n]: done,
    failed or idle, as our labels say of the segment of each frame; arms that hang on labels need it.
    """
    ones = np.ones(len(frames.task))
    weights_by_arm = {
        "experts": ones * (frames.quality == "expert"),
        "nothing": ones,
        "successes": ones * frames.success,
    }
    ready = {arm: path for arm, path in files.items() if path.name == LEROBOT_FILE}
    weights_by_arm |= {
        arm: weights_by_lerobot(path, np.arange(len(ones)), chunk) for arm, path in ready.items()
    }
    weights_by_arm |= {
        arm: rabc_weights(path, chunk) for arm, path in files.items() if arm not in ready
    }
    if segments is not None:
        gain = gains(files["labels"], frames.task, chunk)
        awr = np.minimum(np.exp(gain), AWR_MOST)
        weights_by_arm |= {
            "labels_success": weights_by_arm["labels"] * frames.success,
            "labels_unfailed": weights_by_arm["labels"] * (segments != "failed"),
            "labels_far": rabc_weights(files["labels"], FAR * chunk),
            "segments": ones * (segments == "done"),
            "top": ones * (gain >= np.quantile(gain, 1 - TOP)),
            "awr": awr,
            "awr_segments": awr * (segments == "done"),
            "awr_outcomes": awr * frames.success,
        }
    return {arm: weights_by_arm[arm] for arm in arms}


def share_by_quality(frames: Frames, weights: np.ndarray) -> dict[str, float]:
    """How much of all weight the frames of each quality have, less than their share of frames or more: 1 is as much."""
    mean = weights.mean()
    return {
        str(q): float(weights[frames.quality == q].mean() / mean) for q in np.unique(frames.quality)
    }
