"""Arrays that hold pictures: which are a camera's colours, how their values lie, and one of them as RGB.

Names, shapes and types tell; of floating-point numbers also the values of three rows. What is a
picture of something else (depth, segments) is known by its name, and left out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from core.values import spread
from ingest.media.frames import VideoError
from ingest.media.picture import ArrayPicture, array_picture
from ingest.signals.naming import words

MIN_SIDE = 8  # pixels: smaller things with three values are vectors
COLOUR_WORDS = frozenset({"rgb", "rgba", "bgr", "color", "colors", "colour", "colours"})
PICTURE_WORDS = COLOUR_WORDS | {
    "image", "images", "img", "imgs", "cam", "camera", "cameras", "gray", "grey", "grayscale", "picture", "pictures",
    "view", "frames", "pixels",
}  # fmt: skip
OTHER_KINDS = {
    "depth": "depth", "depths": "depth", "disparity": "depth", "seg": "segments", "segment": "segments",
    "segmentation": "segments", "segmentations": "segments", "semantic": "segments", "mask": "segments",
    "masks": "segments", "infra": "infrared", "infrared": "infrared", "flow": "optical flow",
    "normals": "surface normals", "pointcloud": "a point cloud",
}  # fmt: skip
SAMPLE_ROWS = 8  # of floating-point pictures, whose values tell the scale


class PictureForm(NamedTuple):
    """How the pictures of an array lie: channels before or after the sides, and what full brightness is."""

    channels_first: bool = False
    is_float: bool = False
    brightest: float = 255.0


def other_kind(path: str) -> str:
    """What an array of pictures shows other than colours, by the last part of its path that says anything; "" for
    colours. In a part the last word counts.

    Example: other_kind("obs/front_depth") == "depth", other_kind("depth_camera/rgb") == "".
    """
    for part in reversed(path.split("/")):
        for word in reversed(words(part)):
            if word in COLOUR_WORDS:
                return ""
            if word in OTHER_KINDS:
                return OTHER_KINDS[word]
    return ""


def is_called_picture(path: str) -> bool:
    """Does a part of the path say that there are pictures?"""
    return any(not PICTURE_WORDS.isdisjoint(words(part)) for part in path.split("/"))


def form_of(path: str, shape: Sequence[int | None], dtype: np.dtype | str) -> PictureForm | None:
    """How the pictures of an array lie, of which each row is one, by its description; None for what
    holds none.

    uint8 [t, h, w, 1, 3 or 4] and [t, 1, 3 or 4, h, w], [t, h, w] of a picture's name, and
    floating-point numbers likewise, whose `brightest` is not known yet (0).
    """
    dtype = np.dtype(dtype)
    is_float = dtype.kind == "f"
    sides = [size or 0 for size in shape[1:]]
    if dtype != np.uint8 and not is_float:
        return None
    is_grey = len(sides) == 2 and not is_float and min(sides) >= MIN_SIDE
    if is_grey and is_called_picture(path):
        return PictureForm()
    if len(sides) != 3:
        return None
    if sides[2] in (1, 3) and not is_float:
        return PictureForm()
    for channels_first, (channels, *other_sides) in ((False, sides[::-1]), (True, sides)):
        has_colours = channels == 3 or (channels in (1, 4) and is_called_picture(path))
        if has_colours and min(other_sides) >= MIN_SIDE:
            return PictureForm(channels_first, is_float, 0.0 if is_float else 255.0)
    return None


def scaled(
    form: PictureForm, num_rows: int, row: Callable[[int], np.ndarray]
) -> tuple[PictureForm | None, str]:
    """The form with what full brightness is, by a few rows; None and why not for values that are no pictures'.

    Raises ValueError where there are no rows.
    """
    if not form.is_float:
        return form, ""
    sample = np.stack([row(k) for k in spread(range(num_rows), SAMPLE_ROWS)])
    low = float(sample.min())
    high = float(sample.max())
    if not np.isfinite(sample).all() or low < 0 or high > 255:
        return (
            None,
            f"its values go from {low:.4g} to {high:.4g}, which are no picture's (0 to 1, or 0 to 255)",
        )
    return form._replace(brightest=1.0 if high <= 1 else 255.0), ""


def picture_of(array: np.ndarray, form: PictureForm, description: str) -> ArrayPicture:
    """One picture of an array, without its alpha channel; `description` names it in errors. Raises VideoError."""
    if form.channels_first:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[:, :, :3]
    if form.is_float:
        if not np.isfinite(array).all():
            raise VideoError(f"{description} holds values that are no numbers")
        array = np.clip(np.rint(array.astype(np.float64) * (255 / form.brightest)), 0, 255).astype(
            np.uint8
        )
    return array_picture(array, description)
