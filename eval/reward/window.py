"""The pictures that a reward is read from: a window of frames up to now, laid out as in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from annotate.samples.config import SamplesConfig
from annotate.samples.procvqa import window
from core.errors import UserError
from training.folder import read_card

Robot = Mapping[str, Sequence[float] | np.ndarray]  # of "state" and "action" the row [d], as a dataset has it
# all: means over the cameras. best: the camera whose verdict is surest. wrist: progress as the other cameras see it,
# and done only as far as the wrist cameras say so, too: contact is seen from near, the scene from afar
ViewRule = Literal["all", "best", "wrist"]
PUBLISHED_FRAMES = 8  # of the published inference; its training showed up to 17


class RewardError(UserError):
    """A reward that cannot be given: what, and what to do."""


class CutOffError(RewardError):
    """A video that ends before its header says."""


@dataclass(frozen=True)
class Window:
    """`frames` pictures, `step_s` seconds apart; None: consecutive frames, as the published recipe has them."""

    frames: int
    step_s: float | None

    def __post_init__(self) -> None:
        if self.frames < 1 or (self.step_s is not None and not 0 < self.step_s < float("inf")):
            raise RewardError(f"a window has at least one frame, some time apart, not {self.frames} x {self.step_s} s")

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self | None:
        """What a model was trained on; None where its card does not say."""
        told = card.get("window")
        if not told:
            return None
        if told["profile"] == "procvlm":
            return cls(PUBLISHED_FRAMES, None)
        return cls(told["window_frames"], told["window_step_s"])

    def of(self, now: int, fps: float) -> list[int]:
        """Frames of a stream at `fps` that stand for frame `now`, in order, none of them twice. At the start of a run
        they lie closer together (consecutive ones: are fewer), as in training; no frame is repeated."""
        if self.step_s is None:
            return list(range(max(0, now - self.frames + 1), now + 1))
        return window(now, fps, self._config)

    @cached_property
    def _config(self) -> SamplesConfig:
        return SamplesConfig(window_frames=self.frames, window_step_s=self.step_s or SamplesConfig().window_step_s)

    def reach(self, fps: float) -> int:
        """How many frames before it a window goes back at most."""
        step = 1.0 if self.step_s is None else self.step_s * fps
        return round((self.frames - 1) * step)

    def check(self, fps: float) -> None:
        """Raises RewardError where a stream is too slow: two pictures of a window would be the same frame."""
        if self.frames > 1 and self.step_s is not None and self.step_s * fps < 1 - 1e-6:
            raise RewardError(
                f"the model was trained on pictures {self.step_s:g} s apart, and {fps:g} frames a second are too few "
                f"for that: give at least {1 / self.step_s:g}"
            )

    def __str__(self) -> str:
        apart = "consecutive" if self.step_s is None else f"{self.step_s:g} s apart"
        return f"{self.frames} pictures, {apart}" if self.frames > 1 else "1 picture"


LAST_PICTURE = Window(1, None)


def trained_window(folder: Path, asked: Window | None) -> Window | None:
    """The window of a checkpoint; None where it was trained on ProgressLM's questions alone. Raises RewardError where
    it is another one than asked for, or unknown."""
    card = read_card(folder)
    known = Window.of_card(card)
    families = ((card.get("recipe") or {}).get("data") or {}).get("families") or {"procvqa_c": 1.0}
    if "procvqa_c" not in families:
        return None
    if known and asked and known != asked:
        raise RewardError(f"{folder.name} was trained on windows of {known}, not of {asked}: leave the window out")
    window = known or asked
    if window is None:
        raise RewardError(
            f"{folder.name} does not say on which window it was trained: give --window-frames, and --window-step "
            "unless they are consecutive"
        )
    return window
