"""Rewards without a model: what one gets without looking, or by looking at pixels only. Both know how the run ends."""

from collections.abc import Callable, Sequence

import numpy as np

from eval.reward.scorer import CameraView, Reward, Scorer
from eval.reward.stream import StreamPicture
from eval.reward.views import Source
from eval.reward.window import LAST_PICTURE, RewardError
from eval.runners.weightless import luma_grid, nearness


class BaselineScorer(Scorer):
    """The baseline of a name; looks at one view after the other. Raises RewardError."""

    def __init__(self, name: str) -> None:
        super().__init__(LAST_PICTURE)
        if name not in BASELINES:
            raise RewardError(f"there is no baseline {name!r}: {', '.join(BASELINES)}")
        self.source, self._one = name, BASELINES[name]
        self.settings = {"runner": "none", "answer": self.source}

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        return [self._one(v) for v in views]


def _clock(view: CameraView) -> Reward:
    """Elapsed share of the stream's `duration_s`, at most 1: order without understanding."""
    duration = view.stream.duration_s
    if duration is None:
        return Reward("clock", None, failure="the clock needs the run's duration_s")
    return Reward("clock", float(np.clip(view.moment.timestamp_s / max(duration, 1e-9), 0, 1)))


def _visual(view: CameraView) -> Reward:
    """How near the picture is to the stream's `goal`, beside the first picture."""
    goal = view.stream.goal.get(view.camera)
    if goal is None:
        return Reward("visual", None, failure=f"the visual distance needs a goal picture of {view.camera}")
    now, first = _seen(view.pictures[-1]), _seen(view.stream.first[view.camera])
    return Reward("visual", nearness(now, first, luma_grid(goal)))


def _seen(picture: StreamPicture) -> np.ndarray:
    if picture.seen is None:
        picture.seen = luma_grid(picture.rgb)
    return picture.seen


BASELINES: dict[Source, Callable[[CameraView], Reward]] = {"clock": _clock, "visual": _visual}
