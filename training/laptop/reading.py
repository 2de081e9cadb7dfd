"""Asking a laptop model: windows of pictures that were seen before, in one batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from annotate.embeddings.networks import one_thread
from training.laptop.model import LaptopModel


@dataclass(frozen=True)
class SeenWindow:
    """The numbers [d] of each moment of a window in order, and of the run's first one where it is known: as the model's
    layout has them, or of the first camera's pictures alone."""

    task: str
    pictures: Sequence[np.ndarray]
    first: np.ndarray | None = None


@dataclass(frozen=True)
class Answer:
    """At the last picture of a window: progress and the probability of the end state, 0..1.

    strange: 0..1, how much the picture is unlike all of training; at 1 progress is that by change alone, and `done` is
    worth nothing.
    score: the preference head's, where the model has one; the greater of two of a task is further, or better.
    """

    progress: float
    done: float
    strange: float
    score: float | None = None


def seen_window(
    model: LaptopModel, task: str, shown: Sequence[Mapping[int, np.ndarray]], states: np.ndarray | None = None
) -> SeenWindow:
    """A window of a model's moments: the run's first one, then its own, each with the numbers [d] of pictures by the
    number of their camera. states: the robot's at each, [1 + pictures, l]; of an unknown length they count as none."""
    told = [None] * len(shown) if states is None else states
    cameras = range(model.layout.cameras)
    laid = [model.layout.moment([seen.get(k) for k in cameras], state) for seen, state in zip(shown, told, strict=True)]
    return SeenWindow(task, laid[1:], laid[0])


@torch.inference_mode()
def read_windows(model: LaptopModel, windows: Sequence[SeenWindow]) -> list[Answer]:
    """An answer for each, in order. Windows that are longer than in training lose their oldest pictures; in shorter
    ones the oldest picture stands for those before it."""
    if not windows:
        return []
    numbers = np.stack([_laid_out(w, model) for w in windows]).astype(np.float32)
    with one_thread():
        output = model(torch.from_numpy(numbers).to(model.device), [w.task for w in windows])
    scores = [None] * len(windows) if output.score is None else output.score[:, -1].tolist()
    found = (of[:, -1].tolist() for of in (output.progress, output.done, output.strange))
    return [Answer(*answer) for answer in zip(*found, scores, strict=True)]


def _laid_out(window: SeenWindow, model: LaptopModel) -> np.ndarray:
    """[1 + frames, width of the layout]"""
    shown = list(window.pictures[-model.frames :])
    shown = [shown[0]] * (model.frames - len(shown)) + shown
    first = shown[0] if window.first is None else window.first
    laid = model.layout.filled(np.stack([first, *shown]))
    # A camera that came later began where it was first seen
    laid[0] = np.where(np.isnan(laid[0]), laid[1], laid[0])
    return laid
