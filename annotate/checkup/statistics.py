"""Stored statistics against the rows: those of one episode, and those of all rows, by which policies normalise."""

from collections.abc import Iterator

import numpy as np

from annotate.checkup.faults import run_fault
from annotate.checkup.signals import RunSignals
from ingest.episode import Finding, StoredStatistics

TOLERANCE = 2e-3  # of the stored range: rounding of writers is far below
MAX_MEAN_APART = 0.05  # standard deviations: writers that sum in float32 are within 0.003
ROUNDING = 5e-4  # of a value, or of 1 for smaller ones: a joint that hardly moves is not held against its tiny range


def stale_statistics(run: RunSignals) -> Iterator[Finding]:
    """Rows beyond the range that is stored of all rows; or another range or mean than is stored of this episode.

    What is stored of them and cannot be read is told, too.
    """
    for stored in run.statistics:
        values = run.state if stored.vector == "state" else run.action
        if stored.problem:
            detail = (
                f"whether the stored statistics are the data's cannot be told: {stored.problem}"
            )
            yield _statistics_fault(run, detail, 0.0, 0.0, "")
        elif values is None or not len(values) or not np.isfinite(values).all():
            continue
        elif values.shape[1] != len(stored.low):
            detail = f"{stored.file} has {len(stored.low)} dimensions of {stored.vector}, the rows {values.shape[1]}"
            yield _statistics_fault(run, detail, values.shape[1], len(stored.low), stored.vector)
        elif difference := _largest_difference(values, stored):
            kind, dimension, measured, expected = difference
            name = run.title(stored.vector, dimension)
            detail = f"{stored.file} says that the {kind} of {name} is {expected:.4g}; by the rows it is {measured:.4g}"
            yield _statistics_fault(run, detail, measured, expected, name)


def _statistics_fault(
    run: RunSignals, detail: str, measured: float, expected: float, signal: str
) -> Finding:
    return run_fault(
        "stale_statistics",
        run.episode_index,
        0,
        len(run),
        detail,
        measured,
        expected,
        "of the source",
        signal=signal,
    )


def _largest_difference(
    values: np.ndarray, stored: StoredStatistics
) -> tuple[str, int, float, float] | None:
    """What differs most, of which dimension, as measured and as stored; None where all is as stored."""
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
    if excess[dimension] <= 1 or is_rounding:
        return None
    return (statistic, dimension, value, statement)
