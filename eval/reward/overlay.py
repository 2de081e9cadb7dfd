"""A video with the reward's curve under the picture, for people: h264, yuv420p and fast start, which browsers play."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eval.reward.video import RunClip, frames
from ingest.media.encoding import SHOWN, encode

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


def write_overlay(
    out: Path, clip: RunClip, rows: Sequence[Mapping[str, Any]], partial: bool = False
) -> None:
    """Encode the first camera's frames with the curve of `rows` up to each, in one streaming pass. Raises RewardError.

    Behind it the clip's label, where it has one: its whole curve, and its steps by name. Where a row has no number the
    curve has a gap, with a mark on the ground line.
    """
    curve = clip.labelled
    steps = clip.steps
    last = max(rows[-1]["frame_index"], 1, len(curve) - 1)
    ground = None

    def images() -> Iterator[np.ndarray]:
        nonlocal ground
        camera = clip.cameras[0]
        for index, camera_frames in enumerate(frames(clip, partial)):
            picture = _even_sides(camera_frames[camera][1].rgb())
            step = next((name for start, end, name in steps if start <= index < end), "")
            if ground is None:
                ground = _panel_without_model(picture.shape[1], clip.fps, last, curve, steps)
            yield np.concatenate([picture, _panel(ground, rows, index, last, step)])

    encode(images(), out, clip.fps, SHOWN)


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
    ground: np.ndarray, rows: Sequence[Mapping[str, Any]], frame_index: int, last: int, step: str
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
    _draw_text(panel[:, : -RIGHT_PX - 80], step, 4, 25)
    return panel


def _row_in_words(row: Mapping[str, Any]) -> str:
    if row["progress"] is None:
        return f"{row['timestamp_s']:.1f} s  no reward"
    done_text = "" if row["done"] is None else f"  done {row['done']:.2f}"
    return (
        f"{row['timestamp_s']:.1f} s  progress "
        f"{row['progress']:.2f}{done_text}{'  success' if row['success'] else ''}"
    )
