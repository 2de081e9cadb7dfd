"""Attempts to hold something, as a gripper or hand shows them: each closing, and the opening after it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from annotate.motion.config import MotionConfig
from annotate.signals import GripperCurve

MIN_RANGE = 0.1  # of the dataset's range: a gripper that moves less in the whole episode only trembles
MOVING_SHARE = 0.25  # of a move's highest speed: it begins and ends where the gripper is slower
TOGETHER_S = 3.0  # two hands that close within this time act on one thing


@dataclass(frozen=True)
class Attempt:
    """One closing, and the opening after it; frames.

    closes, closed: the last frame before the gripper closes, the first at which it has. opens, opened: the same of its
    opening; None where it never opens again.
    """

    closes: int
    closed: int
    opens: int | None = None
    opened: int | None = None


def attempts(grippers: Sequence[GripperCurve], config: MotionConfig, fps: float) -> list[Attempt]:
    """The attempts of all grippers whose polarity is known, in time; two hands that act on one thing are one."""
    found: list[tuple[int, Attempt]] = []
    for arm, gripper in enumerate(grippers):
        if gripper.has_polarity:
            found += [(arm, attempt) for attempt in _of_gripper(gripper, config, fps)]
    joined: list[tuple[int, Attempt]] = []
    for arm, attempt in sorted(found, key=lambda item: item[1].closed):
        last = joined[-1] if joined else None
        if last is None or last[0] == arm or not _act_together(last[1], attempt, fps):
            joined.append((arm, attempt))
        else:
            joined[-1] = last[0], _together(last[1], attempt)
    return [attempt for _, attempt in joined]


def _of_gripper(gripper: GripperCurve, config: MotionConfig, fps: float) -> list[Attempt]:
    found: list[Attempt] = []
    for start, end, closes in gripper_moves(gripper.opening, config, fps):
        is_closed = bool(found) and found[-1].opens is None
        if closes and not is_closed:
            found.append(Attempt(start, end))
        elif not closes and is_closed:
            found[-1] = replace(found[-1], opens=start, opened=end)
    return found


def _act_together(first: Attempt, second: Attempt, fps: float) -> bool:
    is_held = first.opens is None or second.closed < first.opens
    return is_held and second.closed - first.closed <= TOGETHER_S * fps


def _together(first: Attempt, second: Attempt) -> Attempt:
    """Both hands hold when the second has closed, and no more when the first begins to open."""
    opens = [a.opens for a in (first, second) if a.opens is not None]
    opened = [a.opened for a in (first, second) if a.opened is not None]
    return Attempt(
        min(first.closes, second.closes),
        max(first.closed, second.closed),
        min(opens, default=None),
        max(opened, default=None),
    )


def gripper_moves(opening: np.ndarray, config: MotionConfig, fps: float) -> list[tuple[int, int, bool]]:
    """Moves by at least `gripper_swing` of the episode's range, in time: last frame before, first after, closes?

    A hand that slowly yields while it holds has not opened: a move is where the gripper is fast.

    Example: at 10 fps, the openings 1, 1, 0.5, 0, 0, 0 give one closing from frame 1 to frame 3.
    """
    low, high = float(np.min(opening)), float(np.max(opening))
    if high - low < MIN_RANGE:
        return []
    relative = (np.asarray(opening, np.float64) - low) / (high - low)
    window = max(1, round(config.smooth_s * fps))
    smooth = smoothed(relative, window)
    rises = np.diff(smooth, prepend=smooth[0])
    moves = []
    for first, last in pairwise(_extremes(relative, config.gripper_swing)):
        speed = np.maximum(0.0, rises * np.sign(relative[last] - relative[first]))
        fastest = int(speed[first + 1 : last + 1].argmax()) + first + 1
        is_slow = speed < MOVING_SHARE * speed[fastest]
        before = np.flatnonzero(is_slow[first + 1 : fastest])
        after = np.flatnonzero(is_slow[fastest + 1 : last + 1])
        start = first + 1 + int(before[-1]) if before.size else first
        end = fastest + int(after[0]) if after.size else last
        moves.append((start, end, bool(relative[last] < relative[first])))
    return moves


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average, float64 [n], the ends repeated."""
    padded = np.pad(np.asarray(values, np.float64), (window // 2, window - 1 - window // 2), mode="edge")
    return np.convolve(padded, np.ones(window) / window, mode="valid")


def _extremes(relative: np.ndarray, swing: float) -> list[int]:
    """Frames at which a signal [n] turns, such that it changes by `swing` or more from one to the next.

    The first is the start; the last is where the last such change ends.
    """
    turning = [0]
    best, direction = 0, 0  # the most extreme frame since the last turn, and which way the signal goes
    for frame, value in enumerate(relative):
        ahead = (value - relative[best]) * (direction or 1)
        if direction == 0:
            if abs(ahead) >= swing:
                best, direction = frame, 1 if ahead > 0 else -1
        elif ahead > 0:
            best = frame
        elif -ahead >= swing:
            turning.append(best)
            best, direction = frame, -direction
    return [*turning, best] if direction else turning
