"""Files for a LeRobot dataset, by themselves: its sidecar of signals per frame, and its visualizer's annotations.

`lerobot.frame_signals` version 1 is not merged. It is written as two states of it have it, whose
keys do not touch: `lerobot.reward_scoring.*` (pull request 4554, rewards/scoring/schema.py
@b7d78b49, whose rules `check` repeats) and `lerobot.scores.*` (datasets/scores/storage.py
@fe446b2b, which knows neither episodes nor the scope of a comparison). Read is either, and
`sarm_progress.parquet` of LeRobot 0.6, which has no keys.

The visualizer's meta/lerobot_annotations.json (backend/README.md @670a9d87): version 2 has
`episodes`, by number, with `atoms`: {role, content, style, timestamp, tool_calls}; a text of style
`subtask` holds until the next one. Version 1 has `subtasks`: {label, start, end}. Times are seconds
of the episode. Beside its dataset the file is read by ingest.formats.lerobot_steps, which knows the
dataset's own times.

Advantages are by any score that is a value: higher is nearer to the goal. `chunk_residuals` is
LeRobot's N-step residual (rewards/compute_chunk_td_residuals.py @ab7ad005, on a branch), here at
each frame. `advantages` is RECAP's (pi*0.6, arXiv 2511.14759, section IV-B and appendix F;
LeRobot's annotations/steerable_pipeline/modules/advantage.py @0be63969, on a branch).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import starmap
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from annotate.imported_label import (
    MALFORMED,
    EpisodeAnnotation,
    ImportedError,
    whole_run,
)
from annotate.native import annotate
from annotate.spans import equal_spans
from core.domain.label import DONE, IDLE, STEP, Label, Segment
from core.names import unnamed_step
from ingest.episode import NativeStep
from ingest.formats.folders import is_step
from ingest.formats.lerobot_steps import VISUALIZER_FILE

FORMAT = "lerobot.frame_signals"
VERSION = 1
KEYS = ("index", "episode_index", "frame_index")
PREFIXES = ("lerobot.reward_scoring", "lerobot.scores")
LEGACY = ("progress_sparse", "progress_dense")
# Signals that a label of ours is written with
OURS = (
    "segment",
    "step",
    "completed",
    "planned_steps",
)

Words = Annotated[str, Field(pattern=r"\S")]


@dataclass(frozen=True)
class Descriptor:
    """The meaning of a signal. `bounds`: its least and greatest value; `scope`: the values to compare it with."""

    __pydantic_config__ = ConfigDict(strict=True, extra="ignore")

    description: Words
    direction: Literal["higher", "lower", "none"] = "none"
    bounds: tuple[FiniteFloat, FiniteFloat] | None = None
    unit: Words | None = None
    scope: Annotated[
        Literal["episode", "task", "dataset", "global"] | None, Field(alias="comparison_scope")
    ] = None
    allow_nan: bool = False


DESCRIPTORS = TypeAdapter(dict[str, Descriptor])


def metadata(
    descriptors: Mapping[str, Descriptor], provenance: Mapping[str, Any], episodes: Sequence[int]
) -> dict[str, str]:
    """Key-value metadata of a file of these signals, for readers of both states. `episodes`: the selection, sorted."""
    plain_descriptors = {}
    scoped = {}
    for name, descriptor in descriptors.items():
        fields = asdict(descriptor)
        scope = fields.pop("scope")
        plain_descriptors[name] = fields
        scoped[name] = fields | {"comparison_scope": scope}
    facts = {}
    for prefix, described in zip(PREFIXES, (scoped, plain_descriptors), strict=True):
        facts |= {
            f"{prefix}.format": FORMAT,
            f"{prefix}.schema_version": str(VERSION),
            f"{prefix}.provenance": _canonical(provenance),
            f"{prefix}.descriptors": _canonical(described),
        }
    return facts | {f"{PREFIXES[0]}.episode_indices": _canonical(list(episodes))}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _check_rules(*rules: tuple[Any, str]) -> None:
    """Raises ValueError for the first rule that is not kept."""
    for is_kept, rule in rules:
        if not is_kept:
            raise ValueError(rule)


def descriptors_of(schema: pa.Schema) -> dict[str, Descriptor]:
    """The signals of a file and what they mean. Raises ValueError: no such file, or malformed metadata."""
    texts = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    prefix = next((p for p in PREFIXES if f"{p}.format" in texts), None)
    if prefix is None:
        columns = [name for name in LEGACY if name in schema.names]
        no_file = (
            f"neither its metadata names {FORMAT}, nor has it the columns of sarm_progress.parquet"
        )
        _check_rules((columns and set(KEYS) <= set(schema.names), no_file))
        return {
            name: Descriptor("progress", "higher", (0.0, 1.0), allow_nan=True) for name in columns
        }
    version = texts.get(f"{prefix}.schema_version", "missing")
    _check_rules(
        (
            texts[f"{prefix}.format"] == FORMAT,
            f"its format is {texts[f'{prefix}.format']!r}, not {FORMAT}",
        ),
        (
            version == str(VERSION),
            f"its schema version is {version}; version {VERSION} can be read",
        ),
    )
    _validated_part(TypeAdapter(dict[str, Any]), texts, f"{prefix}.provenance")
    descriptors = _validated_part(DESCRIPTORS, texts, f"{prefix}.descriptors")
    for name, d in descriptors.items():
        _check_rules(
            (name.strip() and name not in KEYS, f"{name!r} names no signal"),
            (
                d.bounds is None or d.bounds[0] <= d.bounds[1],
                f"signal {name} has the bounds {d.bounds!r}",
            ),
        )
    return descriptors


def _validated_part[T](kind: TypeAdapter[T], texts: Mapping[str, str], key: str) -> T:
    """A part of the metadata, JSON. Raises ValueError."""
    try:
        return kind.validate_json(texts.get(key, ""))
    except ValidationError as e:
        first = e.errors()[0]
        if first["loc"]:
            location = f"{': '.join(map(str, first['loc']))} {first['input']!r}: "
        else:
            location = ""
        raise ValueError(f"{key}: {location}{first['msg']}") from None


def check(table: pa.Table) -> dict[str, Descriptor]:
    """The signals of a whole table that keeps every rule of the convention. Raises ValueError for one broken."""
    descriptors = descriptors_of(table.schema)
    missing = set(KEYS) - set(table.column_names)
    columns = set(table.column_names) - set(KEYS)
    described = (
        f"its columns {sorted(columns)} are not the signals described, {sorted(descriptors)}"
    )
    _check_rules(
        (not missing, f"it lacks the columns {', '.join(sorted(missing))}"),
        (columns == set(descriptors), described),
    )
    for name in KEYS:
        is_whole = pa.types.is_int64(table[name].type) and not table[name].null_count
        _check_rules((is_whole, f"column {name} has to be int64 without nulls"))
    index, episodes, frames = (table[name].to_numpy() for name in KEYS)
    same_episode = np.diff(episodes) == 0
    _check_rules(
        (np.all(np.diff(index) > 0), "index has to rise from row to row"),
        (np.all(np.diff(episodes) >= 0), "rows have to stand in order of episode_index"),
        (frames.min(initial=0) >= 0, "a frame_index is below 0"),
        (
            not np.any(same_episode & (np.diff(index - frames) != 0)),
            "index - frame_index has to be the same all through an episode",
        ),
    )
    # The newer state does not say which episodes were selected
    key = f"{PREFIXES[0]}.episode_indices"
    if selection := (table.schema.metadata or {}).get(key.encode()):
        selected = _validated_part(
            TypeAdapter(list[Annotated[int, Field(ge=0, strict=True)]]),
            {key: selection.decode()},
            key,
        )
        _check_rules(
            (
                selected == sorted(set(selected)),
                f"{key} has to be a sorted list of different whole numbers",
            ),
            (
                set(episodes.tolist()) <= set(selected),
                "there are rows of an episode that is not among episode_indices",
            ),
        )
    for name, descriptor in descriptors.items():
        _check_values(name, table[name], descriptor)
    return descriptors


def _check_values(name: str, column: pa.ChunkedArray, descriptor: Descriptor) -> None:
    kind = column.type
    types = pa.types
    is_number = types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
    kinds = f"signal {name} has to be bool, whole or floating numbers without nulls"
    _check_rules((is_number and not column.null_count, kinds))
    values = column.to_numpy().astype(np.float64)
    low, high = descriptor.bounds or (-np.inf, np.inf)
    _check_rules(
        (not np.isinf(values).any(), f"signal {name} has infinite values"),
        (
            descriptor.allow_nan or not np.isnan(values).any(),
            f"signal {name} has NaN, and does not allow it",
        ),
        (
            not np.any((values < low) | (values > high)),
            f"signal {name} leaves its bounds {low:g} to {high:g}",
        ),
    )


# Reading


@dataclass(frozen=True)
class SignalAnnotation(EpisodeAnnotation):
    """An episode's signals as an annotation; equal ones have equal `repr`, so numbers are tuples.

    `frames`: those that the file has rows of. Of a label of ours: its segment, planned step,
    whether that was completed and the planned steps, all by frame.
    """

    episode_index: int
    frames: tuple[int, ...]
    progress: tuple[float, ...]
    segment: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    completed: tuple[bool, ...] = ()
    num_planned: int = 1
    of: tuple[str, int] | None = None

    def unchecked_label(self, num_frames: int, fps: float, success: bool | None) -> Label:
        """Progress at frames that have no number lies on straight lines between those that have.

        Without segments the run is one step without a name, completed where progress ends at 1.
        """
        frames = np.array(self.frames)
        progress = np.array(self.progress, np.float32)
        is_finite = np.isfinite(progress)
        _check_rules(
            (
                frames[-1] < num_frames,
                f"it has a row of frame {frames[-1]}, this episode has {num_frames}",
            ),
            (is_finite.any(), "none of its frames has a number"),
        )
        line = np.interp(np.arange(num_frames), frames[is_finite], progress[is_finite]).astype(
            np.float32
        )
        if not self.segment:
            return Label(whole_run(num_frames, bool(line[-1] == 1)), 1, progress=line)
        _check_rules(
            (
                len(frames) == num_frames,
                f"it has segments of {len(frames)} frames, this episode has {num_frames}",
            )
        )
        segments = list(starmap(self._segment, equal_spans(self.segment)))
        return Label(segments, self.num_planned, progress=line)

    def _segment(self, start: int, end: int) -> Segment:
        """The format holds no names."""
        step = self.step[start]
        completed = self.completed[start]
        if step >= 0:
            return Segment(unnamed_step(step), start, end, STEP, completed, step, named=False)
        name, kind = ("Done", DONE) if completed else ("Between steps", IDLE)
        return Segment(name, start, end, kind, completed)


def progress_signal(descriptors: Mapping[str, Descriptor]) -> str:
    """The signal that is progress: the one named so, else the only one within 0..1 that is better the higher it is.

    Raises ValueError where none is, or several are.
    """
    progress_names = [name for name in ("progress", *LEGACY) if name in descriptors]
    fitting = [
        n for n, d in descriptors.items() if d.direction == "higher" and d.bounds == (0.0, 1.0)
    ]
    if not progress_names and len(fitting) != 1:
        names = ", ".join(sorted(descriptors))
        raise ValueError(
            f"which of its signals is progress? It has {names}; name one of them progress"
        )
    return [*progress_names, *fitting][0]


def annotations(table: pa.Table) -> list[SignalAnnotation]:
    """The annotations in a table of such signals, by episode. Raises ValueError."""
    descriptors = check(table)
    name = progress_signal(descriptors)
    low, high = (extreme(table[name].to_numpy(), initial=0) for extreme in (np.nanmin, np.nanmax))
    _check_rules(
        (
            low >= 0 and high <= 1,
            f"signal {name} goes from {low:g} to {high:g}, and progress from 0 to 1",
        )
    )
    is_ours = set(OURS) <= descriptors.keys()
    spans = equal_spans(table["episode_index"].to_pylist())
    return [_annotation(table.slice(start, end - start), name, is_ours) for start, end in spans]


def _annotation(rows: pa.Table, name: str, is_ours: bool) -> SignalAnnotation:
    def numbers[T](column: str, kind: type[T]) -> tuple[T, ...]:
        return tuple(map(kind, rows[column].to_numpy()))

    episode = rows["episode_index"][0].as_py()
    frames = numbers("frame_index", int)
    progress = numbers(name, float)
    if not is_ours:
        return SignalAnnotation(episode, frames, progress)
    segment, step, completed, planned = (numbers(column, int) for column in OURS)
    return SignalAnnotation(
        episode, frames, progress, segment, step, tuple(map(bool, completed)), max(planned)
    )


def read_signals(path: Path) -> list[SignalAnnotation]:
    """The annotations in such a file, by episode. Raises ImportedError."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as e:
        raise ImportedError(f"{path} is no Parquet file that can be read: {e}") from e
    try:
        return annotations(table)
    except ValueError as e:
        raise ImportedError(f"{path}: {e}") from e


