"""Does a gripper hold its object? Decided by how far open it stays after it closed, compared with successful runs."""

from collections.abc import Sequence

import numpy as np

from annotate.motion.gripper_events import EMPTY_CLOSE_MARGIN, GripperCurve, GripperEvent, closings, next_opening

MIN_GRASPS = 3  # successful runs with a grasp; fewer do not show how far open a gripper stays on the object


def opening_on_last_close(events: Sequence[GripperEvent], grippers: Sequence[GripperCurve]) -> float | None:
    """How far open a gripper stayed after it closed for the last time; None where none ever closed."""
    closed = closings(events)
    if not closed:
        return None
    opening = next_opening(events, closed[-1])
    curve = grippers[closed[-1].arms[0]].opening
    opens = len(curve) if opening is None else opening.start
    return float(np.median(curve[closed[-1].end : max(opens, closed[-1].end + 1)]))


def holds_object(
    openings: Sequence[float | None], success: Sequence[bool | None], grippers: Sequence[GripperCurve]
) -> list[bool | None]:
    """For each run: does it hold what the successful ones hold? None where the gripper does not show it.

    `openings`: how far open each gripper stayed after its last close (`opening_on_last_close`). `grippers`: all of all
    runs, which show how far they open and close.

    - Within the margin of the successful runs' openings, the gripper holds the object. This counts only where some run
      of the task shows that the gripper can close further: one that closes as far on the object as on nothing does not
      show whether it holds anything.
    - A gripper that closed further, or hardly closed, does not hold it.

    Example: successful grippers stayed 0.5 open, and one failed one closed to 0.1. With openings of 1.0 before, the
    margin is 0.075: a failed run at 0.47 holds the object, those at 0.1 and 0.9 do not.
    """
    # Successful runs held their object when they closed for the last time: that is what holding looks like
    on_object = [opening for opening, ok in zip(openings, success, strict=True) if opening is not None and ok]
    if len(on_object) < MIN_GRASPS:
        return [None] * len(openings)
    least, most = min(on_object), max(on_object)

    # The margin is a share of the range between a gripper on the object and one that is wide open
    widest = max(float(gripper.opening.max()) for gripper in grippers)
    narrowest = min(float(gripper.opening.min()) for gripper in grippers)
    margin = EMPTY_CLOSE_MARGIN * (widest - least)
    can_close_further = narrowest < least - margin

    def holds(opening: float | None) -> bool | None:
        if opening is None:
            return None
        # Like the object, yet as far as it can close at all: that shows nothing either way
        as_on_object = least - margin <= opening <= most + margin
        return None if as_on_object and not can_close_further else as_on_object

    return list(map(holds, openings))
