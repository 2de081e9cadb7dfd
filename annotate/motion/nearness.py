"""How far an unfinished run came: as far as a successful run of the same task was, when the two were last alike.

Alike in what the arm does (joints or hand pose). Successful runs differ in some directions, since things lie elsewhere
in each, and hardly in others; distances are in standard deviations of that (Mahalanobis). A run that leaves the ways of
all successful ones, as one that misses its thing does, came no farther than to where it left. What the arm does not
show, such as a thing that slipped away beside it, is not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingest.formats.proprio import moving_dimensions

FEWEST, MOST = 3, 24  # successful runs that are needed, and that are looked at
POINTS = 400  # frames of a run that are compared: of a longer one every second, every third ...
ALIKE = 0.1  # of a dimension's spread that is no difference, however alike the successful runs are
AWAY = 2.0  # and the root of the dimensions, in standard deviations: as rare of normal points as 3 are of numbers


@dataclass(frozen=True)
class Reached:
    """The run was at its end, or when it left the ways of successful runs, as far as run `run` at frame `frame`."""

    run: int
    frame: int
    left: int | None  # first frame away from all successful runs


@dataclass(frozen=True)
class Ways:
    """Successful runs of one task: `states` are [n, d] in standard deviations of how far the runs are apart."""

    runs: tuple[int, ...]
    states: tuple[np.ndarray, ...]  # of each `every`-th frame
    every: tuple[int, ...]
    moving: np.ndarray  # bool over the source's dimensions
    whiten: np.ndarray  # [d, d]: the moving ones of a state times this are in standard deviations


def ways(states: Sequence[np.ndarray | None]) -> Ways | None:
    """What successful runs have in common; None where too few have a state [n, d] that moves.

    How far they are apart is the covariance of what leads from each frame of one to the nearest frame of the others.
    """
    known = [(i, s) for i, s in enumerate(states) if s is not None]
    known = [(i, s) for i, s in known if s.shape[1] == known[0][1].shape[1]]
    if len(known) < FEWEST:
        return None
    chosen = [known[k] for k in some(len(known))]
    moving, spread = moving_dimensions(np.concatenate([s for _, s in chosen]))
    if not moving.any():
        return None
    every = tuple(_every(len(s)) for _, s in chosen)
    states = tuple(s[::k, moving] / spread[moving] for (_, s), k in zip(chosen, every, strict=True))
    apart = [_to_nearest(s, [o for k, o in enumerate(states) if k != i]) for i, s in enumerate(states)]
    off = np.concatenate(apart)
    covariance = off.T @ off / len(off) + ALIKE**2 * np.eye(off.shape[1])
    whiten = np.linalg.cholesky(np.linalg.inv(covariance))
    return Ways(
        tuple(i for i, _ in chosen), tuple(s @ whiten for s in states), every, moving, whiten / spread[moving][:, None]
    )


def some(n: int) -> list[int]:
    """Which of n runs are looked at: up to MOST of them, evenly."""
    return np.unique(np.linspace(0, n - 1, MOST).round().astype(int)).tolist()


def _every(n: int) -> int:
    return max(1, -(-n // POINTS))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances [n, m] of the rows of [n, d] and [m, d]."""
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))


def _to_nearest(a: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """From the nearest row of all the others [m, d] to each row of a [n, d]: float64 [n, d]."""
    off = a - np.stack([b[_distances(a, b).argmin(axis=1)] for b in others])
    return off[np.linalg.norm(off, axis=2).argmin(axis=0), np.arange(len(a))]


def reached(state: np.ndarray | None, of: Ways, *, strays: bool = True) -> Reached | None:
    """How far a run came, of its state [n, d]; None without a state like theirs, or where it was like none at any time.

    A run that began elsewhere and came to the ways of others has not left them. `strays`: False of a run that is known
    not to have gone astray: it never left them, however far from them it was.
    """
    if state is None or state.shape[1] != len(of.moving):
        return None
    every = _every(len(state))
    s = state[::every, of.moving] @ of.whiten
    apart = [_distances(s, w) for w in of.states]
    away = np.min([d.min(axis=1) for d in apart], axis=0) > AWAY + np.sqrt(s.shape[1])
    if not strays:
        away[:] = False
    if away.all():
        return None
    away[: int(np.argmin(away))] = False
    left = int(np.argmax(away)) if away.any() else None
    ends = [_warped(d[:left]) for d in apart]
    best = int(np.argmin([cost for cost, _ in ends]))
    return Reached(of.runs[best], ends[best][1] * of.every[best], None if left is None else left * every)


def _warped(distances: np.ndarray) -> tuple[float, int]:
    """Dynamic time warping of a whole run to a part of a way from its start, by their distances [n, m].

    Mean cost and last point of the part with the least cost, the shortest of equal ones.
    """
    total = np.cumsum(distances[0])
    for row in distances[1:]:
        before = np.minimum(total, np.r_[np.inf, total[:-1]])
        along = np.cumsum(row)
        total = along + np.minimum.accumulate(before - (along - row))
    last = int(np.argmin(total))
    return float(total[last]) / len(distances), last
