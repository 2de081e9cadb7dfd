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
    # The state comes before the action: what the gripper did counts before what it was told
    in_state = _gripper_dimensions(config, state_names, "state", state)
    in_action = _gripper_dimensions(config, action_names, "action", action)
    rest, grip = state, None
    if state is not None and in_state:
        rest = np.delete(state, in_state, axis=1)
        grip = state[:, in_state].mean(axis=1)
    elif action is not None and in_action:
        grip = action[:, in_action].mean(axis=1)

    # One value that is no number would spoil every measure of motion made from it
    _check_finite("state", rest)
    _check_finite("gripper", grip)
    # To 0 (closed) .. 1 (open), where the registry has the values of both ends
    if grip is not None and config and config.closed is not None and config.open is not None:
        grip = (grip - config.closed) / (config.open - config.closed)
    return rest, grip


def _check_finite(name: str, values: np.ndarray | None) -> None:
    """Raises RowsError, which names the first row with a value that is not finite."""
    if values is not None and not np.isfinite(values).all():
        is_finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        raise RowsError(f"{name} is not a finite number in row {int(np.argmin(is_finite))}", "nan_state")


def _gripper_dimensions(
    config: Gripper | None, names: Sequence[str], column: str, values: np.ndarray | None
) -> list[int]:
    """Which dimensions of `state` or `action` [n, d] are the gripper: as the registry says, else by name."""
    if values is None or (config is not None and config.column != column):
        return []
    # An entry may be of a robot with more dimensions than this episode has
    width = values.shape[1]
    return [d for d in _stated_dimensions(config, names) if -width <= d < width]


def _stated_dimensions(config: Gripper | None, names: Sequence[str]) -> list[int]:
    """Those that the registry gives by number, then those by name; without an entry those with the word in their name.

    Example: without an entry, the names "x", "left_gripper" and "y" give [1].
    """
    if config is None:
        return [i for i, name in enumerate(names) if "gripper" in name.lower()]
    registered = config.dimensions()
    by_number = [d for d in registered if isinstance(d, int)]
    by_name = [i for i, name in enumerate(names) if name in registered]
    return [*by_number, *by_name]


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
