"""Covered pictures are not told by colours or edges, as boards are; what the benchmark counts."""

import cv2
import numpy as np
import pytest

from annotate.samples.edits import covered
from benchmarks.unanswerable import FEATURES, Shown, accuracy, board
from core.errors import UserError

RUNS, MOMENTS = 6, (10, 40, 70, 90)


def scene(seed: int) -> dict[int, np.ndarray]:
    """A run of 100 frames: a coloured arm moves over a textured table with things on it, seen with noise."""
    rng = np.random.default_rng(seed)
    table = cv2.GaussianBlur(rng.normal(0, 40, (96, 128, 3)), (0, 0), 4) * 4 + rng.uniform(90, 160, 3)
    for _ in range(8):
        x, y = (int(rng.integers(side)) for side in (128, 96))
        cv2.circle(table, (x, y), int(rng.integers(4, 12)), rng.uniform(0, 255, 3).tolist(), -1)
    arm, path = rng.uniform(0, 255, 3).tolist(), rng.uniform(20, 76, 2)
    pictures = {}
    for frame in range(0, 100, 5):
        picture = table.copy()
        end = (int(20 + 0.8 * frame), int(np.interp(frame, [0, 99], path)))
        cv2.line(picture, (64, 96), end, arm, 9)
        pictures[frame] = np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
    return pictures


@pytest.fixture(scope="module")
def runs() -> list[dict[int, np.ndarray]]:
    return [scene(seed) for seed in range(RUNS)]


def test_a_small_classifier_tells_boards_but_not_covers(runs: list[dict[int, np.ndarray]]):
    plain = [Shown(k, run[now]) for k, run in enumerate(runs) for now in MOMENTS]
    boards = [Shown(s.episode, board(s.rgb, seed)) for seed, s in enumerate(plain)]
    covers = [Shown(k, covered(run[now], run, now, 100 * k + now)) for k, run in enumerate(runs) for now in MOMENTS]
    for features in FEATURES:
        told = {"boards": accuracy(plain, boards, features), "covers": accuracy(plain, covers, features)}
        assert told["boards"] > 0.85, (features, told)
        assert told["covers"] < 0.75, (features, told)


def test_one_episode_cannot_be_judged(runs: list[dict[int, np.ndarray]]):
    shown = [Shown(0, picture) for picture in runs[0].values()]
    with pytest.raises(UserError, match="one episode"):
        accuracy(shown, shown, "edges")
