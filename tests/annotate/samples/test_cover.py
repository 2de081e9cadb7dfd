"""Covered pictures: all that moves is hidden, by texture that leaves colours and edges as they were."""

import cv2
import numpy as np
import pytest

from annotate.samples import edits as cover
from annotate.samples.edits import covered, moving


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


def test_what_moves_is_covered_and_bars_stay():
    pictures = run()
    picture = pictures[100]
    result = covered(picture, pictures, 100, 7)
    assert result.shape == picture.shape
    assert (result[:16] == 0).all()
    assert (result[-16:] == 0).all()
    moves = cv2.resize(moving(list(pictures.values())).astype(np.uint8), (160, 120), interpolation=cv2.INTER_NEAREST)
    assert 0.05 < (moves > 0).mean() < 0.5
    changed = (result != picture).any(axis=2)
    assert changed[moves > 0].mean() > 0.85
    # The square is gone from where it was
    square = result[50:70, 60:80].astype(int)
    assert ((square[..., 0] > 180) & (square[..., 1] < 60)).mean() < 0.5


def test_patches_vary_and_are_the_same_for_the_same_seed():
    pictures = run()
    one, same, other = (covered(pictures[100], pictures, 100, seed) for seed in (7, 7, 8))
    assert (one == same).all()
    changed = [(picture != pictures[100]).any(axis=2) for picture in (one, other)]
    assert (changed[0] != changed[1]).mean() > 0.05


def test_colours_stay_much_as_they_were():
    pictures = run()
    picture = pictures[100]

    def colours(rgb: np.ndarray) -> np.ndarray:
        return cv2.calcHist([rgb], [0, 1, 2], None, [4] * 3, [0, 256] * 3).ravel() / rgb[..., 0].size

    def moved(rgb: np.ndarray) -> float:
        return float(np.abs(colours(rgb) - colours(picture)).sum() / 2)

    board = picture.copy()
    board[16:-16] = (90, 160, 60)
    assert np.mean([moved(covered(picture, pictures, 100, seed)) for seed in range(5)]) < 0.1 < moved(board)


def test_rims_are_blended_and_nothing_is_a_flat_board():
    pictures = run()
    result = covered(pictures[0], pictures, 0, 3)
    inside = cv2.cvtColor(result, cv2.COLOR_RGB2GRAY)[20:-20].astype(np.float32)
    spread = cv2.blur(inside**2, (15, 15)) - cv2.blur(inside, (15, 15)) ** 2
    assert (spread < 0.5).mean() < 0.02


@pytest.mark.parametrize("frames", [[0], [0, 10]])
def test_a_run_of_few_pictures_covers_itself(frames: list[int]):
    pictures = {frame: run()[frame] for frame in frames}
    result = covered(pictures[0], pictures, 0, 1)
    assert (result != pictures[0]).any(axis=2).mean() > 0.1


@pytest.mark.parametrize("size", [(8, 8), (33, 47), (64, 64), (256, 20)])
def test_pictures_of_any_size(size: tuple[int, int]):
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    assert covered(rgb, {0: rgb, 5: rgb[::-1].copy()}, 0, 1).shape == rgb.shape
    black = np.zeros((*size, 3), np.uint8)
    assert (covered(black, {0: black}, 0, 1) == 0).all()


def test_keyframes_of_another_size_are_made_to_fit():
    pictures = {frame: cv2.resize(p, (320, 240)) for frame, p in run().items()}
    assert covered(run()[50], pictures, 50, 1).shape == (120, 160, 3)
    with pytest.raises(ValueError, match="no picture"):
        cover.covered(run()[0], {}, 0, 1)
