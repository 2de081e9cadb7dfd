"""What the checkup sees of one run: its rows, its text and outcome, and what was measured of each camera's pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np

from annotate.pictures import Measures
from annotate.signal_lag import FAST_PERCENTILE, percentile
from ingest.episode import EpisodeData, StoredStatistics
from ingest.signals.gripper import GripperSignal, way_steps

MOVING = 0.25  # of its fast speed: an arm that is faster moves


@dataclass(frozen=True)
class CameraSignals(Measures):
    """What was measured of the pictures of one camera of a run."""

    camera: str


@dataclass(frozen=True)
class RunSignals:
    """One run with n frames.

    state, action: float64 [n, d] in the source's units, None where there is none. times_s: [n].
    openings: of each gripper [n], 0 closed to 1 open, or None. grippers: the signals that they are
    of. cameras: the usable ones, the preferred one first. statistics: what the source states of the
    values.
    """

    episode_index: int
    fps: float
    task: str | None
    success: bool | None
    times_s: np.ndarray | None
    state: np.ndarray | None
    action: np.ndarray | None
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    grippers: Sequence[GripperSignal]
    openings: Sequence[np.ndarray | None]
    cameras: Sequence[CameraSignals] = field(default=())
    statistics: Sequence[StoredStatistics] = ()

    def __len__(self) -> int:
        return len(self.cameras[0].change)

    def arm_dimensions(self, column: str) -> list[int]:
        """Dimensions of state or action that belong to no gripper or hand."""
        values: np.ndarray | None = getattr(self, column)
        if values is None:
            return []
        of_column = (signal for signal in self.grippers if signal.column == column)
        gripper_dimensions = set(chain.from_iterable(signal.dimensions for signal in of_column))
        return [d for d in range(values.shape[1]) if d not in gripper_dimensions]

    def title(self, column: str, dimension: int) -> str:
        """Such as "state[3] shoulder"."""
        names: tuple[str, ...] = getattr(self, f"{column}_names")
        name = names[dimension] if dimension < len(names) else ""
        if name != f"{column}[{dimension}]":
            return f"{column}[{dimension}] {name}".strip()
        return name

    @cached_property
    def arm_speed(self) -> np.ndarray | None:
        """How fast the arm moves from the frame before, [n], in standard deviations a frame; None where it does not.

        0 at frame 0, unlike in `signal_lag.arm_speed`: of short runs one frame more decides how
        late they seem.
        """
        if self.state is None or len(self.state) != len(self) or len(self) < 2:
            return None
        arm = self.state[:, self.arm_dimensions("state")]
        steps = None if np.isinf(arm).any() else way_steps(arm)
        if steps is None:
            return None
        return np.r_[0.0, steps]

    @cached_property
    def fast_speed(self) -> float:
        """What is fast of `arm_speed`; 0 where there is none."""
        return 0.0 if self.arm_speed is None else percentile(self.arm_speed, FAST_PERCENTILE)

    @cached_property
    def arm_moves(self) -> np.ndarray | None:
        """Does the arm move at each frame? bool [n]; None where there is no state that tells."""
        if self.arm_speed is None:
            return None
        return is_moving(self.arm_speed)


def is_moving(speed: np.ndarray) -> np.ndarray:
    """Frames at which a speed [n] is beyond a share of its fast one, bool [n]."""
    fast = percentile(speed, FAST_PERCENTILE)
    if fast > 0:
        return speed > MOVING * fast
    return np.zeros(len(speed), bool)


def run_signals(
    episode: EpisodeData,
    fps: float,
    grippers: Sequence[GripperSignal],
    openings: Sequence[np.ndarray | None],
    cameras: Sequence[CameraSignals],
) -> RunSignals:
    """What is known of a run once it was decoded."""
    record = episode.record
    return RunSignals(
        record.episode_index,
        fps,
        record.task,
        record.success,
        episode.timestamps_s,
        episode.state,
        episode.action,
        episode.state_names,
        episode.action_names,
        grippers,
        openings,
        cameras,
        episode.statistics,
    )