def chunk_residuals(value: np.ndarray, chunk_size: int) -> np.ndarray:
    """V[t + N] - V[t], float32 [n]; NaN where fewer than N frames follow. Nothing is discounted,
    and frames have no reward beside it: progress is itself what was earned so far.

    Example: chunk_residuals([0, 0.5, 1], 2) == [1, nan, nan].
    """
    v = np.asarray(value, np.float64)
    out = np.full(len(v), np.nan, np.float32)
    if chunk_size < len(v):
        out[:-chunk_size] = v[chunk_size:] - v[:-chunk_size]
    return out


def advantages(value: np.ndarray, chunk_size: int, outcome: float | None) -> np.ndarray:
    """V[t + N] - V[t], and outcome - V[t] where fewer than N frames follow, float32 [n].

    The reward is the outcome alone, at the end: 1 for a run that succeeded, 0 for one that failed;
    None: nobody says, and the last value stands for it. NaN of the value stays NaN.

    Example: advantages([0, 0.5, 0.75], 1, 1) == [0.5, 0.25, 0.25].
    """
    v = np.asarray(value, np.float64)
    end = v[-1] if outcome is None else outcome
    later = np.r_[v[chunk_size:], np.full(min(chunk_size, len(v)), end)]
    return (later - v).astype(np.float32)


