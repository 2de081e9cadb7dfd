"""What people see below the pictures of a run: curves of progress, steps, and the moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import cv2
import numpy as np

PANEL_PX = 180  # height of all below the picture
STRIP_PX = 16  # height of the steps and the seconds each
LEAST_PX = 320  # width of the picture: smaller ones are enlarged
# Where curves are drawn
LEFT_PX, RIGHT_PX, TOP_PX, GROUND_PX = 30, 10, 36, PANEL_PX - 2 * STRIP_PX - 6
PAPER, INK, FAINT, LINE, LABEL, MARK, LOST = (
    (250, 250, 248), (40, 40, 40), (205, 205, 200), (31, 95, 170), (120, 165, 90), (214, 96, 20), (190, 40, 40),
)  # fmt: skip
STEPS = ((226, 236, 248), (248, 236, 214))  # in turn
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass
class CurvePanel:
    """Draws a curve up to the moment, and behind it a label, where there is one: its whole curve, and its steps.

    rows: of the curve, by `frame_index`: timestamp_s, progress, done, success; where a row has no progress the curve
    has a gap, with a mark on the ground line. label: progress at each frame. steps: (first frame, end, name).
    """

    fps: float
    rows: Sequence[Mapping[str, Any]]
    steps: Sequence[tuple[int, int, str]]
    label: Sequence[float] = ()
    _ground: np.ndarray | None = field(default=None, init=False, repr=False)

    @property
    def last(self) -> int:
        """The frame at the right end."""
        return max(self.rows[-1]["frame_index"], 1, len(self.label) - 1)

    def below(self, rgb: np.ndarray, frame_index: int) -> np.ndarray:
        """An RGB picture with the panel of a frame below it, uint8 [h + PANEL_PX, w, 3]; small ones are enlarged."""
        picture = _even_sides(rgb)
        if self._ground is None:
            self._ground = _panel_without_model(
                picture.shape[1], self.fps, self.last, self.label, self.steps
            )
        step = next((name for start, end, name in self.steps if start <= frame_index < end), "")
        panel = _panel(self._ground, self.rows, frame_index, self.last)
        # Of two curves each is named at its right
        room_px = panel.shape[1] - RIGHT_PX - (80 if len(self.label) else 0)
        _draw_text(panel[:, :room_px], step, 4, 25)
        return np.concatenate([picture, panel])


def _even_sides(rgb: np.ndarray) -> np.ndarray:
    """Both sides even, as yuv420p needs them."""
    scale = max(1.0, LEAST_PX / rgb.shape[1])
    height, width = (max(2, round(n * scale) // 2 * 2) for n in rgb.shape[:2])
    if rgb.shape[:2] == (height, width):
        return rgb
    return cv2.resize(rgb, (width, height))


def _curve_point(frame: float, last: int, progress: float, width: int) -> tuple[int, int]:
    x = LEFT_PX + frame / last * (width - LEFT_PX - RIGHT_PX)
    return round(x), round(GROUND_PX - progress * (GROUND_PX - TOP_PX))


def _draw_text(
    panel: np.ndarray,
    text: str,
    x: int,
    y: int,
    colour: tuple[int, int, int] = INK,
    scale: float = 0.36,
) -> None:
    cv2.putText(panel, text, (x, y), FONT, scale, colour, 1, cv2.LINE_AA)


def _panel_without_model(
    width: int, fps: float, last: int, curve: Sequence[float], steps: Sequence[tuple[int, int, str]]
) -> np.ndarray:
    panel = np.full((PANEL_PX, width, 3), PAPER, np.uint8)
    for share in (0.0, 0.5, 1.0):
        (_, y), right = _curve_point(0, last, share, width), width - RIGHT_PX
        cv2.line(panel, (LEFT_PX, y), (right, y), FAINT, 1)
        _draw_text(panel, f"{share:g}", 4, y + 4)
        text = f"{share * last / fps:.1f} s"
        text_x = (
            LEFT_PX
            + round(share * (right - LEFT_PX))
            - round(share * cv2.getTextSize(text, FONT, 0.36, 1)[0][0])
        )
        _draw_text(panel, text, text_x, PANEL_PX - 5)
    for k, (start, end, name) in enumerate(steps):
        (x, _), (next_x, _) = (
            _curve_point(frame, last, 0.0, width) for frame in (start, min(end, last))
        )
        strip = panel[GROUND_PX + 4 : GROUND_PX + 4 + STRIP_PX, x:next_x]
        strip[:] = STEPS[k % 2]
        # Cut off where the step ends: it is drawn into the step's own part
        _draw_text(strip, name, 2, STRIP_PX - 5, scale=0.33)
    if len(curve):
        line = [_curve_point(f, last, float(p), width) for f, p in enumerate(curve)]
        cv2.polylines(panel, [np.array(line, np.int32)], False, LABEL, 2, cv2.LINE_AA)
        _draw_text(panel, "label", width - RIGHT_PX - 76, 25, LABEL)
        _draw_text(panel, "model", width - RIGHT_PX - 38, 25, LINE)
    return panel


def _panel(
    ground: np.ndarray, rows: Sequence[Mapping[str, Any]], frame_index: int, last: int
) -> np.ndarray:
    panel = ground.copy()
    past = [r for r in rows if r["frame_index"] <= frame_index]
    places = [
        _curve_point(r["frame_index"], last, r["progress"] or 0.0, panel.shape[1]) for r in past
    ]
    # Pieces are not joined: a line across a gap would show numbers that nobody gave
    for has, piece in groupby(
        zip(past, places, strict=True), lambda both: both[0]["progress"] is not None
    ):
        if has:
            cv2.polylines(
                panel,
                [np.array([point for _, point in piece], np.int32)],
                False,
                LINE,
                2,
                cv2.LINE_AA,
            )
        else:
            for _, point in piece:
                cv2.circle(panel, point, 3, LOST, -1, cv2.LINE_AA)
    if past:
        cv2.circle(
            panel, places[-1], 4, LOST if past[-1]["progress"] is None else MARK, -1, cv2.LINE_AA
        )
        _draw_text(panel, _row_in_words(past[-1]), 4, 12)
    return panel


def _row_in_words(row: Mapping[str, Any]) -> str:
    if row["progress"] is None:
        return f"{row['timestamp_s']:.1f} s  no reward"
    done_text = "" if row["done"] is None else f"  done {row['done']:.2f}"
    return (
        f"{row['timestamp_s']:.1f} s  progress "
        f"{row['progress']:.2f}{done_text}{'  success' if row['success'] else ''}"
    )
