"""The gripper or hand of one arm: where its values are in the rows, and what they mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.episode import EpisodeData
from ingest.reasons import DataError
from ingest.signals.naming import Column, Kind, Polarity

SURE = 0.8  # a polarity that is less sure than this counts as unknown


@dataclass(frozen=True)
class SignalValues:
    """Where the values of a gripper or a hand are: the sum of `weights` times those of `dimensions`."""

    arm: str  # "left", "right", ...; empty for the only one
    kind: Kind
    column: Column
    dimensions: tuple[int, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class GripperSignal(SignalValues):
    """One row of the table `signals`: a gripper, or a hand whose joints are joined to one closing signal.

    The value is in the source's unit. `closed` and `open` are its values at the ends of its range over the dataset.
    Where the polarity is unknown, `closed` is the low end: an opening then says when the gripper moves, not which way.
    """

    unit: str  # "m", "rad", "0..1", ...; a guess by names and sizes
    closed: float
    open: float
    polarity: Polarity
    polarity_by: str  # what the polarity rests on, for people
    confidence: float  # of the polarity, 0..1
    located_by: str  # "registry", "name", "modality.json" or "values"
    is_used: bool  # does it move at all
    closings_per_episode: float | None
    num_surveyed: int  # episodes looked at
    survey_version: str  # changes when a new survey may come to another result

    @property
    def has_polarity(self) -> bool:
        return self.polarity != "unknown"

    @property
    def title(self) -> str:
        """Such as "left hand", or "gripper" for the only one."""
        return f"{self.arm} {self.kind}".strip()


def main_signal(signals: Sequence[GripperSignal]) -> int | None:
    """Of several arms the one whose gripper closes most often; None where none is used."""
    used = [k for k, signal in enumerate(signals) if signal.is_used]
    return max(used, key=lambda k: (signals[k].closings_per_episode or 0.0, -k), default=None)


def values_of(episode: EpisodeData, column: Column) -> np.ndarray | None:
    """The rows of state or action, float64 [n, d]; None where the source has none."""
    return episode.state if column == "state" else episode.action


def combined(signal: SignalValues, values: np.ndarray) -> np.ndarray:
    """The signal in the source's unit, float64 [n], of rows [n, d] that have all its dimensions."""
    return values[:, list(signal.dimensions)] @ np.asarray(signal.weights, np.float64)


def opening(signal: GripperSignal, episode: EpisodeData) -> np.ndarray | None:
    """0 (closed) to 1 (open), float64 [n]; None where the episode has not the dimensions.

    Raises DataError for values that are not finite.
    """
    values = values_of(episode, signal.column)
    if values is None or not len(values) or max(signal.dimensions) >= values.shape[1]:
        return None
    source_value = combined(signal, values)
    check_finite("gripper", source_value)
    span = signal.open - signal.closed
    if span == 0:
        return np.zeros(len(source_value))
    return np.clip((source_value - signal.closed) / span, 0.0, 1.0)


def arm_state(episode: EpisodeData, signals: Sequence[GripperSignal]) -> np.ndarray | None:
    """The state without grippers and hands, float64 [n, d]; None where nothing is left. Raises DataError."""
    if episode.state is None:
        return None
    width = episode.state.shape[1]
    of_grippers = {d for signal in signals if signal.column == "state" for d in signal.dimensions}
    rest = np.delete(episode.state, sorted(d for d in of_grippers if d < width), axis=1)
    check_finite("state", rest)
    return rest if rest.shape[1] else None


def moving_dimensions(state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which dimensions of state [n, d] move, bool [d], and the standard deviation of each, float64 [d].

    One that hardly moves beside the others does not count, or its noise would count as motion.
    """
    spread = np.asarray(state, np.float64).std(axis=0)
    return spread > max(1e-9, 0.02 * float(spread.max(initial=0.0))), spread


def way_steps(values: np.ndarray) -> np.ndarray | None:
    """How far rows [n, d] go from each to the next, in standard deviations [n - 1]; None where nothing moves."""
    moving, spread = moving_dimensions(values)
    if not moving.any():
        return None
    return np.linalg.norm(np.diff(values[:, moving] / spread[moving], axis=0), axis=1)


def check_finite(name: str, values: np.ndarray) -> None:
    """Raises DataError, which names the first row with a value that is not finite."""
    if not np.isfinite(values).all():
        is_finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        raise DataError(f"{name} is not a finite number in row {int(np.argmin(is_finite))}", "nan_state")


def signal_row(signal: GripperSignal) -> dict[str, Any]:
    """The signal as columns of the table `signals` (without dataset)."""
    row = {name: getattr(signal, name) for name in signal.__dataclass_fields__}
    return row | {"dimensions": list(signal.dimensions), "names": list(signal.names), "weights": list(signal.weights)}


def signal_from_row(row: Mapping[str, Any]) -> GripperSignal:
    """Inverse of signal_row."""
    fields: dict[str, Any] = {name: row[name] for name in GripperSignal.__dataclass_fields__}
    listed: dict[str, Any] = {name: tuple(fields[name]) for name in ("dimensions", "names", "weights")}
    return GripperSignal(**fields | listed)
