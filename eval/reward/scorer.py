"""What scores moments of streams, many at a time: the one way to a reward, for videos, data sets and live sessions.

A number is the same however moments are put together, up to how a device's arithmetic depends on the shape of a batch:
within `TOLERANCE` in float32.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np

from annotate.pictures import fitted_picture
from eval.reward.stream import (
    LAST_PICTURE,
    Moment,
    RewardError,
    Stream,
    StreamPicture,
    ViewRule,
    Window,
    trained_families,
)
from training.pictures import shrink

TOLERANCE = 1e-5
NO_CARD: Mapping[str, Any] = MappingProxyType({})
Source = Literal["head", "text", "change", "shown", "clock", "visual"]
WRIST = ("wrist", "hand", "gripper")  # what names of such cameras contain
EPSILON = 1e-6  # a probability's distance from 0 and 1 where its logit is taken
RIDGE = 1e-6  # so that scores that are all equal have an answer
FLAT = 1e-9  # gradient of the loss per moment, at which it is smallest


# From a model's output to the probability that a run has reached its end state, and to a yes or no: Platt's, sigmoid(
# a s + b) of a score s, with a and b of the least cross entropy against labels that are drawn a little towards the
# middle, (n+ + 1) / (n+ + 2) and 1 / (n- + 2) (Platt 1999), so that separable scores have finite ones. The score is the
# logit of the head's own output, or progress where a model has no such output.


@dataclass(frozen=True)
class Success:
    """How a model's score becomes a probability, and from which one on a run counts as done.

    `of`: the head's own probability (its logit is taken), or progress itself. The rest says what it was calibrated on:
    moments at the end state and before it, and what the threshold reaches there.
    """

    of: Literal["done", "progress"]
    slope: float
    shift: float
    threshold: float
    balanced_accuracy: float
    reached: int
    unreached: int
    release: str = ""
    split: str = ""

    def probability(self, raw: float) -> float:
        """Of a head's probability or a progress, 0..1."""
        return float(_sigmoid(self.slope * _score(np.array([raw]), self.of) + self.shift)[0])

    def raw(self, reward: "Reward") -> float | None:
        """What the probability is of: what says done, else progress where the model has no output of its own for it."""
        if reward.done is None and self.of == "progress":
            return reward.progress
        return reward.done

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self | None:
        if card.get("success"):
            return cls(**card["success"])
        return None


def calibrate(
    raw: np.ndarray,
    reached: np.ndarray,
    source: Literal["done", "progress"],
    release: str = "",
    split: str = "",
) -> Success | None:
    """Calibrated on moments: a model's raw output [n] in 0..1, and whether the end state is reached [n]. None where
    there are only moments of one kind, which tell no threshold.

    The threshold is the one with the best balanced accuracy (mean of the shares of both kinds that are told right),
    half-way between the two probabilities beside it; of several such, the largest: a false success costs more.
    """
    reached = np.asarray(reached, bool)
    if reached.all() or not reached.any():
        return None
    score = _score(np.asarray(raw, np.float64), source)
    slope, shift = platt(score, reached)
    probability = _sigmoid(slope * score + shift)
    threshold, accuracy = best_threshold(probability, reached)
    return Success(
        source,
        slope,
        shift,
        threshold,
        accuracy,
        int(reached.sum()),
        int((~reached).sum()),
        release,
        split,
    )


def platt(score: np.ndarray, reached: np.ndarray) -> tuple[float, float]:
    """Slope and shift of the sigmoid at which the loss, which is convex, is smallest."""
    from scipy.optimize import minimize  # who only scores needs none of it

    n = int(reached.sum())
    m = int((~reached).sum())
    # Platt's smoothed targets: hard ones would drive the slope without bound where both kinds are cleanly apart.
    target = np.where(reached, (n + 1) / (n + 2), 1 / (m + 2))
    x = np.stack([score, np.ones_like(score)], 1)

    def loss(w: np.ndarray) -> float:
        logits = x @ w
        return float(np.sum(np.logaddexp(0, logits) - target * logits))

    def gradient(w: np.ndarray) -> np.ndarray:
        return x.T @ (_sigmoid(x @ w) - target)

    def hessian(w: np.ndarray) -> np.ndarray:
        p = _sigmoid(x @ w)
        return x.T @ (x * (p * (1 - p))[:, None]) + RIDGE * np.eye(2)

    start = np.array([0.0, math.log((n + 1) / (m + 1))])
    # A trust region: a full step of Newton's may overshoot where the sigmoid is flat
    minimum = minimize(
        loss,
        start,
        method="trust-exact",
        jac=gradient,
        hess=hessian,
        options={"gtol": FLAT * len(score)},
    )
    return float(minimum.x[0]), float(minimum.x[1])


