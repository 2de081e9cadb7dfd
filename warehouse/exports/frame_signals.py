"""LeRobot's sidecar of signals per frame for a LeRobot dataset that is there already: one Parquet file.

What the convention is, and which states of it are written, says annotate.conventions.frame_signals. Signals come from
labels (progress and the step under way), or from a reward model (progress and success at the frames that it scored),
and, where wanted, advantages follow from either. Episodes without them have no rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.advantages import advantages, chunk_residuals, threshold
from annotate.conventions.frame_signals import KEYS, Descriptor, metadata
from core.files import whole_file
from warehouse.exports.common import Exported, ExportEpisode, Selected, is_same_file
from warehouse.exports.labels import ActiveLabel, chunk_labels, no_labels, select_for_labels
from warehouse.exports.options import FrameSignalsOptions, Selection
from warehouse.exports.rabc import between, chunk_starts, scored_frames, the_dataset
from warehouse.lake import Lake

KIND = "frame-signals"
IDENTITY = b"proccorpus.identity"  # of the export: says whether a file is the one asked for


def _score(text: str, low: float = 0, *, allow_nan: bool = True) -> Descriptor:
    return Descriptor(text, "higher", (low, 1), scope="task", allow_nan=allow_nan)


LABEL_SIGNALS = {
    "progress": _score("Task progress: 0 at the start, 1 exactly when the task is finished.", allow_nan=False),
    "segment": Descriptor("Which segment of the label holds the frame, from 0."),
    "step": Descriptor("Which planned step the segment is an attempt at, from 0; -1: none, it is idle or done."),
    "completed": Descriptor("Is what the segment does complete at its end? Of no step: is the task done?"),
    "planned_steps": Descriptor("How many steps the whole task needs, done or not."),
}
MODEL_SIGNALS = {
    "progress": _score("Task progress as the reward model says; NaN: it gave no number."),
    "success": _score("Probability that the goal is reached; NaN: the model does not say."),
}
ADVANTAGE_SIGNALS = {
    "chunk_td_residual": _score("V[t+N] - V[t], V the progress; NaN: fewer than N frames follow.", -1),
    "advantage": _score("As chunk_td_residual; at the end the outcome (1 or 0) less V[t].", -1),
    "advantage_positive": Descriptor("RECAP's indicator: is the advantage among the best of its task?"),
}


@dataclass(frozen=True)
class _Signals:
    """Of an episode: `frames` int64 [k], signals [k]; `value` float [num_frames] is its progress at every frame."""

    episode: ExportEpisode
    start: int  # the global index of its first frame
    frames: np.ndarray
    values: dict[str, np.ndarray]
    value: np.ndarray


def export(
    lake: Lake,
    selection: Selection,
    out: Path,
    options: FrameSignalsOptions = FrameSignalsOptions(),
    *,
    overwrite: bool = False,
) -> Exported:
    """Write the signals of one LeRobot dataset to the file `out`. Raises ExportError and what `select` raises.

    One chunk of the lake is in memory at a time; with advantages all signals are.
    """
    selected = select_for_labels(lake, selection, options.label_run)
    dataset, kind, _ = the_dataset(selected)
    identity = selected.identity(KIND, options)
    if is_same_file(out, identity, overwrite, _identity, example="signals.parquet"):
        return _exported(selected, out, options, again=True)

    descriptors = _descriptors(options)
    told = metadata(descriptors, _provenance(selected, dataset, options), [e.episode_index for e in selected.episodes])
    episodes = _signals(selected, dataset, kind, lake, options)
    if options.horizon is not None:
        episodes = iter(_with_advantages(list(episodes), options.horizon, options.positive_share))
    first = next(episodes, None)
    if first is None:
        raise no_labels(selected)
    schema = _table(first, descriptors).schema.with_metadata({**told, IDENTITY.decode(): identity})
    with whole_file(out) as half, pq.ParquetWriter(half, schema, compression="snappy") as writer:
        for signals in chain([first], episodes):
            table = _table(signals, descriptors)
            writer.write_table(table.cast(schema), row_group_size=len(table))
    return _exported(selected, out, options, again=False)


def _identity(out: Path) -> str | None:
    try:
        found = (pq.read_metadata(out).metadata or {}).get(IDENTITY)
    except (OSError, pa.ArrowException):
        return None
    return None if found is None else found.decode()


def _exported(selected: Selected, out: Path, options: FrameSignalsOptions, *, again: bool) -> Exported:
    # A model's rewards, and a label run by its name, count as they are
    by_label = options.rewards is None and options.label_run is None
    return Exported(
        kind=KIND,
        out=str(out),
        episodes=len(selected.episodes),
        frames=pq.read_metadata(out).num_rows,
        files=1,
        bytes=out.stat().st_size,
        again=again,
        left_out=selected.left_out,
        notes=tuple(selected.label_notes()) if by_label else (),
    )


def _descriptors(options: FrameSignalsOptions) -> dict[str, Descriptor]:
    chosen = dict(LABEL_SIGNALS if options.rewards is None else MODEL_SIGNALS)
    if options.horizon is not None:
        chosen |= ADVANTAGE_SIGNALS
    return dict(sorted(chosen.items()))


def _provenance(selected: Selected, dataset: str, options: FrameSignalsOptions) -> dict[str, Any]:
    ((source, episodes, frames),) = selected.lake.rows(
        "SELECT any_value(d.source_uri), count(*), sum(f.num_rows)::BIGINT FROM datasets d "
        "JOIN episode_facts f USING (dataset) WHERE dataset = ?",
        [dataset],
    )
    runs = selected.active_runs if options.label_run is None else [options.label_run]
    scoring: dict[str, Any] = {"release": selected.selection.release, "snapshot": selected.snapshot}
    scoring |= options.model_dump(include={"horizon", "positive_share"}) if options.horizon else {}
    by_model = {"model": options.model, "rewards": options.rewards}
    scoring |= by_model if options.rewards else {"label_runs": runs}
    named = {"name": dataset, "source": source, "total_episodes": episodes, "total_frames": frames}
    return {"producer": "proccorpus", "dataset": named, "scoring": scoring}


def _table(signals: _Signals, descriptors: Mapping[str, Descriptor]) -> pa.Table:
    keys = (
        signals.frames + signals.start,
        np.full(len(signals.frames), signals.episode.episode_index),
        signals.frames,
    )
    columns = dict(zip(KEYS, keys, strict=True)) | {name: signals.values[name] for name in descriptors}
    fields = [pa.field(name, pa.from_numpy_dtype(v.dtype), nullable=False) for name, v in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


# Signals


def _signals(
    selected: Selected, dataset: str, kind: str, lake: Lake, options: FrameSignalsOptions
) -> Iterator[_Signals]:
    """Of each episode that has any, in order. Rewards are read from `lake` as it is now."""
    by_chunk = {chunk: episodes for _, chunk, episodes in selected.chunks()}
    read = _of_labels(selected, dataset, options) if options.rewards is None else _of_model(lake, dataset, options)
    for chunk, _, starts in chunk_starts(selected, dataset, kind):
        episodes = by_chunk.get(chunk)
        if episodes:
            yield from read(chunk, episodes, starts)


Reader = Callable[[int, Sequence[ExportEpisode], Mapping[int, int]], Iterator[_Signals]]


def _of_labels(selected: Selected, dataset: str, options: FrameSignalsOptions) -> Reader:
    def read(chunk: int, episodes: Sequence[ExportEpisode], starts: Mapping[int, int]) -> Iterator[_Signals]:
        labels = chunk_labels(selected, dataset, chunk, episodes, options.label_run)
        for e in episodes:
            label = labels.get(e.episode_index)
            if label is not None:
                values = _label_values(label)
                yield _Signals(e, starts[e.episode_index], np.arange(e.num_frames), values, values["progress"])

    return read


def _label_values(label: ActiveLabel) -> dict[str, np.ndarray]:
    lengths = [len(s) for s in label.segments]
    return {
        "progress": label.progress.astype(np.float32),
        "segment": np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        "step": np.repeat(np.array([-1 if s.step is None else s.step for s in label.segments], np.int32), lengths),
        "completed": np.repeat([s.completed for s in label.segments], lengths),
        "planned_steps": np.full(sum(lengths), label.num_planned, np.int32),
    }


def _of_model(lake: Lake, dataset: str, options: FrameSignalsOptions) -> Reader:
    def read(_: int, episodes: Sequence[ExportEpisode], starts: Mapping[int, int]) -> Iterator[_Signals]:
        assert options.rewards is not None
        scored = scored_frames(lake, options.rewards, dataset, episodes)
        for e in episodes:
            frames, progress, done = scored[e.episode_index]
            values = {"progress": progress.astype(np.float32), "success": done.astype(np.float32)}
            yield _Signals(e, starts[e.episode_index], frames, values, between(frames, progress, e.num_frames))

    return read


def _with_advantages(episodes: list[_Signals], horizon: int, share: float) -> list[_Signals]:
    """The same with the signals of ADVANTAGE_SIGNALS; the threshold of RECAP's indicator is each task's own."""
    by_task: dict[str | None, list[np.ndarray]] = {}
    for s in episodes:
        outcome = None if s.episode.success is None else float(s.episode.success)
        s.values["chunk_td_residual"] = chunk_residuals(s.value, horizon)[s.frames]
        s.values["advantage"] = advantages(s.value, horizon, outcome)[s.frames]
        by_task.setdefault(s.episode.task, []).append(s.values["advantage"])
    limits = {task: threshold(np.concatenate(found), share) for task, found in by_task.items()}
    for s in episodes:
        s.values["advantage_positive"] = s.values["advantage"] > limits[s.episode.task]
    return episodes
