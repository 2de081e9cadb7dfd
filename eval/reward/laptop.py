"""Laptop models in this process: a picture is looked at once, a moment is one step over what is kept of a window."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from annotate.embeddings.encoders import Encoder
from eval.benchmarks.question import BenchmarkError
from eval.reward.stream import StreamPicture
from eval.runners.prompt import Asked, LocalRunner, ModelReply, Prompt
from training.folder import folder_hash
from training.laptop.model import OOD, SeenWindow, embed, load_laptop, read_windows
from training.pixels import device


class LaptopRunner(LocalRunner):
    """A checkpoint of the kind `laptop`. Raises ModelError, EncoderError."""

    has_head = True

    def __init__(self, folder: Path, batch_size: int) -> None:
        self.model, self.encoder, self.card = load_laptop(folder, device())
        super().__init__(batch_size, self.card.get("max_px"))
        facts = {
            "encoder": self.encoder.title,
            "model_hash": folder_hash(folder),
            "longest_px": self.longest_px,
        }
        self.settings: Mapping[str, Any] = {"answer": "head", "runner": "laptop", **facts}

    def load(self, prompt: Prompt) -> Asked:
        """Raises BenchmarkError also for what the model cannot be asked."""
        if not (prompt.pictures and prompt.task):
            lacks = "names no task" if prompt.pictures else "shows no picture"
            raise BenchmarkError(
                f"{prompt.key} {lacks}: a laptop model is told both, and nothing else"
            )
        first = self._kept(prompt.first.rgb(self.longest_px)) if prompt.first else None
        return Asked(prompt, super().load(prompt).pictures, first)

    def run(self, prompts: Sequence[Asked]) -> list[ModelReply]:
        """Progress of pictures in the light of their tasks and the first picture of each run."""
        picture_windows = [
            (a.pictures[0] if a.first is None else a.first, *a.pictures) for a in prompts
        ]
        encode_pictures(self.encoder, chain.from_iterable(picture_windows))
        windows = []
        for a, (first, *pictures) in zip(prompts, picture_windows, strict=True):
            task = a.prompt.task or a.prompt.text
            windows.append(SeenWindow(task, [picture.seen for picture in pictures], first.seen))
        # Of pictures unlike all of training no end state is known, and the row says where its number is from
        return [
            ModelReply(a.prompt.key, progress=answer.progress, done=answer.done)
            if answer.ood < OOD
            else ModelReply(a.prompt.key, progress=answer.progress, source="change")
            for a, answer in zip(prompts, read_windows(self.model, windows), strict=True)
        ]


def encode_pictures(encoder: Encoder, pictures: Iterable[StreamPicture]) -> None:
    """Keep with each picture what an encoder makes of it; those that were looked at stay as they are."""
    new = list({id(p): p for p in pictures if p.seen is None}.values())
    for picture, numbers in zip(new, embed(encoder, [p.rgb for p in new]), strict=True):
        picture.seen = numbers
        picture.seen_bytes = numbers.nbytes
