"""Pictures that do not come from a video: encoded images and arrays, and pictures whose colours are stored swapped."""

import io
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

import cv2
import numpy as np

from ingest.episode import Picture, SkippedFrame, VideoError
from ingest.reasons import LIMITS, Limits

AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# How pictures begin; and how those begin that are base64 text: JPEG, PNG, WebP
PICTURE_TEXTS = (b"data:image/", b"/9j/", b"iVBORw0KGgo", b"UklGR")
PICTURE_MARKS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"II*\0", b"MM\0*"),
    *PICTURE_TEXTS,
)


@dataclass(frozen=True)
class ArrayPicture:
    """uint8 [h, w, 3] RGB, or [h, w]."""

    array: np.ndarray
    is_damaged: bool = False  # what cannot be decoded in full is no picture
    is_key: bool = True

    def luma(self) -> np.ndarray:
        """uint8 [h, w]"""
        if self.array.ndim == 2:
            return self.array
        return cv2.cvtColor(self.array, cv2.COLOR_RGB2GRAY)

    def rgb(self) -> np.ndarray:
        """uint8 [h, w, 3]"""
        if self.array.ndim == 2:
            return cv2.cvtColor(self.array, cv2.COLOR_GRAY2RGB)
        return self.array

    def planes(self) -> None:
        return None


def swapped(stored: Picture) -> Picture:
    """A picture that is stored as BGR where RGB was meant; what was not decoded stays so."""
    if isinstance(stored, SkippedFrame):
        return stored
    return ArrayPicture(
        cv2.cvtColor(stored.rgb(), cv2.COLOR_BGR2RGB), stored.is_damaged, stored.is_key
    )


def check_size(width: int, height: int, description: str, limits: Limits) -> None:
    """Raises VideoError for a picture that claims to be larger than the limits; `description` names it."""
    if problem := limits.excess(
        "max_pixels", width * height, f"{description} claims to be {width}x{height} px: pixels"
    ):
        raise VideoError(problem, "over_limit")


def picture_size(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded picture by its header; (0, 0) for what is none."""
    pillow = import_module("PIL.Image")
    try:
        with pillow.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError):
        return 0, 0


def decode_picture(data: bytes, description: str, limits: Limits = LIMITS) -> ArrayPicture:
    """A JPEG, PNG, WebP, BMP or TIFF picture as its pixels are stored, as PIL and TFDS give it: an orientation that
    EXIF states turns nothing; also one that is base64 text. `description` names it in errors. Raises VideoError.
    """
    if data.startswith(PICTURE_TEXTS):
        with suppress(ValueError):  # what is no base64 is no picture
            data = b64decode(data.rpartition(b",")[2])
    # The header first: a small file may claim to be a picture that fills the memory
    height, width = picture_size(data)
    if not (height or width):
        raise VideoError(f"{description} is not a picture ({len(data)} bytes)")
    check_size(width, height, description, limits)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), AS_STORED)
    except cv2.error as e:
        raise VideoError(f"{description} cannot be decoded ({e.err})") from e
    # OpenCV may return nothing for damaged data, without an error
    if bgr is None:
        raise VideoError(f"{description} cannot be decoded")
    return ArrayPicture(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def array_picture(array: np.ndarray, description: str) -> ArrayPicture:
    """A raw picture [h, w], [h, w, 1] or [h, w, 3] of uint8; `description` names it in errors. Raises VideoError."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] != 3)
    ):
        raise VideoError(f"{description} is no picture: {array.dtype} {list(array.shape)}")
    if 0 in array.shape:
        raise VideoError(f"{description} is empty: {list(array.shape)}")
    return ArrayPicture(np.ascontiguousarray(array))
