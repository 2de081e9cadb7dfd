"""Vectors of numbers per row, as the adapters read them."""

from collections.abc import Sequence

import numpy as np

from ingest.episode import RowsError


def joined(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Several vectors per row side by side, float64 [n, d]; None for none. Raises RowsError when lengths differ."""
    if not parts:
        return None
    if len({len(p) for p in parts}) > 1:
        raise RowsError(f"state or action parts have different lengths: {[len(p) for p in parts]}")
    return np.concatenate([np.asarray(p, np.float64).reshape(len(p), -1) for p in parts], axis=1)


def moving_dimensions(state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which dimensions of state [n, d] move, bool [d], and the standard deviation of each, float64 [d].

    One that hardly moves beside the others does not count, or its noise would count as motion.
    """
    spread = np.asarray(state, np.float64).std(axis=0)
    return spread > max(1e-9, 0.02 * float(spread.max(initial=0.0))), spread
