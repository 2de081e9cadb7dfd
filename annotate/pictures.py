"""Pictures, measured and stored: visual change between consecutive frames, perceptual hashes, and
small JPEGs.

Our change: mean absolute difference of area-averaged luma on a 64x64 grid, 0..1. It is continuous,
so it sees motion of a few pixels that a 64-bit hash rounds to nothing, and it is near 0 for a
picture that stands still.

Keyframes are JPEGs of RGB. Pictures of shards are made of a video's own planes where it has them:
they are not turned into RGB and back, which takes half the time.
"""

import hashlib
from dataclasses import dataclass
from importlib import import_module

import cv2
import numpy as np
import simplejpeg

from ingest.episode import Picture, Planes

GRID = 64
SMALL = 32
TINY = 16
# The lowest 8 rows of the type-2 cosine transform, float64 [8, SMALL], in whole numbers: times luma they stay below
# 2**53, so sums are exact, and a hash does not depend on how a machine orders them
_K = np.arange(8)[:, None]
_X = np.arange(SMALL)[None, :]
COSINES = np.round(
    np.cos(np.pi * _K * (2 * _X + 1) / (2 * SMALL)) * np.where(_K, 1.0, np.sqrt(0.5)) * 2**15
)
NO_DETAIL = 400.0  # of sums over a grid: a tenth of a luma value a cell, so that an empty picture has a sharpness
BLACK_LUMA = 26  # of 255: black is 16 in video range, and a lit pixel is well above


def area_averaged(picture: np.ndarray, side: int, out: np.ndarray | None = None) -> np.ndarray:
    """uint8 [side, side, ...]: area averages of a picture [h, w, ...], each rounded; its aspect is
    not kept.

    Even sizes are halved first, as long as they can be: OpenCV does that ten times faster than any
    other ratio. Where a cell is no even number of pixels wide, this blurs its edge by less than the
    halving's pixel.
    """
    while (half := half_picture(picture, side)) is not picture:
        picture = half
    return cv2.resize(picture, (side, side), dst=out, interpolation=cv2.INTER_AREA)


def half_picture(picture: np.ndarray, side: int = GRID) -> np.ndarray:
    """A picture [h, w, ...] at half its size, as `area_averaged` goes on from there; itself where it is not halved."""
    height, width = picture.shape[:2]
    if min(height, width) <= 2 * side or height % 2 or width % 2:
        return picture
    return cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Measures:
    """Measurements of one camera's pictures; arrays have one entry per frame."""

    # float32, 0..1: mean absolute luma difference to the frame before; 0 at frame 0
    change: np.ndarray
    phash: np.ndarray  # uint64
    luma_mean: np.ndarray  # float32, 0..1
    # float32: how fine the detail of the grid is, see `detail_sums`; a logarithm
    sharpness: np.ndarray
    is_black: np.ndarray  # bool
    luma_span: int  # largest minus least luma of the grid cell that varies most, of 255
    sha256: bytes  # over all grids
    tiny: np.ndarray  # uint8 [k, TINY, TINY]: the picture of every n-th frame, from 0 on


