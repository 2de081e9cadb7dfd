"""Advantages of frames by any score that is a value: higher is nearer to the goal.

`chunk_residuals` is LeRobot's N-step residual (rewards/compute_chunk_td_residuals.py @ab7ad005, on a branch), here at
each frame. `advantages` and `positive` are RECAP's (pi*0.6, arXiv 2511.14759, section IV-B and appendix F; LeRobot's
annotations/steerable_pipeline/modules/advantage.py @0be63969, on a branch).
"""

import numpy as np


def chunk_residuals(value: np.ndarray, chunk_size: int) -> np.ndarray:
    """V[t + N] - V[t], float32 [n]; NaN where fewer than N frames follow. Nothing is discounted, and frames have no
    reward beside it: progress is itself what was earned so far.

    Example: chunk_residuals([0, 0.5, 1], 2) == [1, nan, nan].
    """
    v = np.asarray(value, np.float64)
    out = np.full(len(v), np.nan, np.float32)
    if chunk_size < len(v):
        out[:-chunk_size] = v[chunk_size:] - v[:-chunk_size]
    return out


def advantages(value: np.ndarray, chunk_size: int, outcome: float | None) -> np.ndarray:
    """V[t + N] - V[t], and outcome - V[t] where fewer than N frames follow, float32 [n].

    The reward is the outcome alone, at the end: 1 for a run that succeeded, 0 for one that failed; None: nobody says,
    and the last value stands for it. NaN of the value stays NaN.

    Example: advantages([0, 0.5, 0.75], 1, 1) == [0.5, 0.25, 0.25].
    """
    v = np.asarray(value, np.float64)
    end = v[-1] if outcome is None else outcome
    later = np.r_[v[chunk_size:], np.full(min(chunk_size, len(v)), end)]
    return (later - v).astype(np.float32)


def threshold(advantages: np.ndarray, share: float) -> float:
    """The threshold that the best `share` (0..1) of a task's advantages exceed; NaN if none is known."""
    known = advantages[np.isfinite(advantages)]
    return float(np.quantile(known, 1 - share)) if len(known) else float("nan")
