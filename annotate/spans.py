"""Half-open spans of frames."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np


def equal_spans(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Spans of equal neighbours, in order. Example: those of a, a, b are (0, 2) and (2, 3)."""
    starts = [k for k, value in enumerate(values) if k == 0 or value != values[k - 1]]
    return list(pairwise([*starts, len(values)]))


def stretches(holds: np.ndarray, min_frames: float) -> list[tuple[int, int]]:
    """Spans of at least `min_frames` frames, not 0, in which a condition bool [n] holds, in order."""
    changes = np.flatnonzero(holds[1:] != holds[:-1]) + 1
    spans = pairwise([0, *changes.tolist(), len(holds)])
    return [(start, end) for start, end in spans if end - start >= min_frames and holds[start]]