class FrameMeter:
    """Measures pictures one after the other, and keeps every n-th one tiny.

    Grids are worked on a block at a time, and only then are they let go.
    """

    BLOCK = 48  # the products of more pictures are so large that BLAS would start threads, which then wait busily

    def __init__(self, every: int = 1) -> None:
        self._every = every
        self._measured = 0
        self._tiny: list[np.ndarray] = []
        # The first is the last of the block before
        self._block = np.empty((self.BLOCK + 1, GRID, GRID), np.uint8)
        self._filled = 0
        # Of each block: change and sum of luma (whole numbers), hashes, blackness, sums of detail
        self._blocks: list[tuple[np.ndarray, ...]] = []
        self._low = np.full((GRID, GRID), 255, np.uint8)
        self._high = np.zeros((GRID, GRID), np.uint8)
        self._sha256 = hashlib.sha256()

    def add(self, luma: np.ndarray) -> None:
        """The next picture: uint8 [h, w]; what `half_picture` makes of it is as good."""
        if self._filled == self.BLOCK:
            self._measure()
        self._filled += 1
        area_averaged(luma, GRID, self._block[self._filled])

    def _measure(self) -> None:
        grids = self._block[1 : self._filled + 1]
        n = self._filled
        # The very first frame is compared with itself: its change is 0
        if not self._blocks:
            self._block[0] = grids[0]
        previous_grids = self._block[:n]
        differences = np.maximum(grids, previous_grids) - np.minimum(grids, previous_grids)
        # a column of pictures is one tall picture
        small = cv2.resize(
            grids.reshape(-1, GRID), (SMALL, n * SMALL), interpolation=cv2.INTER_AREA
        )
        small = small.reshape(n, SMALL, SMALL)
        tiny_sources = small[-self._measured % self._every :: self._every]
        if len(tiny_sources):
            tall = cv2.resize(
                tiny_sources.reshape(-1, SMALL),
                (TINY, len(tiny_sources) * TINY),
                interpolation=cv2.INTER_AREA,
            )
            self._tiny.append(tall.reshape(len(tiny_sources), TINY, TINY))
        self._measured += n
        # Sums stay below 2**24: exact in float32
        change, luma = (
            pictures.reshape(n, -1).sum(axis=1, dtype=np.uint32)
            for pictures in (differences, small)
        )
        is_black = grids.reshape(n, -1).max(axis=1) < BLACK_LUMA
        self._blocks.append((change, luma, fast_phashes(small), is_black, *detail_sums(grids)))
        # Per cell over the whole video: a camera that shows one picture has almost no span anywhere
        np.minimum(self._low, grids.min(axis=0), out=self._low)
        np.maximum(self._high, grids.max(axis=0), out=self._high)
        self._sha256.update(np.ascontiguousarray(grids))
        # The next block is compared with the last picture of this one
        self._block[0] = grids[-1]
        self._filled = 0

    def read(self) -> Measures:
        """The measurements of all pictures so far."""
        if self._filled:
            self._measure()
        floats = np.zeros(0)
        none = (floats, floats, np.zeros(0, np.uint64), np.zeros(0, bool), floats, floats)
        change, luma, phash, is_black, curvature, slope = (
            np.concatenate(parts) for parts in zip(none, *self._blocks, strict=True)
        )
        return Measures(
            change.astype(np.float32) / np.float32(255.0 * GRID * GRID),
            phash,
            luma.astype(np.float32) / np.float32(255.0 * SMALL * SMALL),
            np.log((curvature + NO_DETAIL) / (slope + NO_DETAIL)).astype(np.float32),
            is_black,
            int(np.max(self._high.astype(np.int16) - self._low)),
            self._sha256.digest(),
            np.concatenate([np.zeros((0, TINY, TINY), np.uint8), *self._tiny]),
        )


