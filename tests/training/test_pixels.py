"""Pictures in bytes: equal to what the processor of transformers makes, of every size and for every model."""

import io

import cv2
import numpy as np
import pytest

from training.pixels import picture_size


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3), np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_LINEAR)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="it is no picture"):
        picture_size(io.BytesIO(b"GIF89a, or not"))
