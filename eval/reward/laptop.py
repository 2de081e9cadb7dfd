"""Laptop models in this process: a picture is looked at once, a moment is one step over what is kept of a window."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annotate.embeddings.encoders import Encoder
from eval.reward.scorer import CameraView, Reward, Scorer
from eval.reward.stream import StreamPicture
from eval.reward.success import Success
from eval.reward.trained import trained_window
from eval.reward.window import Window
from eval.runners.device import device
from training.folder import folder_hash
from training.laptop.model import LaptopModel, load_laptop
from training.laptop.reading import OOD, Answer, SeenWindow, embed, read_windows
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

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        # A stream's first picture is among those of its first moment's window: nothing is looked at for its sake
        return self._rewards(
            [(v.stream.task, (v.stream.first.get(v.camera, v.pictures[0]), *v.pictures)) for v in views]
        )

    def ask(self, items: Sequence[Item]) -> list[Reward]:
        """Rewards of questions with their pictures as a training set has them. They name their tasks."""
        kept: dict[bytes, StreamPicture] = {}

        def picture(rgb: np.ndarray) -> StreamPicture:
            return kept.setdefault(rgb.tobytes(), StreamPicture(rgb))

        asked = []
        for item in items:
            first = item.pictures[0] if item.first is None else item.first
            asked.append((item.task or item.question, tuple(map(picture, (first, *item.pictures)))))
        return self._rewards(asked)

    def _rewards(self, asked: Sequence[tuple[str, Sequence[StreamPicture]]]) -> list[Reward]:
        """Of a task and the episode's first picture before the window's, each."""
        self._look({id(p): p for _, pictures in asked for p in pictures if p.seen is None})
        windows = [SeenWindow(task, [p.seen for p in shown[1:]], shown[0].seen) for task, shown in asked]
        return [_reward(answer) for answer in read_windows(self.model, windows)]

    def _look(self, new: Mapping[int, StreamPicture]) -> None:
        """Keep what the encoder makes of pictures that it has not seen."""
        for picture, numbers in zip(new.values(), embed(self.encoder, [p.rgb for p in new.values()]), strict=True):
            picture.seen, picture.seen_bytes = numbers, numbers.nbytes


def _reward(answer: Answer) -> Reward:
    """Of pictures unlike all of training no end state is known, and the row says where its number is from."""
    if answer.ood < OOD:
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
