"""Rows behind or ahead of the pictures, in frames: of all runs, or of single ones."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from annotate.checkup.comparer import Measurement
from annotate.checkup.summary import RunSummary

# When a lag of all runs is believed: in how many runs, how alike the curves are there (correlation), how much more than
# without a lag, and the share of runs whose own lag is near it. Chosen on the clean and spoilt runs of docs/checkup.md
MIN_SURENESS = (2, 0.35, 0.04, 0.6)
# Of one run, against the lag of all: how alike its rows and pictures are, and all others', how much it gains, and how
# many runs there are
MIN_LIKENESS = 0.2
MIN_LIKENESS_OF_ALL = 0.3
MIN_GAIN = 0.06
MIN_RUNS = 4
MAX_LAG_SHARE = 0.2  # of a run's frames: of a larger lag too little is compared


def late_rows(runs: Sequence[RunSummary]) -> Iterator[Measurement]:
    """Rows that are behind or ahead of the pictures: in all runs, or in single ones otherwise than in the others."""
    curves = _row_curves(runs)
    lag, is_sure = _common_lag(curves)
    counts = {"num_runs": len(curves), "num_all": len(runs)}
    middle = len(next(iter(curves.values()), ())) // 2
    likeness = [float(curve[lag + middle]) for curve in curves.values()]
    are_comparable = len(curves) >= MIN_RUNS and np.mean(likeness) >= MIN_LIKENESS_OF_ALL
    for run in runs:
        curve = curves.get(run.episode_index)
        if curve is None:
            continue
        run_lag = _deviating_lag(run, curve, lag) if are_comparable else None
        words = {"usual_lag": _lag_words(lag, run.fps)}
        if run_lag is not None:
            yield Measurement(
                "rows_late",
                run,
                run_lag,
                lag,
                signal="state",
                size=abs(run_lag - lag),
                words=words | {"lag": _lag_words(run_lag, run.fps)},
            )
        if is_sure:
            yield Measurement(
                "rows_late in all",
                run,
                lag,
                0,
                signal="state",
                size=abs(lag),
                words=words | counts,
            )


def _deviating_lag(run: RunSummary, curve: np.ndarray, lag: int) -> int | None:
    """The lag of a run, in frames, where it surely has another one than all runs together; else None."""
    run_lag = peak_lag(curve)
    middle = len(curve) // 2
    likeness = float(curve[run_lag + middle])
    gain = likeness - float(curve[lag + middle])
    is_compared = abs(run_lag) <= MAX_LAG_SHARE * len(run)
    if is_compared and likeness >= MIN_LIKENESS and gain >= MIN_GAIN:
        return run_lag
    return None


def peak_lag(curve: np.ndarray) -> int:
    """The lag, in frames, at which a curve [2 * most + 1] is highest."""
    return int(np.argmax(curve)) - len(curve) // 2


def common_lag(runs: Sequence[RunSummary]) -> int:
    """The lag of all runs together, in frames, however sure it is; 0 where no run tells any."""
    return _common_lag(_row_curves(runs))[0]


def _row_curves(runs: Sequence[RunSummary]) -> dict[int, np.ndarray]:
    """Those over as many lags as most have, or the most of those: runs of another rate are not compared."""
    curves = {run.episode_index: run.row_curve for run in runs if run.row_curve is not None}
    lengths = Counter(map(len, curves.values()))
    usual_length = max(lengths, key=lambda length: (lengths[length], length), default=0)
    return {episode: curve for episode, curve in curves.items() if len(curve) == usual_length}


def _common_lag(curves: Mapping[int, np.ndarray]) -> tuple[int, bool]:
    """The lag of all runs together, and whether it is sure; 0 without any curve."""
    if not curves:
        return 0, False
    mean = np.mean(list(curves.values()), axis=0)
    max_lag = len(mean) // 2
    lag = peak_lag(mean)
    near = [abs(peak_lag(curve) - lag) <= 1 for curve in curves.values()]
    gain = float(mean[lag + max_lag] - mean[max_lag])
    reached = len(curves), float(mean[lag + max_lag]), gain, float(np.mean(near))
    is_sure = all(value >= limit for value, limit in zip(reached, MIN_SURENESS, strict=True))
    return lag, is_sure and abs(lag) < max_lag


def _lag_words(lag: int, fps: float) -> str:
    side = "behind" if lag > 0 else "ahead of"
    if lag:
        return f"{abs(lag)} frames ({abs(lag) / fps:.2f} s) {side}"
    return "at one time with"