def threshold(advantages: np.ndarray, share: float) -> float:
    """The threshold that the best `share` (0..1) of a task's advantages exceed; NaN if none is known."""
    finite_advantages = advantages[np.isfinite(advantages)]
    if len(finite_advantages):
        return float(np.quantile(finite_advantages, 1 - share))
    return float("nan")


VISUALIZER_VERSION = 2
SUBTASK = "subtask"


@dataclass(frozen=True)
class DrawnAnnotation(EpisodeAnnotation):
    """An episode's steps as (name, start s, end s); an end of None: until the next one begins, or the run ends."""

    episode_index: int
    spans: tuple[tuple[str, float, float | None], ...]
    of: tuple[str, int] | None = None

    def unchecked_label(self, num_frames: int, fps: float, success: bool | None) -> Label:
        """Times are rounded to frames. What is no name of a step, such as an empty text, only ends the one before."""
        starts = [round(start * fps) for _, start, _ in self.spans]
        ends = [*starts[1:], num_frames]
        steps = [
            NativeStep(
                name.strip(),
                start,
                next_start if end is None else min(round(end * fps), next_start),
            )
            for (name, _, end), start, next_start in zip(self.spans, starts, ends, strict=True)
            if is_step(name)
        ]
        return Label(*annotate(steps, num_frames, success))


