"""Moments at which an arm begins to do something else: it turns, or it slows down between two faster stretches."""

import numpy as np

from annotate.motion.config import MotionConfig

FAST_PERCENTILE = 90  # of the speeds of a run: an arm's fast speed, which single jumps do not reach


def turns(state: np.ndarray, config: MotionConfig, fps: float) -> list[int]:
    """Frames at which the arm changes its direction most, in time; `state` [n, d] is in the source's units.

    A turn is larger than `turn` and the largest within `turn_s` (`turn_sizes`).
    """
    n = len(state)
    window = _window(config, fps)
    if n <= window:
        return []
    sizes = turn_sizes(state, config, fps)

    def is_largest_nearby(frame: int) -> bool:
        return sizes[frame] == sizes[max(0, frame - window) : frame + window + 1].max()

    inner = range(window // 2, n - window // 2)
    return [frame for frame in inner if sizes[frame] > config.turn and is_largest_nearby(frame)]


def turn_sizes(state: np.ndarray, config: MotionConfig, fps: float) -> np.ndarray:
    """How much an arm turns at each frame, float64 [n]; `state` [n, d], n at least 2, is in the source's units.

    Let a and b be its displacements in the `turn_s` before and after a frame. The size of a turn is (1 - cos) / 2 of
    the angle between them, times the length of the shorter one over what a fast arm covers in that time.

    Example: an arm that goes straight back at full speed makes a turn of 1, at a right angle one of 0.5.
    """
    n = len(state)
    window = _window(config, fps)
    speeds = np.linalg.norm(np.diff(state, axis=0), axis=1)
    fast_way = float(np.percentile(speeds, FAST_PERCENTILE)) * window

    # The displacements to each frame and from it, [n, d]; at the edges of the run they are shorter
    frames = np.arange(n)
    before = state - state[np.maximum(0, frames - window)]
    after = state[np.minimum(n - 1, frames + window)] - state
    before_length, after_length = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)

    # The floors keep an arm that stands still from a division by zero
    cosine = (before * after).sum(axis=1) / np.maximum(before_length * after_length, 1e-12)
    return (1 - cosine) / 2 * np.minimum(before_length, after_length) / max(fast_way, 1e-12)


def _window(config: MotionConfig, fps: float) -> int:
    return max(2, round(config.turn_s * fps))


def speed_dips(activity: np.ndarray, config: MotionConfig, shortest: int) -> list[int]:
    """Frames where the motion slows down between two faster stretches, the deepest first.

    `activity` [n] is how fast the arm moves, `shortest` the least number of frames of a step.
    """
    n = len(activity)
    dips = []
    for frame in range(shortest, n - shortest):
        # A dip is the slowest frame within a step's length, and slow beside what the arm does on either side of it
        nearby = activity[max(0, frame - shortest) : frame + shortest + 1]
        fastest_before = activity[max(0, frame - 2 * shortest) : frame].max()
        fastest_after = activity[frame : frame + 2 * shortest].max()
        is_slow = activity[frame] < config.slow_speed * min(fastest_before, fastest_after)
        if activity[frame] == nearby.min() and is_slow:
            dips.append(frame)
    return sorted(dips, key=lambda frame: activity[frame])
