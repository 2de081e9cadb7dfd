"""State and gripper of an episode, from the vectors that its source gives."""

from collections.abc import Sequence

import numpy as np

from ingest.episode import RowsError
from ingest.registry import Gripper


def signals(
    state: np.ndarray | None,
    action: np.ndarray | None,
    config: Gripper | None,
    state_names: Sequence[str] = (),
    action_names: Sequence[str] = (),
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(state without its gripper [n, d], gripper opening [n]) as float64 from state and action [n, d].

    The gripper is where the registry says, else the dimensions named so, of the state before the action; the mean of
    several. In source units, or 0 (closed) to 1 (open) where the registry has the values of both. None for what the
    source has not. Raises RowsError for values that are not finite.
    """
    grip: np.ndarray | None = None
    rest = state
    for column, values, names in (("state", state, state_names), ("action", action, action_names)):
        if values is None or (found := _existing(gripper_dimensions(config, names, column), values)) == []:
            continue
        if column == "state":
            rest = np.delete(values, found, axis=1)
        if grip is None:
            grip = values[:, found].mean(axis=1)
    for name, values in (("state", rest), ("gripper", grip)):
        if values is not None and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0])
            raise RowsError(f"{name} is not a finite number in row {row}", "nan_state")
    if grip is not None and config and config.closed is not None and config.open is not None:
        grip = (grip - config.closed) / (config.open - config.closed)
    return rest, grip


def gripper_dimensions(config: Gripper | None, names: Sequence[str], column: str) -> list[int]:
    """Which dimensions of `state` or `action` are the gripper: as the registry says, else by name."""
    if config is None:
        return [i for i, n in enumerate(names) if "gripper" in n.lower()]
    if config.column != column:
        return []
    wanted = config.dimensions()
    return [d for d in wanted if isinstance(d, int)] + [i for i, n in enumerate(names) if n in wanted]


def _existing(dimensions: list[int], values: np.ndarray) -> list[int]:
    return [d for d in dimensions if -values.shape[1] <= d < values.shape[1]]


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
