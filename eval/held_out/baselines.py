"""Baselines that stand beside every model: what one gets without looking, or by looking only at pixels."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from eval.held_out.episodes import HeldOut

GRID = 64
PICTURE_PX = 256


def clock(episode: "HeldOut") -> np.ndarray:
    """Elapsed share of the episode's time: order without understanding. It knows the length, as no model does."""
    return episode.elapsed


def timed(name: str) -> Callable[["HeldOut"], np.ndarray]:
    """A clock that is causal: time over a length of other runs, at most 1; NaN where there are none."""
    return lambda episode: np.clip(episode.frame_index / episode.fps / episode.lengths.get(name, np.nan), 0, 1)


def visual_distance(episode: "HeldOut") -> np.ndarray:
    """How near each picture is to the run's last one. It sees the end of the run, as no model does."""
    grids = [luma_grid(q.pictures[-1].rgb(PICTURE_PX)) for q in episode.questions]
    return np.array([nearness(g, grids[0], grids[-1]) for g in grids])


def luma_grid(rgb: np.ndarray) -> np.ndarray:
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)


def nearness(now: np.ndarray, first: np.ndarray, goal: np.ndarray) -> float:
    """1 - distance of a picture to the goal over the first one's distance to it, clipped to 0..1; NaN where one is.

    Pictures are luma on a 64x64 grid, and distance is their mean absolute difference.
    """
    far = max(float(np.abs(first - goal).mean()), 1e-6)
    return float(np.clip(1 - float(np.abs(now - goal).mean()) / far, 0, 1))


def constant(value: float) -> Callable[["HeldOut"], np.ndarray]:
    """The same number always."""
    return lambda episode: np.full(len(episode.frame_index), value)


def best_constant(targets: np.ndarray) -> float:
    """The constant with the least mean absolute error on these very labels: no constant does better."""
    return float(np.median(targets))
