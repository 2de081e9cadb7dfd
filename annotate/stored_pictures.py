"""Pictures as they are stored: made smaller, as JPEG.

Keyframes are JPEGs of RGB. Pictures of shards are made of a video's own planes where it has them: they are not turned
into RGB and back, which takes half the time.
"""

from functools import cached_property

import cv2
import numpy as np
import simplejpeg

from ingest.media.frames import Picture

JPEG_QUALITY = 90
# From 16..235 and 16..240, as videos hold luma and colours, to 0..255 as JPEG does
_LEVELS = np.arange(256, dtype=np.float64)
FULL_LUMA = np.clip(np.round((_LEVELS - 16) * 255 / 219), 0, 255).astype(np.uint8)
FULL_CHROMA = np.clip(np.round((_LEVELS - 128) * 255 / 224 + 128), 0, 255).astype(np.uint8)


class SharedPicture:
    """A picture that several look at: what they need of it is converted once.

    half_luma: the first halving of its luma on the way to a grid (visual_change.halved); the luma where there is none.
    """

    def __init__(self, picture: Picture, luma: np.ndarray, half_luma: np.ndarray) -> None:
        self._picture, self._luma, self.half_luma = picture, luma, half_luma
        self.is_damaged, self.is_key = picture.is_damaged, picture.is_key
        self.planes = picture.planes

    def luma(self) -> np.ndarray:
        """uint8 [h, w]; valid as long as that of the picture."""
        return self._luma

    def rgb(self) -> np.ndarray:
        """uint8 [h, w, 3]; for all who ask, so do not write into it."""
        return self._rgb

    @cached_property
    def _rgb(self) -> np.ndarray:
        return self._picture.rgb()


def fitted(rgb: np.ndarray, max_px: int) -> np.ndarray:
    """A picture made no larger than max_px on its longer side, as it is before it is stored; aspect kept.

    Every picture of a video may go through here, so it is quick where a full area average (training.pictures.shrink)
    is slow. The two give different pixels, and stored pictures have to stay as they are.
    """
    height, width = rgb.shape[:2]
    return _shrunk(rgb, *_fitting(width, height, max_px))


def _fitting(width: int, height: int, max_px: int) -> tuple[tuple[int, int], int]:
    """(width, height) of a picture that was made to fit, and the whole factor that is in between."""
    scale = max_px / max(height, width)
    if scale >= 1.0:
        return (width, height), 1
    return (max(1, round(width * scale)), max(1, round(height * scale))), int(1 / scale)


def _shrunk(picture: np.ndarray, size: tuple[int, int], factor: int) -> np.ndarray:
    """A picture [h, w, ...] at a smaller (width, height).

    An area average is quick over whole blocks of pixels only. It comes first, as far as a whole factor goes; what
    remains is a factor below 2, where linear interpolation reaches all pixels, too. A picture that does not consist
    of whole blocks takes the slow way.
    """
    height, width = picture.shape[:2]
    if width % factor or height % factor:
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if factor > 1:
        picture = cv2.resize(picture, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return picture if picture.shape[1::-1] == size else cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def encode_jpeg(rgb: np.ndarray, max_px: int, quality: int = JPEG_QUALITY) -> tuple[bytes, int, int]:
    """JPEG bytes, width and height of a picture made no larger than max_px on its longer side; aspect kept."""
    rgb = fitted(rgb, max_px)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes(), rgb.shape[1], rgb.shape[0]


def shard_jpeg(picture: Picture, max_px: int, quality: int) -> bytes:
    """A picture as shards hold it, made no larger than max_px on its longer side; aspect kept.

    By a video's planes where it has them and all sizes are even, else by RGB: half of an odd number of pixels would
    shift the colours. The same bytes whoever else has looked at it.
    """
    planes = picture.planes()
    if planes is None:
        return encode_jpeg(picture.rgb(), max_px, quality)[0]
    height, width = planes.y.shape
    size, factor = _fitting(width, height, max_px)
    if any(side % 2 for side in (width, height, *size)):
        return encode_jpeg(picture.rgb(), max_px, quality)[0]
    y, u, v = planes.y, planes.u, planes.v
    if size != (width, height):
        # The halving that measuring the picture has begun with is the one that comes first here
        half = picture.half_luma if isinstance(picture, SharedPicture) else y
        is_halved = factor == 2 and half.shape == (height // 2, width // 2)
        y = _shrunk(half, size, 1) if is_halved else _shrunk(y, size, factor)
        u, v = (_shrunk(plane, (size[0] // 2, size[1] // 2), factor) for plane in (u, v))
    if planes.is_full_range:
        y, u, v = (np.ascontiguousarray(plane) for plane in (y, u, v))
    else:
        y, u, v = cv2.LUT(y, FULL_LUMA), cv2.LUT(u, FULL_CHROMA), cv2.LUT(v, FULL_CHROMA)
    return simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality)
