"""Frozen encoders by name: pictures of one size in, numbers out. torch is imported only where an encoder needs it.

Whatever an encoder gives becomes 256 numbers of the whole picture and 64 of each cell of a grid
(projection.py).
"""

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from annotate.config import EmbeddingsConfig
from annotate.embeddings.projection import Encoder
from annotate.embeddings.weights import INSTALL, MOBILENET_URL, EncoderError, local_weights
from annotate.pictures import area_averaged
from core.errors import install_hint

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
            lambda pictures: grey_numbers(pictures, grid),
        )
    if lack := _lack_of_packages(name):
        raise EncoderError(lack)
    from annotate.embeddings.networks import network

    return network(name, grid, size_px, device)


def _lack_of_packages(name: str) -> str:
    """What has to be installed before an encoder can be loaded; empty where nothing has to."""
    frameworks = ("torch", "torchvision", *(["transformers"] if name.startswith("hf:") else []))
    missing = [package for package in frameworks if find_spec(package) is None]
    remedy = (
        f'{install_hint("train")}; the encoder grey needs nothing (embeddings.encoder = "grey")'
    )
    if missing:
        return f"the encoder {name} needs {' and '.join(missing)}: {remedy}"
    return ""


def missing_download(config: EmbeddingsConfig) -> str:
    """Why an encoder needs a download first, and what to do; empty if it is installed. Loads nothing."""
    if config.encoder == "grey":
        return ""
    missing = _lack_of_packages(config.encoder)
    if not missing and config.encoder == "mobilenet_v2" and local_weights(MOBILENET_URL) is None:
        return f"the weights of mobilenet_v2 are not at hand: {INSTALL}"
    return missing


def identity(config: EmbeddingsConfig) -> str:
    """The identity of an encoder in a folder, beside its name: its settings, and the sizes of its weights."""
    kind, _, name = config.encoder.partition(":")
    folder = Path(name)
    if kind != "hf" or not folder.is_dir():
        return ""
    settings = folder / "config.json"
    text = settings.read_text() if settings.exists() else ""
    sizes = [f"{file.name} {file.stat().st_size}" for file in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("\0".join([text, *sizes]).encode()).hexdigest()[:16]


def grey_numbers(pictures: np.ndarray, grid: int) -> np.ndarray:
    """Small grey pictures of even contrast, float32 [n, 256 + 64 * grid ** 2], of uint8 RGB [n, s, s, 3].

    Of the whole picture 16 x 16 cells, of each cell of the grid 8 x 8; mean 0 and deviation 1 over
    the picture.
    """
    return np.stack([_grey_numbers_of_one(picture, grid) for picture in pictures])


def _grey_numbers_of_one(picture: np.ndarray, grid: int) -> np.ndarray:
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
