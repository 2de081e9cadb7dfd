"""Does a hand hold its thing? Told by how far open its gripper stays once it has closed, beside successful runs."""

from collections.abc import Sequence

import numpy as np

from annotate.motion.carrying import SHUT, Swing

ENOUGH = 3  # successful runs that show how far open a gripper stays on the thing


def hold(swings: Sequence[Swing], gripper: np.ndarray | None) -> float | None:
    """How far open a gripper [n] was after it closed for the last time, in its unit; None where it never closed."""
    k = max((k for k, s in enumerate(swings) if s.kind == "close"), default=None)
    if k is None or gripper is None:
        return None
    closing = swings[k]
    over = swings[k + 1].start if k + 1 < len(swings) else len(gripper)
    return float(np.median(gripper[closing.end : max(over, closing.end + 1)]))


def holding(
    holds: Sequence[float | None], success: Sequence[bool | None], grippers: Sequence[np.ndarray | None]
) -> list[bool | None]:
    """Per run: does it hold what the successful ones hold? True, False, or None where the gripper does not tell.

    It holds the thing when its gripper stayed as far open as on it, and does not when it closed farther or hardly
    closed. True only where some run of the task shows that a gripper can close farther: one that closes as far on the
    thing as on nothing tells nothing.
    """
    levels = [h for h, ok in zip(holds, success, strict=True) if h is not None and ok]
    if len(levels) < ENOUGH:
        return [None] * len(holds)
    known = [g for g in grippers if g is not None]
    low, high = min(levels), max(levels)
    apart = SHUT * (max(float(g.max()) for g in known) - low)
    tells = min(float(g.min()) for g in known) < low - apart
    found: list[bool | None] = []
    for h in holds:
        on_thing = None if h is None else low - apart <= h <= high + apart
        found.append(None if on_thing and not tells else on_thing)
    return found
