"""How far an unfinished run came: as far as a successful run of the same task was, when the two were last alike.

Alike in what the arm does (joints or hand pose, each dimension in standard deviations over the successful runs). A run
that leaves the ways of all successful ones, as one that misses its thing does, came no farther than to where it left.
What the arm does not show, such as a thing that slipped away beside it, is not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from ingest.proprio import moving_dimensions

FEWEST, MOST = 3, 24  # successful runs that are needed, and that are looked at
POINTS = 400  # of a longer run
ALIKE = 0.25  # standard deviations that are no difference, however alike the successful runs are


@dataclass(frozen=True)
class Reached:
    """The run was at its end, or when it left the ways of successful runs, as far as run `run` at frame `frame`."""

    run: int
    frame: int
    left: int | None  # first frame away from all successful runs


@dataclass(frozen=True)
class Ways:
    """Successful runs of one task: `states` are [n, d] in standard deviations, `usual` how far apart they are."""

    runs: tuple[int, ...]
    states: tuple[np.ndarray, ...]
    moving: np.ndarray  # bool over the source's dimensions
    scale: np.ndarray  # of the moving ones
    usual: float


def ways(states: Sequence[np.ndarray | None]) -> Ways | None:
    """What successful runs have in common; None where too few have a state [n, d] that moves.

    `usual` is the largest distance of a frame of one to the nearest frame of the others. Few runs show less of what is
    usual than there is, so it is widened by 2 / their number.
    """
    known = [(i, s) for i, s in enumerate(states) if s is not None]
    known = [(i, s) for i, s in known if s.shape[1] == known[0][1].shape[1]]
    if len(known) < FEWEST:
        return None
    chosen = [known[k] for k in np.unique(np.linspace(0, len(known) - 1, MOST).round().astype(int))]
    moving, spread = moving_dimensions(np.concatenate([s for _, s in chosen]))
    if not moving.any():
        return None
    scaled = tuple(s[:, moving] / spread[moving] for _, s in chosen)
    trees = [KDTree(s) for s in scaled]
    apart = []
    for i, s in enumerate(scaled):
        others = [tree.query(s)[0] for k, tree in enumerate(trees) if k != i]
        apart.append(float(np.min(others, axis=0).max()))
    widened = max(ALIKE, max(apart) * (1 + 2 / len(chosen)))
    return Ways(tuple(i for i, _ in chosen), scaled, moving, spread[moving], widened)


def reached(state: np.ndarray | None, of: Ways) -> Reached | None:
    """How far a run came, of its state [n, d]; None without a state like theirs, or where it began elsewhere."""
    if state is None or state.shape[1] != len(of.moving):
        return None
    s = state[:, of.moving] / of.scale
    away = np.min([KDTree(w).query(s)[0] for w in of.states], axis=0) > of.usual
    left = int(np.argmax(away)) if away.any() else None
    if left == 0:
        return None
    ends = [_warped(s[:left], w) for w in of.states]
    best = int(np.argmin([cost for cost, _ in ends]))
    return Reached(of.runs[best], ends[best][1], left)


def _warped(run: np.ndarray, way: np.ndarray) -> tuple[float, int]:
    """Dynamic time warping of a whole run [n, d] to a part of a way [m, d] from its start: mean cost, last frame.

    The part is the one with the least cost, the shortest of equal ones.
    """
    every = max(1, -(-len(way) // POINTS))
    distance = cdist(run[:: max(1, -(-len(run) // POINTS))], way[::every])
    total = np.cumsum(distance[0])
    for row in distance[1:]:
        before = np.minimum(total, np.r_[np.inf, total[:-1]])
        along = np.cumsum(row)
        total = along + np.minimum.accumulate(before - (along - row))
    last = int(np.argmin(total))
    return float(total[last]) / len(distance), min(last * every, len(way) - 1)
