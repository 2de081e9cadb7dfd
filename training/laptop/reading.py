"""Asking a laptop model: pictures through its encoder once, and windows of what it saw, in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from annotate.embeddings.encoders import Encoder, encoder_input
from annotate.embeddings.networks import one_thread
from training.laptop.model import LaptopModel

OOD = 0.5  # score from which on a picture counts as out of distribution


def embed(encoder: Encoder, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """float32 [n, d] of RGB pictures uint8 [h, w, 3]; in the encoder's own batches, the last filled up with black.

    Up to two small batches take the place of a large one, which costs more than both.
    """
    small = [encoder_input(rgb, encoder.size_px) for rgb in pictures]
    found, at = [], 0
    while at < len(small):
        size = encoder.batch if len(small) - at > 2 * encoder.small_batch else encoder.small_batch
        batch = np.zeros((size, encoder.size_px, encoder.size_px, 3), np.uint8)
        part = small[at : at + size]
        batch[: len(part)] = part
        found.append(encoder.embed(batch)[: len(part)])
        at += len(part)
    return np.concatenate(found) if found else np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class SeenWindow:
    """The embeddings [d] of a window's pictures in order, and of the episode's first one where it is known."""

    task: str
    pictures: Sequence[np.ndarray]
    first: np.ndarray | None = None


@dataclass(frozen=True)
class Answer:
    """At the last picture of a window: progress and the probability of the end state, 0..1.

    ood: 0..1, how much the picture is unlike all of training; at 1 progress is that by change alone, and `done` is
    worth nothing.
    """

    progress: float
    done: float
    ood: float


@torch.inference_mode()
def read_windows(model: LaptopModel, windows: Sequence[SeenWindow]) -> list[Answer]:
    """An answer for each, in order. Windows that are longer than in training lose their oldest pictures; in shorter
    ones the oldest picture stands for those before it."""
    if not windows:
        return []
    laid = np.array([_laid_out(w, model.frames) for w in windows], np.float32)
    numbers = torch.from_numpy(laid).to(model.device)
    with one_thread():
        output = model(numbers, [w.task for w in windows])
    found = (of[:, -1].tolist() for of in (output.progress, output.done, output.ood))
    return [Answer(*answer) for answer in zip(*found, strict=True)]


def _laid_out(window: SeenWindow, frames: int) -> list[np.ndarray]:
    """The episode's first picture, and so many of the window's."""
    shown = list(window.pictures[-frames:])
    shown = [shown[0]] * (frames - len(shown)) + shown
    return [shown[0] if window.first is None else window.first, *shown]
