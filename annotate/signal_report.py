"""Findings about grippers and hands, in words and as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from annotate.signal_lag import MIN_EPISODES, MIN_MOVES
from ingest.signals.gripper import GripperSignal

MOST_NAMES = 3  # that are all listed; of more dimensions the first and the last
LARGE = 100  # numbers from here on are shown without a fraction

type Lags = Sequence[Mapping[str, Any]]  # rows of the table signal_lags


def line(signal: GripperSignal, lags: Lags = ()) -> str:
    """A signal in one line; `lags` are those of its dataset.

    Example: "gripper: state[6] main_gripper, 0..0.07 m, high is open (sure 0.95), closes 1.4 times an episode;
    why: 0 to 0.07 is a width in metres".
    """
    parts = [f"{signal.title}: {place(signal)} {_names(signal)}".strip(), value_range(signal)]
    parts += [_polarity(signal), _use(signal)]
    behind = lag(signal, lags)
    if behind:
        parts.append(f"{behind} the pictures (corrected)")
    return f"{', '.join(parts)}; why: {signal.polarity_by}"


def columns(signal: GripperSignal) -> dict[str, Any]:
    """A signal as a line of a table for people."""
    return {
        "signal": signal.title,
        "where": place(signal),
        "names": _names(signal),
        "range": value_range(signal),
        "open end": open_end(signal),
        "sure": round(signal.confidence, 2),
        "located by": signal.located_by,
        "closings per episode": "not used" if signal.closings_per_episode is None else signal.closings_per_episode,
        "why": signal.polarity_by,
    }


def rests_on_enough(row: Mapping[str, Any]) -> bool:
    """Was a lag, a row of the table signal_lags, measured on so much that it may be believed?"""
    is_of_gripper = ": " in row["signal"]
    return row["num_observed"] >= (MIN_MOVES if is_of_gripper else MIN_EPISODES)


def lag_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table signal_lags as a line of a table for people."""
    return {
        "signal": row["signal"],
        "behind the pictures": f"{row['lag_s']:.2f} s",
        "likeness": row["likeness"],
        "measured on": f"{row['num_observed']} {'moves' if ': ' in row['signal'] else 'episodes'}",
        "labels corrected": "yes" if row["is_corrected"] else "no",
    }


def place(signal: GripperSignal) -> str:
    """Such as "state[6]", "state[7-12]" or "action[0, 3]"."""
    first, last = signal.dimensions[0], signal.dimensions[-1]
    is_run = len(signal.dimensions) > 1 and signal.dimensions == tuple(range(first, last + 1))
    inside = f"{first}-{last}" if is_run else ", ".join(map(str, signal.dimensions))
    return f"{signal.column}[{inside}]"


def _names(signal: GripperSignal) -> str:
    """Of the dimensions; empty where the source has none, so that their numbers stand for them."""
    given = [name for name, d in zip(signal.names, signal.dimensions, strict=True) if name != f"{signal.column}[{d}]"]
    return ", ".join(given) if len(given) <= MOST_NAMES else f"{given[0]} ... {given[-1]}"


def value_range(signal: GripperSignal) -> str:
    """Such as "0..0.07 m"; a unit that is a range itself, such as 0..100, is left out."""
    low, high = sorted((signal.closed, signal.open))
    unit = "" if ".." in signal.unit else signal.unit
    return f"{_number(low)}..{_number(high)} {unit}".strip()


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= LARGE else f"{value + 0.0:.3g}"


def open_end(signal: GripperSignal) -> str:
    """Which end of the range is open: "high", "low" or "unknown"."""
    return {"high_is_open": "high", "high_is_closed": "low", "unknown": "unknown"}[signal.polarity]


def _polarity(signal: GripperSignal) -> str:
    if not signal.has_polarity:
        return "which end is open is unknown"
    return f"{open_end(signal)} is open (sure {signal.confidence:.2f})"


def _use(signal: GripperSignal) -> str:
    if signal.closings_per_episode is None:
        return f"not used: it does not go from end to end in {signal.num_surveyed} episodes"
    return f"closes {signal.closings_per_episode:.2g} times an episode"


def lag(signal: GripperSignal, lags: Lags) -> str:
    """How far a gripper is behind the pictures, where labels are corrected by it; empty where they are not.

    Example: "closing 1.0 s behind, opening 1.6 s behind".
    """
    spans = {direction: lag_span(f"{signal.title}: {direction}", lags) for direction in ("closing", "opening")}
    return ", ".join(f"{direction} {span}" for direction, span in spans.items() if span)


def lag_span(signal: str, lags: Lags) -> str:
    """Between which lags the chunks of a dataset are corrected for one signal; empty where none is.

    Example: "0.9 to 1.1 s behind", or "0.3 s ahead of".
    """
    corrected = [row["lag_s"] for row in lags if row["signal"] == signal and row["is_corrected"]]
    if not corrected:
        return ""
    is_ahead = max(corrected) < 0
    ends = sorted({f"{-seconds if is_ahead else seconds:.1f}" for seconds in corrected}, key=float)
    return f"{' to '.join(dict.fromkeys((ends[0], ends[-1])))} s {'ahead of' if is_ahead else 'behind'}"
