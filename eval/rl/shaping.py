"""From progress to reward: what an agent gets for the step from one state to the next.

The first difference counts from the picture that reset() gave. A step without an estimate gives 0, and the next
difference is taken from the last estimate: a sum over an episode is always its last estimate less its first one.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["delta", "ema", "potential"]


@dataclass(frozen=True)
class Shaping:
    """How progress becomes a reward.

    - `delta`: r_t = clip(p_t - p_(t-1), -clip, clip), with the clip of 0.2 that RLinf's recipe for ProcVLM uses; one
      wrong estimate costs at most twice the clip, and then the sum above no longer holds.
    - `ema`: the same of smoothed progress e_t = smoothing * p_t + (1 - smoothing) * e_(t-1), e_0 = p_0 (exponential
      moving average; RLinf's recipe has 0.6).
    - `potential`: r_t = gamma * p_t - p_(t-1) (Ng, Harada, Russell 1999: policies that are optimal with it are optimal
      without it, if gamma is the agent's own). A state that ends the episode for good has potential 0 (Grzes 2017);
      where the time limit ends it the estimate stays, since the agent bootstraps there. After k - 1 steps without an
      estimate it is gamma * p_t - p_(t-k) / gamma^(k-1), so that the discounted sum stays right.
    """

    kind: Kind = "delta"
    clip: float = 0.2
    smoothing: float = 0.6
    gamma: float = 0.99

    def __post_init__(self) -> None:
        if not (self.clip > 0 and 0 < self.smoothing <= 1 and 0 < self.gamma <= 1):
            raise ValueError("clip must be above 0; smoothing and gamma above 0 and at most 1")


class Shaper:
    """One episode's progress turned into rewards, step by step."""

    def __init__(self, shaping: Shaping) -> None:
        self.shaping = shaping
        self._last: float | None = None  # progress or its average, as of the last estimate
        self._gap = 0  # steps since

    def reset(self, progress: float | None) -> None:
        """A new episode; the estimate for its first picture."""
        self._last = progress
        self._gap = 0

    def step(self, progress: float | None, terminated: bool = False) -> float:
        """The reward of one step, for the estimate after it; None for a picture without one."""
        s = self.shaping
        self._gap += 1
        if s.kind == "potential" and terminated:
            progress = 0.0
        if progress is None:
            return 0.0
        if self._last is None:
            self._last = progress
            self._gap = 0
            return 0.0
        last = self._last
        if s.kind == "potential":
            reward = s.gamma * progress - last / s.gamma ** (self._gap - 1)
        else:
            if s.kind == "ema":
                progress = s.smoothing * progress + (1 - s.smoothing) * last
            reward = min(max(progress - last, -s.clip), s.clip)
        self._last = progress
        self._gap = 0
        return reward
