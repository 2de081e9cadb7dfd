"""Signs that a label may be wrong, for people who review: what is odd about an episode among those of its task.

None of them says that a label is wrong. Each is between 0 (as usual) and 1, but for those that are named after a unit.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from annotate.segments import Segment

FEWEST = 5  # runs of one task that show what is usual
JUMP_S = 0.5
FALL = 0.01  # of progress from one frame to the next that counts as going backwards


@dataclass(frozen=True)
class Run:
    """One labelled episode: `progress` is [n]."""

    duration_s: float
    fps: float
    success: bool | None
    segments: Sequence[Segment]
    progress: np.ndarray


@dataclass(frozen=True)
class Quality:
    """None where too few runs of the task show what is usual."""

    length_z: float | None  # robust standard deviations of the log duration from the median
    order_rarity: float | None  # share of the task's runs whose steps follow each other otherwise
    jump: float  # largest rise or fall within half a second
    falls: int  # frames at which progress is lower than at the one before, by more than FALL
    worst_fall: float  # the largest fall from one frame to the next; 0 where there is none
    end: float  # progress at the last frame
    contradicts: bool  # the source calls it a success and the label ends below 1, or the other way round


def qualities(runs: Sequence[Run]) -> list[Quality]:
    """One for each run of a task.

    The scale of a z is 1.4826 times the median absolute deviation, which estimates a normal's standard deviation, but
    at least 5 % of the duration.
    """
    orders = [step_order(r.segments) for r in runs]
    known = len(runs) >= FEWEST
    counts = Counter(orders)
    lengths = np.log([r.duration_s for r in runs])
    middle = float(np.median(lengths))
    scale = max(0.05, 1.4826 * float(np.median(np.abs(lengths - middle))))
    found = []
    for r, order, length in zip(runs, orders, lengths, strict=True):
        end = float(r.progress[-1])
        fall = -np.diff(r.progress.astype(np.float64))
        found.append(
            Quality(
                (float(length) - middle) / scale if known else None,
                1 - counts[order] / len(runs) if known else None,
                largest_jump(r.progress, r.fps),
                int((fall > FALL).sum()),
                float(fall.max(initial=0.0)),
                end,
                r.success is not None and r.success != (end >= 1.0),
            )
        )
    return found


def step_order(segments: Sequence[Segment]) -> tuple[int, ...]:
    """Planned steps as they were attempted; a step that was only interrupted counts once."""
    return tuple(step for step, _ in groupby(s.step for s in segments if s.step is not None))


def largest_jump(progress: np.ndarray, fps: float) -> float:
    """Largest change of progress [n], up or down, within half a second."""
    lag = min(max(1, round(JUMP_S * fps)), len(progress) - 1)
    return float(np.abs(progress[lag:] - progress[:-lag]).max(initial=0.0)) if lag > 0 else 0.0
