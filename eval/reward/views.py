"""How what several cameras saw of one moment becomes one reward. Each was scored alone, as models are trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from eval.reward.scorer import Success, logit
from eval.reward.stream import RewardError, ViewRule

Source = Literal["head", "text", "change", "shown", "clock", "visual"]
WRIST = ("wrist", "hand", "gripper")  # what names of such cameras contain


@dataclass(frozen=True)
class Reward:
    """Of one moment: progress and the probability of the end state, both 0..1; None where there is none, and then
    `failure` says why. `success`: is the probability at the model's threshold? None where nothing was calibrated.

    Of several cameras, both are by the stream's rule over those that gave a number, and `cameras` has each one's
    progress.

    By shown runs: `about_s` is the second that is spoken of, `step` the planned step that is done then, from 0, and
    `spread` the standard deviation of progress; `unsure` says why the numbers are not to be relied on.
    """

    source: Source
    progress: float | None
    done: float | None = None
    success: bool | None = None
    reasoning: str | None = None
    failure: str | None = None
    cameras: Mapping[str, float | None] = field(default_factory=dict)
    about_s: float | None = None
    step: int | None = None
    step_name: str | None = None
    spread: float | None = None
    unsure: str | None = None


def is_wrist(camera: str) -> bool:
    return any(word in camera.lower() for word in WRIST)


def check_rule(rule: ViewRule, cameras: Sequence[str], success: Success | None) -> None:
    """Raises RewardError where a rule asks for what the cameras' names or the model do not have."""
    if len(cameras) == 1 or rule == "all":
        return
    if rule == "best" and success is None:
        raise RewardError("the rule `best` takes the surest camera, and this model is not calibrated: use `all`")
    if rule == "wrist" and len({is_wrist(c) for c in cameras}) < 2:
        raise RewardError(
            f"the rule `wrist` needs cameras of both kinds, one with {', '.join(WRIST)} in its name, not "
            f"{', '.join(cameras)}: use `all`"
        )


def together(rewards: Mapping[str, Reward], rule: ViewRule = "all", success: Success | None = None) -> Reward:
    """One reward of those of several cameras. A camera that failed is made up for by the others; the reward has failed
    only where all have."""
    # One camera: nothing to judge together, and the reward is as if the model had seen no other.
    if len(rewards) == 1:
        return next(iter(rewards.values()))
    valid = {c: r for c, r in rewards.items() if r.progress is not None}
    if valid:
        joined = _by_rule(valid, rule, success)
    else:
        failures = "; ".join(f"{camera}: {r.failure}" for camera, r in rewards.items())
        joined = Reward(next(iter(rewards.values())).source, None, failure=failures)
    reasoning = "\n".join(f"{camera}: {r.reasoning}" for camera, r in rewards.items() if r.reasoning)
    cameras = {camera: r.progress for camera, r in rewards.items()}
    return replace(joined, reasoning=reasoning or None, cameras=cameras)


def _by_rule(rewards: Mapping[str, Reward], rule: ViewRule, success: Success | None) -> Reward:
    every = list(rewards.values())
    if rule == "best" and success is not None:
        return max(every, key=lambda r: _sureness(r, success))
    scene, wrist = ([r for c, r in rewards.items() if is_wrist(c) is at_wrist] for at_wrist in (False, True))
    # A side that failed leaves the other to say what it can
    if rule == "wrist" and scene and wrist:
        done = [d for d in (_mean_of("done", scene), _mean_of("done", wrist)) if d is not None]
        return Reward(every[0].source, _mean_of("progress", scene), min(done, default=None))
    return Reward(every[0].source, _mean_of("progress", every), _mean_of("done", every))


def _sureness(reward: Reward, success: Success) -> float:
    """How far a camera's verdict is from the threshold, in logits."""
    raw = reward.done if success.of == "done" else reward.progress
    return 0.0 if raw is None else float(abs(logit(success.probability(raw)) - logit(success.threshold)))


def _mean_of(field: str, rewards: Sequence[Reward]) -> float | None:
    """Mean of the numbers that rewards have there; None where there is none."""
    numbers = [v for v in (getattr(r, field) for r in rewards) if v is not None]
    return float(np.mean(numbers)) if numbers else None
