"""Covered pictures: all that moves is hidden, by texture that leaves colours and edges as they were."""

import cv2
import numpy as np
import pytest

from annotate.samples import edits as cover
from annotate.samples.edits import covered


def run(h: int = 120, w: int = 160, num_frames: int = 20) -> dict[int, np.ndarray]:
    """A red square moves along a row before noise; bars of 16 rows above and below are black."""
    rng = np.random.default_rng(0)
    background = cv2.GaussianBlur(rng.integers(60, 200, (h, w, 3), np.uint8), (0, 0), 3)
    background[:16] = background[-16:] = 0
    pictures = {}
    for k in range(num_frames):
        picture = background.copy()
        picture[50:70, 20 + 4 * k : 40 + 4 * k] = (220, 20, 20)
        pictures[10 * k] = picture
    return pictures


def test_patches_vary_and_are_the_same_for_the_same_seed():
    pictures = run()
    one, same, other = (covered(pictures[100], pictures, 100, seed) for seed in (7, 7, 8))
    assert (one == same).all()
    changed = [(picture != pictures[100]).any(axis=2) for picture in (one, other)]
    assert (changed[0] != changed[1]).mean() > 0.05


def test_keyframes_of_another_size_are_made_to_fit():
    pictures = {frame: cv2.resize(p, (320, 240)) for frame, p in run().items()}
    assert covered(run()[50], pictures, 50, 1).shape == (120, 160, 3)
    with pytest.raises(ValueError, match="no picture"):
        cover.covered(run()[0], {}, 0, 1)
