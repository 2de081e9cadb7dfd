"""How alike rows and pictures of a run are where rows are so many frames later: of the arm, and of a gripper's signal.

What is compared is how much pictures change and how fast the arm moves, each as the square root of
its share of what is fast, so that neither a cut nor a jerk decides. A gripper is looked at while
the arm stands still by the same rows: one that is late with all rows is told of the rows
(`lateness`).
"""

import numpy as np

from annotate.checkup.signals import RunSignals
from annotate.signal_lag import arm_is_still, compressed_curve, correlations

MAX_LAG_S = 1.2
MIN_LENGTHS, MIN_FRAMES = 2.2, 40  # times MAX_LAG_S, and frames: shorter runs tell nothing
MIN_GRIPPER_STEP = 0.02  # of the opening, in one frame of a run in which the gripper moves


def row_curve(run: RunSignals) -> np.ndarray | None:
    """Likeness of pictures and rows where rows are so many frames later, [2 * most + 1]; None where it tells nothing.

    The mean over the cameras that show any change.
    """
    max_lag = max_lag_frames(run.fps)
    if run.arm_speed is None or len(run) < max(MIN_LENGTHS * max_lag, MIN_FRAMES):
        return None
    arm_motion = compressed_curve(run.arm_speed)
    curves = [
        correlations(compressed_curve(change), arm_motion, max_lag)
        for change in _camera_changes(run)
    ]
    if curves:
        return np.mean(curves, axis=0)
    return None


def gripper_curves(run: RunSignals) -> tuple[np.ndarray | None, ...]:
    """For each gripper the likeness of what is seen while the arm stands still and of its moves, as `row_curve`."""
    return tuple(_gripper_curve(run, opening) for opening in run.openings)


def _gripper_curve(run: RunSignals, opening: np.ndarray | None) -> np.ndarray | None:
    max_lag = max_lag_frames(run.fps)
    if (
        opening is None
        or len(opening) != len(run)
        or len(run) < max(MIN_LENGTHS * max_lag, MIN_FRAMES)
    ):
        return None
    steps = np.abs(np.diff(opening, prepend=opening[0]))
    if steps.max() <= MIN_GRIPPER_STEP:
        return None
    gripper_motion = compressed_curve(steps, among=steps > 0, max_value=1.0)
    still = arm_is_still(run.arm_speed, len(run))
    if not still.any():
        return None
    curves = []
    for change in _camera_changes(run):
        picture_change = compressed_curve(change)
        above = np.maximum(0.0, picture_change - np.median(picture_change[still]))
        curves.append(correlations(np.where(still, above, 0.0), gripper_motion, max_lag))
    if curves:
        return np.mean(curves, axis=0)
    return None


def max_lag_frames(fps: float) -> int:
    """The largest lag that is looked at, in frames."""
    return max(3, round(MAX_LAG_S * fps))


def _camera_changes(run: RunSignals) -> list[np.ndarray]:
    """The visual change of each camera that shows any, float64 [n]; that of frame 0 is not known."""
    changes = [
        np.r_[camera.change[1:2], camera.change[1:]].astype(np.float64) for camera in run.cameras
    ]
    return [change for change in changes if change.std() > 0]
