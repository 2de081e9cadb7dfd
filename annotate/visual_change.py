"""Visual change between consecutive frames, and perceptual hashes. Each frame is measured once.

Our change: mean absolute difference of area-averaged luma on a 64x64 grid, 0..1. It is continuous, so it sees motion
of a few pixels that a 64-bit hash rounds to nothing, and it is near 0 for a picture that stands still.
"""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from ingest.media.frames import Picture

GRID, SMALL, TINY = 64, 32, 16
# The lowest 8 rows of the type-2 cosine transform, float64 [8, SMALL], in whole numbers: times luma they stay below
# 2**53, so sums are exact, and a hash does not depend on how a machine orders them
_K, _X = np.arange(8)[:, None], np.arange(SMALL)[None, :]
COSINES = np.round(np.cos(np.pi * _K * (2 * _X + 1) / (2 * SMALL)) * np.where(_K, 1.0, np.sqrt(0.5)) * 2**15)
BLACK_LUMA = 26  # of 255: black is 16 in video range, and a lit pixel is well above


def area_averaged(picture: np.ndarray, side: int, out: np.ndarray | None = None) -> np.ndarray:
    """uint8 [side, side, ...]: area averages of a picture [h, w, ...], each rounded; its aspect is not kept.

    Even sizes are halved first, as long as they can be: OpenCV does that ten times faster than any other ratio. Where
    a cell is no even number of pixels wide, this blurs its edge by less than the halving's pixel.
    """
    while (half := halved(picture, side)) is not picture:
        picture = half
    return cv2.resize(picture, (side, side), dst=out, interpolation=cv2.INTER_AREA)


def halved(picture: np.ndarray, side: int = GRID) -> np.ndarray:
    """A picture [h, w, ...] at half its size, as `area_averaged` goes on from there; itself where it is not halved."""
    height, width = picture.shape[:2]
    if min(height, width) <= 2 * side or height % 2 or width % 2:
        return picture
    return cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Measures:
    """Measurements of one camera's pictures; arrays have one entry per frame."""

    change: np.ndarray  # float32, 0..1: mean absolute luma difference to the frame before; 0 at frame 0
    phash: np.ndarray  # uint64
    luma_mean: np.ndarray  # float32, 0..1
    is_black: np.ndarray  # bool
    luma_span: int  # largest minus least luma of the grid cell that varies most, of 255
    sha256: bytes  # over all grids
    tiny: np.ndarray  # uint8 [k, TINY, TINY]: the picture of every n-th frame, from 0 on


class FrameMeter:
    """Measures pictures one after the other, and keeps every n-th one tiny.

    Grids are worked on a block at a time, and only then are they let go.
    """

    BLOCK = 32  # the products of more pictures are so large that BLAS would start threads, which then wait busily

    def __init__(self, every: int = 1) -> None:
        self._every, self._measured = every, 0
        self._tiny: list[np.ndarray] = []
        self._block = np.empty((self.BLOCK + 1, GRID, GRID), np.uint8)  # the first is the last of the block before
        self._filled = 0
        # Of each block: change and sum of luma (whole numbers), hashes, blackness
        self._blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self._low, self._high = np.full((GRID, GRID), 255, np.uint8), np.zeros((GRID, GRID), np.uint8)
        self._sha256 = hashlib.sha256()

    def add(self, luma: np.ndarray) -> None:
        """The next picture: uint8 [h, w]; what `halved` makes of it is as good."""
        if self._filled == self.BLOCK:
            self._measure()
        self._filled += 1
        area_averaged(luma, GRID, self._block[self._filled])

    def _measure(self) -> None:
        grids, n = self._block[1 : self._filled + 1], self._filled
        # The very first frame is compared with itself: its change is 0
        if not self._blocks:
            self._block[0] = grids[0]
        before = self._block[:n]
        apart = np.maximum(grids, before) - np.minimum(grids, before)
        # a column of pictures is one tall picture
        small = cv2.resize(grids.reshape(-1, GRID), (SMALL, n * SMALL), interpolation=cv2.INTER_AREA)
        small = small.reshape(n, SMALL, SMALL)
        kept = small[-self._measured % self._every :: self._every]
        if len(kept):
            tall = cv2.resize(kept.reshape(-1, SMALL), (TINY, len(kept) * TINY), interpolation=cv2.INTER_AREA)
            self._tiny.append(tall.reshape(len(kept), TINY, TINY))
        self._measured += n
        # Sums stay below 2**24: exact in float32
        change, luma = (pictures.reshape(n, -1).sum(axis=1, dtype=np.uint32) for pictures in (apart, small))
        self._blocks.append((change, luma, fast_phashes(small), grids.reshape(n, -1).max(axis=1) < BLACK_LUMA))
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
        none = (np.zeros(0), np.zeros(0), np.zeros(0, np.uint64), np.zeros(0, bool))
        change, luma, phash, is_black = (np.concatenate(parts) for parts in zip(none, *self._blocks, strict=True))
        return Measures(
            change.astype(np.float32) / np.float32(255.0 * GRID * GRID),
            phash,
            luma.astype(np.float32) / np.float32(255.0 * SMALL * SMALL),
            is_black,
            int(np.max(self._high.astype(np.int16) - self._low)),
            self._sha256.digest(),
            np.concatenate([np.zeros((0, TINY, TINY), np.uint8), *self._tiny]),
        )


def fast_phashes(small: np.ndarray) -> np.ndarray:
    """64-bit perceptual hashes, uint64 [n], of n > 0 pictures uint8 [n, SMALL, SMALL]: signs of the 8x8 lowest cosine
    coefficients about their median.

    Near the published hash but not equal to it: that one resizes each full picture with Lanczos (docs/labels.md has
    the deviation as measured).
    """
    # Along the rows, then along the columns: the transform is separable, so a whole block takes two products
    across = small.reshape(-1, SMALL).astype(np.float64) @ COSINES.T
    down = np.ascontiguousarray(across.reshape(-1, SMALL, 8).swapaxes(1, 2)).reshape(-1, SMALL)
    low = (down @ COSINES.T).reshape(-1, 8, 8).swapaxes(1, 2).reshape(-1, 64)
    # Twice the median of 64 values, so no half is lost: the comparison stays in whole numbers
    middle = np.partition(low, (31, 32), axis=1)[:, 31:33].sum(axis=1, keepdims=True)
    return np.packbits(2 * low > middle, axis=1).view(">u8")[:, 0].astype(np.uint64)


def published_phash(picture: Picture) -> int:
    """The hash of the published formula, exactly: imagehash's 8x8 DCT hash of the RGB picture. About 1 ms."""
    import imagehash

    bits = imagehash.phash(Image.fromarray(picture.rgb())).hash
    return int.from_bytes(np.packbits(bits.reshape(-1)).tobytes(), "big")


def hamming(hashes: np.ndarray) -> np.ndarray:
    """Differing bits of each 64-bit hash to the one before, int [n]; 0 at frame 0."""
    return np.bitwise_count(hashes ^ np.r_[hashes[:1], hashes[:-1]]).astype(np.int64)
