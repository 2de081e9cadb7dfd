"""Stored statistics against the rows: those of one episode, and those of all rows, by which policies normalise."""

from collections.abc import Iterator

import numpy as np

from annotate.checkup.comparer import Measurement
from annotate.checkup.signals import RunSignals
from ingest.episode import StoredStatistics

TOLERANCE = 2e-3  # of the stored range: rounding of writers is far below
MAX_MEAN_APART = 0.05  # standard deviations: writers that sum in float32 are within 0.003
ROUNDING = 5e-4  # of a value, or of 1 for smaller ones: a joint that hardly moves is not held against its tiny range


def stale_statistics(run: RunSignals) -> Iterator[Measurement]:
    """Rows beyond the range that is stored of all rows; or another range or mean than is stored of this episode.

    What is stored of them and cannot be read is told, too.
    """
    for stored in run.statistics:
        values = run.state if stored.vector == "state" else run.action
        if stored.problem:
            yield Measurement(
                "stale_statistics unread",
                run,
                0.0,
                words={"problem": stored.problem},
            )
        elif values is None or not len(values) or not np.isfinite(values).all():
            continue
        elif (width := values.shape[1]) != len(stored.low):
            yield Measurement(
                "stale_statistics width",
                run,
                width,
                len(stored.low),
                signal=stored.vector,
                words={"file": stored.file},
            )
        else:
            yield _largest_difference(run, values, stored)


def _largest_difference(
    run: RunSignals, values: np.ndarray, stored: StoredStatistics
) -> Measurement:
    """What differs most, of which dimension, as measured and as stored."""
    low = values.min(axis=0)
    high = values.max(axis=0)
    mean = values.mean(axis=0)
    extent = np.maximum(stored.high - stored.low, 1e-9)
    above = high - stored.high
    below = stored.low - low
    # Rows of one episode need not reach the ends of all rows, but have to reach its own
    if stored.is_of_episode:
        above = np.abs(above)
        below = np.abs(below)
    excesses = {
        "largest value": (high, stored.high, above / extent / TOLERANCE),
        "smallest value": (low, stored.low, below / extent / TOLERANCE),
    }
    if stored.is_of_episode:
        spread = np.maximum(stored.spread, 1e-3 * extent)
        excesses["mean"] = (mean, stored.mean, np.abs(mean - stored.mean) / spread / MAX_MEAN_APART)
    statistic = max(excesses, key=lambda name: float(excesses[name][2].max()))
    measured, stored_values, excess = excesses[statistic]
    dimension = int(np.argmax(excess))
    value = float(measured[dimension])
    statement = float(stored_values[dimension])
    is_rounding = abs(value - statement) <= ROUNDING * max(1.0, abs(statement))
    return Measurement(
        "stale_statistics",
        run,
        value,
        statement,
        signal=run.title(stored.vector, dimension),
        size=0.0 if is_rounding else float(excess[dimension]),
        words={"file": stored.file, "kind": statistic},
    )