def best_threshold(probability: np.ndarray, reached: np.ndarray) -> tuple[float, float]:
    """Threshold (at or above: done) and its balanced accuracy."""
    distinct = np.unique(probability)
    candidates = np.concatenate([[distinct[0]], (distinct[:-1] + distinct[1:]) / 2])
    is_claimed = probability[None, :] >= candidates[:, None]
    accuracy = (is_claimed[:, reached].mean(1) + (~is_claimed[:, ~reached]).mean(1)) / 2
    best = int(np.flatnonzero(accuracy >= accuracy.max() - 1e-12)[-1])
    return float(candidates[best]), float(accuracy[best])


def _score(raw: np.ndarray, source: str) -> np.ndarray:
    if source == "progress":
        return raw
    return logit(raw)


def logit(probability: Any) -> Any:
    """Of a number or an array; of 0 and 1 that of a probability as near to them as EPSILON."""
    p = np.clip(probability, EPSILON, 1 - EPSILON)
    return np.log(p / (1 - p))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


# What several cameras saw of one moment becomes one reward; each was scored alone, as models are trained


# Of a model whose pictures of training are not of this robot or place
UNSEEN = "the picture is unlike all that the model was trained on: progress is a guess from how much has changed"


@dataclass(frozen=True)
class Reward:
    """Of one moment: progress and the probability of the end state, both 0..1; None where there is none, and then
    `failure` says why. `success`: is the probability at the model's threshold? None where nothing was calibrated. Of
    several cameras both are by the stream's rule; `cameras` has each one's progress.

    `unsure` says why the numbers are not to be relied on. By shown runs: `about_s` is the second that is spoken of,
    `step` the planned step that is done then, from 0, and `spread` the standard deviation of progress.
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
        raise RewardError(
            "the rule `best` takes the surest camera, and this model is not calibrated: use `all`"
        )
    if rule == "wrist" and len({is_wrist(c) for c in cameras}) < 2:
        raise RewardError(
            f"the rule `wrist` needs cameras of both kinds, one with {', '.join(WRIST)} in its name, not "
            f"{', '.join(cameras)}: use `all`"
        )


def joined_reward(
    rewards: Mapping[str, Reward], rule: ViewRule = "all", success: Success | None = None
) -> Reward:
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
    reasoning = "\n".join(
        f"{camera}: {r.reasoning}" for camera, r in rewards.items() if r.reasoning
    )
    cameras = {camera: r.progress for camera, r in rewards.items()}
    return replace(joined, reasoning=reasoning or None, cameras=cameras)


def _by_rule(rewards: Mapping[str, Reward], rule: ViewRule, success: Success | None) -> Reward:
    camera_rewards = list(rewards.values())
    if rule == "best" and success is not None:
        return max(camera_rewards, key=lambda r: _sureness(r, success))
    scene = [reward for camera, reward in rewards.items() if not is_wrist(camera)]
    wrist = [reward for camera, reward in rewards.items() if is_wrist(camera)]
    # A side that failed leaves the other to say what it can
    if rule == "wrist" and scene and wrist:
        # Either side has to say done: by progress, where the model has no output of its own for it
        output = success.of if success else "done"
        claims = [c for c in (_mean_of(output, scene), _mean_of(output, wrist)) if c is not None]
        return Reward(
            camera_rewards[0].source,
            _mean_of("progress", scene),
            min(claims, default=None),
            unsure=_first_doubt(camera_rewards),
        )
    return Reward(
        camera_rewards[0].source,
        _mean_of("progress", camera_rewards),
        _mean_of("done", camera_rewards),
        unsure=_first_doubt(camera_rewards),
    )


def _first_doubt(rewards: Sequence[Reward]) -> str | None:
    return next((r.unsure for r in rewards if r.unsure), None)


def _sureness(reward: Reward, success: Success) -> float:
    """How far a camera's verdict is from the threshold, in logits."""
    raw = success.raw(reward)
    if raw is None:
        return 0.0
    return float(abs(logit(success.probability(raw)) - logit(success.threshold)))