def detail_sums(grids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the absolute Laplacian and of the absolute slopes of each picture, of [n, GRID, GRID]
    uint8: two whole numbers [n].

    Blur takes more from the first than from the second, and light takes as much from both.
    """
    n = len(grids)
    # A column of pictures is one tall picture; where two meet, nothing counts
    laplacian = cv2.Laplacian(grids.reshape(-1, GRID), cv2.CV_16S, ksize=1).reshape(grids.shape)
    inner = np.abs(laplacian[:, 1:-1, 1:-1])
    curvature = inner.reshape(n, -1).sum(axis=1, dtype=np.uint32)
    down = cv2.absdiff(grids[:, 1:].reshape(-1, GRID), grids[:, :-1].reshape(-1, GRID))
    across = cv2.absdiff(
        grids[:, :, 1:].reshape(-1, GRID - 1), grids[:, :, :-1].reshape(-1, GRID - 1)
    )
    slope_down = down.reshape(n, -1).sum(axis=1, dtype=np.uint32)
    slope_across = across.reshape(n, -1).sum(axis=1, dtype=np.uint32)
    return curvature, slope_down + slope_across


def fast_phashes(small: np.ndarray) -> np.ndarray:
    """64-bit perceptual hashes, uint64 [n], of n > 0 pictures uint8 [n, SMALL, SMALL]: signs of the
    8x8 lowest cosine coefficients about their median.

    Near the published hash but not equal to it: that one resizes each full picture with Lanczos
    (docs/labels.md has the deviation as measured).
    """
    # Along the rows, then along the columns: the transform is separable, so a whole block takes two products
    across = small.reshape(-1, SMALL).astype(np.float64) @ COSINES.T
    down = np.ascontiguousarray(across.reshape(-1, SMALL, 8).swapaxes(1, 2)).reshape(-1, SMALL)
    low = (down @ COSINES.T).reshape(-1, 8, 8).swapaxes(1, 2).reshape(-1, 64)
    # Twice the median of 64 values, so no half is lost: the comparison stays in whole numbers
    middle = np.partition(low, (31, 32), axis=1)[:, 31:33].sum(axis=1, keepdims=True)
    return np.packbits(2 * low > middle, axis=1).view(">u8")[:, 0].astype(np.uint64)


def mean_luma(luma: np.ndarray) -> float:
    """The mean luma, 0..1, of a picture's luma uint8 [h, w], as a FrameMeter has it."""
    grid = area_averaged(luma, GRID)
    small = cv2.resize(grid, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return int(small.sum()) / (255 * SMALL * SMALL)


def published_phash(picture: Picture) -> int:
    """The hash of the published formula, exactly: imagehash's 8x8 DCT hash of the RGB picture. About 1 ms."""
    image = import_module("PIL.Image").fromarray(picture.rgb())
    bits = import_module("imagehash").phash(image).hash
    return int.from_bytes(np.packbits(bits.reshape(-1)).tobytes(), "big")


def hamming(hashes: np.ndarray) -> np.ndarray:
    """Differing bits of each 64-bit hash to the one before, int [n]; 0 at frame 0."""
    return np.bitwise_count(hashes ^ np.r_[hashes[:1], hashes[:-1]]).astype(np.int64)


JPEG_QUALITY = 90
# From 16..235 and 16..240, as videos hold luma and colours, to 0..255 as JPEG does
_LEVELS = np.arange(256, dtype=np.float64)
FULL_LUMA = np.clip(np.round((_LEVELS - 16) * 255 / 219), 0, 255).astype(np.uint8)
FULL_CHROMA = np.clip(np.round((_LEVELS - 128) * 255 / 224 + 128), 0, 255).astype(np.uint8)


def fitted_picture(rgb: np.ndarray, max_px: int) -> np.ndarray:
    """A picture made no larger than max_px on its longer side, as it is before it is stored; aspect
    kept.

    Every picture of a video may go through here, so it is quick where a full area average
    (training.pictures.shrink) is slow. The two give different pixels, and stored pictures have to
    stay as they are.
    """
    height, width = rgb.shape[:2]
    return _shrunk_picture(rgb, *_fitting_size(width, height, max_px))


def _fitting_size(width: int, height: int, max_px: int) -> tuple[tuple[int, int], int]:
    """(width, height) of a picture that was made to fit, and the whole factor that is in between."""
    scale = max_px / max(height, width)
    if scale >= 1.0:
        return (width, height), 1
    return (max(1, round(width * scale)), max(1, round(height * scale))), int(1 / scale)


def _shrunk_picture(picture: np.ndarray, size: tuple[int, int], factor: int) -> np.ndarray:
    """A picture [h, w, ...] at a smaller (width, height).

    An area average is quick over whole blocks of pixels only. It comes first, as far as a whole
    factor goes; what remains is a factor below 2, where linear interpolation reaches all pixels,
    too. A picture that does not consist of whole blocks takes the slow way.
    """
    height, width = picture.shape[:2]
    if width % factor or height % factor:
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if factor > 1:
        picture = cv2.resize(
            picture, (width // factor, height // factor), interpolation=cv2.INTER_AREA
        )
    if picture.shape[1::-1] == size:
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def encode_jpeg(
    rgb: np.ndarray, max_px: int, quality: int = JPEG_QUALITY
) -> tuple[bytes, int, int]:
    """JPEG bytes, width and height of a picture made no larger than max_px on its longer side; aspect kept."""
    rgb = fitted_picture(rgb, max_px)
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return data.tobytes(), rgb.shape[1], rgb.shape[0]


def shard_jpeg(picture: Picture, max_px: int, quality: int) -> bytes:
    """A picture as shards hold it, made no larger than max_px on its longer side; aspect kept.

    By a video's planes where it has them and all sizes are even, else by RGB.
    """
    return fitted_jpeg(picture, fitted_planes(picture, max_px), max_px, quality)


def fitted_jpeg(picture: Picture, planes: Planes | None, max_px: int, quality: int) -> bytes:
    """As `shard_jpeg`, of a picture with what `fitted_planes` made of it."""
    if planes is None:
        return encode_jpeg(picture.rgb(), max_px, quality)[0]
    y, u, v = planes.y, planes.u, planes.v
    if planes.is_full_range:
        y, u, v = (np.ascontiguousarray(plane) for plane in (y, u, v))
    else:
        y = cv2.LUT(y, FULL_LUMA)
        u = cv2.LUT(u, FULL_CHROMA)
        v = cv2.LUT(v, FULL_CHROMA)
    return simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality)


def fitted_planes(
    picture: Picture, max_px: int, half_luma: np.ndarray | None = None
) -> Planes | None:
    """A video's planes, made no larger than max_px on the longer side; aspect kept.

    None where a picture has none, or a size is odd: half of an odd number of pixels would shift the colours.
    half_luma: what `half_picture` made of its luma, where that is known.
    """
    planes = picture.planes()
    if planes is None:
        return None
    height, width = planes.y.shape
    size, factor = _fitting_size(width, height, max_px)
    if any(side % 2 for side in (width, height, *size)):
        return None
    if size == (width, height):
        return planes
    # The halving that measuring the picture has begun with is the one that comes first here
    if factor == 2 and half_luma is not None and half_luma.shape == (height // 2, width // 2):
        y = _shrunk_picture(half_luma, size, 1)
    else:
        y = _shrunk_picture(planes.y, size, factor)
    half_size = size[0] // 2, size[1] // 2
    u, v = (_shrunk_picture(plane, half_size, factor) for plane in (planes.u, planes.v))
    return Planes(y, u, v, planes.is_full_range)
