"""Statistics of features as LeRobot keeps them: per episode, and over all, combined in bounded memory."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", *QUANTILES)

Stats = dict[str, list]  # NAMES, with one number per dimension, and count [1]


def statistics(values: np.ndarray) -> Stats | None:
    """Statistics of values [n, d] (or [n]), without rows that are not numbers; None if no rows are left."""
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        return None
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    stats = {"min": rows.min(axis=0), "max": rows.max(axis=0), "mean": rows.mean(axis=0), "std": rows.std(axis=0)}
    stats |= dict(zip(QUANTILES, quantiles, strict=True))
    return {name: value.tolist() for name, value in stats.items()} | {"count": [len(rows)]}


def picture_statistics(pictures: Sequence[np.ndarray]) -> Stats:
    """Of uint8 [h, w, 3] pictures: per colour over all pixels, on a scale of 0..1; `count` is of pictures."""
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
    return (statistics(pixels / 255.0) or {}) | {"count": [len(pictures)]}


def combined(parts: Sequence[Stats]) -> Stats:
    """Statistics over parts, each by its count: exact but for the quantiles, whose mean is taken (so does LeRobot)."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    share = (counts / counts.sum())[:, None]
    values = {name: np.array([part[name] for part in parts], np.float64) for name in NAMES}  # [parts, d] each
    mean = (values["mean"] * share).sum(axis=0)
    # the variance over all is that inside the parts, and that of their means
    variance = ((values["std"] ** 2 + (values["mean"] - mean) ** 2) * share).sum(axis=0)
    stats = {"min": values["min"].min(axis=0), "max": values["max"].max(axis=0), "mean": mean, "std": np.sqrt(variance)}
    stats |= {name: (values[name] * share).sum(axis=0) for name in QUANTILES}
    return {name: value.tolist() for name, value in stats.items()} | {"count": [int(counts.sum())]}


def combined_by_feature(parts: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """The same for several features; a part need not have all."""
    names = dict.fromkeys(chain.from_iterable(parts))
    return {name: combined([part[name] for part in parts if name in part]) for name in names}


def shaped(stats: Stats, *, picture: bool) -> dict[str, Any]:
    """As stats.json has it: those of pictures are [3, 1, 1]."""
    if not picture:
        return dict(stats)
    colours = {name: [[[value]] for value in values] for name, values in stats.items()}
    return colours | {"count": stats["count"]}
