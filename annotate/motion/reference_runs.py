"""How far a failed run came, by comparison with the successful runs of the same task: the reference runs.

A failed run came as far as a reference run was when the two were last alike in what the arm does (joints or hand pose).
Reference runs differ in some directions, since objects lie elsewhere in each, and hardly in others. Distances are in
standard deviations of these differences (Mahalanobis). A run that diverges from all reference runs, as one that misses
its object does, came no farther than to where it diverged. What the arm does not show, such as an object that slipped
away beside it, is not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingest.signals.gripper import moving_dimensions

MIN_REFERENCES = 3  # with fewer runs it is not known in what successful runs differ
MAX_REFERENCES = 24  # more runs make the comparison slow and show little that is new
MAX_POINTS = 400  # frames of a run that are compared: of a longer run every second, every third ...
NEGLIGIBLE = 0.1  # of a dimension's spread: no difference, however alike the reference runs are
DIVERGED = 2.0  # and the root of the dimensions, in standard deviations: as rare of normal points as 3 are of numbers


@dataclass(frozen=True)
class ReferenceMatch:
    """At its end, or where it diverged, a failed run was as far as reference run `run` was at frame `frame`."""

    run: int  # position among the runs that are compared
    frame: int
    diverged_at: int | None  # first frame of the failed run away from all reference runs; None: it never was


@dataclass(frozen=True)
class ReferenceRuns:
    """Successful runs of one task: `states` are [n, d] in standard deviations of how far the runs are apart."""

    runs: tuple[int, ...]  # their positions among the runs that are compared
    states: tuple[np.ndarray, ...]  # of each `strides`-th frame
    strides: tuple[int, ...]
    moving: np.ndarray  # bool over the source's dimensions
    whiten: np.ndarray  # [d, d]: the moving dimensions of a state times this are in standard deviations


def learn_references(states: Sequence[np.ndarray | None]) -> ReferenceRuns | None:
    """What successful runs have in common; None where too few have a state [n, d] that moves.

    How far they are apart is the covariance of what leads from each frame of one to the nearest frame of the others.
    """
    usable = _of_one_size(states)
    if len(usable) < MIN_REFERENCES:
        return None
    positions = list(usable)
    runs = tuple(positions[k] for k in evenly_chosen(len(positions)))
    chosen = [usable[run] for run in runs]
    moving, spread = moving_dimensions(np.concatenate(chosen))
    if not moving.any():
        return None

    # States that are compared: some frames of each run, in units of each dimension's spread
    strides = tuple(_stride(len(state)) for state in chosen)
    scaled = [state[::stride, moving] / spread[moving] for state, stride in zip(chosen, strides, strict=True)]

    # In standard deviations of how the runs differ
    whiten = _whitening(scaled)
    whitened = tuple(state @ whiten for state in scaled)
    return ReferenceRuns(runs, whitened, strides, moving, whiten / spread[moving][:, None])


def _of_one_size(states: Sequence[np.ndarray | None]) -> dict[int, np.ndarray]:
    """The states, by position, that have as many dimensions as the first one."""
    present = {i: state for i, state in enumerate(states) if state is not None}
    if not present:
        return {}
    _, dimensions = next(iter(present.values())).shape
    return {i: state for i, state in present.items() if state.shape[1] == dimensions}


def _whitening(states: Sequence[np.ndarray]) -> np.ndarray:
    """The matrix [d, d] that turns states [n, d] into standard deviations of how the runs differ from one another."""
    differences = []
    for i, state in enumerate(states):
        others = [*states[:i], *states[i + 1 :]]
        differences.append(_to_nearest(state, others))
    difference = np.concatenate(differences)
    floor = NEGLIGIBLE**2 * np.eye(difference.shape[1])
    covariance = difference.T @ difference / len(difference) + floor
    return np.linalg.cholesky(np.linalg.inv(covariance))


def evenly_chosen(n: int) -> list[int]:
    """Which of n runs are looked at: up to MAX_REFERENCES of them, evenly.

    Example: all of 3 runs; of 100 runs the first, the last and 22 between them.
    """
    return np.unique(np.linspace(0, n - 1, MAX_REFERENCES).round().astype(int)).tolist()


def _stride(num_frames: int) -> int:
    """Every how many frames a run is compared: 1 up to MAX_POINTS frames, then 2, 3 ..."""
    return max(1, -(-num_frames // MAX_POINTS))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances [n, m] of the rows of [n, d] and [m, d]."""
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))


