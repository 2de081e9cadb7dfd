"""Rewards by a few reference runs: another run is laid beside them as it goes on, without any training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from annotate.alignment.engine import HZ
from annotate.alignment.live import Following, Guide, Where
from annotate.embeddings.projection import Encoder
from eval.reward.laptop import encode_pictures
from eval.reward.scorer import CameraView, Reward, Scorer
from eval.reward.stream import LAST_PICTURE, Moment, RewardError, Robot, Stream
from ingest.signals.gripper import GripperSignal, combined

HOLD_S = 0.5
SURE_END = 0.8  # probability of the end, from which on a moment is one at the end
MOST_SPREAD = 0.2  # of progress: what shown episodes say so differently is unsure
UNLIKE = "the picture is unlike everything shown"
APART = "what is shown says different things"

# So far apart, of its range, is an opening at the same moment of two runs: what live rewards were measured with
GRIPPER = 0.15
HAND = 0.3


@dataclass
class FollowedRun:
    """A stream beside the guide, a moment of it every_s. since_s: from when on it has surely been at the end."""

    following: Following
    every_s: float = 1 / HZ
    since_s: float = math.inf

    def has_held(self, place: Where, is_sure: bool) -> float:
        """For how many seconds it is at the end in one go, never while unsure; -1: it is not."""
        if not is_sure or place.at_end < SURE_END:
            self.since_s = math.inf
            return -1.0
        self.since_s = min(self.since_s, place.about_s)
        return place.about_s - self.since_s + self.every_s


class ReferenceScorer(Scorer):
    """`guide`: what is shown, as `encoder` sees it by `cameras`. lag: seconds by which numbers speak later of a moment,
    and are nearer to it. hold_s: so long a run has to be at the end in one go before it counts as done. grippers: of
    the robot, where they are compared."""

    source = "shown"
    usual_fps = HZ
    follows = True

    def __init__(
        self,
        guide: Guide,
        encoder: Encoder,
        cameras: Sequence[str],
        lag: float = 0.0,
        hold_s: float = HOLD_S,
        grippers: tuple[GripperSignal, ...] = (),
    ) -> None:
        super().__init__(LAST_PICTURE)
        self.guide = guide
        self.encoder = encoder
        self.cameras = tuple(cameras)
        self.grippers = grippers
        self.lag = lag
        self.hold_s = hold_s
        self.settings: Mapping[str, object] = {
            "runner": "shown",
            "answer": "shown",
            "shown": [s.name for s in guide.references],
            "encoder": encoder.title,
            "cameras": list(self.cameras),
            "lag": lag,
            "hold_s": hold_s,
        }

    def stream(self, task: str, fps: float, steps: Sequence[str] = (), **options: Any) -> Stream:
        """Raises RewardError, also for a run of other cameras."""
        stream = super().stream(task, fps, (), **options)
        # A run of one camera need not name it as the dataset does
        if stream.cameras != self.cameras and not len(stream.cameras) == len(self.cameras) == 1:
            raise RewardError(
                f"the run is of {', '.join(stream.cameras)}, and what is shown of {', '.join(self.cameras)}: give the "
                "same cameras in the same order"
            )
        stream.state = FollowedRun(Following(self.guide, round(self.lag * HZ)), 1 / max(fps, HZ))
        stream.read = lambda robot: openings_of(self.grippers, robot)
        return stream

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        """Cameras are looked at together: the reward of each view's moment."""
        return self.score([v.moment for v in views])

    def score(self, moments: Sequence[Moment]) -> list[Reward]:
        views = chain.from_iterable(moment.views.values() for moment in moments)
        encode_pictures(self.encoder, chain.from_iterable(views))
        return [self._reward(m) for m in moments]

    def _reward(self, moment: Moment) -> Reward:
        run: FollowedRun = moment.stream.state
        embeddings = [pictures[-1].seen for pictures in moment.views.values()]
        place = run.following.see(embeddings, moment.timestamp_s, moment.robot)
        if place.is_strange:
            unsure = UNLIKE
        elif place.spread > MOST_SPREAD:
            unsure = APART
        else:
            unsure = None
        success = run.has_held(place, unsure is None) >= self.hold_s
        if place.is_strange:
            return Reward(
                "shown", None, success=False, failure=UNLIKE, about_s=place.about_s, unsure=UNLIKE
            )
        return Reward(
            "shown",
            place.progress,
            place.at_end,
            success=success,
            about_s=place.about_s,
            step=place.step,
            step_name=place.step_name or None,
            spread=place.spread,
            unsure=unsure,
        )


def openings_of(grippers: Sequence[GripperSignal], robot: Robot) -> np.ndarray | None:
    """How open the grippers are, float64 [grippers], in the unit of `ReferenceRun.openings`; None where there are none,
    or the robot's row that tells them is not given. Raises RewardError."""
    if not grippers or not {g.column for g in grippers} <= robot.keys():
        return None
    return np.array([_opening(g, np.asarray(robot[g.column], np.float64)) for g in grippers])


def _opening(gripper: GripperSignal, row: np.ndarray) -> float:
    min_length = max(gripper.dimensions) + 1
    if (
        row.ndim != 1
        or len(row) < min_length
        or not np.isfinite(row[list(gripper.dimensions)]).all()
    ):
        raise RewardError(
            f"the robot's {gripper.column} is {min_length} finite numbers or more, as the dataset of what is "
            "shown has it, "
            f"not {row.tolist()}"
        )
    opened = float(combined(gripper, row[None])[0] - gripper.closed) / (
        gripper.open - gripper.closed
    )
    return min(max(opened, 0.0), 1.0) / (HAND if gripper.kind == "hand" else GRIPPER)
