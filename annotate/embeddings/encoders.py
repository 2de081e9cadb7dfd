"""Frozen encoders by name: pictures of one size in, numbers out. torch is imported only where an encoder needs it.

Whatever an encoder gives becomes 256 numbers of the whole picture and 64 of each cell of a grid
(projection.py).
"""

from functools import lru_cache

import cv2
import numpy as np

from annotate.config import EmbeddingsConfig
from annotate.embeddings import EncoderError, lack_of_packages
from annotate.embeddings.projection import Encoder
from annotate.pictures import area_averaged

GREY_PX = 64
GREY_BATCH = 32
GREY_SMALL = 1
GREY_WHOLE, GREY_CELL = 16, 8  # sides of the small pictures that are the numbers of grey
FLAT = 1.0  # of 255: what varies less has no contrast that could be made equal


def load_encoder(config: EmbeddingsConfig) -> Encoder:
    """The encoder of a configuration, loaded once in a process. Raises EncoderError where it cannot be had."""
    return _load(config.encoder, config.grid, config.size_px, config.device)


@lru_cache(maxsize=2)
def _load(name: str, grid: int, size_px: int | None, device: str) -> Encoder:
    if name == "grey":
        size = size_px or GREY_PX
        return Encoder(
            f"grey@{size}",
            size,
            "cpu",
            GREY_BATCH,
            GREY_SMALL,
            lambda pictures: np.stack([_grey_numbers(picture, grid) for picture in pictures]),
        )
    if lack := lack_of_packages(name):
        raise EncoderError(lack)
    from annotate.embeddings.networks import network

    return network(name, grid, size_px, device)


def _grey_numbers(picture: np.ndarray, grid: int) -> np.ndarray:
    """A small grey picture of even contrast, float32 [256 + 64 * grid ** 2], of uint8 RGB [s, s, 3].

    Of the whole picture 16 x 16 cells, of each cell of the grid 8 x 8; mean 0 and deviation 1 over
    the picture.
    """
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    even = (luma - luma.mean()) / max(float(luma.std()), FLAT)
    side = grid * GREY_CELL
    whole, fine = (
        cv2.resize(even, (px, px), interpolation=cv2.INTER_AREA) for px in (GREY_WHOLE, side)
    )
    cells = fine.reshape(grid, GREY_CELL, grid, GREY_CELL).swapaxes(1, 2)
    return np.concatenate([whole.ravel(), cells.ravel()])


def encoder_input(rgb: np.ndarray, size_px: int) -> np.ndarray:
    """A picture as an encoder is given it: uint8 [size_px, size_px, 3], area averages of all of it, squeezed square."""
    return area_averaged(rgb, size_px)