def _to_nearest(state: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """From the nearest row of all the others [m, d] to each row of a state [n, d]: float64 [n, d]."""
    nearest_of_each = np.stack([other[_distances(state, other).argmin(axis=1)] for other in others])
    differences = state - nearest_of_each  # [others, n, d]
    nearest = np.linalg.norm(differences, axis=2).argmin(axis=0)
    return differences[nearest, np.arange(len(state))]


def match(state: np.ndarray | None, references: ReferenceRuns, *, may_diverge: bool = True) -> ReferenceMatch | None:
    """How far a run came, by its state [n, d].

    None without a state like the references', or where the run was like none of them at any time. A run that began
    elsewhere and came to the references' ways has not diverged. `may_diverge`: False for a run that is known to have
    done the right thing; however far from the references it was, it did not diverge.
    """
    if state is None or state.shape[1] != len(references.moving):
        return None
    # The run is compared in the references' units; frames are counted in strides from here on
    stride = _stride(len(state))
    whitened = state[::stride, references.moving] @ references.whiten
    distances = [_distances(whitened, reference) for reference in references.states]

    # Frames at which the run is away from all references, not counting those before it first comes to one
    away = _away(distances, whitened.shape[1])
    if not may_diverge:
        away[:] = False
    if away.all():
        return None
    away[: int(np.argmin(away))] = False
    diverged = int(np.argmax(away)) if away.any() else None

    # The reference that the run is most like up to there, and the frame that it ends at
    best, last_point = _most_alike([to_one[:diverged] for to_one in distances])
    diverged_at = None if diverged is None else diverged * stride
    return ReferenceMatch(references.runs[best], last_point * references.strides[best], diverged_at)


def _away(distances: Sequence[np.ndarray], num_dimensions: int) -> np.ndarray:
    """Where a run is away from all references, bool [n], by its distances [n, m] to each."""
    nearest = np.min([to_one.min(axis=1) for to_one in distances], axis=0)
    return nearest > DIVERGED + np.sqrt(num_dimensions)


def _most_alike(distances: Sequence[np.ndarray]) -> tuple[int, int]:
    """The reference that a run is most like, and the last point of its part, by the distances [n, m] to each."""
    ends = [_warped(to_one) for to_one in distances]
    best = int(np.argmin([cost for cost, _ in ends]))
    _, last_point = ends[best]
    return best, last_point


def _warped(distances: np.ndarray) -> tuple[float, int]:
    """Dynamic time warping of a whole run to a part of a reference from its start, by their distances [n, m].

    Returns the mean cost and the last point of the part with the least cost, the shortest of equal ones.

    Example: the distances of a run that stands where the reference is at points 0, 1 and 1 are
    [[0, 1, 2], [1, 0, 1], [1, 0, 1]]; the run ends at point 1 with cost 0.
    """
    # total[j]: least cost of warping the frames so far to the points 0..j. At each frame the warping either comes from
    # the frame before (at the same point or the one before it), or goes along the points of the reference.
    total = np.cumsum(distances[0])
    for row in distances[1:]:
        from_before = np.minimum(total, np.r_[np.inf, total[:-1]])
        along = np.cumsum(row)
        total = along + np.minimum.accumulate(from_before - (along - row))
    last = int(np.argmin(total))
    return float(total[last]) / len(distances), last
