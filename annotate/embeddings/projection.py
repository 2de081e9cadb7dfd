"""Numbers of one size, whatever an encoder gives: 256 of the whole picture, and 64 of each cell of a grid.

A feature map is averaged over the area of each cell. A feature vector is multiplied by fixed random
signs: distances stay as they are to some 10 %.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WHOLE = 256
CELL = 64


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder under one configuration.

    title: its name and the side of the pictures it is given, as `embeddings.encoder`.
    batch, small_batch: how many pictures it is given at once, never another number of them.
    embed: float32 [n, 256 + 64 * cells] of pictures, uint8 RGB [n, size_px, size_px, 3].
    """

    title: str
    size_px: int
    device: str
    batch: int
    small_batch: int
    embed: Callable[[np.ndarray], np.ndarray]


def signs(inputs: int, outputs: int) -> np.ndarray:
    """The fixed projection of `inputs` numbers to `outputs`: float32 [inputs, outputs] of +-1 / sqrt(outputs).

    The signs are bits of a hash, so that they depend on no library's random numbers.
    """
    seed = f"proccorpus embeddings {inputs} {outputs}".encode()
    bits = np.unpackbits(
        np.frombuffer(hashlib.shake_256(seed).digest(-(-inputs * outputs // 8)), np.uint8)
    )
    matrix = bits[: inputs * outputs].reshape(inputs, outputs).astype(np.float32) * 2 - 1
    return matrix / np.float32(np.sqrt(outputs))


def area_weights(cells: int, places: int) -> np.ndarray:
    """Weights of the places along a side of a map in each cell: float32 [cells, places], rows sum to 1.

    Example: area_weights(2, 3) has the rows 2/3, 1/3, 0 and 0, 1/3, 2/3
    """
    begin = np.arange(cells)[:, None] / cells
    place = np.arange(places)[None, :] / places
    shared = np.minimum(begin + 1 / cells, place + 1 / places) - np.maximum(begin, place)
    return (np.maximum(shared, 0) * cells).astype(np.float32)
