"""A video with the reward's curve under the picture, for people: h264, yuv420p and fast start, which browsers play."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np

from eval.reward.video import Clip, frames

PANEL_PX = 120  # height of the curve
LEAST_PX = 320  # width of the picture: smaller ones are enlarged
MARGIN_PX = 10
PAPER, INK, FAINT, LINE, MARK, LOST = (
    (250, 250, 248), (40, 40, 40), (205, 205, 200), (31, 95, 170), (214, 96, 20), (190, 40, 40),
)  # fmt: skip
GRID = (0.0, 0.5, 1.0)  # progress at the horizontal lines
FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_overlay(out: Path, clip: Clip, rows: Sequence[Mapping[str, Any]], partial: bool = False) -> None:
    """Encode the first camera's frames with the curve of `rows` up to each, in one streaming pass. Raises RewardError.

    Where a row has no number the curve has a gap, with a mark on the ground line.
    """
    last = max(rows[-1]["frame_index"], 1)
    with av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: Any = None
        camera = clip.cameras[0]
        for index, together in enumerate(frames(clip, partial)):
            picture = _shown(together[camera][1].rgb())
            image = np.concatenate([picture, _panel(picture.shape[1], rows, index, last)])
            # The encoder has to know the pictures' size, which the first one tells.
            if stream is None:
                rate = Fraction(clip.fps).limit_denominator(1001)
                stream = cast(av.VideoStream, container.add_stream("libx264", rate=rate))
                stream.options = {"crf": "20", "preset": "veryfast"}
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        # The encoder holds frames back until it is told that none will follow.
        container.mux(stream.encode(None))


def _shown(rgb: np.ndarray) -> np.ndarray:
    """Both sides even, as yuv420p needs them."""
    scale = max(1.0, LEAST_PX / rgb.shape[1])
    height, width = (max(2, round(n * scale) // 2 * 2) for n in rgb.shape[:2])
    return rgb if rgb.shape[:2] == (height, width) else cv2.resize(rgb, (width, height))


def _panel(width: int, rows: Sequence[Mapping[str, Any]], now: int, last: int) -> np.ndarray:
    """The curve up to frame `now`; uint8 RGB [PANEL_PX, width, 3]."""
    panel = np.full((PANEL_PX, width, 3), PAPER, np.uint8)
    top, ground = MARGIN_PX + 14, PANEL_PX - MARGIN_PX

    def place(row: Mapping[str, Any]) -> tuple[int, int]:
        x = MARGIN_PX + row["frame_index"] / last * (width - 2 * MARGIN_PX)
        return round(x), round(ground - (row["progress"] or 0.0) * (ground - top))

    for share in GRID:
        y = round(ground - share * (ground - top))
        cv2.line(panel, (MARGIN_PX, y), (width - MARGIN_PX, y), FAINT, 1)
    past = [r for r in rows if r["frame_index"] <= now]
    # Pieces are not joined: a line across a gap would show numbers that nobody gave.
    for piece in _pieces(past):
        cv2.polylines(panel, [np.array([place(r) for r in piece], np.int32)], False, LINE, 2, cv2.LINE_AA)
    for row in past:
        if row["progress"] is None:
            cv2.circle(panel, place(row), 3, LOST, -1, cv2.LINE_AA)
    # The present row is marked, with its numbers in words.
    if past:
        present = past[-1]
        colour = LOST if present["progress"] is None else MARK
        cv2.circle(panel, place(present), 4, colour, -1, cv2.LINE_AA)
        cv2.putText(panel, _words(present), (MARGIN_PX, MARGIN_PX + 8), FONT, 0.42, INK, 1, cv2.LINE_AA)
    return panel


def _words(row: Mapping[str, Any]) -> str:
    if row["progress"] is None:
        return f"{row['timestamp_s']:.1f} s  no reward"
    done = "" if row["done"] is None else f"  done {row['done']:.2f}"
    return f"{row['timestamp_s']:.1f} s  progress {row['progress']:.2f}{done}{'  success' if row['success'] else ''}"


def _pieces(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Rows with numbers that follow each other."""
    piece: list[Mapping[str, Any]] = []
    for row in rows:
        if row["progress"] is not None:
            piece.append(row)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece
