"""What annotators know of one episode: its signals, frame by frame, and small pictures of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GripperCurve:
    """The gripper or hand of one arm over an episode.

    opening: [n], 0 (closed) to 1 (open) of its range over the dataset. Without a polarity 0 and 1 may be exchanged.
    """

    opening: np.ndarray
    has_polarity: bool = True
    is_hand: bool = False


@dataclass(frozen=True)
class Signals:
    """Signals of one episode; arrays [n], None if the source has no such measurement.

    pictures: of each camera, in the same order in all episodes of a task, the frames int64 [k], rising, and what they
    show, float32 [k, d]; None of a camera that this episode lacks.
    """

    fps: float
    change: np.ndarray
    speed: np.ndarray | None
    grippers: Sequence[GripperCurve] = ()
    success: bool | None = None
    task: str | None = None
    state: np.ndarray | None = None  # [n, d]
    episode_index: int = 0
    pictures: tuple[tuple[np.ndarray, np.ndarray] | None, ...] = ()

    def __len__(self) -> int:
        return len(self.change)
