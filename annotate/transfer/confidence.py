"""How sure a transferred label is: the expected share of its boundaries that lie within 0.5 s of a true one."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from annotate.segments import Segment

# Of boundaries in six real and simulated sets, each set weighing alike, the share that was right: where a mark shows
# them or none does, by the share of the other references that agree (none, half, all), and with one reference alone
AGREEMENT = (0.0, 0.5, 1.0)
MARKED, MARKED_ALONE = (0.85, 0.88, 0.93), 0.92
UNMARKED, UNMARKED_ALONE = (0.12, 0.54, 0.97), 0.69
FAR = 0.87  # less for each whole time that a run is farther from its reference than is usual


def with_confidence(
    segments: Sequence[Segment], marked: Collection[int], distance: float, agreement: Sequence[float | None]
) -> list[Segment]:
    """Segments with the expected share of their inner ends that are right; `distance`: along the path, 1 is usual.

    marked: places of the boundaries that a mark shows. agreement: of each boundary, the share of the other references
    that agree about it.
    """
    nearness = min(1.0, max(0.0, 1 - FAR * (distance - 1)))
    ends = [None, *(_share(k in marked, agreed) * nearness for k, agreed in enumerate(agreement)), None]
    return [replace(s, confidence=_mean(ends[k : k + 2], nearness)) for k, s in enumerate(segments)]


def _share(is_marked: bool, agreed: float | None) -> float:
    shares, alone = (MARKED, MARKED_ALONE) if is_marked else (UNMARKED, UNMARKED_ALONE)
    return alone if agreed is None else float(np.interp(agreed, AGREEMENT, shares))


def _mean(shares: Sequence[float | None], whole: float) -> float:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else whole
