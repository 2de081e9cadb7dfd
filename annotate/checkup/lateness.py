"""Rows behind or ahead of the pictures, in frames: of all runs, or of single ones."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from annotate.checkup.faults import Finding, run_fault
from annotate.checkup.flows import flow_curves, peak_lag
from annotate.checkup.signals import values_of_commonest_kind
from annotate.checkup.summary import RunSummary

MIN_LAG = 2  # frames


# When a lag of all runs is believed: in how many runs, how alike the curves are there (correlation), how much more than
# without a lag, and the share of runs whose own lag is near it. Chosen on the clean and spoilt runs of docs/checkup.md
MIN_SURENESS = (2, 0.35, 0.04, 0.6)
# Of one run, against what the optical flow of the others foretells
MIN_OTHERS = 4
MIN_LIKENESS_OF_ONE = 0.3
MIN_LIKENESS_OF_OTHERS = 0.3
MIN_AGREEMENT_OF_OTHERS = 0.6
# Logarithm of how much more of the flow is unexplained than at the run's own lag: at the others' lag, and beside it
MIN_LOSS = 0.1
MIN_LOSS_BESIDE = 0.05
MIN_UNEXPLAINED = 1e-6


def late_rows(runs: Sequence[RunSummary]) -> Iterator[Finding]:
    """Rows that are behind or ahead of the pictures: in all runs, or in single ones otherwise than in the others."""
    curves = _row_curves(runs)
    lag, is_sure = _common_lag(curves)
    single_faults = {fault.episode_index: fault for fault in _single_late_rows(runs, lag)}
    yield from single_faults.values()
    if not is_sure:
        return
    words = f"the pictures in {len(curves)} of {len(runs)} runs"
    for run in runs:
        if run.episode_index in curves and run.episode_index not in single_faults:
            detail = f"the rows are {_lag_words(lag, run.fps)} {words}"
            yield _lag_fault(run, detail, lag, 0, "state")


def _single_late_rows(runs: Sequence[RunSummary], start_lag: int) -> Iterator[Finding]:
    """Rows of a run that are at another lag than those of the others."""
    curves, lag = flow_curves({run.episode_index: run.motion for run in runs}, start_lag)
    for run in runs:
        curve = curves.get(run.episode_index)
        if curve is None or run.motion is None:
            continue
        run_lag = _deviating_lag(curve, lag, run.motion.compared_lag)
        other_curves = [curves[episode] for episode in curves if episode != run.episode_index]
        if run_lag is None or not _are_lags_comparable(other_curves, lag):
            continue
        detail = (
            f"the rows are {_lag_words(run_lag, run.fps)} the pictures, those of the other runs "
            f"{_lag_words(lag, run.fps)} them"
        )
        yield _lag_fault(run, detail, run_lag, lag, "state")


def _are_lags_comparable(curves: Sequence[np.ndarray], lag: int) -> bool:
    """Are rows and flow so alike at the common lag that a run may be held against it?"""
    if len(curves) < MIN_OTHERS:
        return False
    middle = len(curves[0]) // 2
    likeness = float(np.mean([curve[lag + middle] for curve in curves]))
    agreement = float(np.mean([abs(peak_lag(curve) - lag) < MIN_LAG for curve in curves]))
    return likeness >= MIN_LIKENESS_OF_OTHERS and agreement >= MIN_AGREEMENT_OF_OTHERS


def _deviating_lag(curve: np.ndarray, lag: int, compared_lag: int) -> int | None:
    """The lag of a run, in frames, where it surely has another one than all runs together; else None.

    compared_lag: the largest lag at which enough of the run is compared; what lies beyond tells nothing.
    """
    if abs(lag) > compared_lag:
        return None
    run_lag = peak_lag(curve)
    middle = len(curve) // 2
    unexplained = np.log(np.maximum(1 - np.maximum(curve, 0) ** 2, MIN_UNEXPLAINED))
    losses = unexplained - unexplained[run_lag + middle]
    # The nearest lags that would be told from it, on both sides
    near_lags = np.array([run_lag - MIN_LAG - 1, run_lag + MIN_LAG + 1])
    side_losses = losses[np.clip(near_lags, -compared_lag, compared_lag) + middle]
    is_other = abs(run_lag - lag) >= MIN_LAG and curve[run_lag + middle] >= MIN_LIKENESS_OF_ONE
    if is_other and losses[lag + middle] >= MIN_LOSS and side_losses.min() >= MIN_LOSS_BESIDE:
        return run_lag
    return None


def common_lag(runs: Sequence[RunSummary]) -> int:
    """The lag of all runs together, in frames, however sure it is; 0 where no run tells any."""
    return _common_lag(_row_curves(runs))[0]


def _row_curves(runs: Sequence[RunSummary]) -> dict[int, np.ndarray]:
    """Those over as many lags as most have: runs of another rate are not compared."""
    return values_of_commonest_kind({run.episode_index: run.row_curve for run in runs}, len)


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
    return lag, is_sure and MIN_LAG <= abs(lag) < max_lag


def _lag_words(lag: int, fps: float) -> str:
    side = "behind" if lag > 0 else "ahead of"
    if lag:
        return f"{abs(lag)} frames ({abs(lag) / fps:.2f} s) {side}"
    return "at one time with"


def _lag_fault(run: RunSummary, detail: str, measured: int, usual_lag: int, signal: str) -> Finding:
    return run_fault("rows_late", *run.whole, detail, measured, usual_lag, "frames", signal=signal)
