"""LeRobot's sidecar of signals per frame, `lerobot.frame_signals` version 1: its rules, and its reader.

The convention is not merged. It is written as two states of it have it, whose keys do not touch:
`lerobot.reward_scoring.*` (pull request 4554, rewards/scoring/schema.py @b7d78b49, whose rules `check` repeats) and
`lerobot.scores.*` (datasets/scores/storage.py @fe446b2b, which knows neither episodes nor the scope of a comparison).
Read is either, and `sarm_progress.parquet` of LeRobot 0.6, which has no keys.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.imported_label import ImportedError, ImportedLabel
from annotate.segments import DONE, IDLE, STEP, Segment, check_tiling
from core.step_names import unnamed_step

FORMAT, VERSION = "lerobot.frame_signals", 1
KEYS = ("index", "episode_index", "frame_index")
PREFIXES = ("lerobot.reward_scoring", "lerobot.scores")
LEGACY = ("progress_sparse", "progress_dense")
DIRECTIONS, SCOPES = ("higher", "lower", "none"), ("episode", "task", "dataset", "global")


class SignalsError(ValueError):
    """The table is not a valid sidecar; the message names the part and the broken rule."""


@dataclass(frozen=True)
class Descriptor:
    """The meaning of a signal. `bounds`: its least and greatest value; `scope`: the values to compare it with."""

    description: str
    direction: str = "none"
    bounds: tuple[float, float] | None = None
    unit: str | None = None
    scope: str | None = None
    allow_nan: bool = False


def metadata(
    descriptors: Mapping[str, Descriptor], provenance: Mapping[str, Any], episodes: Sequence[int]
) -> dict[str, str]:
    """Key-value metadata of a file of these signals, for readers of both states. `episodes`: the selection, sorted."""
    told = {
        name: {
            "description": d.description,
            "direction": d.direction,
            "bounds": None if d.bounds is None else list(d.bounds),
            "unit": d.unit,
            "allow_nan": d.allow_nan,
        }
        for name, d in descriptors.items()
    }
    scoped = {name: told[name] | {"comparison_scope": d.scope} for name, d in descriptors.items()}
    facts = {}
    for prefix, described in zip(PREFIXES, (scoped, told), strict=True):
        facts |= {
            f"{prefix}.format": FORMAT,
            f"{prefix}.schema_version": str(VERSION),
            f"{prefix}.provenance": _canonical(provenance),
            f"{prefix}.descriptors": _canonical(described),
        }
    return facts | {f"{PREFIXES[0]}.episode_indices": _canonical(list(episodes))}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def descriptors_of(schema: pa.Schema) -> dict[str, Descriptor]:
    """The signals of a file and what they mean. Raises SignalsError: no such file, or malformed metadata."""
    told = {key.decode(): value for key, value in (schema.metadata or {}).items()}
    prefix = next((p for p in PREFIXES if f"{p}.format" in told), None)
    if prefix is None:
        return _legacy(schema)
    if told[f"{prefix}.format"] != FORMAT.encode():
        raise SignalsError(f"its format is {told[f'{prefix}.format'].decode()!r}, not {FORMAT}")
    version = told.get(f"{prefix}.schema_version", b"missing").decode()
    if version != str(VERSION):
        raise SignalsError(f"its schema version is {version}; version {VERSION} can be read")
    described = _object(told, f"{prefix}.descriptors")
    _object(told, f"{prefix}.provenance")
    return {name: _descriptor(name, value) for name, value in described.items()}


def _legacy(schema: pa.Schema) -> dict[str, Descriptor]:
    columns = [name for name in LEGACY if name in schema.names]
    if not columns or not set(KEYS) <= set(schema.names):
        raise SignalsError(f"neither its metadata names {FORMAT}, nor has it the columns of sarm_progress.parquet")
    return {name: Descriptor("progress", "higher", (0.0, 1.0), allow_nan=True) for name in columns}


def _object(told: Mapping[str, bytes], key: str) -> dict[str, Any]:
    try:
        value = json.loads(told[key])
    except (KeyError, ValueError) as e:
        raise SignalsError(f"its metadata lacks {key}, or it is no JSON") from e
    if not isinstance(value, dict):
        raise SignalsError(f"{key} is no JSON object")
    return value


def _descriptor(name: str, value: Any) -> Descriptor:
    """Raises SignalsError."""
    if not name.strip() or name in KEYS or not isinstance(value, dict):
        raise SignalsError(f"{name!r} names no signal")
    text, direction, scope = value.get("description"), value.get("direction"), value.get("comparison_scope")
    bounds, unit, allow_nan = value.get("bounds"), value.get("unit"), value.get("allow_nan")
    if not isinstance(text, str) or not text.strip():
        raise SignalsError(f"signal {name} has no description")
    if direction not in DIRECTIONS:
        raise SignalsError(f"signal {name} has the direction {direction!r}; there are {', '.join(DIRECTIONS)}")
    if scope is not None and scope not in SCOPES:
        raise SignalsError(f"signal {name} has the scope {scope!r}; there are {', '.join(SCOPES)}")
    if unit is not None and (not isinstance(unit, str) or not unit.strip()):
        raise SignalsError(f"signal {name} has the unit {unit!r}")
    if not isinstance(allow_nan, bool):
        raise SignalsError(f"signal {name} does not say whether it may be NaN")
    return Descriptor(text, direction, _bounds(name, bounds), unit, scope, allow_nan)


def _bounds(name: str, bounds: Any) -> tuple[float, float] | None:
    if bounds is None:
        return None
    numbers = isinstance(bounds, list) and all(isinstance(b, int | float) and not isinstance(b, bool) for b in bounds)
    if not numbers or len(bounds) != 2 or not all(map(math.isfinite, bounds)) or bounds[0] > bounds[1]:
        raise SignalsError(f"signal {name} has the bounds {bounds!r}")
    return float(bounds[0]), float(bounds[1])


def check(table: pa.Table) -> dict[str, Descriptor]:
    """The signals of a whole table that keeps every rule of the convention. Raises SignalsError for one broken."""
    descriptors = descriptors_of(table.schema)
    missing = set(KEYS) - set(table.column_names)
    if missing:
        raise SignalsError(f"it lacks the columns {', '.join(sorted(missing))}")
    columns = set(table.column_names) - set(KEYS)
    if columns != descriptors.keys():
        raise SignalsError(f"its columns {sorted(columns)} are not the signals described, {sorted(descriptors)}")
    for name in KEYS:
        if not pa.types.is_int64(table[name].type) or table[name].null_count:
            raise SignalsError(f"column {name} has to be int64 without nulls")
    _check_order(table)
    for name, descriptor in descriptors.items():
        _check_values(name, table[name], descriptor)
    return descriptors


def _check_order(table: pa.Table) -> None:
    index, episodes, frames = (table[name].to_numpy() for name in KEYS)
    if np.any(np.diff(index) <= 0):
        raise SignalsError("index has to rise from row to row")
    if np.any(np.diff(episodes) < 0):
        raise SignalsError("rows have to stand in order of episode_index")
    if len(frames) and frames.min() < 0:
        raise SignalsError("a frame_index is below 0")
    same_episode = np.diff(episodes) == 0
    if np.any(same_episode & (np.diff(index - frames) != 0)):
        raise SignalsError("index - frame_index has to be the same all through an episode")
    # The newer state does not say which episodes were selected
    told = (table.schema.metadata or {}).get(f"{PREFIXES[0]}.episode_indices".encode())
    if told is None:
        return
    try:
        selected = json.loads(told)
        whole = all(isinstance(e, int) and not isinstance(e, bool) and e >= 0 for e in selected)
    except (ValueError, TypeError) as e:
        raise SignalsError("episode_indices is no list") from e
    if not whole or selected != sorted(set(selected)):
        raise SignalsError("episode_indices has to be a sorted list of different whole numbers")
    if not set(np.unique(episodes).tolist()) <= set(selected):
        raise SignalsError("there are rows of an episode that is not among episode_indices")


def _check_values(name: str, column: pa.ChunkedArray, descriptor: Descriptor) -> None:
    kind = column.type
    numbers = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if column.null_count or not numbers:
        raise SignalsError(f"signal {name} has to be bool, whole or floating numbers without nulls")
    values = column.to_numpy().astype(np.float64)
    if np.isinf(values).any():
        raise SignalsError(f"signal {name} has infinite values")
    if not descriptor.allow_nan and np.isnan(values).any():
        raise SignalsError(f"signal {name} has NaN, and does not allow it")
    if descriptor.bounds is not None:
        low, high = descriptor.bounds
        if np.any((values < low) | (values > high)):
            raise SignalsError(f"signal {name} leaves its bounds {low:g} to {high:g}")


# Reading


@dataclass(frozen=True)
class EpisodeSignals:
    """Signals of an episode: `frames` int64 [k], rising; `values` of each signal [k]."""

    episode_index: int
    frames: np.ndarray
    values: Mapping[str, np.ndarray]


def progress_signal(descriptors: Mapping[str, Descriptor]) -> str:
    """The signal that is progress: the one named so, else the only one within 0..1 that is better the higher it is.

    Raises SignalsError where none is, or several are.
    """
    known = [name for name in ("progress", *LEGACY) if name in descriptors]
    fitting = [n for n, d in descriptors.items() if d.direction == "higher" and d.bounds == (0.0, 1.0)]
    if known:
        return known[0]
    if len(fitting) == 1:
        return fitting[0]
    raise SignalsError(
        f"which of its signals is progress? It has {', '.join(sorted(descriptors))}; name one of them progress"
    )


def episodes(table: pa.Table, descriptors: Mapping[str, Descriptor]) -> Iterator[EpisodeSignals]:
    """The signals of each episode of a table that `check` has passed."""
    index, frames = table["episode_index"].to_numpy(), table["frame_index"].to_numpy()
    values = {name: table[name].to_numpy() for name in descriptors}
    if not len(index):
        return
    starts = np.flatnonzero(np.r_[True, np.diff(index) != 0])
    for start, end in zip(starts, np.r_[starts[1:], len(index)], strict=True):
        here = slice(int(start), int(end))
        yield EpisodeSignals(int(index[start]), frames[here], {name: v[here] for name, v in values.items()})


@dataclass(frozen=True)
class SignalAnnotation:
    """An episode's signals as an annotation; equal ones have equal `repr`, so numbers are tuples.

    `frames`: those that the file has rows of. Of a label of ours: its segment, planned step, whether that was completed
    and the planned steps, all by frame.
    """

    episode_index: int
    frames: tuple[int, ...]
    progress: tuple[float, ...]
    segment: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    completed: tuple[bool, ...] = ()
    num_planned: int = 1
    of: tuple[str, int] | None = None

    def label(self, num_frames: int, fps: float, success: bool | None) -> ImportedLabel:
        """Progress at frames that have no number lies on straight lines between those that have.

        Without segments the run is one step without a name, completed where progress ends at 1.
        """
        frames, progress = np.array(self.frames), np.array(self.progress, np.float32)
        known = np.isfinite(progress)
        if frames[-1] >= num_frames:
            raise ImportedError(f"it has a row of frame {frames[-1]}, this episode has {num_frames}")
        if not known.any():
            raise ImportedError("none of its frames has a number")
        line = np.interp(np.arange(num_frames), frames[known], progress[known]).astype(np.float32)
        if not self.segment:
            whole = Segment(unnamed_step(0), 0, num_frames, STEP, bool(line[-1] == 1), 0, named=False)
            return ImportedLabel([whole], 1, progress=line)
        if len(frames) != num_frames:
            raise ImportedError(f"it has segments of {len(frames)} frames, this episode has {num_frames}")
        segments = [self._segment(start, end) for start, end in self._spans()]
        try:
            check_tiling(segments, num_frames, self.num_planned)
        except ValueError as e:
            raise ImportedError(str(e)) from e
        return ImportedLabel(segments, self.num_planned, progress=line)

    def _spans(self) -> Iterator[tuple[int, int]]:
        cuts = [k for k in range(1, len(self.segment)) if self.segment[k] != self.segment[k - 1]]
        yield from pairwise([0, *cuts, len(self.segment)])

    def _segment(self, start: int, end: int) -> Segment:
        """The format holds no names."""
        step, completed = self.step[start], self.completed[start]
        if step >= 0:
            return Segment(unnamed_step(step), start, end, STEP, completed, step, named=False)
        return (
            Segment("Done", start, end, DONE, True) if completed else Segment("Between steps", start, end, IDLE, False)
        )


OURS = ("segment", "step", "completed", "planned_steps")  # signals that a label of ours is written with


def read(path: Path) -> list[SignalAnnotation]:
    """The annotations in such a file, by episode. Raises ImportedError."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as e:
        raise ImportedError(f"{path} is no Parquet file that can be read: {e}") from e
    try:
        descriptors = check(table)
        name = progress_signal(descriptors)
    except SignalsError as e:
        raise ImportedError(f"{path}: {e}") from e
    values = table[name].to_numpy()
    low, high = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
    if low < 0 or high > 1:
        raise ImportedError(f"{path}: signal {name} goes from {low:g} to {high:g}, and progress from 0 to 1")
    is_ours = set(OURS) <= descriptors.keys()
    return [as_annotation(signals, name, is_ours=is_ours) for signals in episodes(table, descriptors)]


def as_annotation(signals: EpisodeSignals, name: str, *, is_ours: bool) -> SignalAnnotation:
    """Signals whose progress is `name`; `is_ours`: they are those that a label of ours is written with."""
    frames, progress = tuple(map(int, signals.frames)), tuple(map(float, signals.values[name]))
    if not is_ours:
        return SignalAnnotation(signals.episode_index, frames, progress)
    segment, step, completed, planned = (tuple(map(int, signals.values[column])) for column in OURS)
    return SignalAnnotation(
        signals.episode_index, frames, progress, segment, step, tuple(map(bool, completed)), max(planned)
    )
