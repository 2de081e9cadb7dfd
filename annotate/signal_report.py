"""Grippers, hands and their lags in words: a line for a terminal, and columns of tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from annotate.signal_lag import MIN_EPISODES, MIN_MOVES
from ingest.signals.gripper import GripperSignal

MOST_NAMES = 3  # that are all listed; of more dimensions the first and the last
LARGE = 100  # numbers from here on are shown without a fraction

type Lags = Sequence[Mapping[str, Any]]  # rows of the table signal_lags


def line(signal: GripperSignal, lags: Lags = ()) -> str:
    """A signal in one line; `lags` are those of its dataset.

    Example: "gripper: state[6] main_gripper, 0..0.07 m, high is open (sure 0.95), closes 1.4 times
    an episode; why: 0 to 0.07 is a width in metres".
    """
    end = open_end(signal)
    closings = signal.closings_per_episode
    behind = lag(signal, lags)
    parts = [
        f"{signal.title}: {signal_place(signal)} {_names(signal)}".strip(),
        value_range(signal),
        f"{end} is open (sure {signal.confidence:.2f})"
        if signal.has_polarity
        else "which end is open is unknown",
        f"not used: it does not go from end to end in {signal.num_surveyed} episodes"
        if closings is None
        else f"closes {closings:.2g} times an episode",
        *([f"{behind} the pictures (corrected)"] if behind else []),
    ]
    return f"{', '.join(parts)}; why: {signal.polarity_by}"


def signal_columns(signal: GripperSignal) -> dict[str, Any]:
    """A signal as a line of a table for people."""
    return {
        "signal": signal.title,
        "where": signal_place(signal),
        "names": _names(signal),
        "range": value_range(signal),
        "open end": open_end(signal),
        "sure": round(signal.confidence, 2),
        "located by": signal.located_by,
        "closings per episode": "not used"
        if signal.closings_per_episode is None
        else signal.closings_per_episode,
        "why": signal.polarity_by,
    }


def _is_of_gripper(row: Mapping[str, Any]) -> bool:
    return ": " in row["signal"]


def rests_on_enough(row: Mapping[str, Any]) -> bool:
    """Was a lag, a row of the table signal_lags, measured on so much that it may be believed?"""
    return row["num_observed"] >= (MIN_MOVES if _is_of_gripper(row) else MIN_EPISODES)


def lag_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table signal_lags as a line of a table for people."""
    return {
        "signal": row["signal"],
        "behind the pictures": f"{row['lag_s']:.2f} s",
        "likeness": row["likeness"],
        "measured on": f"{row['num_observed']} {'moves' if _is_of_gripper(row) else 'episodes'}",
        "labels corrected": "yes" if row["is_corrected"] else "no",
    }


def signal_place(signal: GripperSignal) -> str:
    """Such as "state[6]", "state[7-12]" or "action[0, 3]"."""
    first = signal.dimensions[0]
    last = signal.dimensions[-1]
    is_run = len(signal.dimensions) > 1 and signal.dimensions == tuple(range(first, last + 1))
    return f"{signal.column}[{f'{first}-{last}' if is_run else ', '.join(map(str, signal.dimensions))}]"


def _names(signal: GripperSignal) -> str:
    """Of the dimensions; empty where the source has none, so that their numbers stand for them."""
    listed_names = [
        name
        for name, d in zip(signal.names, signal.dimensions, strict=True)
        if name != f"{signal.column}[{d}]"
    ]
    if len(listed_names) <= MOST_NAMES:
        return ", ".join(listed_names)
    return f"{listed_names[0]} ... {listed_names[-1]}"


def value_range(signal: GripperSignal) -> str:
    """Such as "0..0.07 m"; a unit that is a range itself, such as 0..100, is left out."""
    ends = (
        f"{v:.0f}" if abs(v) >= LARGE else f"{v + 0.0:.3g}"
        for v in sorted((signal.closed, signal.open))
    )
    return f"{'..'.join(ends)} {'' if '..' in signal.unit else signal.unit}".strip()


def open_end(signal: GripperSignal) -> str:
    """Which end of the range is open: "high", "low" or "unknown"."""
    return {"high_is_open": "high", "high_is_closed": "low", "unknown": "unknown"}[signal.polarity]


def lag(signal: GripperSignal, lags: Lags) -> str:
    """How far a gripper is behind the pictures, where labels are corrected by it; empty where they are not.

    Example: "closing 1.0 s behind, opening 1.6 s behind".
    """
    spans = {
        direction: lag_span(f"{signal.title}: {direction}", lags)
        for direction in ("closing", "opening")
    }
    return ", ".join(f"{direction} {span}" for direction, span in spans.items() if span)


def lag_span(signal: str, lags: Lags) -> str:
    """Between which lags the chunks of a dataset are corrected for one signal, such as "0.9 to 1.1
    s behind" or "0.3 s ahead of"; empty where none is."""
    corrected = [row["lag_s"] for row in lags if row["signal"] == signal and row["is_corrected"]]
    if not corrected:
        return ""
    is_ahead = max(corrected) < 0
    seconds = sorted(-lag_s if is_ahead else lag_s for lag_s in corrected)
    ends = dict.fromkeys(f"{end:.1f}" for end in (seconds[0], seconds[-1]))
    return f"{' to '.join(ends)} s {'ahead of' if is_ahead else 'behind'}"
