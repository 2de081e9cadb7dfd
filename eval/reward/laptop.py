"""Laptop models in this process: a picture is looked at once, a moment is one step over what is kept of a window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from annotate.embeddings.encoders import Encoder
from eval.reward.scorer import CameraView, Reward, Scorer
from eval.reward.stream import Moment, Stream, StreamPicture
from eval.reward.success import Success
from eval.reward.trained import trained_window
from eval.reward.window import RewardError, Window
from eval.runners.device import device
from training.folder import folder_hash
from training.laptop.inputs import STRANGE
from training.laptop.layout import Layout
from training.laptop.model import LaptopModel, load_laptop
from training.laptop.pictures import embed
from training.laptop.reading import Answer, read_windows, seen_window
from training.pictures import Item


class LaptopScorer(Scorer):
    """Scores windows of pictures beside the run's first one, which the stream keeps."""

    source = "head"
    says_done = True

    def __init__(
        self,
        model: LaptopModel,
        encoder: Encoder,
        window: Window | None,
        *,
        picture_max_px: int | None = None,
        max_px: int | None = None,
        success: Success | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(window, picture_max_px=picture_max_px, max_px=max_px, success=success)
        self.model, self.encoder = model, encoder
        self.settings = {"answer": "head", **(settings or {})}

    def stream(self, task: str, fps: float, steps: Sequence[str] = (), **more: Any) -> Stream:
        stream = super().stream(task, fps, steps, **more)
        self._check_cameras(stream.cameras)
        return stream

    def _check_cameras(self, cameras: Sequence[str]) -> None:
        """Raises RewardError where one of several is none that the model was trained on; one alone may have any
        name."""
        known = self.model.config.cameras
        unknown = [c for c in cameras if len(known) > 1 and not self.model.knows_camera(c)]
        if unknown and len(cameras) > 1:
            raise RewardError(
                f"the model looks at {', '.join(known)} together, and {unknown[0]} is none of them: name the cameras "
                "as in training, or by what follows the last dot"
            )

    def cameras_of(self, has: Sequence[str]) -> tuple[str, ...]:
        return tuple(c for c in has if self.model.knows_camera(c)) or super().cameras_of(has)

    def check_state(self, length: int) -> None:
        known = self.model.layout.states
        if not known:
            super().check_state(length)
        if length not in known:
            lengths = " or ".join(map(str, known))
            raise RewardError(f"the model was trained on states of {lengths} numbers, not of {length}: leave it out")

    def score(self, moments: Sequence[Moment]) -> list[Reward]:
        """A reward for each moment, in order. A model of several cameras looks at all views at once, where the rule is
        `all`; those that are missing are left out."""
        if len(self.model.config.cameras) < 2:
            return super().score(moments)
        is_joined = [m.stream.rule == "all" for m in moments]
        joined = [self._asked(m, m.views) for m, one in zip(moments, is_joined, strict=True) if one]
        found = iter([self._judged(reward) for reward in self._rewards(joined)])
        apart = iter(super().score([m for m, one in zip(moments, is_joined, strict=True) if not one]))
        return [next(found if one else apart) for one in is_joined]

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        return self._rewards([self._asked(v.moment, {v.camera: v.pictures}) for v in views])

    def _asked(self, moment: Moment, views: Mapping[str, Sequence[StreamPicture]]) -> "_Asked":
        """A moment by some of its cameras."""
        shown: dict[int, Sequence[StreamPicture]] = {}
        for camera, pictures in views.items():
            # A stream's first picture is among those of its first moment's window: nothing is looked at for its sake
            first = moment.stream.first.get(camera, pictures[0])
            shown[self.model.camera_number(camera)] = (first, *pictures)
        states = _together(moment.states, self.model.layout) if moment.states else None
        return _Asked(moment.stream.task, shown, states)

    def ask(self, items: Sequence[Item]) -> list[Reward]:
        """Rewards of questions with their pictures as a training set has them. They name their tasks."""
        kept: dict[bytes, StreamPicture] = {}

        def picture(rgb: Any) -> StreamPicture:
            return kept.setdefault(rgb.tobytes(), StreamPicture(rgb))

        asked = []
        for item in items:
            pictures = tuple(map(picture, item.pictures))
            first = pictures[0] if item.first is None else picture(item.first)
            shown = {self.model.camera_number(item.camera): (first, *pictures)}
            asked.append(_Asked(item.task or item.question, shown, item.states))
        return self._rewards(asked)

    def _rewards(self, asked: Sequence["_Asked"]) -> list[Reward]:
        every = (p for a in asked for pictures in a.shown.values() for p in pictures)
        self._look({id(p): p for p in every if p.seen is None})
        windows = [seen_window(self.model, a.task, a.moments, a.states) for a in asked]
        return [_reward(answer) for answer in read_windows(self.model, windows)]

    def _look(self, new: Mapping[int, StreamPicture]) -> None:
        """Keep what the encoder makes of pictures that it has not seen."""
        for picture, numbers in zip(new.values(), embed(self.encoder, [p.rgb for p in new.values()]), strict=True):
            picture.seen, picture.seen_bytes = numbers, numbers.nbytes


@dataclass(frozen=True)
class _Asked:
    """A window: by the number of the camera the run's first picture, then the window's; the robot's state at each, [1 +
    pictures, l]."""

    task: str
    shown: Mapping[int, Sequence[StreamPicture]]
    states: np.ndarray | None

    @property
    def moments(self) -> list[dict[int, np.ndarray]]:
        count = len(next(iter(self.shown.values())))
        return [{camera: pictures[k].seen for camera, pictures in self.shown.items()} for k in range(count)]


def _together(states: Sequence[np.ndarray | None], layout: Layout) -> np.ndarray | None:
    """States [l] that are known to a model, of one length, as one array; NaN where there is none."""
    known = [s for s in states if s is not None and layout.knows(s)]
    if not known:
        return None
    nothing = np.full(len(known[-1]), np.nan, np.float32)
    return np.stack([s if s is not None and s.shape == nothing.shape else nothing for s in states])


def _reward(answer: Answer) -> Reward:
    """Of pictures unlike all of training no end state is known, and the row says where its number is from."""
    if answer.strange < STRANGE:
        return Reward("head", answer.progress, answer.done)
    return Reward("change", answer.progress)


def open_laptop(folder: Path, window: Window | None = None) -> LaptopScorer:
    """A checkpoint of the kind `laptop`. Raises ModelError, EncoderError; RewardError for another window than its own,
    or an unknown one."""
    trained = trained_window(folder, window)
    model, encoder, card = load_laptop(folder, device())
    return LaptopScorer(
        model,
        encoder,
        trained,
        picture_max_px=(card.get("window") or {}).get("picture_max_px"),
        max_px=card.get("max_px"),
        success=Success.of_card(card),
        settings={
            "runner": "laptop",
            "encoder": encoder.title,
            "model_hash": folder_hash(folder),
            "window": str(trained),
        },
    )
