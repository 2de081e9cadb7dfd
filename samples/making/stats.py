"""Statistics of features, named and shaped as LeRobot writes them."""

import numpy as np
import pyarrow as pa

from .runs import Array, feature_values
from .videos import IntArray

Stats = dict[str, Array]

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)


def quantile_name(q: float) -> str:
    return f"q{round(100 * q):02d}"


def vector_stats(values: Array) -> Stats:
    """Of [frames, dimensions], one number per dimension; `count` is the number of frames."""
    v = values.astype(np.float64)
    stats: Stats = {
        "min": v.min(0),
        "max": v.max(0),
        "mean": v.mean(0),
        "std": v.std(0),
        "count": np.array([len(v)]),
    }
    return stats | {quantile_name(q): np.quantile(v, q, axis=0) for q in QUANTILES}


def image_stats(count: IntArray, pixels_per_frame: int) -> Stats:
    """Of colour counts [3, 256], on the scale [0, 1], each of shape [3, 1, 1]; `count` is the number of frames."""
    level = np.arange(256) / 255
    total = count.sum(1)
    mean = (count * level).sum(1) / total
    std = np.sqrt((count * (level - mean[:, None]) ** 2).sum(1) / total)
    share = count.cumsum(1) / total[:, None]
    stats = {
        "min": level[(count > 0).argmax(1)],
        "max": level[255 - (count > 0)[:, ::-1].argmax(1)],
        "mean": mean,
        "std": std,
    } | {quantile_name(q): level[(share >= q).argmax(1)] for q in QUANTILES}
    shaped: Stats = {k: v.reshape(3, 1, 1) for k, v in stats.items()}
    return shaped | {"count": np.array([total[0] // pixels_per_frame])}


def table_stats(table: pa.Table) -> dict[str, Stats]:
    return {feature: vector_stats(feature_values(table, feature)) for feature in table.column_names}
