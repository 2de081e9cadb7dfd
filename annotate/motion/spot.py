"""Where the arm should have gone, told by a run's first picture: pictures of one task differ by where things lie.

From successful runs: first pictures and the states in which the deed began, linear between them. A failed run that
never came near the spot its picture tells has missed its thing, however much it moved like the successful ones. Needs a
camera that stands still; where pictures tell nothing of the place, successful runs are as far off and nothing follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingest.formats.proprio import moving_dimensions

FEWEST = 7  # successful runs: with fewer, a place that is only unusual looks like a wrong one
COMPONENTS = 2  # of the pictures: things lie on a table
RIDGE = 0.3
ALIKE = 0.25  # standard deviations of the state that are no difference, however near the successful runs come


@dataclass(frozen=True)
class Run:
    """A successful run: its first picture [p], its states [n, d] and the frame at which the deed began."""

    picture: np.ndarray
    state: np.ndarray
    begins: int


@dataclass(frozen=True)
class Spots:
    """`usual` is how far off a run may stay, in standard deviations of the moving dimensions."""

    pictures: np.ndarray  # [r, p]
    places: np.ndarray  # [r, d]
    moving: np.ndarray
    scale: np.ndarray
    usual: float


def learn(runs: Sequence[Run]) -> Spots | None:
    """None where too few runs have pictures and states of one size.

    `usual` is twice the third quartile of how near each run comes to the spot that the others tell of it.
    """
    runs = [r for r in runs if (len(r.picture), r.state.shape[1]) == (len(runs[0].picture), runs[0].state.shape[1])]
    if len(runs) < FEWEST:
        return None
    moving, spread = moving_dimensions(np.concatenate([r.state for r in runs]))
    if not moving.any():
        return None
    scale = spread[moving]
    pictures = np.array([r.picture for r in runs])
    places = np.array([r.state[r.begins][moving] / scale for r in runs])
    missed = []
    for i, r in enumerate(runs):
        others = np.arange(len(runs)) != i
        spot = _told(pictures[others], places[others], r.picture)
        missed.append(float(_away(r.state, spot, moving, scale).min()))
    return Spots(pictures, places, moving, scale, max(ALIKE, 2 * float(np.percentile(missed, 75))))


def distances(picture: np.ndarray, state: np.ndarray, known: Spots) -> np.ndarray:
    """How far a run was from the spot its picture tells, at each frame, float64 [n]."""
    return _away(state, _told(known.pictures, known.places, picture), known.moving, known.scale)


def _away(state: np.ndarray, spot: np.ndarray, moving: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.linalg.norm(state[:, moving] / scale - spot, axis=1)


def _told(pictures: np.ndarray, places: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Ridge regression of places [r, d] on the first principal components of pictures [r, p], at `picture`."""
    middle = pictures.mean(axis=0)
    _, _, axes = np.linalg.svd(pictures - middle, full_matrices=False)
    shown = (pictures - middle) @ axes[:COMPONENTS].T
    size = shown.std(axis=0) + 1e-9
    shown, here = shown / size, (picture - middle) @ axes[:COMPONENTS].T / size
    weights = np.linalg.solve(
        shown.T @ shown + RIDGE * np.eye(shown.shape[1]), shown.T @ (places - places.mean(axis=0))
    )
    return places.mean(axis=0) + here @ weights
