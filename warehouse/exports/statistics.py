"""Statistics of features as LeRobot keeps them: per episode, and over all, put together in bounded memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", *QUANTILES)

Stats = dict[str, list]  # NAMES, with one number per dimension, and count [1]


def statistics(values: np.ndarray) -> Stats | None:
    """Of values [n, d] (or [n]), without rows that are not numbers; None where there are no others."""
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        return None
    found = {"min": rows.min(axis=0), "max": rows.max(axis=0), "mean": rows.mean(axis=0), "std": rows.std(axis=0)}
    for name, values_at in zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True):
        found[name] = values_at
    return {n: v.tolist() for n, v in found.items()} | {"count": [len(rows)]}


def picture_statistics(pictures: Sequence[np.ndarray]) -> Stats | None:
    """Of uint8 [h, w, 3] pictures: per colour over all pixels, on a scale of 0..1; `count` is of pictures."""
    if not pictures:
        return None
    found = statistics(np.concatenate([p.reshape(-1, 3) for p in pictures]) / 255.0)
    assert found is not None
    return found | {"count": [len(pictures)]}


def together(parts: Sequence[Stats]) -> Stats:
    """Statistics over parts, each by its count: exact but for the quantiles, whose mean is taken (so does LeRobot)."""
    counts = np.array([p["count"][0] for p in parts], np.float64)
    share = (counts / counts.sum())[:, None]
    of = {n: np.array([p[n] for p in parts], np.float64) for n in NAMES}
    mean = (of["mean"] * share).sum(axis=0)
    variance = ((of["std"] ** 2 + (of["mean"] - mean) ** 2) * share).sum(axis=0)
    found = {"min": of["min"].min(axis=0), "max": of["max"].max(axis=0), "mean": mean, "std": np.sqrt(variance)}
    found |= {n: (of[n] * share).sum(axis=0) for n in QUANTILES}
    return {n: v.tolist() for n, v in found.items()} | {"count": [int(counts.sum())]}


def all_together(parts: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """The same for several features; a part need not have all."""
    names = dict.fromkeys(n for p in parts for n in p)
    return {name: together([p[name] for p in parts if name in p]) for name in names}


def shaped(stats: Stats, *, picture: bool) -> dict[str, Any]:
    """As stats.json has it: those of pictures are [3, 1, 1]."""
    return {n: [[[x]] for x in v] if picture and n != "count" else v for n, v in stats.items()}