def _mean_of(field: str, rewards: Sequence[Reward]) -> float | None:
    """Mean of the numbers that rewards have there; None where there is none."""
    values = [getattr(reward, field) for reward in rewards]
    numbers = [value for value in values if value is not None]
    if numbers:
        return float(np.mean(numbers))
    return None


# Scorers


@dataclass(frozen=True, eq=False)
class CameraView:
    """One camera's window of a moment."""

    moment: Moment
    camera: str
    pictures: tuple[StreamPicture, ...]

    @property
    def stream(self) -> Stream:
        return self.moment.stream


class Scorer(ABC):
    """What all scorers share; a kind of them says what a batch of views is worth (`views`).

    `window`: what the model was trained on; None: ProgressLM's question alone, a picture and the task's steps. By the
    model's `card`, `picture_max_px` bounds the longer side of a picture as the training set stored it, `max_px` as the
    model saw it. `settings`: all that rewards depend on. `usual_fps`: scored moments a second where nobody says.
    `takes_steps`: was it trained on demonstrations? `follows`: each moment's number depends on all before it.
    `make_ready`: does beforehand, in any thread, what of a picture needs no model; `views` does what is not done.
    """

    source: Source
    settings: Mapping[str, Any]
    usual_fps = 4.0
    follows = False
    make_ready: Callable[[StreamPicture], None] | None = None

    def __init__(self, window: Window | None, card: Mapping[str, Any] = NO_CARD) -> None:
        self.window = window
        self.max_px = card.get("max_px")
        self.success = Success.of_card(card)
        self.takes_steps = any(f.startswith("progresslm") for f in trained_families(card))
        self.picture_max_px = (card.get("window") or {}).get("picture_max_px")

    def stream(self, task: str, fps: float, steps: Sequence[str] = (), **options: Any) -> Stream:
        """A stream with this scorer's window; `options` are Stream's own fields. Raises RewardError.

        With `steps`, the task in words, in order, a model that answers in words is asked ProgressLM's question about
        one picture. A head answers what it was trained on alone.
        """
        if steps and self.source == "head" and not self.takes_steps:
            raise RewardError(
                f"the model's head was trained on {self.window}, and on no steps: leave the steps out"
            )
        window = LAST_PICTURE if steps else self.window
        if window is None:
            raise RewardError(
                "the model compares a state with a demonstration: give the task's steps in order"
            )
        stream = Stream(task, window, fps, steps=tuple(steps), fit=self.fit, **options)
        check_rule(stream.rule, stream.cameras, self.success)
        return stream

    def fit(self, rgb: np.ndarray) -> np.ndarray:
        """A picture as the training set stored it, and as the model saw it, but for JPEG's losses."""
        stored = fitted_picture(rgb, self.picture_max_px) if self.picture_max_px else rgb
        small = shrink(stored, self.max_px) if self.max_px else stored
        return small.copy() if small is rgb else small  # the caller may write into its own again

    @abstractmethod
    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        """A reward for each, in order. What cannot be scored is a reward with a failure."""

    def score(self, moments: Sequence[Moment]) -> list[Reward]:
        """A reward for each moment, in order; of one stream or of many at once."""
        views: list[CameraView] = []
        for m in moments:
            views += [CameraView(m, camera, pictures) for camera, pictures in m.views.items()]
        rewards_left = iter(self.views(views) if views else [])
        judged = []
        for m in moments:
            rewards = {camera: next(rewards_left) for camera in m.views}
            judged.append(self._judged(joined_reward(rewards, m.stream.rule, self.success)))
        return judged

    def _judged(self, reward: Reward) -> Reward:
        if reward.progress is None or self.success is None:
            return reward
        raw = self.success.raw(reward)
        if raw is None:
            return reward
        probability = self.success.probability(raw)
        return replace(reward, done=probability, success=probability >= self.success.threshold)
