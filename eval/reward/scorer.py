"""What scores moments of streams, many at a time: the one way to a reward, for videos, data sets and live sessions.

A number is the same however moments are put together, up to how a device's arithmetic depends on the shape of a batch:
within `TOLERANCE` in float32.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from annotate.stored_pictures import fitted
from eval.reward.stream import LAST_PICTURE, Moment, RewardError, Stream, StreamPicture, Window
from eval.reward.success import Success
from eval.reward.views import Reward, Source, check_rule, together
from training.pictures import shrink

TOLERANCE = 1e-5
NO_CARD: Mapping[str, Any] = MappingProxyType({})


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

    `window`: what the model was trained on; None where it knows no other question than ProgressLM's, which shows
    one picture and needs the task's steps. By the model's `card`, where it has one, `picture_max_px` bounds the
    longer side of a picture as the training set stored it, `max_px` as the model then saw it. `settings`: all that
    rewards depend on. `usual_fps`: moments a second that are scored where nobody says. `follows`: each moment's
    number depends on all before it, so none may be left out. `make_ready`: does beforehand, in any thread, what of a
    picture needs no model, if there is such work; `views` does what is not done.
    """

    source: Source
    settings: Mapping[str, Any]
    usual_fps = 4.0
    follows = False
    make_ready: Callable[[StreamPicture], None] | None = None

    def __init__(self, window: Window | None, card: Mapping[str, Any] = NO_CARD) -> None:
        self.window, self.max_px, self.success = window, card.get("max_px"), Success.of_card(card)
        self.picture_max_px = (card.get("window") or {}).get("picture_max_px")

    def stream(self, task: str, fps: float, steps: Sequence[str] = (), **more: Any) -> Stream:
        """A stream with this scorer's window; `more` are Stream's own fields. Raises RewardError.

        With `steps`, the task in words, in order, a model that answers in words is asked ProgressLM's question.
        """
        window = LAST_PICTURE if steps else self.window
        if window is None:
            raise RewardError("the model compares a state with a demonstration: give the task's steps in order")
        stream = Stream(task, window, fps, steps=tuple(steps), fit=self.fit, **more)
        check_rule(stream.rule, stream.cameras, self.success)
        return stream

    def fit(self, rgb: np.ndarray) -> np.ndarray:
        """A picture as the training set stored it, and as the model saw it, but for JPEG's losses."""
        stored = fitted(rgb, self.picture_max_px) if self.picture_max_px else rgb
        small = shrink(stored, self.max_px) if self.max_px else stored
        return small.copy() if small is rgb else small  # the caller may write into its own again

    @abstractmethod
    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        """A reward for each, in order. What cannot be scored is a reward with a failure."""

    def score(self, moments: Sequence[Moment]) -> list[Reward]:
        """A reward for each moment, in order; of one stream or of many at once."""
        views = [CameraView(m, camera, pictures) for m in moments for camera, pictures in m.views.items()]
        found = iter(self.views(views) if views else [])
        seen = [{c: next(found) for c in m.views} for m in moments]
        return [
            self._judged(together(rewards, m.stream.rule, self.success))
            for m, rewards in zip(moments, seen, strict=True)
        ]

    def _judged(self, reward: Reward) -> Reward:
        """With the probability of the end state, calibrated, and what that says of success."""
        if reward.progress is None or self.success is None:
            return reward
        raw = reward.done if self.success.of == "done" else reward.progress
        if raw is None:
            return reward
        done = self.success.probability(raw)
        return replace(reward, done=done, success=done >= self.success.threshold)
