"""Visual change between consecutive frames, and perceptual hashes. Each frame is measured once.

Our change: mean absolute difference of area-averaged luma on a 64x64 grid, 0..1. It is continuous, so it sees motion
of a few pixels that a 64-bit hash rounds to nothing, and it is near 0 for a picture that stands still.
"""

import cv2
import numpy as np

from ingest.video import Picture

GRID, SMALL = 64, 32
BLACK_LUMA = 26  # of 255: black is 16 in video range, and a lit pixel is well above


def grid_of(luma: np.ndarray) -> np.ndarray:
    """uint8 [GRID, GRID]: area averages of a luma picture [h, w], each rounded.

    Even sizes are halved first, as long as they can be: OpenCV does that ten times faster than any other ratio. Where
    a cell is no even number of pixels wide, this blurs its edge by less than the halving's pixel.
    """
    height, width = luma.shape
    while min(height, width) >= 2 * GRID and height % 2 == 0 and width % 2 == 0:
        height, width = height // 2, width // 2
        luma = cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA)
    return luma if luma.shape == (GRID, GRID) else cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA)


def small_of(grid: np.ndarray) -> np.ndarray:
    """uint8 [SMALL, SMALL]: what fast hashes are made from."""
    return cv2.resize(grid, (SMALL, SMALL), interpolation=cv2.INTER_AREA)


def change(grid: np.ndarray, before: np.ndarray) -> float:
    """Mean absolute luma difference of two grids, 0..1."""
    return float(cv2.norm(grid, before, cv2.NORM_L1)) / (255.0 * grid.size)


def _cosines() -> np.ndarray:
    """float64 [8, SMALL]: the lowest rows of the type-2 cosine transform, in whole numbers.

    Times luma they stay below 2**53, so sums are exact: a hash does not depend on how a machine orders them.
    """
    k, x = np.arange(8)[:, None], np.arange(SMALL)[None, :]
    return np.round(np.cos(np.pi * k * (2 * x + 1) / (2 * SMALL)) * np.where(k, 1.0, np.sqrt(0.5)) * 2**15)


def fast_phashes(small: np.ndarray) -> np.ndarray:
    """64-bit perceptual hashes, uint64 [n], of pictures uint8 [n, SMALL, SMALL]: signs of the 8x8 lowest cosine
    coefficients about their median.

    Near the published hash but not equal to it: that one resizes each full picture with Lanczos (docs/labels.md has
    the deviation as measured).
    """
    cosines = _cosines()
    rows = small.reshape(-1, SMALL).astype(np.float64) @ cosines.T
    low = np.matmul(cosines, rows.reshape(-1, SMALL, 8)).reshape(-1, 64)
    middle = np.partition(low, (31, 32), axis=1)[:, 31:33].sum(axis=1, keepdims=True)
    return np.packbits(2 * low > middle, axis=1).view(">u8")[:, 0].astype(np.uint64)


def published_phash(picture: Picture) -> int:
    """The hash of the published formula, exactly: imagehash's 8x8 DCT hash of the RGB picture. About 1 ms."""
    import imagehash
    from PIL import Image

    bits = imagehash.phash(Image.fromarray(picture.rgb())).hash
    return int.from_bytes(np.packbits(bits.reshape(-1)).tobytes(), "big")


def hamming(hashes: np.ndarray) -> np.ndarray:
    """Differing bits of each 64-bit hash to the one before, int [n]; 0 at frame 0."""
    out = np.zeros(len(hashes), np.int64)
    out[1:] = np.bitwise_count(hashes[1:] ^ hashes[:-1])
    return out
