"""Laptop models in this process: a picture is looked at once, a moment is one step over what is kept of a window."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from annotate.embeddings.encoders import Encoder
from eval.reward.scorer import CameraView, PictureQuestion, Reward, Scorer
from eval.reward.stream import StreamPicture
from eval.reward.window import Window, trained_window
from training.folder import folder_hash
from training.laptop.model import OOD, LaptopModel, SeenWindow, embed, load_laptop, read_windows
from training.pixels import device


class LaptopScorer(Scorer):
    """Scores windows of pictures beside the run's first one, which the stream keeps."""

    source = "head"

    def __init__(
        self,
        model: LaptopModel,
        encoder: Encoder,
        window: Window | None,
        card: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(window, card)
        self.model, self.encoder = model, encoder
        self.settings = {"answer": "head", **settings}

    def views(self, views: Sequence[CameraView]) -> list[Reward]:
        return self.ask([v.asked for v in views])

    def ask(self, questions: Sequence[PictureQuestion]) -> list[Reward]:
        """Rewards of pictures in the light of their tasks and the first picture of each run."""
        shown = [(q.pictures[0] if q.first is None else q.first, *q.pictures) for q in questions]
        look(self.encoder, chain.from_iterable(shown))
        windows = [
            SeenWindow(q.task or q.text, [p.seen for p in pictures[1:]], pictures[0].seen)
            for q, pictures in zip(questions, shown, strict=True)
        ]
        # Of pictures unlike all of training no end state is known, and the row says where its number is from
        return [
            Reward("head", a.progress, a.done) if a.ood < OOD else Reward("change", a.progress)
            for a in read_windows(self.model, windows)
        ]


def look(encoder: Encoder, pictures: Iterable[StreamPicture]) -> None:
    """Keep with each picture what an encoder makes of it; those that were looked at stay as they are."""
    new = list({id(p): p for p in pictures if p.seen is None}.values())
    for picture, numbers in zip(new, embed(encoder, [p.rgb for p in new]), strict=True):
        picture.seen, picture.seen_bytes = numbers, numbers.nbytes


def open_laptop(folder: Path, window: Window | None = None) -> LaptopScorer:
    """A checkpoint of the kind `laptop`. Raises ModelError, EncoderError; RewardError for another window than its own,
    or an unknown one."""
    trained = trained_window(folder, window)
    model, encoder, card = load_laptop(folder, device())
    settings = {"runner": "laptop", "encoder": encoder.title, "model_hash": folder_hash(folder), "window": str(trained)}
    return LaptopScorer(model, encoder, trained, card, settings)
