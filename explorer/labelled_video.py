"""A label drawn below the pictures of a video: the step of the moment, the curve up to
it, and all steps as a strip.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from explorer.charts import IDLE_COLOUR, PICTURE_COLOURS, STEP_COLOURS

NARROWEST = 640  # px; pictures of fewer are enlarged, so that words can be read below them
WORDS_PX, CURVE_PX, STRIP_PX, GAP_PX = 30, 84, 18, 6  # heights, from above
BELOW_PX = WORDS_PX + CURVE_PX + STRIP_PX + 2 * GAP_PX
BACK = "#11161b"
TEXT = "#e6eaee"
CURVE = "#6fb0ee"
TO_COME = "#3b4a5a"
CURSOR = "#ff6a61"


@dataclass(frozen=True)
class DrawnLabel:
    """A label to be drawn: (start, end, step, name) of each segment, and progress, 0..1, at each frame."""

    segments: tuple[tuple[int, int, int | None, str], ...]
    progress: tuple[float, ...]
    fps: float

    @classmethod
    def of(cls, run: Mapping[str, Any], fps: float) -> "DrawnLabel":
        """From a label as pages have it."""
        parts = ((s["start_frame"], s["end_frame"], s["step"], s["name"]) for s in run["segments"])
        return cls(tuple(parts), tuple(run["progress"]), fps)

    def below(self, picture: np.ndarray, frame: int) -> np.ndarray:
        """An RGB picture, at least NARROWEST px wide, with the label as it stands at a frame below it."""
        height, width = picture.shape[:2]
        if width < NARROWEST:
            size = (NARROWEST, round(height * NARROWEST / width / 2) * 2)
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        return np.concatenate(
            [picture, self._strip(picture.shape[1], min(frame, len(self.progress) - 1))]
        )

    def _strip(self, width: int, frame: int) -> np.ndarray:
        """What stands below the picture of a frame, RGB uint8 [BELOW_PX, width, 3]."""
        image = Image.new("RGB", (width, BELOW_PX), BACK)
        draw = ImageDraw.Draw(image)
        points = self._points(width)
        draw.line(points[frame:], TO_COME, 2)
        draw.line(points[: frame + 1], CURVE, 3)
        for start, end, step, _ in self.segments:
            colour = IDLE_COLOUR if step is None else PICTURE_COLOURS[step % STEP_COLOURS]
            left_x = self._x(start - 0.5, width)
            right = self._x(end - 0.5, width)
            draw.rectangle((left_x, BELOW_PX - STRIP_PX, right - 1, BELOW_PX), colour)
        cursor_x = self._x(frame, width)
        draw.line((cursor_x, WORDS_PX, cursor_x, BELOW_PX), CURSOR, 2)
        draw.text((GAP_PX, GAP_PX), self._words(frame), TEXT, self._font)
        return np.asarray(image)

    def _words(self, frame: int) -> str:
        name = next((name for start, end, _, name in self.segments if start <= frame < end), "")
        return f"{frame / self.fps:.1f} s   {100 * self.progress[frame]:.0f} %   {name}"

    def _x(self, frame: float, width: int) -> float:
        return width * (frame + 0.5) / max(1, len(self.progress))

    def _points(self, width: int) -> list[tuple[float, float]]:
        top = WORDS_PX + GAP_PX
        return [
            (self._x(k, width), top + (CURVE_PX - 2) * (1 - value))
            for k, value in enumerate(self.progress)
        ]

    @cached_property
    def _font(self) -> Any:
        return ImageFont.load_default(18)
