"""Figures that need no display: the few things every picture of the project shares."""

import io
from importlib import import_module
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from core.pictures import decode_stored

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# For annotations, without the import of matplotlib
type Axes = matplotlib.axes.Axes
type Figure = matplotlib.figure.Figure
FINEST_DPI = 140
# Kinds and resolutions of a file, from the one with most to see; the first that is small enough is taken
ATTEMPTS = (
    ("png", 140),
    ("png", 110),
    ("png", 80),
    ("jpeg", 110),
    ("jpeg", 80),
    ("jpeg", 60),
    ("jpeg", 45),
)
MAX_BYTES = 20_000  # of a picture that is stored with a Dagster event
COLOURS = ("#4878a8", "#e0904c", "#6a9f58", "#b8606a", "#8b7bb5", "#8a6d5b", "#c58bb8", "#a3a04b")


def new_figure(
    width: float = 7.0, height: float = 2.6, rows: int = 1, columns: int = 1, **kwargs: Any
) -> tuple[Figure, Any]:
    """A matplotlib figure (inches) and its axes [rows, columns]."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def render(figure: Figure | None, max_bytes: int = MAX_BYTES, *, drawing: bool = False) -> bytes:
    """The figure as PNG, or JPEG where photographs make that too large, with as many pixels as fit
    into max_bytes; None is empty. `drawing`: without photographs, so 32 colours do."""
    if figure is None:
        return b""
    # Drawn once at the finest resolution; attempts go from the best to the smallest
    data = b""
    png_bytes = 0
    pixels = {FINEST_DPI: _drawn(figure, FINEST_DPI)}
    for kind, dpi in ATTEMPTS:
        share = dpi / FINEST_DPI
        # A file hardly shrinks more than its pixels: a PNG that cannot become small enough is not tried
        if kind == "png" and png_bytes * share**2 > max_bytes:
            continue
        # Made smaller, since to draw the figure anew takes ten times as long
        if dpi not in pixels:
            pixels[dpi] = cv2.resize(
                pixels[FINEST_DPI], None, fx=share, fy=share, interpolation=cv2.INTER_AREA
            )
        buffer = _encoded(pixels[dpi], kind, dpi)
        data = _few_colours(buffer) if drawing and kind == "png" else buffer.getvalue()
        if len(data) <= max_bytes:
            break
        png_bytes = png_bytes or len(data)
    return data


def _drawn(figure: Figure, dpi: int) -> np.ndarray:
    """The figure's pixels, RGBA. `savefig` would lay it out and draw it twice for each file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


def _encoded(rgba: np.ndarray, kind: str, dpi: int) -> io.BytesIO:
    """The pixels as a file; a JPEG, which knows no transparency, on white."""
    buffer = io.BytesIO()
    pillow = import_module("PIL.Image")
    picture = pillow.fromarray(rgba)
    if kind == "jpeg":
        picture = pillow.alpha_composite(
            pillow.new("RGBA", picture.size, "white"), picture
        ).convert("RGB")
    picture.save(buffer, kind, dpi=(dpi, dpi), quality=75)
    return buffer


def _few_colours(png: io.BytesIO) -> bytes:
    buffer = io.BytesIO()
    pillow = import_module("PIL.Image")
    picture = pillow.open(png).convert("RGB").quantize(32, dither=pillow.Dither.NONE)
    picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def picture_kind(data: bytes) -> str:
    """png or jpeg, as a media type and a file name have it."""
    if data.startswith(b"\x89PNG"):
        return "png"
    return "jpeg"


def jpeg_to_rgb(jpeg: bytes, height: int) -> np.ndarray:
    """A stored picture as RGB uint8 of a given height. Raises ValueError."""
    bgr = decode_stored(jpeg)
    size = (round(bgr.shape[1] * height / bgr.shape[0]), height)
    return cv2.cvtColor(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)


def shorten(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    return text[: max(1, length - 1)] + "…"
