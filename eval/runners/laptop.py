"""Laptop models as runners: they answer prompts that name a task, by its pictures; nothing is generated."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np

from eval.benchmarks.question import BenchmarkError, PictureFile
from eval.runners.device import device
from eval.runners.prompt import ModelReply, PictureLimits, Prompt, load_picture
from training.folder import folder_hash
from training.laptop.model import load_laptop
from training.laptop.reading import SeenWindow, embed, read_windows

MOST_KEPT = 20_000  # pictures whose numbers are kept: some 100 MB


class LaptopRunner:
    """A checkpoint of the kind `laptop`. A picture that several prompts show is looked at once."""

    has_head = True

    def __init__(self, folder: Path, batch_size: int) -> None:
        """Raises ModelError, EncoderError."""
        self.model, self.encoder, card = load_laptop(folder, device())
        self.limits = PictureLimits(longest_px=card.get("max_px"))
        self.batch_size = batch_size
        self._kept: dict[bytes, np.ndarray] = {}
        self.settings: Mapping[str, Any] = {
            "runner": "laptop",
            "answer": "head",
            "encoder": self.encoder.title,
            "model_hash": folder_hash(folder),
            "longest_px": self.limits.longest_px,
        }

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[ModelReply]:
        for part in batched(prompts, self.batch_size):
            windows: list[tuple[Prompt, SeenWindow]] = []
            for prompt in part:
                try:
                    windows.append((prompt, self._window(prompt)))
                except BenchmarkError as e:
                    yield ModelReply(prompt.key, error=str(e))
            answers = read_windows(self.model, [w for _, w in windows])
            for (prompt, _), answer in zip(windows, answers, strict=True):
                yield ModelReply(
                    prompt.key,
                    progress=answer.progress,
                    done=answer.done,
                    prompt_tokens=0,
                    completion_tokens=0,
                )

    def _window(self, prompt: Prompt) -> SeenWindow:
        """Raises BenchmarkError where it shows no picture, or one that cannot be read."""
        if not prompt.pictures:
            raise BenchmarkError(f"{prompt.key} shows no picture: a laptop model looks at nothing else")
        if prompt.task is None:
            raise BenchmarkError(f"{prompt.key} names no task: a laptop model has to be told one")
        first, *shown = self._seen((prompt.first or prompt.pictures[0], *prompt.pictures))
        return SeenWindow(prompt.task, shown, first)

    def _seen(self, pictures: Sequence[PictureFile]) -> list[np.ndarray]:
        """The encoder's numbers of each picture, in order."""
        keys = [hashlib.sha256(picture.read()).digest() for picture in pictures]
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in self._kept}
        if len(self._kept) + len(new) > MOST_KEPT:
            self._kept.clear()
            new = dict(zip(keys, pictures, strict=True))
        decoded = [load_picture(picture, self.limits) for picture in new.values()]
        self._kept.update(zip(new, embed(self.encoder, decoded), strict=True))
        return [self._kept[key] for key in keys]
