"""When a gripper closes and opens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from annotate.motion.config import MotionConfig

MIN_RANGE = 0.05  # in the gripper's unit (0..1 or metres): a gripper that moves less in the whole episode only trembles
REST_CHANGE = 0.02  # of the episode's range, from one frame to the next: a gripper that changes less is at rest
EMPTY_CLOSE_MARGIN = 0.15  # an empty gripper closes further than one holding an object, by this share of its range


@dataclass(frozen=True)
class GripperEvent:
    """One closing or opening of a gripper: from the last frame at rest before it to the first after it."""

    start: int
    end: int
    kind: Literal["close", "open"]


def gripper_events(gripper: np.ndarray, config: MotionConfig, fps: float) -> list[GripperEvent]:
    """Where a gripper closes or opens by at least `gripper_swing` of the episode's range within a second.

    `gripper` [n] is how far open it is, in any unit. Closings and openings take turns: of two in a row of one kind
    the first counts.

    Example: at 10 fps, the openings 1, 1, 0.5, 0, 0, 0 give one closing event from frame 1 to frame 3.
    """
    opening = np.asarray(gripper, np.float64)
    span = float(opening.max() - opening.min())
    if span < MIN_RANGE:
        return []
    opening = (opening - opening.min()) / span

    events: list[GripperEvent] = []
    second = max(1, round(fps))
    last = len(opening) - 1
    frame = 0
    while frame < last:
        # The largest change from this frame on within a second
        changes = opening[frame + 1 : frame + 1 + second] - opening[frame]
        largest = int(np.argmax(np.abs(changes)))
        if abs(changes[largest]) < config.gripper_swing:
            frame += 1
            continue

        # The event lasts from the last frame at rest before that change to the first frame at rest after it
        start, end = frame, frame + 1 + largest
        while end < last and abs(opening[end + 1] - opening[end]) > REST_CHANGE:
            end += 1
        while abs(opening[start + 1] - opening[start]) <= REST_CHANGE:
            start += 1

        kind = "close" if changes[largest] < 0 else "open"
        if not events or events[-1].kind != kind:
            events.append(GripperEvent(start, end, kind))
        frame = end
    return events


def edge_frames(config: MotionConfig, fps: float) -> int:
    """How many frames at the edge of a run, or before the end of its action, a gripper event is not believed in."""
    return max(1, round(config.turn_s * fps / 2))


def closings(events: Sequence[GripperEvent]) -> list[GripperEvent]:
    return [event for event in events if event.kind == "close"]
