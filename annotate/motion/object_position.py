"""Predict the object's position from the first picture: within a task, first pictures differ mainly in where it lies.

Learnt from successful runs: their first pictures, and the states of the arm in which they first acted on the object;
linear between the two. A failed run that never came near the predicted position has missed its object, however much it
moved like the successful runs. This needs a camera that stands still. Where pictures show nothing of the position,
successful runs are as far off as failed ones, and nothing follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ingest.signals.gripper import moving_dimensions

MIN_EXAMPLES = 7  # with fewer successful runs, a position that is only unusual looks like a wrong one
COMPONENTS = 2  # of the pictures: objects lie on a table, which has two dimensions
RIDGE = 0.3  # weight of the penalty that keeps the regression of few runs from following their noise
NEGLIGIBLE = 0.25  # standard deviations of the state: no difference, however near the successful runs come
MARGIN_PERCENTILE = 75  # of how near the successful runs come to their predicted positions
MARGIN_FACTOR = 2  # times that percentile: as far off a run may stay


@dataclass(frozen=True)
class PositionExample:
    """A successful run: its first picture [p], its states [n, d] and the frame at which it first acts on the object."""

    picture: np.ndarray
    state: np.ndarray
    contact: int


@dataclass(frozen=True)
class PositionModel:
    """`margin` is how far off a run may stay, in standard deviations of the moving dimensions."""

    pictures: np.ndarray  # [r, p]
    positions: np.ndarray  # [r, d]
    moving: np.ndarray
    scale: np.ndarray
    margin: float


def learn_positions(examples: Sequence[PositionExample]) -> PositionModel | None:
    """None where too few runs have pictures and states of one size, or where their arms do not move.

    The margin is twice the third quartile of how near each run comes to the position that the others predict for it.
    """
    examples = [e for e in examples if _sizes(e) == _sizes(examples[0])]
    if len(examples) < MIN_EXAMPLES:
        return None
    # Dimensions that stand still have no spread to measure distances in
    moving, spread = moving_dimensions(np.concatenate([e.state for e in examples]))
    if not moving.any():
        return None
    scale = spread[moving]
    pictures = np.array([e.picture for e in examples])
    positions = np.array([e.state[e.contact][moving] / scale for e in examples])

    # The margin is measured by leaving one out: a run's own example would predict it too well
    model = PositionModel(pictures, positions, moving, scale, NEGLIGIBLE)
    errors = _errors_of_others(examples, model)
    margin = max(NEGLIGIBLE, MARGIN_FACTOR * float(np.percentile(errors, MARGIN_PERCENTILE)))
    return replace(model, margin=margin)


def _errors_of_others(examples: Sequence[PositionExample], model: PositionModel) -> list[float]:
    """How near each run comes to the position that the other runs predict for it."""
    errors = []
    for i, example in enumerate(examples):
        others = np.arange(len(examples)) != i
        position = _predicted(model.pictures[others], model.positions[others], example.picture)
        errors.append(float(_distances(example.state, position, model.moving, model.scale).min()))
    return errors


def distances_to_object(picture: np.ndarray, state: np.ndarray, model: PositionModel) -> np.ndarray:
    """How far a run was at each frame from the position that its first picture predicts, float64 [n]."""
    position = _predicted(model.pictures, model.positions, picture)
    return _distances(state, position, model.moving, model.scale)


def _sizes(example: PositionExample) -> tuple[int, int]:
    return len(example.picture), example.state.shape[1]


def _distances(state: np.ndarray, position: np.ndarray, moving: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.linalg.norm(state[:, moving] / scale - position, axis=1)


def _predicted(pictures: np.ndarray, positions: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Ridge regression of positions [r, d] on the first principal components of pictures [r, p], at `picture`."""
    # Principal components of the pictures, each scaled to a standard deviation of 1
    mean_picture = pictures.mean(axis=0)
    _, _, axes = np.linalg.svd(pictures - mean_picture, full_matrices=False)
    components = (pictures - mean_picture) @ axes[:COMPONENTS].T
    size = components.std(axis=0) + 1e-9  # pictures that are all alike have components of size 0
    components = components / size
    here = (picture - mean_picture) @ axes[:COMPONENTS].T / size

    # Few runs and noisy pictures: the penalty draws the prediction to the mean position
    mean_position = positions.mean(axis=0)
    penalty = RIDGE * np.eye(components.shape[1])
    weights = np.linalg.solve(components.T @ components + penalty, components.T @ (positions - mean_position))
    return mean_position + here @ weights