def read_visualizer(path: Path) -> list[DrawnAnnotation]:
    """Read the file, or the one in a dataset's folder. Raises ImportedError."""
    file = path / VISUALIZER_FILE if path.is_dir() else path
    spans = {
        number: _spans(file, number, notes) for number, notes in sorted(_episodes(file).items())
    }
    if not any(spans.values()):
        raise ImportedError(f"{file} has no steps: no atoms of style {SUBTASK}")
    return [DrawnAnnotation(number, drawn) for number, drawn in spans.items() if drawn]


def _episodes(file: Path) -> dict[int, Mapping[str, Any]]:
    try:
        return {
            int(number): notes for number, notes in json.loads(file.read_text())["episodes"].items()
        }
    except (OSError, UnicodeDecodeError) as e:
        raise ImportedError(f"{file} cannot be read: {e}") from e
    except MALFORMED as e:
        raise ImportedError(
            f"{file} is no file of LeRobot's dataset visualizer: it has no object `episodes`"
        ) from e


def _spans(
    file: Path, number: int, notes: Mapping[str, Any]
) -> tuple[tuple[str, float, float | None], ...]:
    """In order of time. Raises ImportedError."""
    try:
        atoms = [atom for atom in notes.get("atoms", ()) if atom.get("style") == SUBTASK]
        drawn = () if "atoms" in notes else notes.get("subtasks") or ()
        spans = [(str(atom.get("content") or ""), float(atom["timestamp"]), None) for atom in atoms]
        spans += [(str(span["label"]), float(span["start"]), float(span["end"])) for span in drawn]
    except MALFORMED as e:
        raise ImportedError(
            f"{file}: episode {number} has atoms or subtasks that are none ({e})"
        ) from e
    return tuple(sorted(spans, key=lambda span: span[1]))
