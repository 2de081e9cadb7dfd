"""Rewards of a live run by a scorer in this process: what `eval.server.client.RewardSession` is with a server."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from eval.reward.scorer import Reward, Scorer
from eval.reward.stream import Robot


class LocalSession:
    """A run scored frame by frame. `more` are fields of Stream, such as duration_s and goal for the baselines."""

    def __init__(
        self,
        scorer: Scorer,
        task: str,
        fps: float,
        cameras: Sequence[str] = ("camera",),
        **options: Any,
    ) -> None:
        """Raises RewardError."""
        self.scorer = scorer
        self.stream = scorer.stream(task, fps, cameras=tuple(cameras), **options)

    def append(
        self, frame: np.ndarray | Mapping[str, np.ndarray], robot: Robot = MappingProxyType({})
    ) -> Reward:
        """The reward of the next moment: uint8 [h, w, 3], or one per camera. Raises RewardError."""
        pictures = frame if isinstance(frame, Mapping) else {self.stream.cameras[0]: frame}
        moment = self.stream.append(pictures, robot=robot)
        assert moment is not None  # without score_fps, each is scored
        return self.scorer.score([moment])[0]

    def close(self) -> None:
        """Nothing: for use in place of a server's session."""
