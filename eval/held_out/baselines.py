"""Baselines that stand beside every model: what one gets without looking, or by looking only at pixels."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from eval.held_out.episodes import HeldOut

GRID = 64


def clock(episode: "HeldOut") -> np.ndarray:
    """Elapsed share of the episode's time: order without understanding. It knows the length, as no model does."""
    return episode.elapsed


def timed(name: str) -> Callable[["HeldOut"], np.ndarray]:
    """A clock that is causal: time over a length of other runs, at most 1; NaN where there are none."""
    return lambda episode: np.clip(episode.frame_index / episode.fps / episode.lengths.get(name, np.nan), 0, 1)


def visual_distance(episode: "HeldOut") -> np.ndarray:
    """1 - distance of each picture to the run's last one over the first one's distance to it, clipped to 0..1.

    Distance is the mean absolute luma difference on a 64x64 grid. It sees the end of the run, as no model does.
    """
    grids = [luma_grid(pictures[-1]) for pictures in episode.pictures()]
    to_last = np.array([np.abs(g - grids[-1]).mean() for g in grids])
    return np.clip(1 - to_last / max(float(to_last[0]), 1e-6), 0, 1)


def luma_grid(rgb: np.ndarray) -> np.ndarray:
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)


def constant(value: float) -> Callable[["HeldOut"], np.ndarray]:
    """The same number always."""
    return lambda episode: np.full(len(episode.frame_index), value)


def best_constant(targets: np.ndarray) -> float:
    """The constant with the least mean absolute error on these very labels: no constant does better."""
    return float(np.median(targets))
