"""Visual change between consecutive frames, and perceptual hashes. Each frame is measured once.

Our change: mean absolute difference of area-averaged luma on a 64x64 grid, 0..1. It is continuous, so it sees motion
of a few pixels that a 64-bit hash rounds to nothing, and it is near 0 for a picture that stands still.
"""

import cv2
import numpy as np

from ingest.video import Picture

GRID = 64
BLACK_LUMA = 26  # of 255: black is 16 in video range, and a lit pixel is well above


def grid_of(luma: np.ndarray) -> np.ndarray:
    """uint8 [GRID, GRID]: area averages of a luma picture [h, w]."""
    return cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA)


def change(grid: np.ndarray, before: np.ndarray) -> float:
    """Mean absolute luma difference of two grids, 0..1."""
    return float(cv2.norm(grid, before, cv2.NORM_L1)) / (255.0 * grid.size)


def fast_phash(grid: np.ndarray) -> int:
    """64-bit perceptual hash from the grid: signs of its 8x8 lowest cosine coefficients about their median.

    Near the published hash but not equal to it: that one resizes each full picture with Lanczos (docs/labels.md has
    the deviation as measured).
    """
    small = cv2.resize(grid, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low: np.ndarray = np.asarray(cv2.dct(small), np.float32)[:8, :8]
    return _bits(low > np.median(low))


def published_phash(picture: Picture) -> int:
    """The hash of the published formula, exactly: imagehash's 8x8 DCT hash of the RGB picture. About 1 ms."""
    import imagehash
    from PIL import Image

    return _bits(imagehash.phash(Image.fromarray(picture.rgb())).hash)


def _bits(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits.reshape(-1)).tobytes(), "big")


def hamming(hashes: np.ndarray) -> np.ndarray:
    """Differing bits of each 64-bit hash to the one before, int [n]; 0 at frame 0."""
    out = np.zeros(len(hashes), np.int64)
    out[1:] = np.bitwise_count(hashes[1:] ^ hashes[:-1])
    return out
