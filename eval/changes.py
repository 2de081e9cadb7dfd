"""Pictures of a run as they would look of another robot, in other light, from another place. Nothing is drawn anew:
what is changed are the pixels that were recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from eval.benchmarks.question import BenchmarkError, PictureFile
from training.pictures import decode_picture

MOVED = 24  # of 255: what differs so much from the run's median picture is the robot, or what it carries
DARK = 100  # of 255: a robot of less is dark
BACKGROUND_OF = 15  # pictures, of which the median is taken
FULL = 1 << 30  # no limit on a picture's side
TURN_DEGREES, NEARER, ASIDE = 5.0, 1.08, 0.04


@dataclass(frozen=True)
class ChangedPicture(PictureFile):
    """`base` as `change` makes it; `run`: pictures of the same run, which tell what moves in it. Read as a PNG."""

    base: PictureFile | None = None
    change: str = ""
    run: tuple[PictureFile, ...] = field(default=(), repr=False)

    def read(self) -> bytes:
        """Raises BenchmarkError."""
        return _changed(self)


@lru_cache(maxsize=512)
def _changed(picture: ChangedPicture) -> bytes:
    assert picture.base is not None
    rgb = CHANGES[picture.change](_decoded(picture.base), picture.run)
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def _decoded(picture: PictureFile) -> np.ndarray:
    """uint8 RGB [h, w, 3]. Raises BenchmarkError."""
    try:
        return decode_picture(picture.read(), FULL)
    except (ValueError, cv2.error) as e:
        raise BenchmarkError(f"picture {picture.path} is neither a JPEG nor a PNG") from e


def _darker(rgb: np.ndarray, run: Sequence[PictureFile]) -> np.ndarray:
    """Half the light."""
    return (rgb * 0.5).astype(np.uint8)


def _brighter(rgb: np.ndarray, run: Sequence[PictureFile]) -> np.ndarray:
    """Half as much light again: what is bright already is white."""
    return np.minimum(rgb * 1.5, 255).astype(np.uint8)


def _camera(rgb: np.ndarray, run: Sequence[PictureFile]) -> np.ndarray:
    """Turned by 5 degrees, 8 % nearer, 4 % aside; at the edges the outermost pixels go on."""
    h, w = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), TURN_DEGREES, NEARER)
    matrix[:, 2] += ASIDE * w, ASIDE * h
    return cv2.warpAffine(rgb, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _robot_colour(rgb: np.ndarray, run: Sequence[PictureFile]) -> np.ndarray:
    """What moves is grey and of the other brightness: a dark robot white, a bright one black. What it carries, too."""
    background = _background(tuple(run), rgb.shape)
    away = np.abs(rgb.astype(np.int16) - background).max(axis=2).astype(np.uint8)
    moved = (cv2.medianBlur(away, 5) > MOVED).astype(np.uint8)
    moved = cv2.morphologyEx(moved, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    if not moved.any():
        return rgb
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    other = 255 - (255 - luma) * 0.4 if np.median(luma[moved > 0]) < DARK else luma * 0.3
    # Without a hard edge, which no camera shows
    share = cv2.GaussianBlur(moved.astype(np.float32), (5, 5), 0)[..., None]
    return (rgb * (1 - share) + other[..., None] * share).astype(np.uint8)


@lru_cache(maxsize=8)
def _background(run: tuple[PictureFile, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The median picture of a run, int16 [h, w, 3]. Raises BenchmarkError."""
    chosen = [run[k] for k in np.unique(np.linspace(0, len(run) - 1, BACKGROUND_OF).round().astype(int))]
    pictures = [rgb for rgb in map(_decoded, chosen) if rgb.shape == shape]
    return np.median(np.stack(pictures), axis=0).astype(np.int16)


CHANGES: dict[str, Callable[[np.ndarray, Sequence[PictureFile]], np.ndarray]] = {
    "darker": _darker,
    "brighter": _brighter,
    "camera": _camera,
    "robot_colour": _robot_colour,
}
