"""How alike rows and pictures of a run are where rows are so many frames later.

What is compared is how much pictures change and how fast the arm moves, each as the square root of
its share of what is fast, so that neither a cut nor a jerk decides.
"""

import numpy as np

from annotate.checkup.signals import RunSignals
from annotate.signal_lag import compressed_curve, correlations

MAX_LAG_S = 1.2
MIN_LENGTHS, MIN_FRAMES = 2.2, 40  # times MAX_LAG_S, and frames: shorter runs tell nothing


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


def max_lag_frames(fps: float) -> int:
    """The largest lag that is looked at, in frames."""
    return max(3, round(MAX_LAG_S * fps))


def _camera_changes(run: RunSignals) -> list[np.ndarray]:
    """The visual change of each camera that shows any, float64 [n]; that of frame 0 is not known."""
    changes = [
        np.r_[camera.change[1:2], camera.change[1:]].astype(np.float64) for camera in run.cameras
    ]
    return [change for change in changes if change.std() > 0]
